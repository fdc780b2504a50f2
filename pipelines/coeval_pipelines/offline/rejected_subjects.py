"""Whether a record that was rejected speaks of an erased subject. Pure.

The rules cannot parse it, so it is searched: every value that any of its parts may give for the subject's column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from coeval.spec.erasure import Erasure, concerning, subject_field
from coeval.spec.model import HEADER, KEY, EventSource, Field
from coeval.spec.records import Record
from coeval.spec.types import parse_literal


class _Pairs(list[tuple[str, object]]):
    """A JSON object with every pair that stands in it, also twice."""


def is_erased(source: EventSource, record: Record, erasures: Iterable[Erasure], available_at: int | None) -> bool:
    """Whether a subject that the record names was erased up to when it was available, or later (microseconds UTC).

    A row of a history file may have no such instant (None): it counts as erased whenever its subject was.
    """
    found = (item for item in concerning(source, erasures) if available_at is None or available_at <= item.at)
    return any(_says(source, record, item) for item in found)


def _says(source: EventSource, record: Record, erasure: Erasure) -> bool:
    field = subject_field(source, erasure.column)
    assert field is not None
    for text in _texts(field, record):
        try:
            if parse_literal(field.type, text) == erasure.value:
                return True
        except ValueError:
            continue
    return False


def _texts(field: Field, record: Record) -> Iterator[str]:
    """Every text that may stand for the field."""
    if field.origin == KEY:
        yield from _decoded(record.key)
    elif field.origin.startswith(HEADER):
        name = field.origin.removeprefix(HEADER)
        yield from (text for header, value in record.headers if header == name for text in _decoded(value))
    else:
        yield from (text for name, text in _stated(record.value or b"", field.name) if name == field.name)


def _decoded(value: bytes | None) -> Iterator[str]:
    if value is not None:
        yield value.decode(errors="replace")


def _stated(value: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Names and literals of a JSON object; of what is none, whatever follows the name."""
    text = value.decode(errors="replace")
    try:
        document = json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, _Pairs):
        yield from ((key, literal) for key, literal in document if isinstance(literal, str))
        return
    for quoted, bare in re.findall(rf'"{re.escape(name)}"\s*:\s*(?:"((?:[^"\\]|\\.)*)"?|([^\s,}}\]"]+))', text):
        yield name, quoted or bare
