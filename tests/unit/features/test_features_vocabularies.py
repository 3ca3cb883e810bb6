"""Vocabularies as files: written once, read by the model, served as assets."""

import keras
import numpy as np
import pytest

from tfmtl import features, models, tasks
from tfmtl.features import Categorical, Encoder, Numeric, Sequence, write_vocabularies
from tfmtl.serving import export, run_in_cpp_session

COLUMNS = {
    "city": np.array(["Köln", "Rome ", "Rome ", "Köln", "a, b", ""])[:, None],
    "video": np.array([7, 9, 7, 2**40, 9, -1])[:, None],
    "watched": np.array([[9, 7], [7, -1], [-1, -1], [9, 9], [7, 9], [2**40, -1]]),
    "age": np.arange(6.0)[:, None],
}
VIDEO = {"dtype": "int64", "table": "videos"}
SPECS = [
    Categorical("city"),
    Categorical("video", **VIDEO),
    Sequence("watched", length=2, **VIDEO),
    Numeric("age"),
]


def ranker(specs):
    keras.utils.set_random_seed(0)
    return models.shared_bottom(specs, [tasks.Binary("click")], (8,))


def test_a_model_of_files_gives_the_scores_of_one_without(tmp_path):
    adapted = features.adapt(SPECS, COLUMNS)
    written = write_vocabularies(adapted, tmp_path / "vocabularies")
    names = sorted(path.name for path in (tmp_path / "vocabularies").iterdir())
    assert names == ["city.txt", "videos.txt"]
    assert written[1].vocabulary == written[2].vocabulary
    assert written[3] == adapted[3]
    model = ranker(written)
    found = model.predict(COLUMNS, verbose=0)["click"]
    result = export(model, tmp_path / "models")
    assets = sorted(path.name for path in (result.path / "assets").iterdir())
    assert assets == names
    for name in names:
        (tmp_path / "vocabularies" / name).unlink()
    served = run_in_cpp_session(result.path, COLUMNS)["click"]
    np.testing.assert_allclose(served, found, atol=1e-6)
    assert len(np.unique(found[:3])) == 3


def test_writing_again_is_allowed_and_another_vocabulary_is_not(tmp_path):
    [city] = write_vocabularies([Categorical("c", vocabulary=("a", "b"))], tmp_path)
    assert write_vocabularies([city], tmp_path) == [city]
    again = Encoder([Categorical("c", vocabulary=("a", "b"))])
    assert write_vocabularies(again, tmp_path).features == [city]
    with pytest.raises(FileExistsError, match=r"no other vocabulary for 'c'.*c.txt'"):
        write_vocabularies([Categorical("c", vocabulary=("b", "a"))], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c.txt"]


def test_a_path_object_is_as_its_text(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text(" 7\n+9\n12 \n9223372036854775807")
    [of_path, of_text] = (
        Categorical("video", dtype="int64", vocabulary=given)
        for given in (path, str(path))
    )
    assert of_path == of_text
    assert type(of_path.vocabulary) is str
    columns = {"video": np.array([[7], [9], [12], [2**63 - 1], [1]])}
    found = ranker([of_path]).predict(columns, verbose=0)["click"]
    assert len(np.unique(found)) == 5


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\u2028"])
def test_a_line_break_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="of .c. should have no line breaks"):
        write_vocabularies([Categorical("c", vocabulary=(value,))], tmp_path)
    assert list(tmp_path.iterdir()) == []
