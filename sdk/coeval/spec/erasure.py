"""An erasure: a subject, and the instant up to which its events do not exist. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coeval.spec.model import BatchSource, EventSource, Field, View
from coeval.spec.types import Physical


@dataclass(frozen=True, slots=True)
class Erasure:
    """Events whose `column` holds `value` and that were available at or before `at` do not exist, in any engine.

    `column` is the join key of an entity, `value` physical, `at` microseconds UTC. Batch runs up to `epoch` may have
    read the log before the erasure was known: what they wrote of that time does not count.
    """

    column: str
    value: Physical
    at: int
    epoch: int = 0


def place_in_key(view: View, column: str) -> int | None:
    """Where the subject stands in a view's key; None where the key does not hold it."""
    return next((place for place, field in enumerate(view.key) if field.name == column), None)


def subject_field(source: EventSource | BatchSource, column: str) -> Field | None:
    """The field of a source that names the subject; None where its events do not."""
    return next((field for field in source.fields if field.name == column), None)


def concerning(source: EventSource | BatchSource, erasures: Iterable[Erasure]) -> list[Erasure]:
    """The erasures that take events away from a source."""
    return [item for item in erasures if subject_field(source, item.column)]
