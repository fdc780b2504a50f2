"""How the streams are, as values, and what is wrong with them, as a decision. Pure.

Instants are microseconds UTC, durations seconds. None means: it was asked and is not known, as a component is away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coeval_pipelines.control import RUNNING, Certificate
from coeval_pipelines.streaming.jobs import Checkpoints

HEALTHY, MISSING, UNKNOWN = "RUNNING", "MISSING", "UNKNOWN"
"""Job states: Flink's own, and one for a job that it does not have, one for a Flink that does not answer."""
REJECTED_SHARE = 0.01
"""Of more rejects than that among the records, someone should know."""
RATE_SECONDS = 60.0
_OLD_CHECKPOINT = 60.0
_RUNBOOKS = "docs/runbooks"
LAG, FRESHNESS, REFUSED, JOB_DOWN, STORE_WIPED = (
    f"{_RUNBOOKS}/{name}.md" for name in ("lag", "freshness", "refused", "job-down", "store-wiped")
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it should be: what it is about, what it is, and where to read on or what to type."""

    subject: str
    what: str
    then: str


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run of a source: its job, its checkpoints, how far the store is behind, and what became of what it read."""

    source: str
    run: int
    views: tuple[str, ...]
    intent: str
    """What it is meant to be: running or stopped."""
    reason: str
    promise: float
    """The least freshness that its views promise."""
    state: str = UNKNOWN
    tasks: int = 0
    running_tasks: int = 0
    restarts: int | None = None
    failure: str = ""
    """The first line of Flink's latest failure."""
    checkpoints: Checkpoints | None = None
    checkpoint_age: float | None = None
    lag_events: int | None = None
    """Records of the topic that the store is not certain to cover."""
    lag_seconds: float | None = None
    """How long ago the oldest of those became available."""
    changelog_lag: int | None = None
    certificate_age: float | None = None
    """Since the newest certificate; 0 while that covers all there is."""
    events_per_second: float | None = None
    read: int | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Records by reason."""
    duplicates: int = 0
    late: Mapping[str, int] = field(default_factory=dict)
    """By granularity (5m, 1h), the good events that came after their tile was final."""
    serving: bool = True
    """Whether it fills a view version that readers have: else it fills new ones beside, and nobody waits for them."""
    expected_rate: float | None = None
    """Events a second, on average, that the owner of the source expects."""
    log_lost: int | None = None
    """Records that the topic has forgotten before the event log read them."""

    @property
    def good(self) -> int | None:
        """Records that became events."""
        return None if self.read is None else self.read - self.duplicates - sum(self.rejected.values())

    @property
    def late_shares(self) -> Mapping[str, float]:
        """By granularity, the late events among the good ones, since the run began."""
        return {hop: count / self.good for hop, count in self.late.items()} if self.good else {}


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """A view version: who owns what of it, whether readers may believe it, and how fresh canaries found it."""

    view: str
    version: str
    source: str
    released: bool
    streamed: bool
    stream_from: int | None
    """S: the stream owns the tiles that start at or after it."""
    batch_cut: int | None
    """B: batch wrote the tiles that were final at this cut of the log."""
    ready: bool | None
    promise: float
    late_share: float
    """Of the values, at most so many may differ because an event came late."""
    p50: float | None = None
    slowest: float | None = None
    """The slowest of the newest canaries."""
    waiting: float = 0.0
    """For how long the oldest canary is under way that is not readable yet."""
    missed: int = 0
    filled: bool = True
    """Whether a run that is meant to run fills it; true of what only batch fills."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Everything at one instant. `unreachable` says which components do not answer, and how."""

    at: int
    manifest: str
    runs: tuple[RunStatus, ...]
    views: tuple[ViewStatus, ...]
    unreachable: Mapping[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, the most basic first."""
        away = (Problem(name, said, JOB_DOWN) for name, said in self.unreachable.items())
        runs = (problem for run in self.runs for problem in run_problems(run, self.views))
        stopped = {run.source for run in self.runs} - {run.source for run in self.runs if run.intent == RUNNING}
        views = (problem for view in self.views for problem in view_problems(view, view.source in stopped))
        return (*away, *runs, *views)


def run_problems(run: RunStatus, views: Sequence[ViewStatus]) -> Iterator[Problem]:
    """What is wrong with a run that is meant to run."""
    if run.intent != RUNNING:
        return
    if run.state not in (HEALTHY, UNKNOWN) or run.running_tasks < run.tasks:
        said = f": {run.failure}" if run.failure else ""
        tasks = f"{run.running_tasks} of {run.tasks} tasks run"
        yield Problem(run.source, f"run {run.run} is {run.state}, {tasks}{said}", JOB_DOWN)
    if run.serving and run.lag_seconds is not None and run.lag_seconds > run.promise:
        yield Problem(run.source, f"lag {seconds(run.lag_seconds)}, promised {seconds(run.promise)}", LAG)
    if run.state == HEALTHY and run.lag_events and (run.checkpoint_age or 0.0) > _OLD_CHECKPOINT:
        yield Problem(run.source, f"no checkpoint for {seconds(run.checkpoint_age)}", LAG)
    rejected = sum(run.rejected.values())
    if run.read and rejected > REJECTED_SHARE * run.read:
        yield Problem(run.source, f"{rejected:,} of {run.read:,} records rejected since run {run.run} began", REFUSED)
    if run.log_lost:
        yield Problem(run.source, f"the topic forgot {run.log_lost:,} records that the log had not read", REFUSED)
    allowed = min((view.late_share for view in views if view.source == run.source), default=1.0)
    for hop, share in run.late_shares.items():
        if share > allowed:
            said = f"{share:.1%} of events late for {hop} tiles since run {run.run} began, promised {allowed:.1%}"
            yield Problem(run.source, said, REFUSED)


def view_problems(view: ViewStatus, stopped: bool = False) -> Iterator[Problem]:
    """What is wrong with a view version; nothing new comes from a source that was stopped, nor is that a fault."""
    if view.ready is False and view.batch_cut is not None:
        yield Problem(view.view, "not ready: it was filled, and the store has lost that", STORE_WIPED)
    elif view.ready is False and view.released:
        yield Problem(view.view, "never filled", f"coeval backfill run {view.view}")
    if view.released and not view.filled and not stopped:
        yield Problem(view.view, "readers have it, and no run fills it", "coeval stream deploy")
    found = max(view.waiting, view.slowest or 0.0)
    if found > view.promise and not stopped:
        yield Problem(view.view, f"canaries take {seconds(found)}, promised {seconds(view.promise)}", FRESHNESS)


def events_per_second(certificates: Sequence[Certificate], now: int) -> float:
    """How many events a second the newest certificates (given newest first) say were taken up, over a minute."""
    if not certificates:
        return 0.0
    head, span = certificates[0], RATE_SECONDS * 1e6
    base = next((item for item in certificates if item.recorded_at <= now - span), certificates[-1])
    taken = sum(head.offsets.values()) - sum(base.offsets.get(partition, 0) for partition in head.offsets)
    elapsed = min(max(now - base.recorded_at, 1), span)
    return taken / elapsed * 1e6 if head is not base else 0.0


def seconds(value: float | None) -> str:
    """0.2 s, 41 s, 3 min, 5 h; a dash where it is not known."""
    if value is None:
        return "-"
    for size, unit in ((172_800.0, "d"), (7_200.0, "h"), (120.0, "min")):
        if value >= size:
            return f"{value / {'d': 86_400, 'h': 3_600, 'min': 60}[unit]:.0f} {unit}"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
