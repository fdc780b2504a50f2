"""A parity result in words and as a table for a terminal. It knows rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.spec.types import Logical, iso
from coeval_parity.result import BENIGN, Cause, Mismatch, ParityResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 10
"""Failing differences that are listed on a terminal; the report has more."""


def print_result(result: ParityResult, console: Console, *, values: bool = True) -> None:
    """Print the table of causes and what fails; `values`: with the first single values and their keys, for a person."""
    console.print(table(result))
    for note in result.notes:
        console.print(note, style="dim")
    for line in failures(result, values=values):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    verdict, style = ("passed", "green") if result.passed else ("failed", "bold red")
    console.print(f"parity {verdict}: {result.headline}", style=style, soft_wrap=True)


def table(result: ParityResult) -> Table:
    """One row per view: keys, values, matches, and a column for each cause that occurred."""
    from rich.table import Table

    rows = result.rows()
    grid = Table(box=None, header_style="bold")
    for name in rows[0] if rows else ():
        grid.add_column(name, justify="left" if name == "view" else "right")
    red = {cause.replace("_", " ") for cause in Cause if cause not in BENIGN}
    for row in rows:
        grid.add_row(*(f"[bold red]{text}[/]" if name in red and text != "0" else text for name, text in row.items()))
    return grid


def failures(result: ParityResult, *, values: bool = True) -> list[str]:
    """The budgets that are overdrawn, then the first differences that fail the run: each with its key and its proof."""
    lines = [f"over budget: {breach}" for breach in result.breaches]
    if not values:
        return lines
    failing = result.failing()
    lines += [_failure(item) for item in failing[:SHOWN]]
    total = sum(count for cause, count in result.causes.items() if cause not in BENIGN)
    if total > SHOWN:
        lines.append(f"... and {total - min(SHOWN, len(failing)):,} more")
    return lines


def _failure(item: Mismatch) -> str:
    since = f" since {iso(item.since)}" if item.since is not None else ""
    values = f"served {shown(item.served)}, expected {shown(item.expected)}"
    causes = " and ".join([str(item.cause), *map(str, item.also)])
    causes += f" ({item.suspect}?)" if item.suspect else ""
    return f"{causes}: {item.view} {named(item)} {item.feature}: {values}{since}. {item.proof}"


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
