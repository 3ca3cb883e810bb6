"""Raw bytes to examples: cells without blanks, named columns, three labels."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfmtl.data.census_income import columns

Example = dict[str, dict[str, Any]]
"""`{"features": {column: value}, "labels": {task: (1,) float32}}`."""

_POSITION = {name: i for i, name in enumerate(columns.COLUMNS)}
_NUMERIC = [(name, _POSITION[name]) for name in columns.NUMERIC_COLUMNS]
_CATEGORICAL = [(name, _POSITION[name]) for name in columns.CATEGORICAL_COLUMNS]
_EDUCATION = _POSITION["education"]
_MARITAL = _POSITION["marital_stat"]
_INCOME = _POSITION["income"]


def parse(raw: bytes, name: str) -> Iterator[Example]:
    """Parses the rows of one raw file. No row is dropped, duplicates included.

    Args:
        raw: The file's bytes, one row per line, cells separated by commas.
        name: The file's name, for errors.

    Yields:
        Per row `{"features": {column: value}, "labels": {task: (1,) float32}}`:
        numeric columns as `float`, categorical ones as `bytes` without leading and
        trailing blanks (`?` is a category).

    Raises:
        ValueError: If a row has another number of columns, a numeric cell is not a
            number, or the income is not one of its two levels.
    """
    for row, line in enumerate(io.BytesIO(raw), start=1):
        cells = [cell.strip() for cell in line.split(b",")]
        if len(cells) != len(columns.COLUMNS):
            raise ValueError(
                f"`{name}` should have {len(columns.COLUMNS)} columns in every row. "
                f"Received: {len(cells)} columns in row {row}, {line[:60]!r}"
            )
        values: dict[str, Any] = {column: cells[i] for column, i in _CATEGORICAL}
        for column, i in _NUMERIC:
            values[column] = _number(cells[i], column, name, row)
        yield {"features": values, "labels": _labels(cells, name, row)}


def _number(cell: bytes, column: str, name: str, row: int) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise ValueError(
            f"`{column}` should be a number in every row of `{name}`. "
            f"Received: {cell!r} in row {row}"
        ) from error


def _labels(cells: list[bytes], name: str, row: int) -> dict[str, np.ndarray]:
    income = columns.INCOME_LEVELS.get(cells[_INCOME])
    if income is None:
        raise ValueError(
            f"`income` should be one of {sorted(columns.INCOME_LEVELS)} in every row "
            f"of `{name}`. Received: {cells[_INCOME]!r} in row {row}"
        )
    never_married = cells[_MARITAL] == columns.NEVER_MARRIED
    college = cells[_EDUCATION] in columns.COLLEGE_DEGREES
    return {
        task: np.array([value], np.float32)
        for task, value in zip(
            columns.TASKS, (income, never_married, college), strict=True
        )
    }
