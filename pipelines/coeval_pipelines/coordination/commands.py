"""The command groups of this room; `coeval backfill` itself: load by batch what the stream does not hold."""

from __future__ import annotations

import sys
from collections.abc import Collection
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from coeval_pipelines.coordination import deadletter_commands, erase_commands, stream_commands

if TYPE_CHECKING:
    from coeval.spec.manifest import Manifest
    from coeval_pipelines.control import ControlPlane


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
    """Ingest the topics, load batch tiles and rows, wait for the changelog, and let readers believe the views.

    Of the catalog that was applied, or, while that is not deployed, of the one that readers have.
    """
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.fill import backfill

    settings = load_settings()
    with closing(ControlPlane.open(settings)) as control:
        applied = read_manifest(settings.manifest_path)
        manifest = to_fill(control, applied, views or ())
        if manifest.hash != applied.hash:
            print("What was applied is not deployed: filling what is released.", file=sys.stderr)
        written = backfill(settings, manifest, control, views or list(manifest.views), correct)
    for name, count in written.items():
        print(f"{name:<24} {count:>12,} written")


def to_fill(control: ControlPlane, applied: Manifest, names: Collection[str]) -> Manifest:
    """The manifest whose views are filled: the applied one, unless it is not deployed and another one is released."""
    released = control.released()
    wanted = [view for view in applied.views.values() if not names or view.name in names]
    deployed = all(control.deployment(view.name, view.version) for view in wanted)
    if released is None or deployed or not set(names) <= released.views.keys():
        return applied
    return released
