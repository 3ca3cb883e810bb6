"""The command line: `tfmtl demo`, `tfmtl export`, `tfmtl inspect`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import keras

from tfmtl import demo
from tfmtl.folding import compare, fold
from tfmtl.serving import export, scan


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Words of the command line. Defaults to the process's own.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    return options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfmtl", description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("demo", help="train, fold, export, verify, measure")
    command.add_argument(
        "--data", type=Path, help="folder with a data set's files; else synthetic"
    )
    command.add_argument("--out", type=Path, default=Path("runs/demo"))
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(command=_demo)

    command = commands.add_parser("export", help="write a .keras model as SavedModel")
    command.add_argument("model", type=Path, help="a .keras file")
    command.add_argument("base", type=Path, help="folder whose children are versions")
    command.add_argument("--version", type=int, help="default: the next one")
    command.add_argument("--no-fold", action="store_true", help="keep closed gates")
    command.set_defaults(command=_export)

    command = commands.add_parser("inspect", help="show what a SavedModel stores")
    command.add_argument("path", type=Path, help="a version folder")
    command.set_defaults(command=_inspect)
    return parser


def _demo(options: argparse.Namespace) -> int:
    if options.data is not None and not options.data.is_dir():
        raise SystemExit(
            "--data should be a folder with the files of Census-Income (KDD) or "
            "KuaiRand-Pure. "
            f"Received: {options.data}"
        )
    source = (
        demo.synthetic()
        if options.data is None
        else demo.from_folder(options.data, options.out / "data")
    )
    print(demo.screen(demo.run(source, options.out, options.seed)))
    return os.EX_OK


def _export(options: argparse.Namespace) -> int:
    model = keras.saving.load_model(options.model)
    if not options.no_fold:
        folded = fold(model)
        print(compare(model, folded))
        model = folded
    written = export(model, options.base, version=options.version)
    print(f"{written.path}  {written.bytes:,} bytes")
    print(f"largest difference in the C++ session: {written.difference:.1e}")
    return os.EX_OK


def _inspect(options: argparse.Namespace) -> int:
    facts = scan(options.path)
    print(f"files     {facts.file_bytes:>12,} bytes")
    print(f"weights   {facts.weight_bytes:>12,} bytes")
    print(f"graph     {facts.graph_bytes:>12,} bytes")
    for stored in facts.large:
        print(f"{stored.bytes:>12,}  {stored.dtype} {stored.shape}  {stored.name}")
    for problem in facts.problems:
        print(f"problem: {problem}")
    return os.EX_DATAERR if facts.problems else os.EX_OK
