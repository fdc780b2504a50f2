"""What may become of an event source whose topic and log are there: what is on them must stay readable. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field
from coeval.spec.time import duration
from coeval.spec.types import DataType, Kind
from coeval_pipelines.catalog.errors import Problem

BREAK = "COEVAL_BREAK"
"""Environment variable: event sources that may break with what is on their topic, separated by commas."""


def breaks(before: EventSource, after: EventSource) -> tuple[str, ...]:
    """Why records and log of the source before cannot be read as the source after, in words; empty where they can.

    Allowed are new optional columns, decimals with more digits before the point, columns that need not be there any
    more, and clocks that may run further ahead: what was good stays good. What records said of a new column before it
    was declared, only the stream and what it reads again will know; the log has null (docs/catalog.md).
    """
    return (*_roles(before, after), *_columns(before, after))


def _roles(before: EventSource, after: EventSource) -> Iterator[str]:
    for name, what in (("topic", "topic"), ("event_id", "event id"), ("event_ts", "event time")):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"{what}: {old} -> {new}"
    if after.max_future_skew < before.max_future_skew:
        yield f"future skew: {_span(before.max_future_skew)} -> {_span(after.max_future_skew)}"


def _span(microseconds: int) -> str:
    return duration(microseconds) if microseconds else "none"


def _columns(before: EventSource, after: EventSource) -> Iterator[str]:
    old, new = ({field.name: field for field in source.fields} for source in (before, after))
    for name, field in old.items():
        if name not in new:
            yield f"column {name}: {_said(field)} -> gone"
        elif not _readable(field, new[name]):
            yield f"column {name}: {_said(field)} -> {_said(new[name])}"
    for name, field in new.items():
        if name not in old and not field.nullable:
            yield f"column {name}: not there -> {_said(field)}"


def _readable(before: Field, after: Field) -> bool:
    optional = after.nullable or not before.nullable
    return optional and before.origin == after.origin and _holds(after.type, before.type)


def _holds(wide: DataType, narrow: DataType) -> bool:
    both_decimal = wide.kind is narrow.kind is Kind.DECIMAL and wide.scale == narrow.scale
    return wide == narrow or (both_decimal and wide.precision > narrow.precision)


def _said(field: Field) -> str:
    origin = f" of {field.origin}" if field.origin else ""
    return f"{field.type}{'' if field.nullable else ' required'}{origin}"


def refused_changes(before: Manifest | None, after: Manifest, named: Collection[str]) -> Iterator[Problem]:
    """A problem for every source that breaks and was not named, and for every name of one that does not."""
    broken = _broken(before, after)
    for name, why in broken.items():
        if name not in named:
            fix = (
                "Undo it, or declare what is new as a source of another name, with a topic of its own. To break with "
                f"what is there: coeval apply --break {name} (with feast: {BREAK}={name} feast apply)."
            )
            yield Problem(f"source {name}", f"what is on its topic could not be read any more: {'; '.join(why)}", fix)
    waiting = set(before.sources if before else ()) - after.sources.keys()
    for name in sorted(set(named) - broken.keys() - waiting):
        yield Problem(f"break of {name}", "no event source of that name breaks with what is there", "Do not name it.")


def _broken(before: Manifest | None, after: Manifest) -> dict[str, tuple[str, ...]]:
    # Another tenant has a log of its own, and views of other names.
    if before is None or before.tenant != after.tenant:
        return {}
    old = {source.name: source for source in before.event_sources}
    pairs = {source.name: (old[source.name], source) for source in after.event_sources if source.name in old}
    found = {name: breaks(*pair) for name, pair in pairs.items()}
    tables = {source.name: ("a topic -> a table",) for source in after.batch_sources if source.name in old}
    return {name: why for name, why in (found | tables).items() if why}
