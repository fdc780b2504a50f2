"""The command groups of this room; `coeval backfill` itself: load by batch what the stream does not hold."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from coeval_pipelines.coordination import deadletter_commands, erase_commands, stream_commands


def register(app: typer.Typer) -> None:
    """Add the command groups to the root."""
    stream_commands.register(app)
    backfill = typer.Typer(help="Load by batch what the stream does not hold.", no_args_is_help=True)
    backfill.command("run")(run)
    app.add_typer(backfill, name="backfill")
    erase_commands.register(app)
    deadletter_commands.register(app)


def run(
    views: Annotated[list[str] | None, typer.Argument(help="Views to load; default: all.")] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Cut the log now, so that late events enter the tiles that are final.")
    ] = False,
) -> None:
    """Ingest the topics, load batch tiles and rows, wait for the changelog, and let readers believe the views."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.fill import backfill

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    with closing(ControlPlane.open(settings)) as control:
        written = backfill(settings, manifest, control, views or list(manifest.views), correct)
    for name, count in written.items():
        print(f"{name:<24} {count:>12,} written")
