"""A case: raw events, a key, an instant, and what each engine must say there. Written and read as readable JSON.

Instants are RFC 3339 in JSON and microseconds since the epoch, UTC, in Python. Values are the literals that a producer
would write. The key column `c` is given by the case's number, so that all cases of a run can share a source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from coeval.spec.erasure import Erasure, place_in_key
from coeval.spec.records import Event, Ingested, Record, ingest
from coeval.spec.types import Kind, Physical, parse_literal
from tests.support.contract import catalog

MILLISECOND = 1000
_YEAR_DAYS = 719_162
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class RawEvent:
    """What a producer sent: `values` are literals by column (None: JSON null), keys included."""

    event_id: str
    at: int
    available_at: int
    partition: int
    offset: int
    values: Mapping[str, str | None]


@dataclass(frozen=True, eq=False)
class Case:
    """One question. `expect` holds hand-made physical values of some features, `status` their statuses where said."""

    name: str
    view: str
    key: tuple[Physical, ...]
    q: int
    events: tuple[RawEvent, ...]
    why: str = ""
    expect: Mapping[str, Physical] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)
    erasures: tuple[Erasure, ...] = ()
    """What was erased before it is asked; of a subject that no other case has."""

    @property
    def erased_until(self) -> int | None:
        """The latest erasure of a subject that the case's key holds."""
        view = catalog.VIEWS[self.view]
        places = [(place_in_key(view, item.column), item) for item in self.erasures]
        return max(
            (item.at for place, item in places if place is not None and self.key[place] == item.value), default=None
        )


def rfc3339(at: int) -> str:
    """An instant as producers write it: `2026-03-20T10:00:00.5Z`; any year from 1 to 9999."""
    from datetime import date

    day, rest = divmod(at, _DAY)
    seconds, micros = divmod(rest, 1_000_000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    return f"{date.fromordinal(day + _YEAR_DAYS + 1).isoformat()}T{clock}{fraction}Z"


def parse_instant(text: str) -> int:
    """Microseconds of an RFC 3339 instant."""
    found = parse_literal(catalog.EVENTS.field("happened_at").type, text)
    assert isinstance(found, int)
    return found


def record(event: RawEvent) -> Record:
    """The record of the log that an event of the stream is."""
    document = {"event_id": event.event_id, "happened_at": rfc3339(event.at), **event.values}
    return Record(json.dumps(document).encode(), event.available_at, event.partition, event.offset)


@cache
def ingested(case: Case) -> Ingested:
    """What becomes of a case's raw events; rows of the batch source are taken as they are."""
    if catalog.is_batch(catalog.VIEWS[case.view]):
        return Ingested(tuple(_fact(event) for event in case.events), (), (), 0)
    return ingest(catalog.EVENTS, [record(event) for event in case.events])


def good(case: Case) -> tuple[Event, ...]:
    """The valid events of a case, once each."""
    return ingested(case).good


def _fact(event: RawEvent) -> Event:
    times = {"stated_at": event.at, "loaded_at": event.available_at}
    values = {
        item.name: times[item.name] if item.name in times else _physical(item.name, event.values.get(item.name))
        for item in catalog.FACTS.fields
    }
    return Event("", event.at, event.available_at, -1, event.offset, values, event.at)


def _physical(column: str, text: str | None) -> Physical:
    return None if text is None else parse_literal(catalog.FACTS.field(column).type, text)


# -- JSON ----------------------------------------------------------------------------------------------------------


def read_cases(directory: Path) -> list[Case]:
    """The written cases of a directory of JSON files, numbered from 1 in the order of files and lines."""
    documents = [
        (path.stem, item) for path in sorted(directory.glob("*.json")) for item in json.loads(path.read_text())
    ]
    return [_case(number, group, document) for number, (group, document) in enumerate(documents, 1)]


def _case(number: int, group: str, document: Mapping[str, Any]) -> Case:
    view = catalog.VIEWS[document["view"]]
    keys = _keys(number) | document.get("key", {})
    expect = document.get("expect", {})
    features = {item.name: item for item in view.features}
    return Case(
        name=f"{group}.{document['name']}",
        view=view.name,
        key=tuple(_physical(item.name, _text(keys[item.name])) for item in view.key),
        q=parse_instant(document["q"]),
        events=tuple(_event(number, index, keys, item) for index, item in enumerate(document["events"])),
        why=document["why"],
        expect={name: _expected(features[name].type, value) for name, value in expect.items()},
        status=document.get("status", {}),
        erasures=tuple(_erasure(keys, item) for item in document.get("erased", ())),
    )


def _erasure(keys: Mapping[str, Any], item: Mapping[str, Any]) -> Erasure:
    """The erasure of the case's own subject of that column."""
    return Erasure(item["column"], _physical(item["column"], _text(keys[item["column"]])), parse_instant(item["at"]))


def _keys(number: int) -> dict[str, str]:
    return {"c": str(number), "a": "", "b": "", "text": f"case {number}", "flag": "false", "day": "1970-01-01"}


def _expected(data_type: Any, value: Any) -> Physical:
    if value is None:
        return None
    if data_type.kind is Kind.FLOAT64:
        return float(value)
    return parse_literal(data_type, _text(value) or "")


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


_ENVELOPE = ("at", "available", "id", "partition", "offset", "other")


def _event(number: int, index: int, keys: Mapping[str, Any], item: Mapping[str, Any]) -> RawEvent:
    at = parse_instant(item["at"])
    own = {**keys, "c": str(-number)} if item.get("other") else dict(keys)
    values = own | {name: value for name, value in item.items() if name not in _ENVELOPE}
    return RawEvent(
        event_id=f"w{number}-{item.get('id', index)}",
        at=at,
        available_at=parse_instant(item["available"]) if "available" in item else -(-at // MILLISECOND) * MILLISECOND,
        partition=item.get("partition", 0),
        offset=item.get("offset", index),
        values={name: _text(value) for name, value in values.items()},
    )


def as_json(case: Case) -> str:
    """A case in the form that written cases have, to be read in a report or kept as one."""
    view = catalog.VIEWS[case.view]
    keys = {item.name: value for item, value in zip(view.key, _logical_key(case), strict=True) if item.name != "c"}
    head = {
        "name": case.name,
        "why": case.why,
        "view": case.view,
        "q": rfc3339(case.q),
        **({"key": keys} if keys else {}),
    }
    if case.erasures:
        head["erased"] = [{"column": item.column, "at": rfc3339(item.at)} for item in case.erasures]
    lines = ",\n    ".join(json.dumps(_event_json(view.key, event), ensure_ascii=False) for event in case.events)
    return json.dumps(head, ensure_ascii=False)[:-1] + f',\n "events": [\n    {lines}]}}'


def _logical_key(case: Case) -> Sequence[Any]:
    from coeval.spec.types import to_logical

    view = catalog.VIEWS[case.view]
    found = [to_logical(item.type, value) for item, value in zip(view.key, case.key, strict=True)]
    return [value if isinstance(value, str | int | bool) else str(value) for value in found]


def _event_json(key: Iterable[Any], event: RawEvent) -> dict[str, Any]:
    shown = {item.name for item in key} | {item.name for item in (*catalog.VALUES, catalog.NOTE)}
    values = {
        name: value for name, value in event.values.items() if name in shown and name != "c" and value is not None
    }
    other = {"other": True} if str(event.values.get("c", "")).startswith("-") else {}
    position = {"partition": event.partition, "offset": event.offset}
    times = {"at": rfc3339(event.at), "available": rfc3339(event.available_at)}
    return {**times, "id": event.event_id, **position, **other, **values}
