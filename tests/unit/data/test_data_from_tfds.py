"""Datasets of TFDS by name: a made-up one, and MovieLens from its own archive."""

import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfmtl import features
from tfmtl.data import from_tfds

NUM_ROWS = 50


class Clicks(tfds.core.GeneratorBasedBuilder):
    """Nested, with a list, a fixed vector, a flag, and an image that is left out."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "user": {"id": np.int64, "name": tfds.features.Text()},
                    "tags": tfds.features.Sequence(tfds.features.Text()),
                    "vector": tfds.features.Tensor(shape=(3,), dtype=np.float32),
                    "image": tfds.features.Tensor(shape=(2, 2), dtype=np.uint8),
                    "clicked": np.bool_,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(NUM_ROWS):
            yield (
                i,
                {
                    "user": {"id": i, "name": f"user {i}"},
                    "tags": ["a"] * (i % 3),
                    "vector": np.full(3, i, np.float32),
                    "image": np.zeros((2, 2), np.uint8),
                    "clicked": i % 2 == 1,
                },
            )


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    return Clicks(data_dir=tmp_path_factory.mktemp("clicks"))


def test_columns_of_any_dataset(clicks):
    dataset = from_tfds(clicks, ["clicked"], NUM_ROWS)
    assert dataset.cardinality() == 1
    assert dataset.element_spec[0]["vector"].shape == (None, 3)
    [(x, y)] = dataset.as_numpy_iterator()
    assert set(x) == {"user_id", "user_name", "tags", "vector"}
    assert x["user_id"].tolist() == [[i] for i in range(NUM_ROWS)]
    assert x["user_name"][7].tolist() == [b"user 7"]
    assert x["tags"][:3].tolist() == [[b"", b""], [b"a", b""], [b"a", b"a"]]
    np.testing.assert_array_equal(x["vector"][:, 2], np.arange(NUM_ROWS))
    np.testing.assert_array_equal(y["clicked"], x["user_id"] % 2)


def test_parts_of_a_split_are_apart(clicks):
    def ids(split, **arguments):
        data = from_tfds(clicks, ["clicked"], 8, split=split, **arguments)
        assert len(list(data)) == data.cardinality()
        return np.concatenate([x["user_id"][:, 0] for x, _ in data]).tolist()

    assert ids("train[:80%]") == [*range(40)]
    assert ids("train[40:]") == [*range(40, NUM_ROWS)]
    first = ids("train[:80%]", shuffle=True)
    assert sorted(first) == [*range(40)] != first
    assert ids("train[:80%]", shuffle=True) == first
    assert ids("train[:80%]", shuffle=True, seed=1) != first
    assert len(ids("train", drop_remainder=True)) == 48


def test_unknown_split_is_named(clicks):
    with pytest.raises(ValueError, match=re.escape("Unknown split 'valid'")):
        from_tfds(clicks, ["clicked"], 8, split="valid")


def test_label_of_no_column(clicks):
    with pytest.raises(ValueError) as error:
        from_tfds(clicks, ["clicked", "user/id"], 8)
    assert str(error.value) == (
        "`labels` should be of the columns ['clicked', 'tags', 'user_id', 'user_name', "
        "'vector']. Received: ['user/id']"
    )


def test_part_of_a_nested_feature_as_a_label(clicks):
    dataset = from_tfds(clicks, ["user_id"], NUM_ROWS)
    [(x, y)] = dataset.as_numpy_iterator()
    assert y["user_id"].tolist() == [[float(i)] for i in range(NUM_ROWS)]
    assert set(x) == {"user_name", "tags", "vector", "clicked"}


def test_two_columns_of_one_name(clicks, monkeypatch):
    def twice(info):
        return {"user/id": ("int64", ()), "user_id": ("int64", ())}

    monkeypatch.setattr("tfmtl.data.tfds_sets._columns", twice)
    with pytest.raises(ValueError) as error:
        from_tfds(clicks, ["clicked"], 8)
    assert str(error.value) == (
        "Columns should have different names when their parts are joined by '_'. "
        "Received: 'user/id' and 'user_id'"
    )


def test_any_dataset_becomes_features(clicks):
    dataset = from_tfds(clicks, ["clicked"], NUM_ROWS)
    found = {f.name: f for f in features.suggest(dataset)}
    assert found == {
        "tags": features.Sequence("tags"),
        "user_id": features.Categorical("user_id", dtype="int64"),
        "user_name": features.Categorical("user_name"),
        "vector": features.Numeric("vector", width=3),
    }
    adapted = features.adapt(list(found.values()), dataset, verbose=0)
    _, vector = features.encode(adapted)
    assert vector.shape == (None, 8 + 8 + 8 + 3)


def test_movielens_from_its_archive(tmp_path, movielens_folder):
    def task(columns):
        features = {name: columns[name] for name in ("user_id", "movie_genres")}
        return features, {"liked": columns["user_rating"] >= 4}

    dataset = from_tfds(
        "movielens/latest-small-ratings",
        task,
        4096,
        data_dir=tmp_path,
        manual_dir=movielens_folder,
        lengths={"movie_genres": 4},
    )
    assert dataset.cardinality() == 25
    assert dataset.element_spec[0]["movie_genres"].shape == (None, 4)
    users, liked = zip(
        *((x["user_id"], y["liked"]) for x, y in dataset.as_numpy_iterator()),
        strict=True,
    )
    assert len(np.unique(np.concatenate(users))) == 610
    assert np.concatenate(liked).shape == (100_836, 1)
    assert np.concatenate(liked).sum() == 48_580
