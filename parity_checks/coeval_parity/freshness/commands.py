"""`coeval freshness`: do readers get what there is, as fast as promised? The exit code is the result."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from coeval.errors import CoevalError
    from coeval.settings import Settings
    from coeval_parity.freshness.result import ViewFreshness

_SECONDS = 5.0
"""How often `--watch` looks."""


def freshness(
    views: Annotated[list[str] | None, typer.Argument(help="Views (default: all that readers have).")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every 5 s, until Ctrl-C.")] = False,
    history: Annotated[int, typer.Option(help="Print so many of the newest runs instead.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say how old in event time what readers get is, by view and partition; exit 1 if a promise is broken.

    A view breaks its promise (sla freshness) where something newer than what is readable has been in its topic for
    longer than that. A partition where nothing new comes is idle, and breaks none. Views of files are held to their
    last load. Every run is kept, but those of --watch.

    Example: coeval freshness card_spend --json
    """
    from coeval.settings import load_settings
    from coeval_parity.freshness.run import run_freshness

    settings = load_settings()
    if history:
        _print_history(settings, views or (), history, as_json)
        return
    if watch:
        _watch(settings, views or (), as_json)
        return
    found = run_freshness(settings, views or ())
    _print(found, as_json)
    if not all(view.ok for view in found):
        raise _error([view for view in found if not view.ok])


def _error(broken: Sequence[ViewFreshness]) -> CoevalError:
    """What ends a run: a promise that is broken, or that nothing can be said of some views."""
    from coeval.errors import BrokerError, CheckFailedError

    kind = BrokerError if all(view.unknown and view.ready for view in broken) else CheckFailedError
    said = "; ".join(f"{view.view}: {view.problems[0]}" for view in broken)
    return kind(f"Freshness: {said.removesuffix('.')}.", "See docs/runbooks/freshness.md.")


def _watch(settings: Settings, names: Sequence[str], as_json: bool) -> None:
    import time

    from coeval.errors import InfrastructureError
    from coeval_parity.freshness.run import look_now

    console = _console()
    while True:
        try:
            found = look_now(settings, names)
        except InfrastructureError as error:
            print(f"coeval: {error.reason}", file=sys.stderr, flush=True)
        else:
            if console.is_terminal and not as_json:
                console.clear()
            _print(found, as_json, lines=True)
        time.sleep(_SECONDS)


def _print(found: Sequence[ViewFreshness], as_json: bool, *, lines: bool = False) -> None:
    from coeval_parity.freshness.result import headline
    from coeval_parity.freshness.text import print_views

    if not as_json:
        print_views(found, _console())
        return
    views = [view.to_document() for view in found]
    document = {"passed": all(view.ok for view in found), "headline": headline(found), "views": views}
    print(json.dumps(document, indent=None if lines else 2), flush=True)


def _print_history(settings: Settings, names: Sequence[str], limit: int, as_json: bool) -> None:
    from coeval_parity.freshness.run import past
    from coeval_parity.freshness.text import print_history

    found = past(settings, names, limit)
    if as_json:
        print(json.dumps([view.to_document() for view in found], indent=2))
    else:
        print_history(found, _console())


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 180)
