"""The content hash of a table: equal for equal rows, whatever their order and partitioning. It knows Spark."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from coeval_pipelines.offline.columns import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_DIGITS, _PARTS = 15, 4
"""Hex digits per part (60 bits, an exact BIGINT) and parts of a row's SHA-256 that are summed."""


def fingerprint(frame: DataFrame) -> tuple[str, int]:
    """SHA-256 (hex) over the columns' names and types and the sums of the rows' hashes; and the number of rows."""
    cells = ", ".join(f"CAST({quoted(name)} AS STRING)" for name in frame.columns)
    hashed = frame.selectExpr(f"SHA2(TO_JSON(ARRAY({cells})), 256) AS h")
    parts = [
        f"SUM(CAST(CONV(SUBSTRING(h, {1 + part * _DIGITS}, {_DIGITS}), 16, 10) AS DECIMAL(38, 0)))"
        for part in range(_PARTS)
    ]
    found = hashed.selectExpr("COUNT(*)", *parts).first()
    assert found is not None
    document = {"columns": frame.dtypes, "rows": found[0], "sums": [str(total) for total in found[1:]]}
    return hashlib.sha256(json.dumps(document).encode()).hexdigest(), found[0]
