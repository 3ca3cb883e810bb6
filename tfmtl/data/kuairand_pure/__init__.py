"""KuaiRand-Pure: nine kinds of feedback on 228,329 exposures of short videos.

Needs tensorflow-datasets, so it is imported by its own name only.
"""

from tfmtl.data.kuairand_pure.builder import KuaiRandPure
from tfmtl.data.kuairand_pure.columns import (
    HISTORIES,
    INTEGER_COLUMNS,
    NUMERIC_COLUMNS,
    SEQUENCE_COLUMNS,
    STRING_COLUMNS,
    TASKS,
    TIME_COLUMNS,
)
from tfmtl.data.kuairand_pure.loading import load

__all__ = [
    "HISTORIES",
    "INTEGER_COLUMNS",
    "KuaiRandPure",
    "NUMERIC_COLUMNS",
    "SEQUENCE_COLUMNS",
    "STRING_COLUMNS",
    "TASKS",
    "TIME_COLUMNS",
    "load",
]
