"""A drift result as a table for a terminal. It knows rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.spec.types import iso
from coeval_parity.drift.result import DriftResult, FeatureDrift, Measure

if TYPE_CHECKING:
    from rich.console import Console

_NAMES = {
    "psi": "population stability index",
    "ks": "Kolmogorov-Smirnov",
    "js": "Jensen-Shannon distance",
    "wasserstein": "Wasserstein, in deviations",
    "nulls": "share of nulls",
    "distinct": "distinct values",
}


def print_result(result: DriftResult, console: Console, *, every: bool = False) -> None:
    """Print what drifted, or every feature, with the distance that is furthest over its limit."""
    from rich.table import Table

    shown = [item for item in result.features if every or item.drifted]
    if shown:
        grid = Table(box=None, header_style="bold")
        for name in ("feature", "kind", "rows", "baseline", "distance", "value", "limit", "why that limit"):
            grid.add_column(name, justify="right" if name in ("rows", "baseline", "value", "limit") else "left")
        for item in shown:
            grid.add_row(*_row(item), style="bold red" if item.drifted else None)
        console.print(grid)
    for note in result.notes:
        console.print(note, style="dim")
    console.print(compared(result), style="dim", soft_wrap=True)
    verdict, style = ("passed", "green") if result.passed else ("failed", "bold red")
    console.print(f"drift {verdict}: {result.headline}", style=style, soft_wrap=True)


def compared(result: DriftResult) -> str:
    """What was compared with what."""
    when = (
        f" from {iso(result.start)} to {iso(result.end)}" if result.start is not None and result.end is not None else ""
    )
    usual = f"; usual by {result.earlier} windows of the same weekday" if result.earlier else ""
    return f"{result.window}{when} against {result.baseline}{usual}"


def named(measure: Measure) -> str:
    """A measure as a person calls it."""
    return _NAMES[measure.name]


def reason(measure: Measure) -> str:
    """Which of the things that a distance is held to decides."""
    if measure.limit == measure.threshold:
        return "threshold"
    return "chance at these rows" if measure.limit == measure.noise else "usual for the weekday"


def _row(item: FeatureDrift) -> tuple[str, ...]:
    left = (item.feature, str(item.kind), f"{item.rows:,}", f"{item.baseline_rows:,}")
    worst = item.worst
    if worst is None:
        return (*left, item.note, "", "", "")
    return (*left, named(worst), f"{worst.value:.3f}", f"{worst.limit:.3f}", reason(worst))
