"""The local stack as text: what is printed, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval_pipelines.local.state import StackStatus

if TYPE_CHECKING:
    from rich.table import Table


def components_table(state: StackStatus) -> Table:
    """The components of the stack, each in a row."""
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("component", "address", "pid", "health", "restarts", "log"):
        table.add_column(name, overflow="fold")
    for item in state.components:
        pid = str(item.process.pid) if item.process else "-"
        table.add_row(item.name, item.address or "-", pid, item.health, str(item.restarts), item.log)
    return table
