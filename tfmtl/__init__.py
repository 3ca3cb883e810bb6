"""Multi-task rankers in Keras 3, from shared layers to a small SavedModel.

`import tfmtl` gives the rooms that need Keras alone; `tfmtl.data`,
`tfmtl.interop`, `tfmtl.report` and `tfmtl.serving` are imported on first use.
"""

import importlib
from types import ModuleType

from tfmtl import (
    balancing,
    features,
    finetuning,
    folding,
    layers,
    metrics,
    models,
    ops,
    sparsity,
    tasks,
)
from tfmtl.version import __version__

_ON_FIRST_USE = ("data", "interop", "report", "serving")

__all__ = [
    "__version__",
    "balancing",
    "data",
    "features",
    "finetuning",
    "folding",
    "interop",
    "layers",
    "metrics",
    "models",
    "ops",
    "report",
    "serving",
    "sparsity",
    "tasks",
]


def __getattr__(name: str) -> ModuleType:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"tfmtl.{name}")
    raise AttributeError(f"module 'tfmtl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
