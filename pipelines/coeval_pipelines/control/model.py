"""What the control plane keeps, as values: deployments, runs, loads, certificates. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Deployment:
    """A view version that the stream fills: it owns the tiles that start at or after `since` (microseconds UTC)."""

    view: str
    version: str
    manifest_hash: str
    since: int
    deployed_at: int


RUNNING, STOPPED, ENDED = "running", "stopped", "ended"
"""What a run is meant to be: kept running, stopped until it is wanted again, over for good."""
ALIVE = (RUNNING, STOPPED)
"""Not over."""


@dataclass(frozen=True, slots=True)
class Run:
    """One life of a source's stream job: what it fills and where it began. A run that is restarted stays the same run.

    `views` are the names of the views that it fills, of the manifest `manifest_hash`. By view, it writes the tiles that
    start at or after `since` (microseconds UTC). `start` holds, by partition, the next offsets that it began to read at
    (empty: the earliest there are); a partition that is not named is read from its earliest record. `restore` is the
    checkpoint or savepoint that its state was taken from (a URI; empty: it began without state).
    """

    number: int
    source: str
    manifest_hash: str
    views: tuple[str, ...]
    since: Mapping[str, int]
    start: Mapping[int, int]
    parallelism: int = 1
    restore: str = ""
    replaces: tuple[int, ...] = ()
    """The runs that end once this one has passed them."""
    reason: str = ""
    """Why it was begun, in words, for status and audit."""
    status: str = RUNNING
    started_at: int = 0
    changed_at: int = 0
    """When its status was last changed."""
    identity: str = ""
    """Drawn when it was begun: a control plane that was restored or begun afresh hands out numbers again."""

    @property
    def label(self) -> str:
        """What its job, its consumer group and its accounts are called by: nobody else's, ever."""
        return f"{self.number}-{self.identity}" if self.identity else str(self.number)

    @staticmethod
    def of(document: Mapping[str, Any]) -> Run:
        """A run from a JSON document, whose keys are texts and whose tuples are lists."""
        start = {int(partition): offset for partition, offset in document["start"].items()}
        tuples = {name: tuple(document[name]) for name in ("views", "replaces")}
        return Run(**{**document, **tuples, "start": start})


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """A finished batch load: `run` is its epoch; it wrote the tiles that were final at `cut` of the log.

    It wrote the rows that were visible at `as_of` (microseconds UTC; None: that was not written down).
    """

    run: int
    view: str
    version: str
    cut: int
    written: int
    finished_at: int
    as_of: int | None = None

    @property
    def rows_at(self) -> int:
        """The latest instant at which the rows that it wrote can have become visible."""
        return self.finished_at if self.as_of is None else self.as_of


@dataclass(frozen=True, slots=True)
class ParityCheck:
    """What a parity run found of one view version at `at` (microseconds UTC); `compared` and `matched` are values.

    It looked at the `share` of the keys that `seed` names: `keys` of them. It passed where nothing is in `breaches`.
    """

    view: str
    version: str
    at: int
    keys: int
    compared: int
    matched: int
    causes: Mapping[str, int]
    breaches: tuple[str, ...] = ()
    share: float = 1.0
    seed: int = 0
    budgets: str = ""
    """What it was held to, as `coeval.spec.model.budgets_text` writes it."""
    run: int = 0
    """The number of the run; 0 before it is recorded."""

    @property
    def passed(self) -> bool:
        """Whether it kept to its view's budgets, and compared something."""
        return not self.breaches

    def covers(self, other: ParityCheck) -> bool:
        """Whether it looked at every key that another check looks at, unless it came since."""
        return self.share >= 1 or (self.seed == other.seed and self.share >= other.share)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Once the online store has reached `ends` of the changelogs, it covers `offsets` of the source topic.

    `offsets` is by source partition; `ends` is by changelog topic, then partition. Both are next offsets to read. The
    topics of `ends` are those that the run fills.
    """

    source: str
    run: int
    offsets: Mapping[int, int]
    ends: Mapping[str, Mapping[int, int]]
    recorded_at: int

    def is_reached(self, topic: str, written: Mapping[int, int | None]) -> bool:
        """Whether a changelog, written up to these offsets (next to read, by partition), has come to its ends."""
        # One that does not speak of the topic is of another deployment, and proves nothing of this one.
        ends = self.ends.get(topic)
        return ends is not None and all((written.get(partition) or 0) >= end for partition, end in ends.items())
