"""Census-Income (KDD): income, marital status and education of 299,285 persons.

Needs tensorflow-datasets, so it is imported by its own name only.
"""

from tfmtl.data.census_income.builder import CensusIncome
from tfmtl.data.census_income.columns import (
    CATEGORICAL_COLUMNS,
    NUMERIC_COLUMNS,
    TASKS,
)
from tfmtl.data.census_income.loading import load

__all__ = [
    "CATEGORICAL_COLUMNS",
    "CensusIncome",
    "NUMERIC_COLUMNS",
    "TASKS",
    "load",
]
