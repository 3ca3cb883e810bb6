"""The cosines of the tasks' gradients as a picture."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tfmtl.report import heat_map

COSINES = np.array([[1.0, -0.62, 0.001], [-0.62, 1.0, 0.25], [-0.001, 0.25, 1.0]])
TASKS = ["click", "like", "buy"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written."""
    figures, save = [], Figure.savefig

    def kept(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


@pytest.mark.parametrize("several", [False, True])
def test_every_cosine_stands_at_its_tasks(several, drawn, tmp_path):
    given = np.stack([COSINES - 0.1, COSINES + 0.1]) if several else COSINES
    path = heat_map(given, TASKS, tmp_path / "cosines.png", title="of epoch 1")
    assert path == tmp_path / "cosines.png" and imread(path).ndim == 3
    assert [file.name for file in tmp_path.iterdir()] == ["cosines.png"]
    [figure] = drawn
    axes = figure.axes[0]
    assert axes.get_title() == "of epoch 1"
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == TASKS
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[1, 0] == texts[0, 1] == "-0.62" and texts[1, 2] == "0.25"
    assert texts[2, 0] == texts[0, 2] == "0.00"
    np.testing.assert_allclose(axes.images[0].get_array(), COSINES, atol=1e-12)
    assert axes.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize("shape", [(2, 2), (0, 3, 3), (3,), (1, 1, 3, 3)])
def test_cosines_that_are_not_of_the_tasks_are_refused(shape, tmp_path):
    with pytest.raises(ValueError) as error:
        heat_map(np.zeros(shape), TASKS, tmp_path / "cosines.png")
    assert str(error.value) == (
        "`cosines` should be (3, 3) or (measurements, 3, 3) for the tasks "
        f"['click', 'like', 'buy']. Received: cosines of shape {shape}"
    )
    assert not list(tmp_path.iterdir())
