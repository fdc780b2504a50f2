"""What row expressions refuse, why, and what to write instead. It knows the names of sqlglot's tree."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from coeval.spec.signatures import PARTS, ExpressionError
from coeval_pipelines.catalog.names import nearest

_KNOWN = (
    "ABS", "CASE", "CAST", "COALESCE", "CONCAT", "DIV", "EXTRACT", "LENGTH", "LOWER", "MOD", "NULLIF", "SUBSTRING",
    "UPPER",
)  # fmt: skip
_LISTED = f"Known are + - * / % comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL, ||, {', '.join(_KNOWN)}."
_AGGREGATIONS = frozenset(
    {"ANY_VALUE", "APPROX_DISTINCT", "ARRAY_AGG", "AVG", "COUNT", "COUNT_DISTINCT", "FIRST", "LAST", "MAX", "MEAN"}
    | {"MEDIAN", "MIN", "STDDEV", "SUM", "VARIANCE"}
)
CLOCKS = frozenset({"CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "GETDATE", "NOW", "RAND", "RANDOM", "UUID"})
"""Functions and words whose value changes from run to run."""

NO_CLOCK = "A replay must give the same value again: use the columns of the event only."
_INSTEAD = {
    **dict.fromkeys(("IF", "IFF", "IIF", "GREATEST", "LEAST"), "CASE WHEN a > b THEN a ELSE b END"),
    **dict.fromkeys(("IFNULL", "ISNULL", "NVL"), "COALESCE(a, b)"),
    **dict.fromkeys(("LEN", "CHAR_LENGTH", "CHARACTER_LENGTH"), "LENGTH(note)"),
    **dict.fromkeys(("SUBSTR", "LEFT", "MID"), "SUBSTRING(note, 1, 3)"),
    **dict.fromkeys(("ROUND", "TRUNC"), "CAST(amount AS decimal(18,2)), which rounds half away from zero"),
    **dict.fromkeys(("DATE", "TO_DATE"), "CAST(paid_at AS date)"),
    "LCASE": "LOWER(note)", "UCASE": "UPPER(note)",
    **{part.upper(): f"EXTRACT({part.upper()} FROM paid_at)" for part in PARTS},
}  # fmt: skip
"""What to write for functions that other dialects have."""

_ONE_EVENT = "A row expression sees one event: aggregate in the view's aggregations."
_REFUSED: Mapping[type[exp.Expression], tuple[str, str]] = {
    exp.Window: ("it has a window function", _ONE_EVENT),
    exp.Subquery: ("it has a subquery", _ONE_EVENT),
    exp.Select: ("it has a subquery", _ONE_EVENT),
    exp.Exists: ("it has a subquery", _ONE_EVENT),
    exp.Distinct: ("it has a DISTINCT", _ONE_EVENT),
    exp.Block: ("it has several statements", "Write one, without semicolons."),
    exp.ILike: ("ILIKE is not supported: engines differ beyond ASCII", "Write LOWER(note) LIKE 'abc%'."),
    exp.Escape: ("LIKE has no ESCAPE", "Compare with =, or a part with SUBSTRING."),
    exp.TryCast: ("TRY_CAST is not supported", "Write CAST: it gives NULL where a value does not fit."),
    exp.Interval: ("dates and instants have no arithmetic", "Compare them, or take a part of them with EXTRACT."),
    exp.Concat: ("two strings stand side by side", "Join them with ||; a quote in a string is written twice: 'it''s'."),
    exp.Star: ("a * stands where a column is needed", "Name the column."),
}


def refused(node: exp.Expression) -> ExpressionError:
    """A form that the language does not have."""
    if type(node) in _REFUSED:
        return ExpressionError(*_REFUSED[type(node)])
    return ExpressionError(f"{node.key.upper()} is not supported: {node.sql()}", _LISTED)


def unknown_function(name: str) -> ExpressionError:
    """A function that the language does not have, by its name in capitals."""
    if name in _AGGREGATIONS:
        return ExpressionError(f"{name} aggregates over events", _ONE_EVENT)
    if name in CLOCKS:
        return ExpressionError(f"{name} is not the same in a replay", NO_CLOCK)
    near = f"Write {_INSTEAD[name]}." if name in _INSTEAD else nearest(name, _KNOWN)
    return ExpressionError(f"there is no function {name}", _LISTED if near.startswith("Known") else near)
