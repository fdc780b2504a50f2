"""How fresh views are: frozen values, what breaks a promise, and plain rows for a page. Pure.

Instants are microseconds UTC of event time unless something else is said; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from coeval.spec.types import iso
from coeval_pipelines.coordination.stream_model import seconds


class State(StrEnum):
    """How a partition of a view's topic is; of a view that only batch loads, how the view is."""

    CURRENT = "current"
    """All that there is can be read."""
    IDLE = "idle"
    """All that there is can be read, and nothing new came for longer than the view's promise."""
    BEHIND = "behind"
    """Something cannot be read yet, and the promise is kept."""
    STALE = "stale"
    """Something should be readable by now, and is not."""
    EMPTY = "empty"
    """There is no event of the view."""


@dataclass(frozen=True, slots=True)
class PartitionFreshness:
    """A partition. `readable` and `newest` are the event times of the newest event that readers get, and of the newest
    that is there, canaries aside (None: none is known); `behind` counts the records not certain to be readable.

    `age` is that of `readable` (None where that is); `waiting` is for how long the first event that is not readable has
    been available, 0 where all are.
    """

    partition: int
    state: State
    readable: int | None
    newest: int | None
    age: float | None
    waiting: float
    behind: int


@dataclass(frozen=True, slots=True)
class CanaryLatency:
    """Seconds from producing a canary to its being readable: quantiles of the newest, the last one, and for how long
    the oldest is under way that is not readable yet (0: none is)."""

    p50: float | None
    p99: float | None
    last: float | None
    samples: int
    waiting: float


@dataclass(frozen=True, slots=True)
class LoadFreshness:
    """The last load of a view that only batch loads. `loaded` is the instant as of which it read rows (None: there was
    none yet); `due` says why it is to be loaded again ('': it is not), and `waiting` for how long."""

    state: State
    loaded: int | None
    age: float | None
    due: str
    waiting: float


@dataclass(frozen=True, slots=True)
class ViewFreshness:
    """A view at an instant `at` of the clock. `partitions` are those of its topic, `load` is of what only batch loads.

    `stopped`: its stream was stopped on purpose, so nothing new is promised. `unknown` says why nothing can be said of
    it ('': something can); `notes` say what else is worth knowing.
    """

    tenant: str
    view: str
    version: str
    source: str
    at: int
    promise: float
    ready: bool
    partitions: tuple[PartitionFreshness, ...] = ()
    load: LoadFreshness | None = None
    canary: CanaryLatency | None = None
    stopped: bool = False
    unknown: str = ""
    notes: tuple[str, ...] = ()

    @property
    def age(self) -> float | None:
        """The greatest age of what readers get, of partitions that are not idle; None: nothing is known."""
        if self.load is not None:
            return self.load.age
        busy = (item.age for item in self.partitions if item.state is not State.IDLE)
        return max((age for age in busy if age is not None), default=None)

    @property
    def waiting(self) -> float:
        """For how long the oldest of what is there waits to be readable."""
        return self.load.waiting if self.load is not None else max((p.waiting for p in self.partitions), default=0.0)

    @property
    def behind(self) -> int:
        """Records that are not certain to be readable."""
        return sum(item.behind for item in self.partitions)

    @property
    def problems(self) -> tuple[str, ...]:
        """What breaks the promise, in words."""
        found = [] if self.ready else [f"version {self.version} is not ready: readers get UNAVAILABLE"]
        if self.unknown:
            return (*found, f"nothing can be said: {self.unknown}")
        if self.stopped:
            return tuple(found)
        if self.load is not None:
            found += _load_problem(self.load, self.promise)
        found += [_partition_problem(item) for item in self.partitions if item.state is State.STALE]
        if self.canary is not None and self.canary.waiting > self.promise:
            found.append(f"a canary is under way for {seconds(self.canary.waiting)} and not readable yet")
        return tuple(found)

    @property
    def ok(self) -> bool:
        """Whether it keeps its promise."""
        return not self.problems

    def to_document(self) -> dict[str, Any]:
        """As JSON-ready values, the verdict first."""
        totals = {"ok": self.ok, "problems": list(self.problems), "age": self.age, "waiting": self.waiting}
        return totals | {"behind": self.behind} | asdict(self)


def from_document(document: Mapping[str, Any]) -> ViewFreshness:
    """Read what `to_document` wrote."""
    from pydantic import TypeAdapter

    known = {name: value for name, value in document.items() if name in ViewFreshness.__slots__}
    return TypeAdapter(ViewFreshness).validate_python(known)


@dataclass(frozen=True, slots=True)
class FreshnessRow:
    """A line of a page: a view and a partition of its topic (None: of a view that only batch loads). Seconds."""

    view: str
    partition: int | None
    state: str
    age: float | None
    waiting: float
    behind: int
    promise: float
    ok: bool


def rows(views: Iterable[ViewFreshness]) -> list[FreshnessRow]:
    """Views as the lines of a page, by name and partition."""
    found = []
    for item in sorted(views, key=lambda view: view.view):
        if item.load is not None:
            load = item.load
            line = (item.view, None, str(load.state), load.age, load.waiting, 0, item.promise, item.ok)
            found.append(FreshnessRow(*line))
        for part in item.partitions:
            kept = item.ready and (item.stopped or part.state is not State.STALE)
            numbers = (part.age, part.waiting, part.behind, item.promise)
            found.append(FreshnessRow(item.view, part.partition, str(part.state), *numbers, kept))
    return found


def headline(views: Iterable[ViewFreshness]) -> str:
    """All views in one line."""
    found = list(views)
    broken = [item.view for item in found if not item.ok]
    return f"{len(found) - len(broken)} of {len(found)} views keep their promise" + (
        f"; not {', '.join(broken)}" if broken else ""
    )


def _partition_problem(item: PartitionFreshness) -> str:
    newest = "nothing is readable" if item.readable is None else f"readable up to {iso(item.readable, seconds=True)}"
    there = "" if item.newest is None else f" of {iso(item.newest, seconds=True)}"
    return f"partition {item.partition}: {newest}{there}, {item.behind:,} behind, waiting for {seconds(item.waiting)}"


def _load_problem(load: LoadFreshness, promise: float) -> list[str]:
    if load.loaded is None:
        return ["it was never loaded"]
    if load.state is not State.STALE:
        return []
    loaded = iso(load.loaded, seconds=True)
    return [f"{load.due} {seconds(load.waiting)} ago, promised {seconds(promise)}; loaded as of {loaded}"]
