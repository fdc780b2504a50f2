"""`coeval stream`: plan, deploy, switch, retire, stop, rewind, rescale, cancel."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coeval_pipelines.coordination import look_commands
from coeval_pipelines.coordination.arguments import parse_instant

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.spec.manifest import Manifest
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.changes import Change

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Since = Annotated[
    str, typer.Option(help="The stream owns tiles from this RFC 3339 instant on; default: the last midnight UTC.")
]
Sources = Annotated[list[str] | None, typer.Argument(help="Event sources; default: all.")]
Source = Annotated[str, typer.Argument(help="The event source.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and why, and stop there.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    stream = typer.Typer(
        help="Run the streams: one job per event source, and what may replace it.", no_args_is_help=True
    )
    for command in (plan, deploy, switch, retire, stop, rewind, rescale, cancel):
        stream.command(command.__name__)(command)
    look_commands.register(stream)
    app.add_typer(stream, name="stream")


def plan(since: Since = "", as_json: AsJson = False) -> None:
    """Say what `deploy` would do to each source's job, how, and why: keep, savepoint or rewind. Changes nothing."""
    from coeval.client import read_manifest
    from coeval_pipelines.coordination.deploy import plan_deploy

    with _opened() as (settings, control):
        _show(plan_deploy(settings, read_manifest(settings.manifest_path), control, _start(since)), as_json)


def deploy(since: Since = "", as_json: AsJson = False) -> None:
    """Have every view of the applied catalog filled by the stream.

    A version that is deployed keeps its instant, and a job that does what it should goes on: run it again freely. New
    versions fill beside the old ones; fill them by batch too (coeval backfill run), check them (coeval parity run),
    then let readers have them (coeval stream switch).
    """
    from coeval.client import read_manifest
    from coeval_pipelines.coordination import deploy as rooms
    from coeval_pipelines.coordination.runs import await_running

    with _opened() as (settings, control):
        manifest = read_manifest(settings.manifest_path)
        ids = rooms.deploy(settings, manifest, control, _start(since), _say)
        _say_kept(control, manifest, since)
        _say("waiting until every task runs")
        await_running(settings, ids.values())
        released = control.released()
        runs = [{"run": run.number, "source": run.source, "job": ids.get(run.number, "")} for run in control.runs()]
    if as_json:
        print(json.dumps({"runs": runs, "released": bool(released and released.hash == manifest.hash)}))
        return
    for run in runs:
        print(f"{run['source']:<24} run {run['run']:<4} {run['job']}")
    if released and released.hash != manifest.hash:
        print("Readers still get what was released before. Then: coeval backfill run, parity run, stream switch.")


def switch(
    to: Annotated[str, typer.Option(help="The hash (or its beginning) of a manifest released before: roll back.")] = "",
) -> None:
    """Let readers have the applied catalog: once every view is filled, and parity has passed for it."""
    from coeval.client import read_manifest
    from coeval_pipelines.coordination import deploy as rooms

    with _opened() as (settings, control):
        manifest = control.manifest_like(to) if to else read_manifest(settings.manifest_path)
        rooms.switch(settings, manifest, control)
    print(f"released {manifest.hash[:12]}")


def retire(dry_run: DryRun = False) -> None:
    """End the filling of view versions that the released catalog does not name; after it there is no way back.

    Services that connected before the switch and were not restarted since are told that those are unavailable.
    """
    from coeval.errors import UsageError
    from coeval_pipelines.coordination import deploy as rooms

    with _opened() as (settings, control):
        if dry_run:
            released = control.released()
            if released is None:
                raise UsageError("Nothing is released.", "coeval stream deploy")
            found = [f"{item.view} {item.version}" for item in rooms.superseded(control, released)]
        else:
            found = rooms.retire(settings, control, _say)
    print("\n".join(found) or "nothing to retire")


def stop(sources: Sources = None, dry_run: DryRun = False) -> None:
    """Stop the jobs of sources, each with a savepoint. `deploy` starts them again from it."""
    from coeval_pipelines.coordination import runs
    from coeval_pipelines.coordination.locks import only_one

    with _opened() as (settings, control), only_one(settings, "deploy"):
        chosen = _known(control, sources or sorted({run.source for run in control.runs()}))
        if dry_run:
            stopped = tuple(run for run in control.runs() if run.source in chosen)
        else:
            stopped = runs.stop(settings, control, chosen, _say)
    what = "would be stopped" if dry_run else "stopped"
    print("\n".join(f"{run.source:<24} run {run.number} {what}" for run in stopped) or "nothing was running")


def cancel(run: Annotated[int, typer.Argument(help="The run's number: see `coeval stream status`.")]) -> None:
    """Give up a run that fills nothing alone: a rewind that does not get through, a new version nobody wants."""
    from coeval_pipelines.control import ENDED
    from coeval_pipelines.coordination import requests, runs
    from coeval_pipelines.coordination.locks import only_one

    with _opened() as (settings, control), only_one(settings, "deploy"):
        given_up = requests.cancel(control, run)
        control.set_run(given_up.number, ENDED, runs.now())
        runs.ensure_jobs(settings, control)
    print(f"{given_up.source:<24} run {given_up.number} cancelled")


def rewind(
    sources: Sources = None,
    to: Annotated[str, typer.Option(help="Go back to this RFC 3339 instant, if that is further than needed.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Begin again without state, far enough back to lose nothing; what runs goes on until the new run has passed it.

    It mends what a restart does not: lost or damaged checkpoints, state that has lost something. A changelog that lost
    data needs --to, from when on; values that are too great need batch: coeval backfill run --correct --force.
    """
    from coeval_pipelines.coordination import requests
    from coeval_pipelines.coordination.arguments import parse_instant

    instant = parse_instant(to, "--to") if to else None
    with _opened() as (settings, control):
        chosen = _known(control, sources or sorted({run.source for run in control.runs()}))
        _carry_out(
            settings,
            control,
            lambda: [change for name in chosen for change in requests.rewind(settings, control, name, instant)],
            dry_run,
            as_json,
        )


def rescale(
    source: Source,
    parallelism: Annotated[int, typer.Argument(help="How many task slots its job is to use.", min=1)],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change the parallelism of a source's job, by a savepoint. More than the topic has partitions is of little use."""
    from coeval_pipelines.coordination import requests

    with _opened() as (settings, control):
        _known(control, [source])
        _carry_out(
            settings,
            control,
            lambda: [requests.rescale(settings, control, source, parallelism)],
            dry_run,
            as_json,
        )


def _carry_out(
    settings: Settings, control: ControlPlane, make: Callable[[], Sequence[Change]], dry_run: bool, as_json: bool
) -> None:
    from coeval_pipelines.coordination import runs
    from coeval_pipelines.coordination.locks import only_one

    if dry_run:
        _show(make(), as_json)
        return
    # Planned under the lock too: what was planned before another command changed the runs would undo it.
    with only_one(settings, "deploy"):
        changes = make()
        _show(changes, as_json)
        ids = runs.carry_out(settings, control, changes, _say)
    _say("waiting until every task runs")
    runs.await_running(settings, ids.values())


def _show(changes: Sequence[Change], as_json: bool) -> None:
    if as_json:
        print(json.dumps([{**asdict(change), "how": change.how} for change in changes], indent=2))
        return
    for change in changes:
        print(f"{change.source:<24} {change.action:<8} {change.why}\n{'':<33} {change.how}")


@contextmanager
def _opened() -> Iterator[tuple[Settings, ControlPlane]]:
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane

    settings = load_settings()
    with closing(ControlPlane.open(settings)) as control:
        yield settings, control


def _known(control: ControlPlane, sources: Sequence[str]) -> list[str]:
    """The sources, each of which has a run.

    Raises:
        UsageError: one of them has none.
    """
    from coeval.errors import UsageError
    from coeval_pipelines.control import ALIVE

    known = sorted({run.source for run in control.runs(statuses=ALIVE)})
    for name in sources:
        if name not in known:
            raise UsageError(f"Nothing runs for the source {name!r}.", f"There are: {', '.join(known) or 'none'}.")
    return list(sources)


def _start(since: str) -> int:
    from coeval.spec.time import DAY, HOUR, floor_to
    from coeval_pipelines.coordination.runs import now

    # A midnight that is over, lateness included: so a backfill can follow at once.
    return parse_instant(since, "--since") if since else floor_to(now() - HOUR, DAY)


def _say_kept(control: ControlPlane, manifest: Manifest, since: str) -> None:
    """Say of each view that it keeps another instant than the one that was asked for."""
    from coeval.spec.types import iso
    from coeval_pipelines.coordination.changes import ownership

    for view, owned in ownership(manifest, control).items() if since else ():
        if owned != _start(since):
            _say(f"{view}: this version was deployed before, and keeps its tiles from {iso(owned)} on")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
