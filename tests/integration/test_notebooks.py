"""Notebooks start in Colab, run from top to bottom, and are stored without outputs.

One that reads a data set names its folder in the metadata, `{"tfmtl": {"data": …}}`,
and takes it from the folder of `TFMTL_DATA`.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).resolve().parents[2].glob("notebooks/*.ipynb"))
FIXTURES = {
    "census-income": "census_folder",
    "kuairand-pure": "kuairand_folder",
    "movielens-latest-small": "movielens_folder",
}
COLAB = "https://colab.research.google.com/github/tfmtl/tfmtl/blob/main/notebooks"
REPOSITORY = "https://github.com/tfmtl/tfmtl"  # the one that the badge opens


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Where TFDS keeps what one notebook has prepared and another reads."""
    return tmp_path_factory.mktemp("tensorflow_datasets")


@pytest.fixture
def data(notebook, prepared, request, monkeypatch):
    """The variables by which a notebook finds its data; skips where that is absent."""
    name = notebook.metadata.get("tfmtl", {}).get("data")
    if name is not None:
        folder = request.getfixturevalue(FIXTURES[name])
        monkeypatch.setenv("TFMTL_DATA", str(folder.resolve().parent))
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))


def test_it_is_a_valid_notebook_with_outputs_cleared(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_its_first_cell_is_a_title_and_opens_it_in_colab(path, notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert "https://colab.research.google.com/assets/colab-badge.svg" in first.source
    assert f"({COLAB}/{path.name})" in first.source


def test_its_first_code_installs_the_package_where_it_is_missing(notebook):
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    missing = 'if importlib.util.find_spec("tfmtl") is None:\n'
    assert first.source.index(missing) < first.source.index("    %pip install ")
    assert first.source.index("    %pip install ") < first.source.index("import tfmtl")
    assert f"] @ git+{REPOSITORY}" in first.source


def test_it_says_that_it_reads_a_data_set(notebook):
    sources = "\n".join(cell.source for cell in notebook.cells)
    name = notebook.metadata.get("tfmtl", {}).get("data")
    assert ("TFMTL_DATA" in sources) == (name in FIXTURES)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("data")
def test_it_runs(notebook, tmp_path):
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
