"""What a store is asked by a read and answers: values, nothing, or that it could not be read. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final


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


@dataclass(frozen=True, slots=True)
class Question:
    """What one server is asked: commands, the names in their order, and where those stand in the request."""

    commands: Sequence[tuple[str, ...]]
    names: Sequence[str]
    positions: Sequence[int]


def question(names: Sequence[str]) -> Question:
    """All names by one MGET."""
    return Question([("MGET", *names)], names, range(len(names)))


def by_node(
    names: Sequence[str], slot_of: Callable[[str], int], node_of: Callable[[int], Any]
) -> list[tuple[Any, Question]]:
    """The nodes of a Cluster (each has a `name`), and what each is asked: one MGET per slot."""
    known: dict[str, Any] = {}
    slots: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, name in enumerate(names):
        slot = slot_of(name)
        node = node_of(slot)
        known[node.name] = node
        slots[node.name][slot].append(position)
    found: list[tuple[Any, Question]] = []
    for node_name, mine in slots.items():
        commands = [("MGET", *(names[position] for position in slot)) for slot in mine.values()]
        positions = [position for slot in mine.values() for position in slot]
        found.append((known[node_name], Question(commands, [names[position] for position in positions], positions)))
    return found


def unread(count: int) -> Answer:
    """Nothing was read."""
    return Answer([UNREAD] * count, whole=False)


def together(count: int, parts: Iterable[tuple[Question, Sequence[Fetched] | None]]) -> Answer:
    """What several servers answered, as one; None where one did not."""
    values: list[Fetched] = [UNREAD] * count
    whole = True
    for asked, part in parts:
        whole &= part is not None
        for position, value in zip(asked.positions, part or (), strict=part is not None):
            values[position] = value
    return Answer(values, whole)
