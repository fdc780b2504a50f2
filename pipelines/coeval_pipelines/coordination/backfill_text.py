"""Loads as text, as JSON and as progress bars: what is printed, and nothing else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coeval.spec.types import iso
from coeval_pipelines.control.loads import CATCHING_UP, LOADING, PLANNED, LoadRun
from coeval_pipelines.coordination.backfill_plan import ViewPlan
from coeval_pipelines.coordination.backfills import LoadStatus
from coeval_pipelines.coordination.stream_text import new_console

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

_COLUMNS = ("run", "view", "kind", "state", "cut", "units", "rows", "rows/s", "left", "since", "why")
_REFRESH_SECONDS = 0.5


def render(found: Sequence[LoadStatus], whole: bool = False, as_json: bool = False) -> None:
    """Print loads; `whole`: with every change of their states."""
    if as_json:
        print(json.dumps({"loads": [item.to_dict() for item in found]}, indent=2))
        return
    from rich import box
    from rich.table import Table

    console = new_console()
    if not found:
        console.print("Nothing was loaded yet. coeval backfill run")
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD, pad_edge=False)
    for item in found:
        table.add_row(*_cells(item))
    console.print(table)
    for item in found if whole else ():
        for change in item.changes:
            console.print(f"{_time(change.at)}  {change.state:<12} {change.who}: {change.why}", markup=False)


def render_plans(plans: Sequence[ViewPlan], as_json: bool = False) -> None:
    """Print what loads would be."""
    if as_json:
        print(json.dumps({"views": [item.to_dict() for item in plans]}, indent=2))
        return
    for plan in plans:
        print(f"{plan.view} {plan.version}: {plan.kind}")
        for name, text in _said(plan):
            print(f"    {name:<14} {text}")


def _said(plan: ViewPlan) -> Iterator[tuple[str, str]]:
    if plan.problem:
        yield "not now", plan.problem
    if plan.resumes:
        yield "goes on with", f"load {plan.resumes}"
    if plan.cut is not None:
        yield "cut", f"{_time(plan.cut)}: {plan.cut_because}" if plan.cut else plan.cut_because
    if plan.stream_from is not None:
        yield "stream owns", f"tiles from {_time(plan.stream_from)} on"
    found = plan.estimate
    if found:
        about = f"about (one of {found.share} keys was counted) " if found.share > 1 else ""
        parts = ", ".join(f"{part} {rows:,}" for part, rows in found.rows.items())
        yield "reads", f"{found.events:,} events or rows"
        yield "writes", f"{about}{found.total:,} ({parts}) of {found.keys:,} keys"
    if plan.redis_bytes is not None:
        yield "Redis", f"{plan.redis_bytes / 2**20:,.1f} MB at most"
    took = "not known" if plan.seconds is None else f"{plan.seconds:,.0f} s of writing"
    yield "takes", f"{took} ({plan.rate_from}; {plan.limits})"


def _cells(item: LoadStatus) -> tuple[str, ...]:
    run = item.run
    return (
        str(run.run),
        run.view,
        run.kind,
        item.state,
        _time(run.cut),
        "-" if run.units is None else f"{item.units_done}/{run.units}",
        "-" if run.rows is None else f"{run.done:,}/{run.rows:,}",
        f"{run.per_second:,.0f}" if run.per_second else "-",
        "-" if item.seconds_left is None else f"{item.seconds_left:,.0f}s",
        _time(item.last.at),
        item.last.why,
    )


def _time(at: int) -> str:
    return iso(at, seconds=True)


@contextmanager
def bars() -> Iterator[Callable[[LoadRun, int, int], None]]:
    """Progress bars on stderr, one for each load that is told of: rows of it that are written, and how many it has."""
    with _progress() as progress:
        tasks: dict[int, TaskID] = {}

        def watch(run: LoadRun, done: int, total: int) -> None:
            if run.run not in tasks:
                tasks[run.run] = progress.add_task(f"{run.run} {run.view}", total=total, rate=0.0)
            progress.update(tasks[run.run], completed=done, total=total, rate=run.per_second)

        yield watch


def follow_loads(find: Callable[[], Sequence[LoadStatus]]) -> None:
    """Show the progress of loads that another process works on, until there are none."""
    with bars() as watch:
        while working := [item for item in find() if item.state in (PLANNED, LOADING, CATCHING_UP)]:
            for item in working:
                watch(item.run, item.run.done, item.run.rows or 0)
            time.sleep(_REFRESH_SECONDS)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[str | ProgressColumn, ...] = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} rows/s"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(file=sys.stderr), transient=sys.stderr.isatty())
