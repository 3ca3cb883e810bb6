"""TFRS and Keras 2, which it needs, or an error that says how to have both."""

import os

try:
    import tf_keras
except ImportError as error:
    raise ImportError(
        "TensorFlow Recommenders needs Keras 2, which `pip install tf-keras` installs. "
        f"Received: {error}"
    ) from error
try:
    import tensorflow_recommenders as tfrs
except ImportError as error:
    raise ImportError(
        'TensorFlow Recommenders needs Keras 2: `os.environ["TF_USE_LEGACY_KERAS"] = '
        '"1"` should be the first lines of the program, after `import os` and before '
        "the first import of tensorflow, keras, tensorflow_recommenders or tfmtl (in a "
        "notebook, restart the runtime first). `import keras` stays Keras 3. Received: "
        f"TF_USE_LEGACY_KERAS={os.environ.get('TF_USE_LEGACY_KERAS')!r} now, and from "
        f"the import: {error}"
    ) from error

__all__ = ["tf_keras", "tfrs"]
