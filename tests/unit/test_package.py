"""The package as a whole: imports, examples, docstrings, front door."""

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfmtl

ROOT = Path(tfmtl.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
# TFRS needs Keras 2: `interop/test_interop_tfrs.py` runs this file where that is set.
LEGACY_KERAS = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
MODULES = ["tfmtl"] + [
    module.name
    for module in pkgutil.walk_packages(tfmtl.__path__, "tfmtl.")
    if LEGACY_KERAS or not module.name.startswith("tfmtl.interop.tfrs")
]

# A room may import those of the levels before its own.
LEVELS = [
    {"version", "serializable", "ops", "data"},
    {"layers"},
    {"balancing", "features", "metrics"},
    {"tasks"},
    {"models"},
    {"folding"},
    {"report", "serving", "sparsity"},
    {"demo", "finetuning", "interop"},
    {"cli"},
]

each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: str(path.relative_to(ROOT))
)
each_module = pytest.mark.parametrize("name", MODULES)


def room_of(module):
    """`layers` for `tfmtl.layers.experts`, `tfmtl` for the front door."""
    return (module.split(".") + ["tfmtl"])[1] if "." in module else "tfmtl"


def level_of(room):
    [level] = [k for k, rooms in enumerate(LEVELS) if room in rooms]
    return level


def imports(tree):
    """Names of the modules that a source imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "tfmtl":
                yield from (f"tfmtl.{alias.name}" for alias in node.names)
            else:
                yield node.module


def public_objects(module):
    for name in getattr(module, "__all__", []):
        yield name, getattr(module, name)


def test_import_is_quiet_and_light():
    code = "import sys, tfmtl; print(sorted(sys.modules), file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""
    loaded = set(ast.literal_eval(process.stderr.splitlines()[-1]))
    assert "tfmtl.layers" in loaded
    assert not loaded & {"tensorflow_recommenders", "tensorflow_datasets"}


def test_front_door():
    assert set(dir(tfmtl)) == set(tfmtl.__all__)
    for name in tfmtl.__all__:
        assert getattr(tfmtl, name) is not None
    with pytest.raises(AttributeError, match="module 'tfmtl' has no attribute 'none'"):
        tfmtl.none  # noqa: B018


@each_module
def test_examples_run(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_examples_exist_for_layers_and_operations():
    for room in (tfmtl.layers, tfmtl.ops, tfmtl.features):
        for name, value in public_objects(room):
            assert ">>>" in value.__doc__, name


@each_module
def test_public_names_have_docstrings(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public, value in public_objects(module):
        if inspect.isclass(value) or inspect.isroutine(value):
            own = value.__dict__.get("__doc__") if inspect.isclass(value) else None
            assert own or inspect.isroutine(value) and value.__doc__, public
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert function.__doc__, f"{public}.{method}"


def documented_defaults(docstring):
    """Argument and literal of each "Defaults to `literal`" of an Args section."""
    found = re.search(r"^ *Args:\n((?:.+\n|\n(?= {8}))*)", docstring, re.MULTILINE)
    for argument in re.split(r"\n(?=    \w+: )", "\n" + (found[1] if found else "")):
        text = " ".join(argument.split())
        named = re.match(r"(\w+): ", text)
        stated = re.search(r"Defaults to (?:`([^`]+)`|(-?[\w.-]+)\.(?: |$))", text)
        if named and stated:
            yield named[1], stated[1] or stated[2]


def literal(text):
    try:
        return ast.literal_eval(text), True
    except (ValueError, SyntaxError):
        return None, False


def defaults_of(value):
    """`(argument, documented, real)` for every documented literal."""
    docstring = inspect.getdoc(value) or ""
    signature = inspect.signature(value)
    for argument, text in documented_defaults(docstring):
        stated, is_literal = literal(text)
        if is_literal:
            yield argument, stated, signature.parameters[argument].default


def documented_objects():
    seen = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for value in vars(module).values():
            own = getattr(value, "__module__", None) == name
            if own and (inspect.isclass(value) or inspect.isfunction(value)):
                seen[f"{name}.{value.__name__}"] = value
    return seen


def test_documented_defaults_are_the_real_ones():
    checked = 0
    for name, value in documented_objects().items():
        if value.__doc__ and "Defaults to" in value.__doc__:
            for argument, stated, real in defaults_of(value):
                assert stated == real, f"{name}({argument})"
                checked += 1
    assert checked >= 15


def test_documented_arguments_are_the_real_ones():
    for name, value in documented_objects().items():
        if not issubclass(type(value), type) or name.rsplit(".", 1)[1].startswith("_"):
            continue
        if name.startswith("tfmtl.layers."):
            parameters = set(inspect.signature(value).parameters) - {"args", "kwargs"}
            section = inspect.getdoc(value).split("Args:")[1]
            assert parameters <= set(re.findall(r"^    (\w+): ", section, re.M)), name


@each_source
def test_imports_flow_one_way(path):
    module = ".".join(["tfmtl", *path.relative_to(ROOT).with_suffix("").parts])
    room = room_of(module.removesuffix(".__init__"))
    if room == "tfmtl":
        return
    for name in imports(ast.parse(path.read_text("utf-8"))):
        if name.split(".")[0] == "tfmtl" and room_of(name) != room:
            assert level_of(room_of(name)) < level_of(room), name


@each_source
def test_only_public_keras(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert not [name for name in imports(tree) if name.startswith("keras.src")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("src", "Lambda")


@each_source
def test_no_imports_inside_functions(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [
                n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)
            ]
            assert not inner, node.name
