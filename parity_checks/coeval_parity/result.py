"""What a parity run found: frozen values, the budgets that they are held to, and whether the run passed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coeval.spec.model import SHARES, Tolerance, tolerances_text
from coeval.spec.time import duration
from coeval.spec.types import Logical
from coeval_pipelines.control import ParityCheck


class Cause(StrEnum):
    """Why a served value differs from the expected one. All but UNEXPLAINED are proven by counterfactual."""

    IN_FLIGHT = "in_flight"
    """Available, and above what the progress certificates say the store covers."""
    LATE = "late"
    """It came after its tile was final, and waits for the next batch load."""
    STALE = "stale"
    """In flight for longer than the view's freshness promise, or in tiles that nobody has delivered."""
    TTL = "ttl"
    """One side applies another ttl."""
    DEFINITION = "definition"
    """One side computes another version of the view."""
    CLOCK = "clock"
    """The store knows events whose availability lies at or after the instant of the read."""
    ERASED = "erased"
    """A subject was erased, and the next batch load writes anew what is left of its time."""
    REJECTED = "rejected"
    """One side refused a record that the other counts."""
    UNEXPLAINED = "unexplained"
    """No counterfactual reproduces the served value."""


SAMPLE = "a sample"
"""How the note begins that says which keys were looked at."""
BENIGN = frozenset(map(Cause, SHARES))
"""Causes that may occur in a sound system, within bounds. Every other cause has a budget of 0."""


class Suspect(StrEnum):
    """What is probably behind an unexplained difference: a defect that would give exactly what is stored."""

    NONE = ""
    LOST_UPDATE = "lost_update"
    """Events that the store has to hold are not in it."""
    APPLIED_TWICE = "applied_twice"
    """Events were counted twice."""
    CORRUPTED_STATE = "corrupted_state"
    """What is stored claims the right events and holds other values."""
    SHIFTED_WINDOW = "shifted_window"
    """Tiles or windows begin too early or too late."""
    SHIFTED_TIME = "shifted_time"
    """Event times were read in another time zone."""
    WRONG_KEY = "wrong_key"
    """It is what another key should hold."""
    FLOAT_ROUNDING = "float_rounding"
    """Exact numbers were added as doubles."""
    OFFLINE_SIDE = "offline_side"
    """The offline engine computed something else than the reference from the same log: the store may be right."""


class Symptom(StrEnum):
    """What a difference looks like; a symptom is not a cause."""

    NONE = ""
    MISSING_ONLINE = "missing_online"
    MISSING_OFFLINE = "missing_offline"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class EventLine:
    """One event behind a value, as a report shows it. Times are microseconds since the epoch, UTC."""

    event_id: str
    event_ts: int
    available_at: int
    partition: int
    offset: int
    tile: str
    """The tile that it falls in; empty in a row view."""
    value: Logical
    """What the feature reads of it; None for a count of events."""
    note: str
    """What the served value leaves out and why (`late`, `in flight`, `not delivered`); empty for what it holds."""


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a value, computed on both sides: a tile, or the winning row."""

    part: str
    owner: str
    """Who delivers this part to the store."""
    served: str
    expected: str
    differs: bool


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value that differs, with its cause, the proof in words, and the events behind it in the total order.

    `since` is the instant at which the two sides part: the first event left out, or the start of the tile at fault.
    """

    view: str
    feature: str
    label: str
    key: str
    entity: Mapping[str, Logical]
    served: Logical
    expected: Logical
    cause: Cause
    symptom: Symptom
    proof: str
    since: int | None
    steps: tuple[Step, ...] = ()
    events: tuple[EventLine, ...] = ()
    also: tuple[Cause, ...] = ()
    """Other causes that it takes together with `cause` to give the served value."""
    suspect: Suspect = Suspect.NONE
    at: int | None = None
    """The instant of the read."""
    events_omitted: int = 0
    """Events of tiles on which both sides agree, left out of `events` where there are many."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What became of a feature's values in one hour: compared = matched + the sum of causes.

    `start` is its first instant (microseconds UTC); None: of these keys the log knows no event. With `earlier` it
    stands for this hour and all before it.
    """

    start: int | None
    compared: int
    matched: int
    """Within tolerance included."""
    causes: Mapping[Cause, int]
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class FeatureParity:
    """One feature over all keys. compared = matched + within_tolerance + the sum of causes."""

    view: str
    feature: str
    label: str
    compared: int
    matched: int
    within_tolerance: int
    causes: Mapping[Cause, int]
    symptoms: Mapping[Symptom, int]
    null_online: int
    null_offline: int
    largest_difference: float
    smape: float
    suspects: Mapping[Suspect, int] = field(default_factory=dict)
    """Of the unexplained values that were examined, how many have which suspect."""
    hours: tuple[Hour, ...] = ()
    """The same values by hour, oldest first: of the response in a replay, of the key's newest event in a state run."""
    budgets: tuple[Tolerance, ...] = ()
    """What each benign cause is held to; features of one window, or of one view, share a budget."""

    @property
    def unexplained(self) -> int:
        """Differences that nothing explains."""
        return self.causes.get(Cause.UNEXPLAINED, 0)


@dataclass(frozen=True, slots=True)
class Spent:
    """How far a budget of a view is used up: `count` of `compared` values, where the share of `budget` is tolerated."""

    budget: Tolerance
    count: int
    compared: int

    @property
    def share(self) -> float:
        """The share of values that differ for its cause."""
        return self.count / self.compared if self.compared else 0.0

    @property
    def over(self) -> bool:
        """Whether more values differ than are tolerated."""
        return self.share > self.budget.share

    @property
    def words(self) -> str:
        """0.50% late (1h) of at most 0.10%."""
        window = f" ({duration(self.budget.window)})" if self.budget.window else ""
        return f"{self.share:.2%} {self.budget.cause.replace('_', ' ')}{window}, at most {self.budget.share:.2%}"


@dataclass(frozen=True, slots=True)
class ViewParity:
    """One view version: its features, and how far the store had got when it was read."""

    view: str
    version: str
    ready: bool
    keys: int
    keys_online: int
    features: tuple[FeatureParity, ...]
    freshness: int
    """Microseconds: an event in flight for longer is `stale`."""
    since: int | None
    """The stream owns the tiles that start at or after this instant."""
    load_cut: int | None
    """The last batch load covers what was final at this instant."""
    certified: Mapping[int, int] | None
    """By source partition, the next offset that the store is certified to lack; None without a certificate."""
    source: str = ""
    """The source that it is computed from."""

    @property
    def compared(self) -> int:
        """Values compared."""
        return sum(item.compared for item in self.features)

    def cause(self, cause: Cause) -> int:
        """Values that differ for this cause."""
        return sum(item.causes.get(cause, 0) for item in self.features)

    @property
    def budgets(self) -> tuple[Spent, ...]:
        """Every budget that its features share, and what of it is used up."""
        shared: dict[Tolerance, list[FeatureParity]] = {}
        for item in self.features:
            for budget in item.budgets:
                shared.setdefault(budget, []).append(item)
        return tuple(
            Spent(
                budget,
                sum(item.causes.get(Cause(budget.cause), 0) for item in items),
                sum(item.compared for item in items),
            )
            for budget, items in shared.items()
        )

    @property
    def matched(self) -> int:
        """Values that are equal, the tolerance of floats included."""
        return sum(item.matched + item.within_tolerance for item in self.features)

    @property
    def causes(self) -> dict[Cause, int]:
        """Differences by cause; causes that did not occur are left out."""
        return {cause: self.cause(cause) for cause in Cause if self.cause(cause)}

    def row(self, causes: Iterable[Cause]) -> dict[str, str]:
        """This view's line of the table of causes."""
        return {
            "view": self.view if self.ready else f"{self.view} (not ready)",
            "keys": f"{self.keys:,}",
            "values": f"{self.compared:,}",
            "match": f"{self.matched:,}",
            **{cause.replace("_", " "): f"{self.cause(cause):,}" for cause in causes},
            "budgets": "; ".join(item.words for item in self.budgets if item.count) or "unused",
        }

    def breaches(self) -> tuple[str, ...]:
        """The budgets that this view is over, in words."""
        over = [
            f"{self.view}: {self.cause(cause):,} {cause} of {self.compared:,} values (budget 0)"
            for cause in Cause
            if cause not in BENIGN and self.cause(cause)
        ]
        over += [f"{self.view}: {item.words}" for item in self.budgets if item.over]
        if not self.ready:
            over.append(f"{self.view}: version {self.version} is not ready, readers say UNAVAILABLE")
        return tuple(over)


@dataclass(frozen=True, slots=True)
class ParityResult:
    """A parity run at one instant `at` (microseconds UTC). `mismatches` is bounded; `omitted` counts those left out."""

    at: int
    manifest_hash: str
    views: tuple[ViewParity, ...]
    mismatches: tuple[Mismatch, ...]
    omitted: int
    seconds: float
    run: int = 0
    """Its number in the control plane; 0 where it was not recorded."""
    report: str = ""
    """Path of its HTML page."""
    notes: tuple[str, ...] = field(default=())
    kind: str = "state"
    """What was compared: the `state` of the store now, or in a `replay` what it served."""

    @property
    def compared(self) -> int:
        """Values compared."""
        return sum(view.compared for view in self.views)

    @property
    def keys(self) -> int:
        """Keys compared, over all views."""
        return sum(view.keys for view in self.views)

    @property
    def matched(self) -> int:
        """Values that are equal, the tolerance of floats included."""
        return sum(view.matched for view in self.views)

    @property
    def causes(self) -> dict[Cause, int]:
        """Differences by cause; causes that did not occur are left out."""
        return {cause: count for cause in Cause if (count := sum(view.cause(cause) for view in self.views))}

    @property
    def suspects(self) -> dict[Suspect, int]:
        """What is probably behind the unexplained differences; suspects that nothing points to are left out."""
        totals: dict[Suspect, int] = {}
        for item in (item for view in self.views for item in view.features):
            for suspect, count in item.suspects.items():
                totals[suspect] = totals.get(suspect, 0) + count
        return totals

    @property
    def breaches(self) -> tuple[str, ...]:
        """Every budget that is overdrawn; the run passes where there is none."""
        if not self.compared:
            return (f"nothing was compared: neither the log nor the store holds a key{self._sampled}",)
        return tuple(breach for view in self.views for breach in view.breaches())

    @property
    def _sampled(self) -> str:
        sample = next((note for note in self.notes if note.startswith(SAMPLE)), "")
        return f" of {sample}; take a greater --sample" if sample else ""

    @property
    def passed(self) -> bool:
        """Whether every value is equal or benignly explained within its view's bounds, and something was compared."""
        return not self.breaches

    @property
    def headline(self) -> str:
        """The run in one line: 2,469 keys, 83,946 values: 83,712 match, 234 late, 0 unexplained."""
        causes = {cause: count for cause, count in self.causes.items() if cause is not Cause.UNEXPLAINED}
        parts = [f"{self.matched:,} match", *(f"{n:,} {cause.replace('_', ' ')}" for cause, n in causes.items())]
        unexplained = self.causes.get(Cause.UNEXPLAINED, 0)
        return f"{self.keys:,} keys, {self.compared:,} values: {', '.join(parts)}, {unexplained:,} unexplained"

    def checks(self, share: float = 1.0, seed: int = 0) -> list[ParityCheck]:
        """What it says of each view version, for the gate. A sample without a key of a view says nothing of it."""
        return [
            ParityCheck(
                view=view.view,
                version=view.version,
                at=self.at,
                keys=view.keys,
                compared=view.compared,
                matched=view.matched,
                causes={str(cause): count for cause, count in view.causes.items()},
                breaches=view.breaches(),
                share=share,
                seed=seed,
                budgets=tolerances_text(item.budget for item in view.budgets),
            )
            for view in self.views
            if view.compared or share >= 1
        ]

    def summary(self) -> dict[str, Any]:
        """The totals, ready for JSON."""
        return {
            "passed": self.passed,
            "run": self.run,
            "keys": self.keys,
            "compared": self.compared,
            "matched": self.matched,
            "causes": {str(cause): self.causes.get(cause, 0) for cause in Cause},
            "suspects": {str(suspect): count for suspect, count in self.suspects.items()},
            "breaches": list(self.breaches),
            "report": self.report,
        }

    def rows(self) -> list[dict[str, str]]:
        """The table of causes: one row per view, by column name; causes that matter are always there."""
        shown = [cause for cause in Cause if cause in self.causes or cause in BENIGN or cause is Cause.UNEXPLAINED]
        return [view.row(shown) for view in self.views]

    def failing(self) -> tuple[Mismatch, ...]:
        """The differences that fail the run."""
        return tuple(item for item in self.mismatches if item.cause not in BENIGN)


def worst_first(item: Mismatch) -> tuple[bool, str, str, str]:
    """The order in which differences are shown: those that fail the run before those that do not."""
    return item.cause in BENIGN, item.view, item.key, item.feature
