"""Retrieval by TFRS and ranking by tfmtl as one SavedModel on MovieLens: its latency.

    python benchmarks/two_stage.py --movielens <folder with ml-latest-small.zip>

Two towers and a ranker of two tasks are trained on four fifths of the ratings.
Latencies are those of TensorFlow's C++ session with one thread. Recall is the share
that is found of what a user liked among the other ratings, the mean over users.
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

import tfmtl
from tfmtl.features import Categorical, Sequence
from tfmtl.interop.tfrs import Bridge, TwoStage, export_two_stage
from tfmtl.serving import latency, verify
from tfmtl.tasks import Binary, Regression

RATINGS = "movielens/latest-small-ratings"
COLUMNS = ("user_id", "movie_id", "movie_genres")
WIDTH = 32


def tasks_of(columns: dict[str, tf.Tensor]) -> tuple[Any, Any]:
    """Features and labels of a batch of ratings."""
    stars = columns["user_rating"]
    features = {name: columns[name] for name in COLUMNS}
    return features, {"liked": stars >= 4, "stars": stars}


class Ranker(tfrs.Model):
    """A ranker of tfmtl that TFRS trains, task by task."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.scores = Bridge(model)
        self.liked = tfrs.tasks.Ranking(metrics=[tf_keras.metrics.AUC(name="auc")])
        self.stars = tfrs.tasks.Ranking(tf_keras.losses.MeanSquaredError())

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Both predictions."""
        return self.scores(features, training=training)

    def compute_loss(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """The sum of the losses."""
        features, labels = inputs
        scores = self(features, training=training)
        liked = self.liked(labels["liked"], scores["liked"])
        return liked + self.stars(labels["stars"], scores["stars"])


class Retrieval(tfrs.Model):
    """Two towers: a vector for each user and for each movie."""

    def __init__(self, users: tuple[str, ...], movies: tuple[str, ...]) -> None:
        super().__init__()
        self.users, self.movies = tower(users), tower(movies)
        self.task = tfrs.tasks.Retrieval()

    def compute_loss(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Liked movies against the others of the batch."""
        features, labels = inputs
        users = self.users(features["user_id"][:, 0])
        movies = self.movies(features["movie_id"][:, 0])
        return self.task(
            users,
            movies,
            sample_weight=labels["liked"],
            candidate_ids=features["movie_id"][:, 0],
            compute_metrics=False,
        )


def tower(vocabulary: tuple[str, ...]) -> tf_keras.Model:
    """Texts to vectors."""
    return tf_keras.Sequential(
        [
            tf_keras.layers.StringLookup(vocabulary=list(vocabulary)),
            tf_keras.layers.Embedding(len(vocabulary) + 1, WIDTH),
        ]
    )


def movies_of(batches: tf.data.Dataset) -> dict[str, np.ndarray]:
    """Every movie of some batches once, with its genres."""
    ids, genres = (
        np.concatenate([x[name] for x, _ in batches.as_numpy_iterator()])
        for name in ("movie_id", "movie_genres")
    )
    _, first = np.unique(ids[:, 0].astype(bytes), return_index=True)
    return {"movie_id": ids[first, 0], "movie_genres": genres[first]}


def pairs_of(batches: tf.data.Dataset, liked: bool) -> dict[bytes, set[bytes]]:
    """Movies by user, all or those that he liked."""
    found: dict[bytes, set[bytes]] = {}
    for x, y in batches.as_numpy_iterator():
        keep = (y["liked"][:, 0] > 0) | (not liked)
        for user, movie in zip(
            x["user_id"][keep, 0], x["movie_id"][keep, 0], strict=True
        ):
            found.setdefault(user, set()).add(movie)
    return found


def recall(answers: np.ndarray, wanted: list[set[bytes]], k: int) -> float:
    """The mean over users of the share of wanted movies among the first k."""
    shares = [
        len(movies & set(row[:k])) / len(movies)
        for row, movies in zip(answers, wanted, strict=True)
    ]
    return float(np.mean(shares))


def unseen(
    answers: np.ndarray, users: list[bytes], seen: dict[bytes, set[bytes]]
) -> np.ndarray:
    """Answers with the movies of the training set at the end."""
    ordered = [
        sorted(row, key=lambda movie: movie in seen.get(user, set()))
        for user, row in zip(users, answers.tolist(), strict=True)
    ]
    return np.array(ordered, object)


def saved_index(index: Any, folder: Path) -> Path:
    """An index alone as a SavedModel."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "user_id")])
    def serve(user_id: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, ids = index(user_id, k=100)
        return {
            "score": tf.ensure_shape(scores, (None, 100)),
            "movie_id": tf.ensure_shape(ids, (None, 100)),
        }

    module = tf.Module()
    module.index = index
    tf.saved_model.save(module, str(folder), serve.get_concrete_function())
    return folder


def show_latency(name: str, path: Path, rows: dict[str, np.ndarray]) -> None:
    """Prints median and ninetieth percentile of single users and of 32."""
    times = latency(path, rows, (1, 32), repetitions=300)
    told = [f"{t.p50:8.2f} {t.p90:8.2f}" for t in times.values()]
    print(f"{name:<30}", *told)


def trained(
    train: tf.data.Dataset, test: tf.data.Dataset, epochs: int
) -> tuple[keras.Model, Retrieval]:
    """The ranker and the towers."""
    specs: list[Any] = [
        Categorical("user_id", units=16),
        Categorical("movie_id", units=16),
        Sequence("movie_genres", dtype="int64", length=4),
    ]
    features = tfmtl.features.adapt(specs, train)
    model = tfmtl.models.mmoe(features, [Binary("liked"), Regression("stars")])
    ranker = Ranker(model)
    ranker.compile(tf_keras.optimizers.Adam(1e-3))
    ranker.fit(train, epochs=epochs, verbose=0)
    logs = ranker.evaluate(test, return_dict=True, verbose=0)
    print(f"test AUC of liked, ranker          {logs['auc']:.3f}")
    retrieval = Retrieval(features[0].vocabulary, features[1].vocabulary)
    retrieval.compile(tf_keras.optimizers.Adagrad(0.1))
    retrieval.fit(train, epochs=epochs, verbose=0)
    return model, retrieval


def show_recall(
    index: Any, stages: TwoStage, train: tf.data.Dataset, test: tf.data.Dataset
) -> dict[str, np.ndarray]:
    """Prints what is found of liked and unseen movies; returns the users."""
    seen, liked = pairs_of(train, liked=False), pairs_of(test, liked=True)
    known = set(stages.identifiers.numpy())
    wanted = {
        user: movies & known - seen.get(user, set()) for user, movies in liked.items()
    }
    users = [user for user, movies in sorted(wanted.items()) if movies]
    rows = {"user_id": np.array(users, object)[:, None]}
    truth = [wanted[user] for user in users]
    found = index(tf.constant(users), k=100)[1].numpy()
    ranked = stages(rows)["movie_id"].numpy()
    print(f"movies, users                      {len(known):,}, {len(users):,}")
    print(f"recall@100, retrieval              {recall(found, truth, 100):.3f}")
    for name, answers in (("retrieval", found), ("then ranking", ranked)):
        first = recall(unseen(answers, users, seen), truth, 10)
        print(f"recall@10 of unseen, {name:<13} {first:.3f}")
    return rows


def main() -> None:
    """Trains, exports, checks and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movielens", required=True, help="folder of the archive")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    tf_keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        read = functools.partial(
            tfmtl.data.from_tfds,
            RATINGS,
            tasks_of,
            1024,
            data_dir=folder,
            manual_dir=arguments.movielens,
            lengths={"movie_genres": 4},
        )
        train = read(split="train[:80%]", shuffle=True)
        test = read(split="train[80%:]")
        model, retrieval = trained(train, test, arguments.epochs)
        items = movies_of(train)
        ids, layers = tf.constant(items["movie_id"]), tfrs.layers.factorized_top_k
        pairs = tf.data.Dataset.from_tensor_slices((ids, retrieval.movies(ids)))
        index, stream = (
            kind(retrieval.users, k=100).index_from_dataset(pairs.batch(1024))
            for kind in (layers.BruteForce, layers.Streaming)
        )
        stages = TwoStage(
            index, model, items, ids="movie_id", by="stars", query="user_id"
        )
        rows = show_recall(index, stages, train, test)

        written = export_two_stage(stages, Path(folder, "models"), golden=rows)
        print(f"SavedModel, bytes                  {written.bytes:,}")
        print(f"C++ session against TFRS, Keras    {written.difference:.1e}")
        print(f"problems                           {verify(written.path).problems}")
        print(f"{'one thread, ms':<32} B=1: p50      p90 B=32: p50  p90")
        show_latency("two stages, 100 candidates", written.path, rows)
        alone = {"user_id": rows["user_id"][:, 0]}
        for name, layer in (("BruteForce", index), ("Streaming", stream)):
            path = saved_index(layer, Path(folder, name))
            show_latency(f"retrieval alone, {name}", path, alone)


if __name__ == "__main__":
    main()
