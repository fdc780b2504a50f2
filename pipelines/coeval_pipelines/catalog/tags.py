"""The `coeval.io/...` tags: what Feast objects say that Feast has no field for. Pure: it knows neither Feast nor files.

One table says which tag stands on which kind of object and how its value reads; one function checks them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from coeval.spec.model import Sla
from coeval.spec.time import duration, parse_duration
from coeval.spec.types import DataType
from coeval_pipelines.catalog.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "coeval.io/"

PII = ("none", "pseudonymous", "personal", "sensitive")
"""Classes of a field: about nobody; about a person known by a key only; describing a person; a special category."""

TENANT, EVENT_ID, SKEW = f"{PREFIX}tenant", f"{PREFIX}event-id", f"{PREFIX}max-future-skew"
SCHEMA, TYPE, PII_CLASS = f"{PREFIX}schema", f"{PREFIX}type", f"{PREFIX}pii"
FUNCTION, PARTITIONS = f"{PREFIX}function", f"{PREFIX}partitions"
FRESHNESS, P99 = f"{PREFIX}sla-freshness", f"{PREFIX}sla-p99-ms"
AVAILABILITY, LATE_SHARE = f"{PREFIX}sla-availability", f"{PREFIX}late-share"


def _pii(text: str) -> str:
    if text not in PII:
        raise ValueError(f"{text!r} is no PII class; the classes are {', '.join(PII)}")
    return text


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError(f"{text} is not a share between 0 and 1")
    return float(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise ValueError(f"{text!r} is not a whole number from 1 to 10000")
    return int(text)


def _function(text: str) -> str:
    module, _, name = text.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{text!r} is not package.module:function")
    return text


_VIEW: dict[str, Callable[[str], object]] = {
    FRESHNESS: parse_duration,
    P99: _count,
    AVAILABILITY: _share,
    LATE_SHARE: _share,
    PARTITIONS: _count,
}
_KNOWN: dict[str, dict[str, Callable[[str], object]]] = {
    "project": {TENANT: str},
    "entity": {PII_CLASS: _pii},
    "event source": {EVENT_ID: str, SKEW: parse_duration},
    "batch source": {SCHEMA: str},
    "request source": {},
    "view": _VIEW,
    "derived view": {FUNCTION: _function},
    "field": {PII_CLASS: _pii, TYPE: DataType.parse},
    "service": {},
}


def check_tags(kind: str, where: str, tags: Mapping[str, str]) -> None:
    """Refuse a `coeval.io/` tag that is unknown, stands on the wrong kind of object, or has an unreadable value.

    Raises:
        DefinitionError: naming the object, the tag and what to write instead.
    """
    known = _KNOWN[kind]
    for tag, text in sorted(tags.items()):
        if not tag.startswith(PREFIX):
            continue
        if tag not in known:
            raise DefinitionError(where, f"the tag {tag} is not known on a {kind}", _suggestion(kind, tag))
        try:
            known[tag](text)
        except ValueError as error:
            raise DefinitionError(
                where, f"the tag {tag} cannot be read: {error}", f"Correct the value of {tag}."
            ) from error


def _suggestion(kind: str, tag: str) -> str:
    homes = [other for other, known in _KNOWN.items() if tag in known]
    if homes:
        return f"It belongs on the {homes[0]}: put it there, or remove it."
    near = difflib.get_close_matches(tag, _KNOWN[kind], n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Remove it; a {kind} can have: {', '.join(sorted(_KNOWN[kind])) or 'none'}."


def read_sla(where: str, tags: Mapping[str, str]) -> Sla:
    """What a view promises.

    Raises:
        DefinitionError: it names no freshness.
    """
    if FRESHNESS not in tags:
        raise DefinitionError(where, "the view promises no freshness", 'Add tags=sla(freshness="10s") to the view.')
    return Sla(
        freshness=parse_duration(tags[FRESHNESS]),
        p99_ms=int(tags.get(P99, "0")),
        availability=float(tags.get(AVAILABILITY, "0")),
        late_share=float(tags.get(LATE_SHARE, "0.05")),
    )


def sla(
    freshness: str, *, p99_ms: int = 0, availability: float = 0.0, late_share: float = 0.05, partitions: int = 0
) -> dict[str, str]:
    """The tags of a view: how old its newest processed event may be, how fast and how often it answers.

    `late_share` bounds the values that may differ from training because an event came late; `partitions` is the number
    of changelog partitions and online buckets (8 unless told; fixed for a version). 0 means: not promised.
    """
    tags = {FRESHNESS: duration(parse_duration(freshness)), LATE_SHARE: repr(late_share)}
    optional = {P99: p99_ms, AVAILABILITY: availability, PARTITIONS: partitions}
    return tags | {tag: repr(value) for tag, value in optional.items() if value}
