"""`coeval backfill`: load by batch what the stream does not hold; look at loads, go on with them, cancel them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.spec.manifest import Manifest
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.fill import Asked, Watch
    from coeval_pipelines.offline.throttle import Limits

Views = Annotated[list[str] | None, typer.Argument(help="Views to load; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Correct = Annotated[
    bool, typer.Option("--correct", help="Cut the log now, so that late events enter the tiles that are final.")
]
Rate = Annotated[
    float, typer.Option("--writes-per-second", help="Write no more tiles and rows a second; 0: any.", min=0)
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--latency-budget-ms",
        help="Hold back so that small reads of the store take no longer; 0: any. Default: 5 where views are served.",
        min=0,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for another process that loads one of the views.")]


Force = Annotated[bool, typer.Option("--force", help="Load views too that would not change by it.")]


def register(app: typer.Typer) -> None:
    """Add the command group, and `materialize`, to the root."""
    group = typer.Typer(help="Load by batch what the stream does not hold.", no_args_is_help=True)
    for command in (plan, run, status, resume, cancel):
        group.command(command.__name__)(command)
    app.add_typer(group, name="backfill")
    app.command("materialize")(materialize)


def plan(
    views: Views = None,
    correct: Correct = False,
    writes_per_second: Rate = 0,
    latency_budget_ms: Budget = None,
    as_json: AsJson = False,
) -> None:
    """Say what `run` would write, where it would cut the log and why, and what that takes. Changes nothing."""
    from coeval.client import read_manifest
    from coeval_pipelines.coordination.backfill_plan import plan_backfill
    from coeval_pipelines.coordination.backfill_text import render_plans
    from coeval_pipelines.coordination.backfills import to_fill
    from coeval_pipelines.coordination.handoff import DELIVERY_SLACK
    from coeval_pipelines.coordination.runs import now

    with _opened() as (settings, control):
        manifest = to_fill(control, read_manifest(settings.manifest_path), views or ())
        limits = _limits(settings, control, manifest, writes_per_second, latency_budget_ms)
        chosen, at = manifest.chosen_views(views), now()
        wanted = at - DELIVERY_SLACK if correct else None
        render_plans(plan_backfill(settings, manifest, control, chosen, wanted, limits, at), as_json)


def run(
    views: Views = None,
    correct: Correct = False,
    force: Force = False,
    writes_per_second: Rate = 0,
    latency_budget_ms: Budget = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Ingest the topics, load batch tiles and rows, wait for the changelog, and let readers believe the views.

    Of the catalog that was applied, or, while that is not deployed, of the one that readers have. A load that was
    interrupted is gone on with where it was. While readers are served by the same store, writes are held back. With
    --correct, a view to which nothing came late since its last load is left as it is: run it from cron.
    """
    from coeval.client import read_manifest
    from coeval_pipelines.coordination.backfill_text import bars
    from coeval_pipelines.coordination.backfills import Correction, backfill, to_fill

    with _opened() as (settings, control), bars() as watch:
        applied = read_manifest(settings.manifest_path)
        manifest = to_fill(control, applied, views or ())
        if manifest.hash != applied.hash:
            _say("What was applied is not deployed: filling what is released.")
        limits = _limits(settings, control, manifest, writes_per_second, latency_budget_ms)
        correction = Correction(force) if correct else None
        chosen = manifest.chosen_views(views)
        written = backfill(settings, manifest, control, chosen, correction, _asked(limits, wait, watch), _say)
    _print(written, as_json)


def materialize(
    views: Annotated[list[str] | None, typer.Argument(help="Views of files to load; default: all of them.")] = None,
    force: Force = False,
    writes_per_second: Rate = 0,
    latency_budget_ms: Budget = None,
    as_json: AsJson = False,
) -> None:
    """Load the views that no stream fills, where their files changed or rows of them became visible: run it from cron.

    Of the catalog that readers have. Nothing is read, and Spark not started, where nothing changed.
    """
    from coeval.client import read_manifest
    from coeval.errors import UsageError
    from coeval_pipelines.coordination.backfill_text import bars
    from coeval_pipelines.coordination.backfills import Correction, backfill
    from coeval_pipelines.coordination.handoff import is_streamed

    with _opened() as (settings, control), bars() as watch:
        manifest = control.released() or read_manifest(settings.manifest_path)
        streamed = [view.name for view in manifest.chosen_views(views) if is_streamed(view)]
        if views and streamed:
            raise UsageError(f"A stream fills {', '.join(streamed)}.", "Load it so: coeval backfill run")
        chosen = [view for view in manifest.chosen_views(views) if not is_streamed(view)]
        limits = _limits(settings, control, manifest, writes_per_second, latency_budget_ms)
        written = backfill(settings, manifest, control, chosen, Correction(force), _asked(limits, True, watch), _say)
    _print(written, as_json)


def status(
    number: Annotated[int | None, typer.Argument(metavar="[RUN]", help="A load's number; default: the newest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show progress until nothing is loaded.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which loads there are, how far they are, and, of one, who changed its state when and why."""
    from coeval_pipelines.coordination.backfill_text import follow_loads, render
    from coeval_pipelines.coordination.backfills import status as find

    with _opened() as (settings, control):
        if follow:
            follow_loads(lambda: find(settings, control, number))
        render(find(settings, control, number), number is not None, as_json)


def resume(
    number: Annotated[int | None, typer.Argument(metavar="[RUN]", help="A load's number; default: all.")] = None,
    writes_per_second: Rate = 0,
    latency_budget_ms: Budget = None,
    as_json: AsJson = False,
) -> None:
    """Go on with loads that were interrupted or failed: same number, same cut, same log; the units that are left."""
    from coeval.client import read_manifest
    from coeval_pipelines.coordination import backfills
    from coeval_pipelines.coordination.backfill_text import bars

    with _opened() as (settings, control), bars() as watch:
        manifest = control.released() or read_manifest(settings.manifest_path)
        limits = _limits(settings, control, manifest, writes_per_second, latency_budget_ms)
        written = backfills.resume(settings, control, number, _asked(limits, False, watch), _say)
    _print(written, as_json, "nothing to resume")


def cancel(
    number: Annotated[int, typer.Argument(metavar="RUN", help="A load's number: see `coeval backfill status`.")],
    as_json: AsJson = False,
) -> None:
    """End a load. What it wrote stays, and is right: every tile and row is final by itself, as of the load's cut."""
    from coeval_pipelines.coordination import backfills

    with _opened() as (settings, control):
        found = backfills.cancel(settings, control, number)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    units, rows = found.run.units, found.run.rows
    left = "nothing was written"
    if units is not None and rows is not None:
        left = f"{found.units_done} of {units} units are written, {rows - found.run.done:,} of {rows:,} rows are not"
    print(f"load {number} of {found.run.view} is cancelled: {left}")


def _limits(
    settings: Settings, control: ControlPlane, manifest: Manifest, rate: float, budget: float | None
) -> Limits | None:
    """What was asked for; None: nothing was."""
    from coeval_pipelines.coordination.fill import default_limits
    from coeval_pipelines.offline.throttle import Limits

    if budget is None and not rate:
        return None
    if budget is None:
        budget = default_limits(settings, control, manifest).latency_ms
    return Limits(rate, budget)


def _asked(limits: Limits | None, wait: bool, watch: Watch) -> Asked:
    from coeval_pipelines.coordination.fill import Asked

    return Asked(limits=limits, wait=wait, watch=watch, why=" ".join(["coeval", *sys.argv[1:]]))


def _print(written: dict[str, int], as_json: bool, nothing: str = "nothing to load") -> None:
    if as_json:
        print(json.dumps({"written": written}))
        return
    print("\n".join(f"{name:<24} {count:>12,} written" for name, count in written.items()) or nothing)


@contextmanager
def _opened() -> Iterator[tuple[Settings, ControlPlane]]:
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane

    settings = load_settings()
    with closing(ControlPlane.open(settings)) as control:
        yield settings, control


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
