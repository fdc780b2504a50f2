"""`coeval stream status` and `coeval stream logs`: look at the streams, change nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(stream: typer.Typer) -> None:
    """Add the commands to the `stream` group."""
    stream.command("status")(status)
    stream.command("logs")(logs)


def status(as_json: AsJson = False) -> None:
    """Say how far, how fresh and how sound the streams are, who owns which tiles, and what to read on what is wrong.

    Exit code 3 where something is wrong.
    """
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.stream_status import stream_status
    from coeval_pipelines.coordination.stream_text import render

    settings = load_settings()
    with closing(ControlPlane.open(settings)) as control:
        found = stream_status(settings, control)
    render(found, as_json)
    if found.problems:
        raise typer.Exit(3)


def logs(
    components: Annotated[
        list[str] | None,
        typer.Option("--component", help="writer, coordinator, taskmanager, ...; may be repeated. Default: all."),
    ] = None,
    view: Annotated[str, typer.Option(help="Only what names this view.")] = "",
    since: Annotated[str, typer.Option(help="A time ago (15m, 2h) or an RFC 3339 instant.")] = "1h",
    grep: Annotated[str, typer.Option(help="Only what this regular expression is found in.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the logs of all components as one, by time."""
    from coeval.settings import load_settings
    from coeval_pipelines.coordination.logs_view import Wanted, check_components, follow_logs, read_logs, show

    settings = load_settings()
    check_components(settings, components or ())
    wanted = Wanted(frozenset(components or ()), view, _instant(since), _pattern(grep))
    show(follow_logs(settings, wanted) if follow else read_logs(settings, wanted), as_json)


def _instant(since: str) -> int:
    import time

    from coeval.errors import UsageError
    from coeval.spec.time import parse_duration
    from coeval.spec.types import TIMESTAMP, parse_literal

    try:
        return time.time_ns() // 1000 - parse_duration(since)
    except ValueError:
        pass
    try:
        return int(parse_literal(TIMESTAMP, since) or 0)
    except ValueError as error:
        raise UsageError(
            f"--since {since!r} is neither a duration nor an instant.", "Write 15m, 2h or 2026-11-20T00:00:00Z."
        ) from error


def _pattern(grep: str) -> str:
    import re

    from coeval.errors import UsageError

    try:
        re.compile(grep)
    except re.error as error:
        what = f"--grep {grep!r} is no regular expression: {error}."
        raise UsageError(what, "Write a backslash before what is meant as it is.") from error
    return grep
