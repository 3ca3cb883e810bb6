"""A SavedModel of a formula, with every kind of signature that an export has."""

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

METHODS = {
    "classify_click": "tensorflow/serving/classify",
    "regress_value": "tensorflow/serving/regress",
}
WIDTH = {"age": 1, "item": 1, "country": 1, "seen": None}
DTYPES = {
    "age": tf.float32,
    "item": tf.int64,
    "country": tf.string,
    "seen": tf.int64,
}
FEATURES = {
    name: tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    for name, dtype in DTYPES.items()
}
MISSING = {"age": np.nan, "item": -1, "country": "", "seen": -1}


def columns(rows, seed=0):
    """Columns of so many rows."""
    random = np.random.default_rng(seed)
    return {
        "age": random.normal(size=(rows, 1)).astype("f4"),
        "item": random.integers(0, 2**62, size=(rows, 1)),
        "country": random.choice([b"at", b"de", b"", b"\xff"], size=(rows, 1)),
        "seen": random.integers(-1, 9, size=(rows, 3)),
    }


def expected(x, gain=1.0):
    """What the SavedModel computes."""
    lengths = np.char.str_len(np.asarray(x["country"], "S")).astype("f4")
    logit = np.asarray(x["age"], "f4") + lengths + np.asarray(x["item"]) % 3
    seen = np.asarray(x["seen"])
    value = gain * np.maximum(seen, 0).sum(axis=1, keepdims=True).astype("f4")
    return {"click": 1 / (1 + np.exp(-logit)).astype("f4"), "value": value}


def write(folder, gain=1.0, warm_up=(1, 4)):
    """Writes a version whose outputs are those of `expected`."""
    module = tf.Module()
    module.gain = tf.Variable(gain)

    def outputs(x):
        lengths = tf.cast(tf.strings.length(x["country"]), tf.float32)
        logit = x["age"] + lengths + tf.cast(x["item"] % 3, tf.float32)
        seen = tf.reduce_sum(tf.maximum(x["seen"], 0), axis=1, keepdims=True)
        value = module.gain * tf.cast(seen, tf.float32)
        return {"click": tf.sigmoid(logit), "value": value}

    def of_examples(key, answer):
        def parse(**inputs):
            parsed = tf.io.parse_example(inputs[key], FEATURES)
            x = {
                name: parsed[name].to_tensor(MISSING[name], shape=(None, WIDTH[name]))
                for name in FEATURES
            }
            return answer(outputs(x))

        spec = tf.TensorSpec((None,), tf.string, name=key)
        return tf.function(parse, autograph=False).get_concrete_function(**{key: spec})

    def of_columns(answer):
        specs = {
            name: tf.TensorSpec((None, WIDTH[name]), dtype, name=name)
            for name, dtype in DTYPES.items()
        }
        function = tf.function(lambda **x: answer(outputs(x)), autograph=False)
        return function.get_concrete_function(**specs)

    def classes(y):
        names = tf.constant([["0", "1"]])
        return {
            "scores": tf.concat([1 - y["click"], y["click"]], axis=1),
            "classes": tf.tile(names, [tf.shape(y["click"])[0], 1]),
        }

    signatures = {
        "serving_default": of_columns(dict),
        "click": of_columns(lambda y: {"click": y["click"]}),
        "value": of_columns(lambda y: {"value": y["value"]}),
        "serving_examples": of_examples("examples", dict),
        "classify_click": of_examples("inputs", classes),
        "regress_value": of_examples("inputs", lambda y: {"outputs": y["value"]}),
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    set_methods(folder)
    write_warm_up(folder, [columns(size) for size in warm_up])
    return folder


def set_methods(folder):
    file = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name, method in METHODS.items():
        proto.meta_graphs[0].signature_def[name].method_name = method
    file.write_bytes(proto.SerializeToString())


def write_warm_up(folder, batches):
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for batch in batches:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request(batch))
            writer.write(log.SerializeToString())


def request(batch, signature="", model="ranker"):
    """A request to predict, without the client."""
    found = predict_pb2.PredictRequest()
    found.model_spec.name = model
    found.model_spec.signature_name = signature
    for name, values in batch.items():
        kind = tf.string if np.asarray(values).dtype.kind in "SUO" else None
        found.inputs[name].CopyFrom(tf.make_tensor_proto(values, kind))
    return found
