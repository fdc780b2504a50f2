"""A quality result as a table for a terminal. It knows rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coeval_parity.quality.result import Checked, QualityResult
from coeval_pipelines.quarantine import Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from coeval_parity.quality.run import RowsAtFault


def print_result(result: QualityResult, console: Console) -> None:
    """Print every table and batch, and under it the rules that it breaks."""
    from rich.table import Table

    if result.checks:
        grid = Table(box=None, header_style="bold")
        for name in ("checked", "engine", "rows", "rules", "rows at fault", ""):
            grid.add_column(name, justify="right" if name in ("rows", "rules", "rows at fault") else "left")
        for item in result.checks:
            verdict = "[green]passed[/]" if item.passed else "[bold red]failed[/]"
            grid.add_row(item.name, item.engine, f"{item.rows:,}", f"{len(item.rules)}", f"{item.failing:,}", verdict)
        console.print(grid)
    for item in result.checks:
        for rule in item.rules:
            if not rule.passed:
                console.print(f"{item.name}: {broken(rule)}", soft_wrap=True, markup=False, highlight=False)
    verdict, style = ("passed", "green") if result.passed else ("failed", "bold red")
    console.print(f"quality {verdict}: {result.headline}", style=style, soft_wrap=True)


def broken(rule: Checked) -> str:
    """A broken rule in words."""
    what = f"{rule.rule.removeprefix('expect_')} {rule.column}".strip()
    if rule.error:
        return f"{what}: cannot be checked: {rule.error}. Does it fit the column's values?"
    found = f"{rule.rows:,} rows" if rule.rows else f"found {rule.observed or 'otherwise'}"
    return f"{what}: {found}{'' if rule.breaks else ' (a warning)'}"


def print_rows(found: Sequence[RowsAtFault], console: Console) -> None:
    """Print which rows break which rule."""
    for item in found:
        what = f"{item.check}: {item.rule.removeprefix('expect_')} {item.column}".strip()
        for row in item.rows:
            named = " ".join(f"{name}={value}" for name, value in zip(item.identity, row, strict=True))
            console.print(f"{what}: {named}", soft_wrap=True, markup=False, highlight=False)


def print_quarantined(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print the batches that wait for a decision."""
    for item in verdicts:
        console.print(
            f"quarantined: {item.source} batch {item.batch} (run {item.run}). Nothing new is computed of this log. "
            f"Decide: coeval quality release|drop {item.source} {item.batch} --why TEXT",
            style="bold red",
            soft_wrap=True,
            markup=False,
        )
