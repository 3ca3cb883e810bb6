"""TensorFlow Recommenders: tfmtl's models inside a `tfrs.Model`, and behind an index.

TFRS needs Keras 2: `os.environ["TF_USE_LEGACY_KERAS"] = "1"` before the first import of
tensorflow, keras, tensorflow_recommenders or tfmtl. `import keras` stays Keras 3.
"""

from tfmtl.interop.tfrs.bridge import Bridge
from tfmtl.interop.tfrs.export import export_two_stage
from tfmtl.interop.tfrs.two_stage import TwoStage

__all__ = ["Bridge", "TwoStage", "export_two_stage"]
