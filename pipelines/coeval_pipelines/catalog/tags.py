"""The `coeval.io/...` tags: what Feast objects say that Feast has no field for. Pure: it knows neither Feast nor files.

One table says which tag stands on which kind of object and how its value reads; one function checks them all.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any

from coeval.spec.model import PII_CLASSES, SHARES, Sla, Tolerance
from coeval.spec.time import DAY, duration, parse_duration
from coeval.spec.types import DataType
from coeval_pipelines.catalog.errors import DefinitionError, gather

PREFIX = "coeval.io/"

TENANT, DEFAULT_PII = f"{PREFIX}tenant", f"{PREFIX}default-pii"
EVENT_ID, SKEW = f"{PREFIX}event-id", f"{PREFIX}max-future-skew"
DEDUP, RATE, CANARY = f"{PREFIX}dedup", f"{PREFIX}expected-rate", f"{PREFIX}canary"
SCHEMA, TYPE, PII_CLASS, EXPECTED = f"{PREFIX}schema", f"{PREFIX}type", f"{PREFIX}pii", f"{PREFIX}expected"
WHERE, COLUMNS, DEPRECATED = f"{PREFIX}where", f"{PREFIX}columns", f"{PREFIX}deprecated"
FUNCTION, PARTITIONS = f"{PREFIX}function", f"{PREFIX}partitions"
FRESHNESS, P99 = f"{PREFIX}sla-freshness", f"{PREFIX}sla-p99-ms"
AVAILABILITY, TOLERATED = f"{PREFIX}sla-availability", f"{PREFIX}tolerated"
REFUSED = f"{PREFIX}refused"
"""Set by an authoring helper that was asked for something impossible: what, fix and location, for the compiler."""


def _pii(text: str) -> str:
    if text not in PII_CLASSES:
        raise ValueError(f"{text!r} is no PII class; the classes are {', '.join(PII_CLASSES)}")
    return text


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError(f"{text} is not a share between 0 and 1")
    return float(text)


def read_tolerated(text: str) -> tuple[Tolerance, ...]:
    """The shares that a tag tolerates: `late=0.1, late 1h=0.2, in_flight=0.01`.

    Raises:
        ValueError: it says something else, or one thing twice.
    """
    found = tuple(_tolerance(part.strip()) for part in text.split(",") if part.strip())
    if len({(item.cause, item.window) for item in found}) < len(found):
        raise ValueError(f"{text!r} says one thing twice")
    return found


def _tolerance(text: str) -> Tolerance:
    what, _, share = text.partition("=")
    cause, _, window = what.strip().partition(" ")
    if cause not in SHARES:
        raise ValueError(f"{cause!r} is never tolerated; a share of values may be {', '.join(SHARES)}")
    try:
        return Tolerance(cause, _share(share), parse_duration(window.strip()) if window else 0)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise ValueError(f"{text!r} is not a whole number from 1 to 10000")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"{text!r} is neither on nor off")
    return text == "on"


def _rate(text: str) -> float:
    if not 0 < float(text) < 1e9:
        raise ValueError(f"{text} is no number of events a second")
    return float(text)


def _function(text: str) -> str:
    module, _, name = text.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{text!r} is not package.module:function")
    return text


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("it says nothing")
    return text


def _members(*known: str) -> Callable[[str], object]:
    """Reads a JSON object whose members have these names."""

    def read(text: str) -> dict[str, Any]:
        document = json_object(text)
        stray = sorted(document.keys() - set(known))
        if stray:
            raise ValueError(f"{stray[0]!r} is not one of {', '.join(known)}")
        return document

    return read


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a tag holds.

    Raises:
        ValueError: it holds none.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def canary_literals(text: str) -> dict[str, str]:
    """The literals by column that a canary's tag holds: a JSON object of texts, numbers and booleans.

    Raises:
        ValueError: it holds something else.
    """
    document = json_object(text)
    stray = [name for name, value in document.items() if not isinstance(value, str | int | float)]
    if stray or not document:
        raise ValueError(f"{stray[0]} is neither a text nor a number" if stray else "it names no column")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in document.items()}


_VIEW: dict[str, Callable[[str], object]] = {
    FRESHNESS: parse_duration,
    P99: _count,
    AVAILABILITY: _share,
    TOLERATED: read_tolerated,
    PARTITIONS: _count,
    WHERE: _text,
    COLUMNS: json_object,
    DEPRECATED: _text,
}
_KNOWN: dict[str, dict[str, Callable[[str], object]]] = {
    "project": {TENANT: str, DEFAULT_PII: _pii},
    "entity": {PII_CLASS: _pii},
    "event source": {EVENT_ID: str, SKEW: parse_duration, DEDUP: _switch, RATE: _rate, CANARY: canary_literals},
    "batch source": {SCHEMA: str},
    "request source": {},
    "view": _VIEW,
    "derived view": {FUNCTION: _function},
    "field": {
        PII_CLASS: _pii,
        TYPE: DataType.parse,
        EXPECTED: _members("low", "high", "allowed"),
        REFUSED: _members("what", "fix", "location"),
    },
    "service": {DEPRECATED: _text},
}


def check_tags(kind: str, where: str, tags: Mapping[str, str]) -> None:
    """Refuse a `coeval.io/` tag that is unknown, stands on the wrong kind of object, or has an unreadable value.

    Raises:
        BrokenCatalogError: naming the object, each such tag and what to write instead.
    """
    gather(lambda tag: _check(kind, where, tag, tags[tag]), sorted(tag for tag in tags if tag.startswith(PREFIX)))


def _check(kind: str, where: str, tag: str, text: str) -> None:
    read = _KNOWN[kind].get(tag)
    here = f"{where}, tag {tag}"
    if read is None:
        raise DefinitionError(here, f"it is not known on a {kind}", _suggestion(kind, tag))
    try:
        read(text)
    except ValueError as error:
        raise DefinitionError(here, f"it cannot be read: {error}", "Correct its value.") from error


def _suggestion(kind: str, tag: str) -> str:
    homes = [other for other, known in _KNOWN.items() if tag in known]
    if homes:
        return f"It belongs on the {homes[0]}: put it there, or remove it."
    near = difflib.get_close_matches(tag, _KNOWN[kind], n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Remove it; a {kind} can have: {', '.join(sorted(_KNOWN[kind].keys() - {REFUSED})) or 'none'}."


def read_sla(tags: Mapping[str, str]) -> Sla:
    """What a view promises; a day of freshness where it says nothing."""
    return Sla(
        freshness=parse_duration(tags[FRESHNESS]) if FRESHNESS in tags else DAY,
        p99_ms=int(tags.get(P99, "0")),
        availability=float(tags.get(AVAILABILITY, "0")),
        tolerated=read_tolerated(tags.get(TOLERATED, "")),
    )


def sla(
    freshness: str,
    *,
    p99_ms: int = 0,
    availability: float = 0.0,
    tolerated: Mapping[str, float] | None = None,
    partitions: int = 0,
) -> dict[str, str]:
    """The tags of a view: how old its newest processed event may be, how fast and how often it answers.

    `tolerated` bounds the shares of values that may differ from training, by cause or by cause and window:
    `{"late": 0.1, "late 1h": 0.2, "in_flight": 0.01}`; unless told, 5% may be late, and any number in flight or erased.
    `partitions` is the number of changelog partitions and online buckets (8 unless told; fixed for a version). 0 means:
    not promised.
    """
    tags = {FRESHNESS: as_duration(freshness)}
    if tolerated:
        tags[TOLERATED] = ", ".join(f"{what}={share!r}" for what, share in tolerated.items())
    optional = {P99: p99_ms, AVAILABILITY: availability, PARTITIONS: partitions}
    return tags | {tag: repr(value) for tag, value in optional.items() if value}


def deprecated(use_instead: str) -> dict[str, str]:
    """The tags of a view or service that should not be used any more: why, and what to use instead."""
    return {DEPRECATED: use_instead}


def as_duration(text: str) -> str:
    """A duration as it is always written; what cannot be read stays as it is, for the compiler to refuse it."""
    try:
        return duration(parse_duration(text))
    except ValueError:
        return text
