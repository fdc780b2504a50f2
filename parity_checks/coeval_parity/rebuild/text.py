"""What rebuilding training sets found, for a terminal. It knows rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval_parity.rebuild.result import RebuildResult, SetRebuild
from coeval_pipelines.offline.training.apart import Apart
from coeval_pipelines.offline.training.text import apart_lines

if TYPE_CHECKING:
    from rich.console import Console

_COLUMNS = ("training set", "service", "rows", "outcome", "content", "again", "engine", "took")


def print_result(result: RebuildResult, console: Console, *, values: bool = False) -> None:
    """Print a line for each set, then why those differ that do; `values`: and the first single ones, with keys."""
    from rich.table import Table

    if not result.sets:
        console.print("No training set is kept. Build one: coeval training-set build SERVICE --spine FILE --name NAME")
        return
    table = Table(*_COLUMNS, box=None, header_style="bold")
    for item in result.sets:
        table.add_row(*_cells(item), style=None if item.passed else "bold red")
    console.print(table)
    for item in result.sets:
        for line in lines(item, values=values):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    verdict, style = ("passed", "green") if result.passed else ("failed", "bold red")
    console.print(f"rebuild {verdict}: {result.headline}", style=style, soft_wrap=True)


def lines(item: SetRebuild, *, values: bool = False) -> list[str]:
    """Why a set is not the same, and in which features; `values`: and which single values are not."""
    said = [f"{item.name}: {text}" for text in item.why]
    said += [f"{item.name}: perhaps: {text}" for text in item.suspects]
    found = apart_lines(Apart(item.apart, item.features, item.values if values else ()))
    return said + [f"{item.name}: {text}" for text in found]


def _cells(item: SetRebuild) -> tuple[str, ...]:
    hashes = (item.before[:12], item.after[:12] or "-")
    return (
        item.name,
        item.service,
        f"{item.rows:,}",
        item.outcome,
        *hashes,
        item.engine or "-",
        f"{item.seconds:.1f} s",
    )
