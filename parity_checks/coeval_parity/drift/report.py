"""A drift result as a self-contained page, or as the section of another page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coeval.files import write_whole
from coeval_parity import pages
from coeval_parity.drift.result import DriftResult, FeatureDrift, from_document
from coeval_parity.drift.text import compared, named, reason

History = Sequence[tuple[int, Mapping[str, Any]]]
_HEIGHT, _BAR = 64.0, 18
"""Of a picture: its height, and the width of a bin with both its bars."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bin as drawn: pixels from the left, heights of both bars, and the words that a pointer shows."""

    x: int
    baseline: float
    window: float
    title: str


def write_page(result: DriftResult, history: History, path: Path) -> None:
    """Write the page of a run, with the runs before it."""
    write_whole(path, render(result, history))


def render(result: DriftResult, history: History = (), *, section: bool = False) -> str:
    """The page; with `section` only what a page that has the same style variables takes in."""
    return pages.render(
        "drift_section.html.j2" if section else "drift.html.j2",
        r=result,
        named=named,
        reason=reason,
        compared=compared(result),
        features=sorted(result.features, key=_most_over),
        bars=bars,
        trend=lambda name: trend(name, history, result),
        height=_HEIGHT,
        step=_BAR,
    )


def bars(item: FeatureDrift) -> list[Bar]:
    """The bins of a feature as bars, the tallest as high as the picture."""
    tallest = max((max(one.baseline, one.window) for one in item.bins), default=0.0) or 1.0
    return [
        Bar(
            number * _BAR,
            round(_HEIGHT * one.baseline / tallest, 1),
            round(_HEIGHT * one.window / tallest, 1),
            f"{one.label}: {one.baseline:.1%} of the baseline, {one.window:.1%} of the window",
        )
        for number, one in enumerate(item.bins)
    ]


def trend(name: str, history: History, result: DriftResult) -> str:
    """The points of a line: over the last runs, how far a feature's worst distance was from its limit (100 by 24).

    The limit is at half the height. Empty where there are fewer than three runs.
    """
    runs = [from_document(dict(document)) for number, document in history if number < (result.run or number + 1)]
    shares = []
    for run in [*runs, result]:
        worst = next((item.worst for item in run.features if item.feature == name), None)
        if worst is not None:
            shares.append(min(2.0, worst.value / worst.limit) if worst.limit else 0.0)
    if len(shares) < 3:
        return ""
    return " ".join(f"{100 * at / (len(shares) - 1):.1f},{24 - 12 * share:.1f}" for at, share in enumerate(shares))


def _most_over(item: FeatureDrift) -> tuple[bool, float]:
    worst = item.worst
    return not item.drifted, -(worst.value / worst.limit) if worst and worst.limit else 0.0
