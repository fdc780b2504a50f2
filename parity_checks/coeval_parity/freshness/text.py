"""How fresh views are, for a terminal. It knows rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from coeval.spec.types import iso
from coeval_parity.freshness.result import PartitionFreshness, State, ViewFreshness, headline
from coeval_pipelines.coordination.stream_model import FRESHNESS, seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLUMNS = ("view", "partition", "readable up to", "newest there", "age", "behind", "waiting", "promised", "")
_CANARIES = ("view", "canary p50", "p99", "last", "of", "under way")
_HISTORY = ("view", "at", "age", "waiting", "behind", "canary p50", "p99", "kept")


def print_views(views: Sequence[ViewFreshness], console: Console) -> None:
    """Print a line per view and partition, what canaries took, and what is wrong."""
    table = _table(_COLUMNS)
    for view in views:
        for cells in _lines(view):
            table.add_row(*cells, style="bold red" if cells[-1].endswith("!") else None)
    console.print(table)
    if any(view.canary for view in views):
        canaries = _table(_CANARIES)
        for view in views:
            if (found := view.canary) is not None:
                times = (seconds(value) for value in (found.p50, found.p99, found.last))
                canaries.add_row(view.view, *times, str(found.samples), seconds(found.waiting))
        console.print(canaries)
    for view in views:
        for text in view.notes:
            console.print(f"  {view.view}: {text}", style="dim", markup=False, highlight=False)
        for text in view.problems:
            console.print(f"! {view.view}: {text}  -> {FRESHNESS}", markup=False, highlight=False, soft_wrap=True)
    style = "green" if all(view.ok for view in views) else "bold red"
    console.print(f"freshness: {headline(views)}", style=style, soft_wrap=True)


def print_history(views: Iterable[ViewFreshness], console: Console) -> None:
    """Print a line per view and run."""
    table = _table(_HISTORY)
    for view in views:
        times = (seconds(view.age), seconds(view.waiting), f"{view.behind:,}")
        found = view.canary
        canary = ("-", "-") if found is None else (seconds(found.p50), seconds(found.p99))
        table.add_row(view.view, iso(view.at, seconds=True), *times, *canary, "yes" if view.ok else "no !")
    console.print(table)


def _lines(view: ViewFreshness) -> Iterable[tuple[str, ...]]:
    promise = seconds(view.promise)
    if view.unknown:
        yield (view.view, *"-" * 6, promise, "unknown !")
    if (load := view.load) is not None:
        loaded = "never loaded" if load.loaded is None else iso(load.loaded, seconds=True)
        state = _state(load.state, view)
        yield (view.view, "-", loaded, load.due or "-", seconds(load.age), "-", seconds(load.waiting), promise, state)
    for part in view.partitions:
        yield (view.view, *_cells(part), promise, _state(part.state, view))


def _cells(part: PartitionFreshness) -> tuple[str, ...]:
    instants = ("-" if at is None else iso(at, seconds=True) for at in (part.readable, part.newest))
    return (str(part.partition), *instants, seconds(part.age), f"{part.behind:,}", seconds(part.waiting))


def _state(state: State, view: ViewFreshness) -> str:
    if view.stopped:
        return "stopped"
    return f"{state} !" if state is State.STALE else str(state)


def _table(columns: Iterable[str]) -> Table:
    from rich.table import Table

    return Table(*columns, box=None, header_style="bold")
