"""TensorFlow Recommenders: tfmtl's models inside a `tfrs.Model`, and behind an index.

TFRS needs Keras 2: `os.environ["TF_USE_LEGACY_KERAS"] = "1"` before the first import of
tensorflow, keras, tensorflow_recommenders or tfmtl. `import keras` stays Keras 3.
"""

from tfmtl.interop.tfrs.bridge import Bridge

__all__ = ["Bridge"]
