"""What an operator asks for, planned as changes of runs: rescale, rewind, merge. They are carried out by `runs`."""

from __future__ import annotations

from dataclasses import replace

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.types import iso
from coeval_pipelines.control import ALIVE, RUNNING, ControlPlane, Run
from coeval_pipelines.coordination.changes import (
    REPLACE,
    RESCALE,
    Change,
    Version,
    again,
    filled_by,
    ownership,
    rewound,
    versions,
)
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.names import stream_sources


def rescale(settings: Settings, control: ControlPlane, source: str, parallelism: int) -> Change:
    """A change of a run's parallelism.

    Raises:
        UsageError: there is not exactly one running run, or the workers have not the slots.
    """
    runs = control.runs(source)
    if len(runs) != 1:
        what = "several runs fill" if runs else "no run fills"
        raise UsageError(
            f"For {source}, {what} its views.", "See coeval stream status; coeval stream retire merges runs."
        )
    (run,) = runs
    slots = FlinkCluster.open(settings).free_slots() + run.parallelism
    if not 1 <= parallelism <= slots:
        raise UsageError(
            f"{source} cannot run at parallelism {parallelism}: the workers have {slots} slots for it.",
            "Choose less, or give it workers (COEVAL_FLINK__WORKERS; then coeval down, coeval up).",
        )
    why = f"parallelism {run.parallelism} -> {parallelism}; the graph stays, so its state can be taken along"
    return Change(source, RESCALE, why, replace(run, parallelism=parallelism))


def rewind(settings: Settings, control: ControlPlane, source: str, to: int | None) -> tuple[Change, ...]:
    """A rewind of all that fills a source's views: each run as itself, beside what runs.

    `to` (microseconds UTC) goes back further.

    Raises:
        UsageError: nothing runs for that source, or it is being rewound.
        BrokerError: the broker does not answer.
    """
    runs = control.runs(source, ALIVE)
    if not runs:
        raise UsageError(f"Nothing runs for {source}.", "Deploy it: coeval stream deploy")
    numbers = {run.number for run in runs}
    under_way = [run for run in runs if numbers & set(run.replaces)]
    if under_way:
        raise UsageError(
            f"Run {under_way[0].number} of {source} is about to take over from another.",
            f"Wait until it has (coeval stream status), or give it up: coeval stream cancel {under_way[0].number}",
        )
    why = "asked for" if to is None else f"asked for, back to {iso(to)}"
    with Broker(settings.kafka) as broker:
        return tuple(again(broker, control, run, why, to) for run in runs)


def merge(settings: Settings, manifest: Manifest, control: ControlPlane) -> tuple[Change, ...]:
    """One run per source for exactly the views of a manifest, where several run or one fills more than that.

    Raises:
        BrokerError: the broker does not answer.
    """
    found: list[Change] = []
    with Broker(settings.kafka) as broker:
        for source in stream_sources(manifest):
            runs = control.runs(source.name, ALIVE)
            wanted = versions(manifest, source.name)
            if not runs or any(_takes_over(control, run, runs, wanted) for run in runs):
                continue
            why = "one run instead of several" if len(runs) > 1 else "it fills versions that are retired"
            numbers = tuple(run.number for run in runs)
            names = tuple(sorted(name for name, _ in wanted))
            draft = Run(
                0, source.name, manifest.hash, names, {}, {}, runs[-1].parallelism, replaces=numbers, reason=why
            )
            found.append(rewound(broker, control, manifest, draft, ownership(manifest, control), REPLACE))
    return tuple(found)


def _takes_over(control: ControlPlane, run: Run, runs: tuple[Run, ...], wanted: frozenset[Version]) -> bool:
    """Whether a run fills what is wanted alone, or will once it has passed all others."""
    others = {item.number for item in runs} - {run.number}
    return run.status == RUNNING and frozenset(filled_by(control, run)) == wanted and others <= set(run.replaces)


def cancel(control: ControlPlane, number: int) -> Run:
    """The run of that number, which may be given up: without it, everything that is released is filled still.

    Raises:
        UsageError: there is no such run, or it is the only one to fill a released view.
    """
    runs = control.runs(statuses=ALIVE)
    run = next((item for item in runs if item.number == number), None)
    if run is None:
        known = ", ".join(str(item.number) for item in runs) or "none"
        raise UsageError(f"There is no run {number}.", f"There are: {known}.")
    released = control.released()
    others = {item for other in runs if other.number != number for item in filled_by(control, other)}
    needed = versions(released, run.source) if released else frozenset()
    alone = sorted(name for name, version in filled_by(control, run) if (name, version) in needed - others)
    if alone:
        raise UsageError(
            f"Nothing but run {number} fills {', '.join(alone)}, which readers have.",
            "Stop it instead (coeval stream stop), or replace it (coeval stream rewind).",
        )
    return run
