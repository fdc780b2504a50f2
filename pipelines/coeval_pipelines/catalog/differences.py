"""How two definitions of one name differ, in words: what changes its values, and what does not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from coeval.spec.expressions import to_text
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, Computed, EventSource, View, WindowedView, columns_read
from coeval.spec.time import duration

_METADATA = ("description", "owner", "deprecated", "pii", "expected", "sla", "history", "path", "format")
"""Properties that may change in place: no value depends on them."""
_LENGTHS = {"max_future_skew": "future skew", "allowed_lateness": "lateness"}


@dataclass(frozen=True, slots=True)
class Differences:
    """What became different, in words: `values` restate a view, `metadata` change it in place."""

    values: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()


def view_differences(name: str, old: Manifest, new: Manifest) -> Differences:
    """How a view that two manifests define differs between them, with what it reads of its source."""
    before, after = old.views[name], new.views[name]
    values = [
        *_moved("keyed by", _key(before), _key(after)),
        *_moved("reads", before.source, after.source),
        *(_windows(before, after) if isinstance(before, WindowedView) and isinstance(after, WindowedView) else ()),
        *_members("feature", _rows(before), _rows(after)),
        *_moved("ttl", _ttl(before), _ttl(after)),
        *_moved("where", _where(before), _where(after)),
        *_members("column", _columns(before.columns), _columns(after.columns)),
        *_moved("partitions", before.partitions, after.partitions),
        *_source(old.sources[before.source], new.sources[after.source], columns_read(before) & columns_read(after)),
    ]
    return Differences(tuple(values), tuple(metadata_differences(before, after)))


def _moved(what: str, before: object, after: object) -> Iterator[str]:
    if before != after:
        yield f"{what} {after}, was {before}"


def _members(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"new {kind} {name}: {after[name]}"
        elif name not in after:
            yield f"no {kind} {name} any more"
        elif before[name] != after[name]:
            yield f"{kind} {name}: {after[name]}, was {before[name]}"


def _key(view: View) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in view.key)


def _rows(view: View) -> dict[str, str]:
    return {} if isinstance(view, WindowedView) else {field.name: str(field.type) for field in view.features}


def _ttl(view: View) -> str:
    length = getattr(view, "ttl", 0)
    return duration(length) if length else "none"


def _where(view: View) -> str:
    return to_text(view.where) if view.where else "all events"


def _columns(columns: Iterable[Computed]) -> dict[str, str]:
    return {item.field.name: to_text(item.expression) for item in columns}


def _windows(before: WindowedView, after: WindowedView) -> Iterator[str]:
    old, new = _aggregates(before), _aggregates(after)
    for name in [name for name in new if name not in old]:
        yield f"new {new[name]}" + ("" if name in new[name] else f" as {name}")
    for name in [name for name in old if name not in new]:
        yield f"no {old[name]} any more"
    for name in [name for name in new if name in old and old[name] != new[name]]:
        yield f"{name} is {new[name]}, was {old[name]}"


def _aggregates(view: WindowedView) -> dict[str, str]:
    pairs = zip(view.aggregates, view.features, strict=True)
    return {aggregate.feature: f"{aggregate.label} ({field.type})" for aggregate, field in pairs}


def _source(before: EventSource | BatchSource, after: EventSource | BatchSource, read: frozenset[str]) -> Iterator[str]:
    if before.name != after.name:
        return
    for name in ("event_id", "event_ts", "available_at", "topic"):
        yield from _moved(f"{name} of {after.name}:", getattr(before, name, ""), getattr(after, name, ""))
    for name, what in _LENGTHS.items():
        lengths = (duration(getattr(item, name, 0)) for item in (before, after))
        yield from _moved(f"{what} of {after.name}:", *lengths)
    old, new = ({field.name: field for field in source.fields} for source in (before, after))
    for name in sorted(read & old.keys() & new.keys()):
        yield from _moved(f"column {name} of {after.name}:", _column(old[name]), _column(new[name]))


def _column(field: Any) -> str:
    return f"{field.type}{'' if field.nullable else ' required'}{f' of {field.origin}' if field.origin else ''}"


def metadata_differences(before: object, after: object, of: str = "") -> Iterator[str]:
    """The names of the properties that differ and change no value: `owner`, `pii of sum_amount_7d`, `sla freshness`."""
    if type(before) is not type(after) or not is_dataclass(before):
        return
    for field in fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new:
            continue
        if field.name == "sla":
            yield from (
                f"sla {item.name}" for item in fields(old) if getattr(old, item.name) != getattr(new, item.name)
            )
        elif field.name in _METADATA:
            yield f"{field.name} of {of}" if of else field.name
        elif isinstance(old, tuple):
            yield from _of_members(old, new)
        else:
            yield from metadata_differences(old, new, of)


def _of_members(before: tuple[Any, ...], after: tuple[Any, ...]) -> Iterator[str]:
    name: Callable[[Any], str] = lambda item: getattr(item, "name", "") or getattr(item, "feature", "")  # noqa: E731
    old = {name(item): item for item in before if name(item)}
    for item in after:
        if name(item) in old:
            yield from metadata_differences(old[name(item)], item, name(item))


def taken_differences(before: Any, after: Any) -> tuple[str, ...]:
    """How two services, or two derived views, differ."""
    return (*_parts(before, after), *metadata_differences(before, after))


def _parts(before: Any, after: Any) -> Iterator[str]:
    if hasattr(before, "function"):
        yield from _moved("function", before.function, after.function)
        yield from _members("input", *({ref.full_name: "" for ref in item.inputs} for item in (before, after)))
        for kind in ("request", "features"):
            yield from _members(kind, *({f.name: str(f.type) for f in getattr(item, kind)} for item in (before, after)))
        return
    old, new = ({part.view: part for part in (*item.views, *item.derived)} for item in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            yield f"{'takes' if name in new else 'no longer takes'} {name}"
            continue
        gone, come = (
            set(old[name].features) - set(new[name].features),
            set(new[name].features) - set(old[name].features),
        )
        yield from (f"takes {name}:{feature}" for feature in sorted(come))
        yield from (f"no longer takes {name}:{feature}" for feature in sorted(gone))
        if old[name].version != new[name].version:
            yield f"{name} {old[name].version} -> {new[name].version}"


def project_differences(before: Manifest, after: Manifest) -> tuple[str, ...]:
    """How two projects differ; another tenant shares nothing with the one before."""
    said = list(_moved("project", before.project, after.project))
    if before.tenant != after.tenant:
        what = "EVERYTHING IS NEW: no key, topic or path is shared with what is there"
        said += [*_moved("tenant", before.tenant, after.tenant), what]
    return tuple(said)


def _shown(value: object) -> object:
    return ("on" if value else "off") if isinstance(value, bool) else value or "none"


def ground_differences(before: Any, after: Any) -> tuple[str, ...]:
    """How two sources, or two entities, differ; whether a view is computed anew is said at the view."""
    if type(before) is not type(after):
        return (f"a {type(after).__name__}, was a {type(before).__name__}",)
    simple = [
        item.name for item in fields(before) if item.name not in ("name", "fields", "key", "description", "owner")
    ]
    said: list[str] = []
    for name in simple:
        old, new = getattr(before, name), getattr(after, name)
        shown = (duration(old), duration(new)) if name in _LENGTHS else (_shown(old), _shown(new))
        said += _moved(_LENGTHS.get(name, name), *shown)
    columns = [item.fields if hasattr(item, "fields") else (item.key,) for item in (before, after)]
    said += _members("column", *({field.name: _column(field) for field in items} for items in columns))
    return (*said, *(text for text in metadata_differences(before, after) if text not in simple))
