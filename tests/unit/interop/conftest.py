"""The tests of `tfrs/` need Keras 2, so `test_interop_tfrs.py` runs them apart."""

import os

collect_ignore = [] if os.environ.get("TF_USE_LEGACY_KERAS") == "1" else ["tfrs"]
