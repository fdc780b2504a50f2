"""`coeval stream` and `coeval backfill`: deploy what the stream owns, load what batch owns, see how far both are."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Annotated

import typer

from coeval_pipelines.coordination import stream_commands

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the command groups to the root."""
    stream = stream_commands.register(app)
    stream.command("status")(status)
    backfill = typer.Typer(help="Load by batch what the stream does not hold.", no_args_is_help=True)
    backfill.command("run")(run)
    app.add_typer(backfill, name="backfill")


def status(as_json: AsJson = False) -> None:
    """Print who owns what: per view the stream's first instant, the last batch cut, whether readers may believe it."""
    from coeval.client import open_redis
    from coeval.online.writer import OnlineWriter
    from coeval.settings import load_settings
    from coeval.spec.types import instant
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.handoff import is_streamed

    settings = load_settings()
    rows: list[dict[str, object]] = []
    with closing(ControlPlane.open(settings)) as control, closing(open_redis(settings)) as client:
        manifest = control.released()
        for view in manifest.views.values() if manifest else ():
            deployment = control.deployment(view.name, view.version)
            load = control.last_load(view.name, view.version)
            owned = deployment is not None and is_streamed(view)
            rows.append(
                {
                    "view": view.name,
                    "version": view.version,
                    "stream_from": instant(deployment.since).isoformat() if deployment and owned else None,
                    "batch_cut": instant(load.cut).isoformat() if load else None,
                    "ready": OnlineWriter(client, manifest.tenant).is_ready(view) if manifest else False,
                }
            )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    _table(rows)


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


def _table(rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("view", "version", "stream_from", "batch_cut", "ready"):
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
