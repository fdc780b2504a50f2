"""Repairs of dead letters: what would be sent instead of a reject, judged before anything is sent. No I/O."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from coeval.errors import UsageError
from coeval.spec.erasure import Erasure
from coeval.spec.model import EventSource, Field
from coeval.spec.records import Event, faults, parse_record
from coeval.spec.types import Kind
from coeval_pipelines.offline.deadletters import Reject
from coeval_pipelines.offline.rejected_subjects import is_erased

Repair: TypeAlias = Callable[[bytes], bytes | None]
"""From the bytes of a rejected record to those to send instead; None: not this one."""
ERASED = "it speaks of a subject that was erased"
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_NUMBERS = (Kind.INT64, Kind.DECIMAL, Kind.FLOAT64)


@dataclass(frozen=True, slots=True)
class Repaired:
    """A reject and what would be sent instead; `problems` say why it cannot be."""

    reject: Reject
    value: bytes | None
    problems: tuple[str, ...] = ()


def why(source: EventSource, reject: Reject) -> list[str]:
    """What is wrong with a reject by the source as it is defined now, in words; nothing where it is valid now."""
    if reject.erased:
        return [ERASED]
    found = faults(source, reject.record)
    return [f"{field}: {says} ({reason})" if field else f"{says} ({reason})" for field, reason, says in found]


def repair(
    source: EventSource, reject: Reject, change: Repair | None, now: int, erasures: Iterable[Erasure] = ()
) -> Repaired:
    """What would be sent instead of a reject at `now` (microseconds UTC), judged as if it were received then.

    It would count from `now` on: so what was available before its subject was erased, before or after the repair, is
    never sent.
    """
    raw = reject.record.value
    if reject.erased:
        return Repaired(reject, None, (ERASED,))
    if raw is None:
        return Repaired(reject, None, ("a tombstone holds nothing to repair",))
    value, problem = _changed(raw, change)
    if value is None:
        return Repaired(reject, None, (problem,))
    sent = replace(reject, record=replace(reject.record, value=value, available_at=now))
    if is_erased(source, sent.record, erasures, reject.record.available_at):
        return Repaired(reject, None, (ERASED,))
    if isinstance(parse_record(source, sent.record), Event):
        return Repaired(reject, value)
    return Repaired(reject, value, tuple(why(source, sent)))


def _changed(raw: bytes, change: Repair | None) -> tuple[bytes | None, str]:
    """The bytes after a repair, which is somebody else's code; else why there are none."""
    try:
        value: object = change(raw) if change else raw
    except Exception as error:  # noqa: BLE001 - whatever it raises is about this one record
        return None, f"the repair failed: {type(error).__name__}: {error}"
    if value is None:
        return None, "the repair left it out"
    if not isinstance(value, bytes):
        return None, f"the repair failed: it gave {type(value).__name__}, not bytes"
    return value, ""


def setting(source: EventSource, assignments: Sequence[str]) -> Repair:
    """The repair that sets fields of a JSON document: `amount=12.50`, `note=null`; all else is written as it was.

    Raises:
        UsageError: an assignment names no field of the source, or one that does not stand in the document.
    """
    values: dict[str, str | None] = {}
    fields = {field.name: field for field in source.fields if not field.origin}
    for assignment in assignments:
        name, equals, literal = assignment.partition("=")
        if not equals or name not in fields:
            raise UsageError(f"{assignment!r} sets no field.", f"Write FIELD=VALUE with one of: {', '.join(fields)}.")
        values[name] = None if literal == "null" else literal

    def change(raw: bytes) -> bytes:
        # Numbers go through as the texts that they are, between marks that stand nowhere else: no digit is lost.
        mark = uuid.uuid4().hex

        def number(text: str) -> str:
            return f"{mark}{text}{mark}"

        document = json.loads(raw.decode(), parse_int=number, parse_float=number, object_pairs_hook=unique)
        if not isinstance(document, dict):
            raise ValueError("not one JSON object")
        set_ = {
            name: number(text) if text is not None and _is_number(fields[name], text) else text
            for name, text in values.items()
        }
        text = json.dumps({**document, **set_}, ensure_ascii=False)
        return re.sub(f'"{mark}([^"]*){mark}"', r"\1", text).encode()

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1} - values.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice: set it")
        return dict(pairs)

    return change


def _is_number(field: Field, text: str) -> bool:
    return field.type.kind in _NUMBERS and _NUMBER.fullmatch(text) is not None


def imported(path: str) -> Repair:
    """The repair that `module:function` names.

    Raises:
        UsageError: there is no such function.
    """
    from importlib import import_module

    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{path!r} names no function: {error}.", "Write module:function.") from error
    if not callable(found):
        raise UsageError(f"{path!r} is no function.", "Write module:function.")
    return found  # type: ignore[no-any-return]
