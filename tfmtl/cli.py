"""The command line: `tfmtl demo`, and what is done with versions after training."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmtl import demo
from tfmtl.ops.grouping import DEVICES
from tfmtl.serving import (
    ExportError,
    Thresholds,
    compare_versions,
    export,
    load_model,
    scan,
    versions,
)
from tfmtl.serving.manifest import read_manifest
from tfmtl.serving.model_config import Served, label, rollback
from tfmtl.serving.publish import folder_of
from tfmtl.serving.row_files import rows_of_files
from tfmtl.serving.saved_model import read_meta_graph, spelled
from tfmtl.serving.tables import KINDS
from tfmtl.serving.verify import FAILURES, verify
from tfmtl.serving.warm_up import FILE as WARM_UP

LARGEST_TENSORS = 10
REFUSED = 1  # a version beyond the thresholds; a fault has another status
FAULTS = (*FAILURES, ExportError, ImportError)  # of what is given, not of the program
Infos = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Words of the command line. Defaults to the process's own.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except FAULTS as error:
        print(f"tfmtl {options.name}: {error}", file=sys.stderr)
        return os.EX_DATAERR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfmtl", description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("demo", help="train, fold, export, verify, measure")
    command.add_argument(
        "--data", type=Path, help="folder with a data set's files; else synthetic"
    )
    command.add_argument("--out", type=Path, default=Path("runs/demo"))
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(command=_demo, name="demo")

    command = commands.add_parser("export", help="write a .keras model as SavedModel")
    command.add_argument("model", type=Path, help="a .keras file")
    command.add_argument("base", type=Path, help="folder whose children are versions")
    command.add_argument("--version", type=int, help="default: the next one")
    command.add_argument("--no-fold", action="store_true", help="keep closed gates")
    command.add_argument(
        "--tables", choices=KINDS, help="embedding tables in fewer bits"
    )
    command.add_argument(
        "--batch-sizes", type=int, nargs="+", help="of requests, for layout and warm-up"
    )
    command.add_argument(
        "--device", choices=[*DEVICES], default="cpu", help="that serves, for layout"
    )
    command.add_argument(
        "--micro-batch", type=int, help="rows computed at a time; default: all"
    )
    command.set_defaults(command=_export, name="export")

    command = commands.add_parser("inspect", help="show what a version has in it")
    command.add_argument("path", type=Path, help="a version folder")
    command.set_defaults(command=_inspect, name="inspect")

    command = commands.add_parser("verify", help="check a version before it is served")
    command.add_argument("path", type=Path, help="a version folder")
    command.set_defaults(command=_verify, name="verify")

    command = commands.add_parser("compare", help="put two versions side by side")
    command.add_argument("old", type=Path, help="a version, or a folder of versions")
    command.add_argument("new", type=Path, help="the version that is to replace it")
    command.add_argument("files", nargs="+", help=".parquet, .csv or .tfrecord")
    command.add_argument(
        "--labels", default="", help="columns named like outputs: click,like"
    )
    _add_thresholds(command)
    command.add_argument("--json", type=Path, help="a file for the report")
    command.set_defaults(command=_compare, name="compare")

    command = commands.add_parser("rollback", help="pin an older version")
    _add_model(command)
    command.add_argument("--to", type=int, help="a version; default: the one before")
    command.set_defaults(command=_rollback, name="rollback")

    command = commands.add_parser("label", help="point a label at a version")
    _add_model(command)
    command.add_argument("label", help="such as stable or canary")
    command.add_argument("version", type=int)
    command.set_defaults(command=_label, name="label")
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, help="TF Serving's model config")
    command.add_argument("model", help="the model's name in it")
    command.add_argument(
        "--base", type=Path, help="the versions' folder, if not base_path of the config"
    )
    command.add_argument("--no-verify", action="store_true", help="skip tfmtl verify")


def _add_thresholds(command: argparse.ArgumentParser) -> None:
    for limit in fields(Thresholds):
        command.add_argument(
            f"--{limit.name.replace('_', '-')}",
            type=_pair if limit.name == "calibration" else _number,
            default=limit.default,
            metavar="LOW,HIGH" if limit.name == "calibration" else "LIMIT",
            help="default: %(default)s; `none` switches it off",
        )
    command.add_argument(
        "--changed-signature", action="store_true", help="inputs and outputs may change"
    )


def _number(word: str) -> float | None:
    return None if word == "none" else float(word)


def _pair(word: str) -> tuple[float, ...] | None:
    return None if word == "none" else tuple(map(float, word.split(",")))


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
    model = load_model(options.model)
    written = export(
        model,
        options.base,
        version=options.version,
        fold=not options.no_fold,
        tables=options.tables,
        batch_sizes=options.batch_sizes,
        device=options.device,
        micro_batch=options.micro_batch,
    )
    if written.fold is not None:
        print(written.fold)
    for task, changed in written.table_errors.items():
        print(
            f"{options.tables} tables change {task} by up to {changed.difference:.1e}, "
            f"rank correlation {changed.rank_correlation:.6f}"
        )
    print(f"{written.path}  {written.bytes:,} bytes")
    print(f"largest difference in the C++ session: {written.difference:.1e}")
    return os.EX_OK


def _inspect(options: argparse.Namespace) -> int:
    facts = scan(options.path)
    for name, signature in sorted(read_meta_graph(options.path).signature_def.items()):
        if signature.method_name:
            print(f"{name}  {signature.method_name}")
            print("\n".join(_ends("in ", signature.inputs)))
            print("\n".join(_ends("out", signature.outputs)))
    print(f"files     {facts.file_bytes:>12,} bytes")
    print(f"weights   {facts.weight_bytes:>12,} bytes")
    print(f"graph     {facts.graph_bytes:>12,} bytes")
    for stored in facts.large[:LARGEST_TENSORS]:
        print(f"{stored.bytes:>12,}  {stored.dtype} {stored.shape}  {stored.name}")
    for line in (_warm_up(options.path), *_origin(options.path)):
        print(line)
    for problem in facts.problems:
        print(f"problem: {problem}")
    return os.EX_DATAERR if facts.problems else os.EX_OK


def _ends(kind: str, infos: Infos) -> Iterator[str]:
    for name, info in sorted(infos.items()):
        yield f"  {kind}  {name}  {spelled(info)}"


def _warm_up(path: Path) -> str:
    file = path / WARM_UP
    if not file.is_file():
        return "no warm-up records"
    number = sum(1 for _ in tf.data.TFRecordDataset(str(file)))
    return f"warm-up records: {number}"


def _origin(path: Path) -> Iterator[str]:
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        yield f"origin unknown: {error}"
        return
    libraries = ", ".join(f"{k} {v}" for k, v in sorted(manifest["versions"].items()))
    yield f"exported {manifest['created']} by {libraries}"
    facts = dict(manifest["facts"])
    for found in facts.pop("sub_networks", ()):
        yield (
            f"{found['layer']}: {found['slots']} sub-networks, "
            f"{found['connections']} open connections"
        )
    for name, fact in sorted(facts.items()):
        yield f"{name}: {json.dumps(fact, ensure_ascii=False)}"


def _verify(options: argparse.Namespace) -> int:
    found = verify(options.path)
    for problem in found.problems:
        print(f"problem: {problem}")
    if found.problems:
        return os.EX_DATAERR
    print(
        f"{options.path} verifies: loads in {found.load_ms:.0f} ms, differs by "
        f"{found.difference:.1e}"
    )
    return os.EX_OK


def _compare(options: argparse.Namespace) -> int:
    limits = Thresholds(
        **{f.name: getattr(options, f.name) for f in fields(Thresholds)}
    )
    new = _version(options.new)
    old = _version(options.old, but=new)
    labels = options.labels.split(",") if options.labels else []
    rows = rows_of_files(options.files, [old, new], labels)
    report = compare_versions(old, new, rows)
    failures = report.failures(limits, changed_signature=options.changed_signature)
    print(report)
    for failure in failures:
        print(f"problem: {failure}")
    if options.json is not None:
        found = {**report.to_dict(), "failures": failures}
        text = json.dumps(found, indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", "utf-8")
    return REFUSED if failures else os.EX_OK


def _version(path: Path, but: Path | None = None) -> Path:
    """A version as it is; of a folder of versions the largest, but for one."""
    if (path / "saved_model.pb").is_file():
        return path
    found = [folder_of(path, number) for number in versions(path)]
    kept = [folder for folder in found if but is None or not folder.samefile(but)]
    return kept[-1] if kept else path


def _rollback(options: argparse.Namespace) -> int:
    check = not options.no_verify
    served = rollback(
        options.config, options.model, options.to, base=options.base, check=check
    )
    return _say(options, served)


def _label(options: argparse.Namespace) -> int:
    check = not options.no_verify
    served = label(
        options.config,
        options.model,
        options.label,
        options.version,
        base=options.base,
        check=check,
    )
    return _say(options, served)


def _say(options: argparse.Namespace, served: Served) -> int:
    loaded = ", ".join(map(str, served.versions))
    labels = "".join(f", {name} is {at}" for name, at in sorted(served.labels.items()))
    print(f"{options.config} serves {options.model} {loaded}{labels}")
    if served.waiting:
        print("Labels have not moved. Repeat the command once all are AVAILABLE.")
    return os.EX_TEMPFAIL if served.waiting else os.EX_OK
