"""SavedModels of plain functions, for tests of one version beside another."""

import tensorflow as tf


def save(folder, call, **specs):
    """A SavedModel of a function of the named inputs, `(shape, dtype)` each."""
    named = {
        name: tf.TensorSpec(shape, dtype, name=name)
        for name, (shape, dtype) in specs.items()
    }
    function = tf.function(call).get_concrete_function(**named)
    tf.saved_model.save(tf.Module(), str(folder), function)
    return folder


def noisy(x, noise):
    """Probabilities of a logit with a deterministic error."""
    return tf.sigmoid(x + noise * tf.sin(40.0 * x))
