"""Entity keys back from their text: the inverse of `coeval.spec.keys.encode_key`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coeval.spec.keys import KEY_KINDS
from coeval.spec.model import Field
from coeval.spec.types import Kind, Physical


def decode_key(fields: Sequence[Field], text: str) -> tuple[Physical, ...]:
    """The typed parts of an encoded key.

    Raises:
        ValueError: the text is not a key of these fields.
    """
    parts = text.split("|")
    if len(parts) != len(fields):
        raise ValueError(f"{text!r} has {len(parts)} parts, not {len(fields)}")
    return tuple(_decode_part(field, part) for field, part in zip(fields, parts, strict=True))


def _decode_part(field: Field, part: str) -> Physical:
    if part[:1] != KEY_KINDS.get(field.type.kind):
        raise ValueError(f"{part!r} is not a {field.type}")
    if field.type.kind is Kind.STRING:
        return part[1:].replace("%7C", "|").replace("%25", "%")
    return int(part[1:])
