"""The command groups of this room."""

from __future__ import annotations

import typer

from coeval_pipelines.coordination import (
    backfill_commands,
    deadletter_commands,
    erase_commands,
    status_commands,
    stream_commands,
)


def register(app: typer.Typer) -> None:
    """Add the command groups to the root."""
    for group in (status_commands, stream_commands, backfill_commands, erase_commands, deadletter_commands):
        group.register(app)
