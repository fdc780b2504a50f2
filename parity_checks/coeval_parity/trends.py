"""The runs before a run, and what is drawn of them: a bar each, and the share of every cause as a line. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from coeval_parity.pictures import SEEN, Box
from coeval_parity.result import BENIGN, Cause

ALL_VIEWS = "all views"
RUN, RUN_HEIGHT = 10.0, 40.0
"""The width of a run among the last ones, and the height of its bar."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """The totals of a parity run, of one view or of all. `at` in microseconds UTC."""

    run: int
    at: int
    passed: bool
    compared: int
    causes: Mapping[Cause, int]
    view: str = ALL_VIEWS

    @property
    def failing(self) -> int:
        """Values that differ for a cause that fails a run."""
        return sum(count for cause, count in self.causes.items() if cause not in BENIGN)

    @property
    def benign(self) -> int:
        """Values that differ for a benign cause."""
        return sum(self.causes.values()) - self.failing

    def share(self, cause: Cause) -> float:
        """The share of the values that differ for a cause."""
        return self.causes.get(cause, 0) / self.compared if self.compared else 0.0


@dataclass(frozen=True, slots=True)
class Trend:
    """The share of a view's values that a cause had over the last runs: a line of 160 by 28, whose top is `highest`."""

    view: str
    cause: Cause
    points: str
    last: tuple[float, float]
    now: float
    highest: float
    highest_run: int


def by_run(runs: Iterable[PastRun]) -> list[PastRun]:
    """The runs over all views, oldest first."""
    found: list[PastRun] = []
    for _, group in groupby(sorted(runs, key=attrgetter("run")), key=attrgetter("run")):
        parts = list(group)
        causes: Counter[Cause] = Counter()
        for part in parts:
            causes.update(part.causes)
        passed, compared = all(part.passed for part in parts), sum(part.compared for part in parts)
        found.append(PastRun(parts[0].run, parts[0].at, passed, compared, dict(causes)))
    return found


def run_bars(runs: Sequence[PastRun]) -> list[list[Box]]:
    """Each run as a bar: failing values below, benign ones on top of them. A tenth of the values fills it."""
    found = []
    for number, run in enumerate(runs):
        x, bottom, boxes = number * RUN, RUN_HEIGHT, []
        for name, count in (("failing", run.failing), ("benign", run.benign)):
            height = min(bottom, _height(count, run.compared))
            if height:
                boxes.append(Box(x, round(bottom - height, 1), RUN - 2, round(height, 1), name))
                bottom -= height
        found.append(boxes)
    return found


def _height(count: int, compared: int) -> float:
    return min(RUN_HEIGHT, max(SEEN, 10 * RUN_HEIGHT * count / compared)) if count and compared else 0.0


def trends(runs: Iterable[PastRun]) -> list[Trend]:
    """A line for every view and cause that occurred in the last runs; those that fail a run first. Of one run: none."""
    found: list[Trend] = []
    for view, group in groupby(sorted(runs, key=attrgetter("view", "run")), key=attrgetter("view")):
        mine = list(group)
        causes = [cause for cause in Cause if any(run.causes.get(cause) for run in mine)]
        found += [_trend(view, cause, mine) for cause in causes if len(mine) > 1]
    return sorted(found, key=lambda trend: (trend.cause in BENIGN, -trend.now, trend.view))


def _trend(view: str, cause: Cause, runs: Sequence[PastRun]) -> Trend:
    shares = [run.share(cause) for run in runs]
    highest, step = max(shares), 152.0 / (len(shares) - 1)
    points = [(round(4 + at * step, 1), round(25 - 22 * share / highest, 1)) for at, share in enumerate(shares)]
    text = " ".join(f"{x},{y}" for x, y in points)
    return Trend(view, cause, text, points[-1], shares[-1], highest, runs[shares.index(highest)].run)
