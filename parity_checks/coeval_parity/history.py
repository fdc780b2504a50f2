"""`coeval parity gate` and `coeval parity history`: what earlier runs said of each view version. Computes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coeval_pipelines.control import ParityCheck

_BARS = "▁▂▃▄▅▆▇█"


def gate(
    views: Annotated[list[str] | None, typer.Argument(help="Views to ask for (default: all).")] = None,
    max_age: Annotated[str, typer.Option(help="How old a run may be that counts: 24h, 7d (default: any age).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """May this version be promoted? Exit 1 unless the last parity run of every view version passed.

    It asks for the version that the manifest names: a change of the definition closes the gate until parity has passed
    on what it made. A run that failed stays, until a later one that looked at the same keys passes.

    Example: coeval parity gate card_spend --max-age 24h
    """
    from coeval.client import read_manifest
    from coeval.errors import UsageError
    from coeval.online.reader import wall_clock
    from coeval.settings import load_settings
    from coeval.spec.time import parse_duration
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.control.gate import gates, refuse_closed

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    chosen = manifest.chosen_views(views)
    try:
        bound = parse_duration(max_age) if max_age else None
    except ValueError as error:
        raise UsageError(f"--max-age: {error}.", "Write 24h or 7d.") from error
    with closing(ControlPlane.open(settings)) as control:
        found = gates(control, chosen, wall_clock(), bound)
    if as_json:
        fields = ("view", "version", "passed", "why")
        lines = [{name: getattr(item, name) for name in fields} | _numbers(item.check) for item in found]
        json.dump(lines, sys.stdout, indent=2)
        print()
    else:
        for item in found:
            print(f"{'passed' if item.passed else 'CLOSED'}  {item.view} {item.version}: {item.why}")
    refuse_closed(found)


def history(
    view: Annotated[str | None, typer.Argument(help="A view (default: all).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many lines.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """What parity runs found of a view, the newest last, and how the share of values that differ went.

    Example: coeval parity history card_spend
    """
    from coeval.settings import load_settings
    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.control.parity import ParityBook

    with closing(ControlPlane.open(load_settings())) as control:
        checks = ParityBook(control).checks(view, limit=limit)[::-1]
    if as_json:
        json.dump([_document(item) for item in checks], sys.stdout, indent=2)
        print()
        return
    if not checks:
        print(
            f"No parity run has looked at {view or 'any view'} yet. Make one: coeval parity run {view or ''}".rstrip()
        )
        return
    _print(checks)


def _print(checks: Sequence[ParityCheck]) -> None:
    from rich.console import Console
    from rich.table import Table

    from coeval.spec.types import iso

    console = Console(width=None if sys.stdout.isatty() else 180)
    grid = Table(box=None, header_style="bold")
    for name in ("run", "at", "view", "version", "keys", "values", "match", "differ", ""):
        grid.add_column(name, justify="right" if name in ("run", "keys", "values", "match") else "left")
    for item in checks:
        differ = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in item.causes.items())
        verdict = "passed" if item.passed else f"[bold red]{item.breaches[0]}[/]"
        sample = "" if item.share >= 1 else f" ({item.share:.3g} of them)"
        grid.add_row(
            str(item.run), iso(item.at), item.view, item.version, f"{item.keys:,}{sample}", f"{item.compared:,}",
            f"{item.matched:,}", differ, verdict,
        )  # fmt: skip
    console.print(grid)
    for name in dict.fromkeys(item.view for item in checks):
        shares = [_differing(item) for item in checks if item.view == name]
        console.print(f"{name}: {sparkline(shares)} {shares[-1]:.2%} differ, at most {max(shares):.2%}", style="dim")


def sparkline(shares: Iterable[float]) -> str:
    """Shares as bars of one line, the greatest the highest; a share of 0 is the lowest bar, and nothing else is."""
    known = [*shares]
    top = max(known, default=0.0)
    return "".join(_BARS[0] if not share else _BARS[max(1, round(share / top * 7))] for share in known)


def _differing(check: ParityCheck) -> float:
    return sum(check.causes.values()) / check.compared if check.compared else 0.0


def _document(check: ParityCheck) -> dict[str, Any]:
    return {"view": check.view, "version": check.version, "passed": check.passed, **_numbers(check)}


def _numbers(check: ParityCheck | None) -> dict[str, Any]:
    if check is None:
        return {}
    names = ("run", "at", "keys", "compared", "matched", "causes", "breaches", "share", "seed")
    return {name: getattr(check, name) for name in names}
