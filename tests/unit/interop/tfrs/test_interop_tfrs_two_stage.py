"""Retrieval by TFRS and ranking by tfmtl in one, against the slow way, and exported."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

import tfmtl
from tfmtl.features import Categorical, Numeric
from tfmtl.interop.tfrs import TwoStage, export_two_stage
from tfmtl.interop.tfrs.candidates import candidates_of
from tfmtl.serving import ExportError, run_in_cpp_session, verify, versions
from tfmtl.tasks import Binary, MultiClass, Regression

NUM_ITEMS = 40
USERS = [b"ann", b"bob", b"cem"]
IDS = np.array([b"item %d" % k for k in range(NUM_ITEMS)], object)
BruteForce = tfrs.layers.factorized_top_k.BruteForce
Streaming = tfrs.layers.factorized_top_k.Streaming


def make_items(ids=IDS):
    generator = np.random.default_rng(1)
    return {
        "item": ids,
        "price": generator.random(NUM_ITEMS).astype("f4"),
        "tags": generator.choice(np.array(["a", "b", ""], object), (NUM_ITEMS, 2)),
        "title": np.full(NUM_ITEMS, "of no model"),
    }


def make_index(kind=BruteForce, ids=IDS, rows=slice(None), **arguments):
    tf_keras.utils.set_random_seed(0)
    tower = tf_keras.Sequential(
        [
            tf_keras.layers.StringLookup(vocabulary=USERS),
            tf_keras.layers.Embedding(len(USERS) + 1, 4),
        ]
    )
    tower(tf.constant(USERS))
    embeddings = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4)).astype("f4")
    pairs = tf.data.Dataset.from_tensor_slices((ids[rows], embeddings[rows]))
    return kind(tower, **arguments).index_from_dataset(pairs.batch(16))


def make_ranker(ids=IDS, tasks=None):
    keras.utils.set_random_seed(0)
    dtype = "string" if ids.dtype == object else "int64"
    words = [value.decode() for value in ids] if dtype == "string" else ids.tolist()
    features = [
        Categorical("user", vocabulary=[user.decode() for user in USERS]),
        Numeric("age", mean=(40.0,), std=(20.0,)),
        Categorical("item", vocabulary=words, dtype=dtype, initializer="normal"),
        Numeric("price", mean=(0.5,), std=(0.3,)),
        tfmtl.features.Sequence("tags", vocabulary=["a", "b"]),
    ]
    tasks = tasks or [Binary("click"), Regression("stars")]
    return tfmtl.models.mmoe(features, tasks, experts=2, levels=[(2, 8)])


def make_stages(index=None, ranker=None, items=None, **arguments):
    arguments = {"ids": "item", "by": "click", "query": "user"} | arguments
    return TwoStage(
        index or make_index(),
        ranker or make_ranker(),
        items or make_items(),
        **arguments,
    )


def users(names=("ann", "zoe", "bob"), ages=(20.0, 30.0, 60.0)):
    texts = np.array([name.encode() for name in names], object)[:, None]
    return {"user": texts, "age": np.array(ages, "f4")[:, None]}


def slowly(index, ranker, items, columns, by, candidates, k):
    """One user at a time: the index of TFRS, one row of the ranker for each item."""
    rows = {value: row for row, value in enumerate(items["item"].tolist())}
    answers = []
    for user, age in zip(columns["user"][:, 0], columns["age"], strict=True):
        _, found = index(tf.constant([user]), k=candidates)
        scored = []
        for item in found.numpy()[0].tolist():
            row = rows[item]
            pair = {
                "user": tf.constant([[user]]),
                "age": tf.constant([age]),
                "item": tf.constant([[item]]),
                "price": tf.constant([[items["price"][row]]]),
                "tags": tf.constant([items["tags"][row].tolist()]),
            }
            outputs = ranker(pair, training=False)
            values = {name: y.numpy()[0] for name, y in outputs.items()}
            scored.append({"item": item, **values})
        scored.sort(key=lambda answer: -answer[by][0])
        answers.append(scored[:k])
    return answers


@pytest.mark.parametrize("kind", [BruteForce, Streaming])
@pytest.mark.parametrize("by", ["click", "stars"])
def test_answers_are_those_of_the_slow_way(kind, by):
    index, ranker, items = make_index(kind), make_ranker(), make_items()
    stages = make_stages(index, ranker, items, by=by, candidates=12, k=5)
    answer = stages(users())
    expected = slowly(index, ranker, items, users(), by, 12, 5)
    assert {name: tuple(y.shape) for name, y in answer.items()} == {
        "item": (3, 5),
        "click": (3, 5),
        "stars": (3, 5),
    }
    for row, ranked in enumerate(expected):
        assert answer["item"][row].numpy().tolist() == [y["item"] for y in ranked]
        for task in ("click", "stars"):
            values = [y[task][0] for y in ranked]
            np.testing.assert_allclose(answer[task][row], values, atol=1e-6)
    scores = answer[by].numpy()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert len(set(answer["item"][0].numpy().tolist())) == 5


def test_items_may_come_in_any_order():
    items = make_items()
    mixed = np.random.default_rng(2).permutation(NUM_ITEMS)
    shuffled = {name: values[mixed] for name, values in items.items()}
    answer = make_stages(candidates=9)(users())
    again = make_stages(items=shuffled, candidates=9)(users())
    for name, values in answer.items():
        np.testing.assert_array_equal(values, again[name])


def test_integer_identifiers():
    ids = np.arange(NUM_ITEMS) + 2**40
    index, ranker, items = make_index(ids=ids), make_ranker(ids), make_items(ids)
    answer = make_stages(index, ranker, items, candidates=7)(users())
    assert answer["item"].dtype == tf.int64
    assert answer["item"].numpy().min() >= 2**40
    expected = slowly(index, ranker, items, users(), "click", 7, 7)
    assert answer["item"][1].numpy().tolist() == [y["item"] for y in expected[1]]


def test_an_index_without_identifiers_has_rows():
    embeddings = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4)).astype("f4")
    tower = make_index().query_model
    batches = tf.data.Dataset.from_tensor_slices(embeddings).batch(16)
    ids = np.arange(NUM_ITEMS)
    for kind in (BruteForce, Streaming):
        index = kind(tower).index_from_dataset(batches)
        found, identifiers = candidates_of(index)
        np.testing.assert_array_equal(found, embeddings)
        np.testing.assert_array_equal(identifiers, ids)
    stages = make_stages(index, make_ranker(ids), make_items(ids), candidates=3)
    assert stages(users())["item"].shape == (3, 3)


def test_fewer_candidates_than_asked_for():
    index = make_index(rows=slice(0, 6))
    stages = make_stages(index, candidates=100, k=50)
    answer = stages(users())
    assert answer["item"].shape == (3, 6)
    assert sorted(answer["item"][0].numpy().tolist()) == sorted(IDS[:6].tolist())


def test_unknown_users_get_the_items_of_unknown_users():
    answer = make_stages(candidates=5)(users(("zoe", "yan"), (30.0, 30.0)))
    assert answer["item"][0].numpy().tolist() == answer["item"][1].numpy().tolist()
    np.testing.assert_allclose(answer["click"][0], answer["click"][1], atol=1e-6)
    known = make_stages(candidates=5)(users(("ann",), (30.0,)))
    assert set(known["item"][0].numpy()) != set(answer["item"][0].numpy())


def test_no_user_gets_no_item():
    empty = {name: values[:0] for name, values in users().items()}
    assert make_stages(k=3)(empty)["click"].shape == (0, 3)


def test_wide_outputs_keep_their_width():
    ranker = make_ranker(tasks=[Binary("click"), MultiClass("kind", num_classes=3)])
    answer = make_stages(ranker=ranker, k=4)(users())
    assert answer["kind"].shape == (3, 4, 3)
    np.testing.assert_allclose(tf.reduce_sum(answer["kind"], -1), 1.0, rtol=1e-5)


def test_order_by_a_fused_score():
    ranker = tfmtl.models.with_score(make_ranker(), {"click": 1.0, "stars": -2.0})
    answer = make_stages(ranker=ranker, by="score")(users())
    score = answer["click"] - 2.0 * answer["stars"]
    np.testing.assert_allclose(answer["score"], score, rtol=1e-5, atol=1e-6)
    assert (np.diff(answer["score"].numpy(), axis=1) <= 0).all()


def test_query_of_several_columns():
    class Tower(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.table = make_index().query_model

        def call(self, columns):
            return self.table(columns["user"]) + columns["shift"]

    embeddings, ids = candidates_of(make_index())
    index = BruteForce(Tower()).index(embeddings, ids)
    stages = make_stages(
        index,
        query=lambda c: {"user": c["user"][:, 0], "shift": c["shift"]},
        columns={"shift": tf.TensorSpec((None, 4), tf.float32)},
        candidates=5,
    )
    plain = make_stages(candidates=5)(users())
    same = stages({**users(), "shift": np.zeros((3, 4), "f4")})
    np.testing.assert_array_equal(plain["item"], same["item"])
    other = stages({**users(), "shift": np.full((3, 4), 9.0, "f4")})
    assert set(other["item"][0].numpy()) != set(same["item"][0].numpy())
    with pytest.raises(ValueError, match=r"should have the columns \['age', 'shift', "):
        stages(users())


def test_margins_are_the_least_differences():
    stages = make_stages(candidates=10, k=4)
    margins = stages.margins(users())
    near, _ = make_index()(tf.constant(users()["user"][:, 0]), k=11)
    clicks = make_stages(candidates=10)(users())["click"].numpy()[:, :5]
    cut = near.numpy()[:, 9] - near.numpy()[:, 10]
    expected = np.minimum(cut, (clicks[:, :-1] - clicks[:, 1:]).min(1))
    np.testing.assert_allclose(margins, expected, atol=1e-6)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    stages = make_stages(candidates=20, k=10)
    base = tmp_path_factory.mktemp("models") / "items"
    return stages, export_two_stage(stages, base, batch_sizes=(1, 8))


def test_one_saved_model_answers_in_the_cpp_session(exported):
    stages, written = exported
    assert written.path.name == "1" and written.difference <= 1e-5
    answer = run_in_cpp_session(written.path, users())
    expected = stages(users())
    assert set(answer) == {"item", "click", "stars"}
    assert answer["item"].tolist() == expected["item"].numpy().tolist()
    for task in ("click", "stars"):
        np.testing.assert_allclose(answer[task], expected[task], atol=1e-5)


def test_exported_version_verifies_and_tells_its_facts(exported):
    _, written = exported
    assert verify(written.path).problems == ()
    manifest = json.loads((written.path / "assets.extra/manifest.json").read_text())
    assert manifest["facts"]["two_stage"] == {
        "by": "click",
        "candidates": 20,
        "items": NUM_ITEMS,
        "k": 10,
    }
    assert manifest["signatures"]["serving_default"]["inputs"] == ["age", "user"]


def test_exported_version_takes_any_batch(exported):
    stages, written = exported
    for count in (0, 1, 17):
        rows = {name: np.resize(y, (count, 1)) for name, y in users().items()}
        answer = run_in_cpp_session(written.path, rows)
        assert answer["item"].shape == (count, 10)
    np.testing.assert_array_equal(answer["item"][0], answer["item"][3])


def test_a_damaged_version_does_not_verify(exported, tmp_path):
    stages, _ = exported
    path = export_two_stage(stages, tmp_path, golden=users()).path
    file = next((path / "variables").glob("*.data*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "was changed" in verify(path).problems[0]


def test_streaming_and_query_look_ups_that_were_adapted_are_exported(tmp_path):
    lookup = tf_keras.layers.StringLookup()
    lookup.adapt(tf.constant(USERS))
    column = tf_keras.Input((), dtype="string")
    tower = tf_keras.Sequential([column, lookup, tf_keras.layers.Embedding(4, 4)])
    embeddings, ids = candidates_of(make_index())
    pairs = tf.data.Dataset.from_tensor_slices((ids, embeddings)).batch(7)
    index = Streaming(tower).index_from_dataset(pairs)
    stages = make_stages(index, candidates=8)
    written = export_two_stage(stages, tmp_path, golden=users())
    answer = run_in_cpp_session(written.path, users())
    _, found = index(tf.constant(users()["user"][:, 0]), k=8)
    for served, retrieved in zip(answer["item"], found.numpy(), strict=True):
        assert set(served) == set(retrieved)


def test_equal_scores_are_told_and_nothing_is_left(tmp_path, monkeypatch):
    stages = make_stages(candidates=5)
    answer = stages.answer
    monkeypatch.setattr(  # as if rounding had ordered otherwise
        stages,
        "answer",
        lambda columns, score: {
            name: y[:, ::-1] if score == stages._score else y
            for name, y in answer(columns, score).items()
        },
    )
    with pytest.raises(ExportError, match="scores may be too equal to order"):
        export_two_stage(stages, tmp_path)
    assert versions(tmp_path) == ()
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"by": "none"}, "`by` should be one of ['click', 'stars']. Received: by='no"),
        ({"ids": "click"}, "`ids` should not be the name of an output. Received: ids="),
        (
            {"ids": "sku"},
            "`items` should have the identifiers, 'sku'. Received: ",
        ),
        ({"query": "price"}, "`query` should be one of ['age', 'user'], columns of us"),
        (
            {"candidates": 0},
            "`candidates` should be a positive integer. Received: ",
        ),
        ({"k": -1}, "`k` should be a positive integer. Received: k=-1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_stages(**arguments)


def changed(**columns):
    return {**make_items(), **columns}


@pytest.mark.parametrize(
    "items, message",
    [
        (
            {name: values[1:] for name, values in make_items().items()},
            "every identifier of the index. Received: 1 are missing, such as b'item 0'",
        ),
        (
            changed(item=np.full(NUM_ITEMS, b"x", object)),
            "`items['item']` should be different for each item. Received: 1 values in",
        ),
        (changed(price=np.ones(3)), "`items` should have the same number of rows"),
        (
            changed(price=["a"] * NUM_ITEMS),
            "`items['price']` should be of type float32",
        ),
        (
            changed(price=np.ones((NUM_ITEMS, 3))),
            "`items['price']` should have the shape (any, 1). Received: shape=(40, 3)",
        ),
    ],
)
def test_items_are_checked(items, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_stages(items=items)


def test_the_index_is_checked():
    with pytest.raises(ValueError, match="should have candidates, as of `index_from_d"):
        make_stages(BruteForce(make_index().query_model))
    with pytest.raises(ValueError, match="should be a BruteForce or Streaming layer"):
        make_stages(tf_keras.layers.Dense(1))


def test_the_ranker_is_checked():
    ranker = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="should be a Functional model of Keras 3"):
        make_stages(ranker=ranker)
