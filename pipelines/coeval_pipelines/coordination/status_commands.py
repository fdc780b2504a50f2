"""`coeval status`: how everything is, at a glance."""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.spec.manifest import Manifest
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.check_status import CheckStatus
    from coeval_pipelines.coordination.stream_model import Problem, StreamStatus
    from coeval_pipelines.local.state import StackStatus

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_SECONDS = 1.0
"""For how long a broker is waited for that may not be there."""


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("status")(status)


@dataclass(frozen=True, slots=True)
class Glance:
    """How everything is: the streams (None: none was released, or the broker is away), and what checks found.

    `unknown` is what keeps from knowing more, `failed` the checks that did.
    """

    local: StackStatus
    streams: StreamStatus | None = None
    checks: tuple[CheckStatus, ...] = ()
    unknown: tuple[Problem, ...] = ()
    failed: tuple[Problem, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether all that has to run does; where streams are watched from afar, there is no local stack."""
        runs = self.local.healthy or (self.streams is not None and not self.local.components)
        return runs and not self.unknown and not (self.streams and self.streams.problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, the most basic first."""
        return (*self.unknown, *(self.streams.problems if self.streams else ()), *self.failed)

    @property
    def exit_code(self) -> int:
        """0 where all is well, 3 where something does not run, else 1: a check failed."""
        if not self.healthy:
            return 3
        return 1 if self.failed else 0


def status(as_json: AsJson = False) -> None:
    """How everything is: local stack, streams, what checks found last; and what to type about what is wrong.

    Exit code 3 where a component or a stream is not well, else 1 where a check failed or parity never looked at a view.
    What is older than a week, parity left aside, is not counted.
    """
    from coeval.settings import load_settings
    from coeval_pipelines.local import stack

    settings = load_settings()
    local = stack.status(settings)
    if local.components and not as_json:
        _print_local(local)  # it is known at once
    found = look(settings, local)
    (_print_json if as_json else _print)(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def look(settings: Settings, local: StackStatus) -> Glance:
    """Look at everything beside the local stack, and change nothing."""
    from sqlalchemy.exc import SQLAlchemyError

    from coeval.errors import CoevalError
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.stream_model import Problem

    if not settings.control_path.exists():
        return Glance(local)
    try:
        with closing(ControlPlane.open(settings)) as control:
            return _looked(settings, local, control)
    except CoevalError as error:
        return Glance(local, unknown=(Problem("catalog", error.reason, error.instruction),))
    except SQLAlchemyError as error:
        said = f"{settings.control_path} cannot be read: {str(error).splitlines()[0]}"
        return Glance(local, unknown=(Problem("control plane", said, "docs/operations.md"),))


def _looked(settings: Settings, local: StackStatus, control: ControlPlane) -> Glance:
    from coeval_pipelines.control import ALIVE
    from coeval_pipelines.control.checks import newest_runs
    from coeval_pipelines.control.gate import gates
    from coeval_pipelines.coordination.check_status import check_problems, check_status, recent
    from coeval_pipelines.coordination.stream_model import Problem
    from coeval_pipelines.coordination.stream_status import stream_status

    now, streams = time.time_ns() // 1000, None
    unknown: tuple[Problem, ...] = ()
    released = control.released()
    manifest = released or _applied(settings)
    if released is not None or control.runs(statuses=ALIVE):
        if _answers(settings.kafka.bootstrap):
            streams = stream_status(settings, control)
        else:
            said = f"nothing answers at {settings.kafka.bootstrap}, so nothing is known of streams"
            unknown = (Problem("kafka", said, "coeval up, or the broker's own logs"),)
    if manifest is None:
        return Glance(local, streams, unknown=unknown)
    open_or_not = gates(control, manifest.views.values(), now)
    runs = recent(newest_runs(control, manifest), now)
    failed = tuple(check_problems(open_or_not, runs, now))
    return Glance(local, streams, check_status(open_or_not, runs, now), unknown, failed)


def _applied(settings: Settings) -> Manifest | None:
    """What was applied last; None: nothing was."""
    from coeval.manifests import read_manifest

    return read_manifest(settings.manifest_path) if settings.manifest_path.exists() else None


def _answers(bootstrap: str) -> bool:
    """Whether something listens at one of the addresses: Kafka's client would wait for it ten times as long."""
    from coeval_pipelines.local.components import host_port

    for address in bootstrap.split(","):
        try:
            socket.create_connection(host_port(address.strip(), 9092), _SECONDS).close()
        except OSError:
            continue
        return True
    return False


def _print_json(found: Glance) -> None:
    from coeval_pipelines.coordination.stream_text import as_document

    document: dict[str, Any] = {
        "healthy": found.healthy,
        **asdict(found.local),
        "streams": None if found.streams is None else as_document(found.streams),
        "checks": [asdict(item) for item in found.checks],
        "problems": [asdict(item) for item in found.problems],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


def _print_local(local: StackStatus) -> None:
    from coeval_pipelines.coordination.stream_text import new_console
    from coeval_pipelines.local.text import components_table

    new_console().print(components_table(local))


def _print(found: Glance) -> None:
    from coeval_pipelines.coordination.check_status import CHECK_COLUMNS, check_row
    from coeval_pipelines.coordination.stream_text import new_console, print_problems, runs_table, table

    console = new_console()
    if not found.local.components and found.streams is None:
        console.print("The local stack is not running. Start it: coeval up")
    if found.streams is not None and found.streams.runs:
        console.print()
        console.print(runs_table(found.streams))
    if found.checks:
        console.print()
        console.print(table(CHECK_COLUMNS, map(check_row, found.checks)))
    if found.problems:
        console.print()
        print_problems(console, found.problems)
