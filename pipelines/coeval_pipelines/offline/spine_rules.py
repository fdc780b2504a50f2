"""What a spine must have, said once for every engine: columns, types, instants, keys. Pure; it knows no engine.

Types are named as Spark names them: that is what a person is told, whichever engine reads the spine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from coeval.errors import UsageError
from coeval.spec.model import Field, View
from coeval.spec.types import Kind, micros
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.columns import sql_type

TIMESTAMP_COLUMN = "event_timestamp"

_INTEGERS = ("tinyint", "smallint", "int", "bigint")


def key_fields(views: Iterable[View]) -> list[Field]:
    """The key columns that a spine of these views has, each once."""
    return list({field.name: field for view in views for field in view.key}.values())


def check_names(columns: Iterable[str], asked: Asked) -> None:
    """See to it that columns of a spine have names of their own, and none that of a column of the answer.

    Raises:
        UsageError: one has not.
    """
    found = list(columns)
    check_unique(found)
    names = {name.lower() for name in (*asked.outputs, *asked.stored)}
    taken = sorted({name for name in found if name.lower() in names or name.startswith("__")})
    if taken:
        raise UsageError(f"The spine already has columns named {', '.join(taken)}.", "Rename them.")


def check_unique(columns: Iterable[str]) -> None:
    """See to it that no two columns have one name; tables tell no capital letter from a small one.

    Raises:
        UsageError: two have.
    """
    found = Counter(name.lower() for name in columns)
    twice = sorted(name for name, number in found.items() if number > 1)
    if twice:
        raise UsageError(
            f"Several columns are named {', '.join(twice)}.", "Rename them; capital letters make no other name."
        )


def check_columns(found: Mapping[str, str], keys: Sequence[Field], request: Sequence[Field]) -> None:
    """See to it that a spine with these columns (name to type) has what is needed, as it is needed.

    Raises:
        UsageError: a column is missing or of another type, or an instant has no time zone.
    """
    if TIMESTAMP_COLUMN not in found:
        raise UsageError(
            f"The spine has no column {TIMESTAMP_COLUMN}; it has {', '.join(found)}.",
            f"Name the column of the instants {TIMESTAMP_COLUMN}.",
        )
    if found[TIMESTAMP_COLUMN] == "timestamp_ntz":
        raise naive(TIMESTAMP_COLUMN)
    if found[TIMESTAMP_COLUMN] not in ("timestamp", "bigint"):
        raise UsageError(
            f"The spine's {TIMESTAMP_COLUMN} is a {found[TIMESTAMP_COLUMN]}.",
            "Make it a timestamp in UTC, or an integer of microseconds since the epoch.",
        )
    for field, role in [*((key, "key") for key in keys), *((item, "request input") for item in request)]:
        _check_column(field, role, found)


def _check_column(field: Field, role: str, found: Mapping[str, str]) -> None:
    if field.name not in found:
        raise UsageError(
            f"The spine has no column {field.name}, a {role} of this service; it has {', '.join(found)}.",
            f"Add {field.name} ({field.type}).",
        )
    numeric = found[field.name] in (*_INTEGERS, "float", "double") or found[field.name].startswith("decimal")
    wanted = sql_type(field.type).lower()
    fits = found[field.name] in _INTEGERS if field.type.kind is Kind.INT64 else found[field.name] == wanted
    if role == "request input" and field.type.kind in (Kind.INT64, Kind.FLOAT64, Kind.DECIMAL):
        fits = numeric
    if not fits:
        raise UsageError(
            f"The spine's {field.name} is a {found[field.name]}; this {role} is a {field.type}.",
            f"Cast it to {wanted}.",
        )


def check_nulls(nulls: Mapping[str, int]) -> None:
    """See to it that keys and instants are there: the number of rows without, by column.

    Raises:
        UsageError: one is missing in some rows.
    """
    for name, number in nulls.items():
        if number:
            raise UsageError(f"{number} rows of the spine have no {name}.", "Leave them out, or fill them in.")


def check_times(name: str, earliest: int, latest: int) -> None:
    """See to it that the times in a column (microseconds UTC) are ones that a calendar has.

    Raises:
        UsageError: they are not in the years 1 to 9999.
    """
    first, last = (micros(end.replace(tzinfo=UTC)) for end in (datetime.min, datetime.max))
    if earliest < first or latest > last:
        raise UsageError(
            f"The column {name} has times that are not in the years 1 to 9999.",
            "Is it in another unit than it says? Integers are microseconds since the epoch.",
        )


def naive(name: str) -> UsageError:
    """The error of an instant without a time zone."""
    return UsageError(
        f"The spine's {name} has no time zone.",
        "Make it an instant in UTC, e.g. with .dt.tz_localize('UTC') in pandas.",
    )


def unknown_form(spine: object) -> UsageError:
    """The error of a spine in a form that nobody reads."""
    return UsageError(
        f"A spine cannot be a {type(spine).__name__}.",
        "Give a DataFrame, the path of Parquet, CSV or Delta files, or a SELECT.",
    )


def unreadable(path: object) -> UsageError:
    """The error of a spine that is not there, or is something else."""
    return UsageError(f"The spine {path} cannot be read.", "Give Parquet files, a CSV file or a Delta table.")


def is_select(spine: str) -> bool:
    """Whether a text is a query, not a path."""
    return re.match(r"\s*(SELECT|WITH)\s", spine, re.IGNORECASE) is not None
