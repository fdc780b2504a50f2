"""A parity result in words and as a table for a terminal. It knows rich."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coeval.spec.types import Logical
from coeval_parity.describe import iso
from coeval_parity.result import BENIGN, Cause, Mismatch, ParityResult, ViewParity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 10
"""Failing differences that are listed on a terminal; the report has more."""


def headline(result: ParityResult) -> str:
    """The run in one line: 2,469 keys, 83,946 values: 83,712 match, 234 late, 0 unexplained."""
    causes = {cause: count for cause, count in result.causes.items() if cause is not Cause.UNEXPLAINED}
    parts = [f"{result.matched:,} match", *(f"{count:,} {cause.replace('_', ' ')}" for cause, count in causes.items())]
    unexplained = result.causes.get(Cause.UNEXPLAINED, 0)
    return f"{result.keys:,} keys, {result.compared:,} values: {', '.join(parts)}, {unexplained:,} unexplained"


def print_result(result: ParityResult, console: Console) -> None:
    """Print the table of causes, what fails and where to look."""
    console.print(table(result))
    for note in result.notes:
        console.print(note, style="dim")
    for line in failures(result):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    verdict, style = ("passed", "green") if result.passed else ("failed", "bold red")
    console.print(f"parity {verdict}: {headline(result)}", style=style, soft_wrap=True)


def table(result: ParityResult) -> Table:
    """One row per view: keys, values, matches, and a column for each cause that occurred."""
    from rich.table import Table

    found = [cause for cause in Cause if cause in result.causes or cause in (*BENIGN, Cause.UNEXPLAINED)]
    grid = Table(box=None, header_style="bold")
    grid.add_column("view")
    for name in ("keys", "values", "match", *found, "late share", "stream since", "batch cut"):
        grid.add_column(str(name), justify="right")
    for view in result.views:
        grid.add_row(*_row(view, found))
    return grid


def _row(view: ViewParity, causes: Iterable[Cause]) -> list[str]:
    matched = sum(item.matched + item.within_tolerance for item in view.features)
    counts = [_count(view.cause(cause), cause) for cause in causes]
    name = view.view if view.ready else f"{view.view} [red](not ready)[/red]"
    share = f"{view.late_share:.2%} of {view.late_limit:.0%}"
    since, cut = ("-" if at is None else iso(at // 10**6 * 10**6) for at in (view.since, view.load_cut))
    return [name, f"{view.keys:,}", f"{view.compared:,}", f"{matched:,}", *counts, share, since, cut]


def _count(count: int, cause: Cause) -> str:
    if not count:
        return "0"
    return f"{count:,}" if cause in BENIGN else f"[bold red]{count:,}[/bold red]"


def failures(result: ParityResult) -> list[str]:
    """The budgets that are overdrawn, then the first differences that fail the run: each with its key and its proof."""
    failing = result.failing()
    lines = [f"over budget: {breach}" for breach in result.breaches]
    lines += [_failure(item) for item in failing[:SHOWN]]
    total = sum(count for cause, count in result.causes.items() if cause not in BENIGN)
    if total > SHOWN:
        lines.append(f"... and {total - min(SHOWN, len(failing)):,} more")
    return lines


def _failure(item: Mismatch) -> str:
    since = f" since {iso(item.since)}" if item.since is not None else ""
    values = f"served {shown(item.served)}, expected {shown(item.expected)}"
    return f"{item.cause}: {item.view} {named(item)} {item.feature}: {values}{since}. {item.proof}"


def named(item: Mismatch) -> str:
    """The key by its column names: household_id=718."""
    return " ".join(f"{name}={value}" for name, value in item.entity.items())


def shown(value: Logical) -> str:
    """A value, null included, as text."""
    return "null" if value is None else str(value)


def age(length: int) -> str:
    """A length of time in the unit that suits it: 41 s, 12 min, 3.5 h, 2.1 d."""
    seconds = length / 1e6
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
