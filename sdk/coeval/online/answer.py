"""What a store answers to a read: values, nothing, or that it could not be read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


class Unread:
    """Stands for what could not be read in time."""

    def __repr__(self) -> str:
        return "UNREAD"


UNREAD: Final = Unread()
Fetched = bytes | None | Unread


@dataclass(frozen=True, slots=True)
class Answer:
    """What keys hold, in their order; `whole` tells whether all of them were read."""

    values: Sequence[Fetched]
    whole: bool = True
