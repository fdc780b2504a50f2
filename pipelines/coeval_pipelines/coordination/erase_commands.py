"""`coeval erase`: forget what a subject did, in every engine."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval_pipelines.coordination.erasure import Outcome

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("erase")(erase)


def erase(
    subject: Annotated[str, typer.Argument(help="The key of an entity and its value, e.g. card_id=4711.")],
    at: Annotated[
        str, typer.Option(help="Erase what was available at or before this RFC 3339 instant; default: now.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is there; record and write nothing.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Run the batch load of the affected views too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a subject: its events do not exist any more, in training sets, batch loads and the online store."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination import erasure
    from coeval_pipelines.coordination.arguments import parse_instant
    from coeval_pipelines.coordination.backfills import Correction, backfill
    from coeval_pipelines.coordination.floors import served
    from coeval_pipelines.coordination.runs import now

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    asked = now()
    with closing(ControlPlane.open(settings)) as control:
        known = [manifest, *(item.manifest for item in served(settings, control, manifest))]
        wanted = erasure.subject(known, subject, parse_instant(at, "--at") if at else asked, asked)
        if dry_run:
            outcome = erasure.preview(settings, manifest, control, wanted, asked)
        else:
            outcome = erasure.erase(settings, manifest, control, wanted, asked)
        _print(outcome, as_json)
        views = [view.name for view in outcome.anew]
        if rebuild and views and not dry_run:
            backfill(settings, manifest, control, manifest.chosen_views(views), Correction(forced=True))


def to_document(outcome: Outcome) -> dict[str, object]:
    """The outcome as JSON-ready values."""
    entry = outcome.entry
    return {
        "column": outcome.erasure.column,
        "at": outcome.erasure.at,
        "recorded": entry.number if entry else None,
        "new": outcome.is_new,
        "views": {item.view: {"keys": item.keys, "taken": item.taken} for item in outcome.found},
        "rebuild": [view.name for view in outcome.anew],
        "not_keyed": [view.name for view in outcome.affected.fed],
    }


def _print(outcome: Outcome, as_json: bool) -> None:
    from coeval.spec.types import iso

    if as_json:
        print(json.dumps(to_document(outcome), indent=2))
        return
    until = iso(outcome.erasure.at)
    if outcome.entry is None:
        print(f"Would erase what was available up to {until}:")
    else:
        print(f"Erasure {outcome.entry.number}{'' if outcome.is_new else ' (recorded before)'}: up to {until}")
    for item in outcome.found:
        print(f"{item.view:<24} {item.keys:>8,} keys {item.taken:>10,} tiles or rows taken away")
    views = [view.name for view in outcome.anew]
    if outcome.affected.fed:
        print(f"Not keyed by it, but made of its events too: {', '.join(view.name for view in outcome.affected.fed)}")
    if views:
        print(f"What remains of that time comes back with: coeval backfill run {' '.join(views)} --correct")
