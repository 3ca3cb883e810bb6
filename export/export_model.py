"""Exports a `.keras` file to a version folder for TF Serving.

    python export/export_model.py runs/demo/model.keras runs/models/ranker

is `tfmtl export`: the model is folded (`--no-fold` keeps closed gates), written as the
next version and checked in TensorFlow's C++ session before it appears.
"""

import sys

from tfmtl.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
