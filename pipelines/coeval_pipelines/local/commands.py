"""`coeval up` and `coeval down`: the local stack from the command line."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval_pipelines.local.state import StackStatus


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("up")(up)
    app.command("down")(down)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def up(as_json: AsJson = False) -> None:
    """Start the local stack: Redis, a Kafka broker, Flink, the online writer and the coordinator.

    State lives under COEVAL_HOME (default var/). A stack that runs is left as it is.
    """
    from coeval.settings import load_settings
    from coeval_pipelines.local import stack

    seen: dict[str, str] = {}

    def progress(state: StackStatus) -> None:
        for item in state.components:
            if seen.get(item.name) != item.health:
                seen[item.name] = item.health
                print(f"{item.name:<12} {item.health}", file=sys.stderr, flush=True)

    settings = load_settings()
    if stack.status(settings).running:
        print("The stack runs already; nothing is started twice.", file=sys.stderr)
    _show(stack.up(settings, progress=progress), as_json)


def down() -> None:
    """Stop the local stack and wait until nothing of it runs. State is kept."""
    from coeval.settings import load_settings
    from coeval_pipelines.local import stack

    print("stopped" if stack.down(load_settings()) else "nothing was running")


def _show(state: StackStatus, as_json: bool) -> None:
    if as_json:
        json.dump({"healthy": state.healthy, **asdict(state)}, sys.stdout, indent=2)
        print()
        return
    from rich.console import Console

    from coeval_pipelines.local.text import components_table

    Console(width=None if sys.stdout.isatty() else 160).print(components_table(state))
