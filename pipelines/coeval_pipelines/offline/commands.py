"""The command groups of this room."""

from __future__ import annotations

import typer

from coeval_pipelines.offline import log_commands
from coeval_pipelines.offline.training import commands as training_commands


def register(app: typer.Typer) -> None:
    """Add the command groups to the root."""
    log_commands.register(app)
    training_commands.register(app)
