"""`coeval parity rebuild`: is a training set that is built again what it was? The exit code is the result."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def rebuild(
    sets: Annotated[list[str] | None, typer.Argument(help="Training sets (default: all that are kept).")] = None,
    engine: Annotated[str, typer.Option(help="auto (by size), local (this process, no Java) or spark.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table, with single values.")] = False,
    values: Annotated[bool, typer.Option("--values", help="Print single values that differ, with their keys.")] = False,
) -> None:
    """Build training sets again from what they were made of, and compare; exit 1 if one differs and nothing says why.

    Nothing is written beside the verdict. A set that cannot be what it was, since a subject was erased or events were
    let go, passes and says so. One that cannot be looked at fails, and the others are looked at.

    Example: coeval parity rebuild march
    """
    from rich.console import Console

    from coeval.errors import CheckFailedError
    from coeval.settings import load_settings
    from coeval_parity.rebuild.run import run_rebuild
    from coeval_parity.rebuild.text import print_result

    result = run_rebuild(load_settings(), sets or (), engine, _say)
    if as_json:
        print(json.dumps(result.to_document(), indent=2))
    else:
        print_result(result, Console(width=None if sys.stdout.isatty() else 180), values=values)
    if not result.passed:
        names = ", ".join(f"{item.name} is {item.outcome}" for item in result.sets if not item.passed)
        raise CheckFailedError(f"Rebuild: {names}.", "See docs/runbooks/parity.md: a training set that differs.")


def _say(message: str) -> None:
    print(f"rebuild: {message}", file=sys.stderr, flush=True)
