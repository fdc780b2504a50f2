"""`coeval apply` and `coeval catalog ...`: register the catalog, and look at what is registered."""

from __future__ import annotations

import difflib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coeval.spec.manifest import Manifest
    from coeval_pipelines.catalog.apply import Outcome

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Repository = Annotated[Path | None, typer.Option("--repo", help="The feature repository (default: feature_repo/).")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    group = typer.Typer(help="Look at the registered catalog, or check the one in the files.", no_args_is_help=True)
    group.command("list")(list_views)
    group.command("show")(show)
    group.command("validate")(validate)
    app.command("apply")(apply)
    app.add_typer(group, name="catalog")


def apply(repo: Repository = None, as_json: AsJson = False) -> None:
    """Register the feature repository with Feast and compile the manifest, as `feast apply` does there."""
    from coeval_pipelines.catalog import apply as work

    _report(_run(work.apply, repo), "Applied", as_json)


def validate(repo: Repository = None, as_json: AsJson = False) -> None:
    """Check the feature repository as `coeval apply` would, and say what applying it would change. Changes nothing."""
    from coeval_pipelines.catalog import apply as work

    _report(_run(work.validate, repo), "Valid", as_json)


def _run(action: Any, repo: Path | None) -> Outcome:
    from rich.console import Console

    from coeval.errors import CatalogError
    from coeval.settings import load_settings
    from coeval_pipelines.catalog.apply import find_repository

    repository = find_repository(repo)
    console = Console(stderr=True)
    said: list[str] = []
    try:
        with console.status(f"feast reads {repository} (its start takes some seconds)"):
            outcome: Outcome = action(load_settings(), repository, said.append)
            return outcome
    except CatalogError as error:
        if error.reason.startswith("feast apply failed"):
            print("\n".join(said), file=sys.stderr)
        raise


def _report(outcome: Outcome, verb: str, as_json: bool) -> None:
    from coeval_pipelines.catalog.summary import counts

    manifest = outcome.manifest
    if as_json:
        changed = [asdict(change) for change in outcome.changes]
        _print_json({"manifest": manifest.hash, "counts": counts(manifest), "changes": changed})
        return
    amounts = ", ".join(f"{number} {kind}" for kind, number in counts(manifest).items())
    print(f"{verb}: {amounts}; manifest {manifest.hash[:12]}")
    for change in outcome.changes or ("  no changes",):
        print(f"  {change}".rstrip() if outcome.changes else change)


def list_views(as_json: AsJson = False) -> None:
    """List the registered views: keys, windows, features, owner, promised freshness, version."""
    from coeval_pipelines.catalog.summary import listing

    manifest = _manifest()
    lines = listing(manifest)
    if as_json:
        _print_json(lines)
        return
    columns = ("name", "kind", "key", "source", "windows", "features", "owner", "freshness", "version")
    rows = [[_text(line[column]) for column in columns] for line in lines]
    _print_table(columns, rows, title=f"{manifest.project}, manifest {manifest.hash[:12]}")


def show(
    name: Annotated[str, typer.Argument(help="A view, derived view or service.")], as_json: AsJson = False
) -> None:
    """Show all that is registered of a view, derived view or service."""
    from coeval_pipelines.catalog.summary import detail

    manifest = _manifest()
    document = detail(manifest, name)
    if document is None:
        raise _unknown(name, manifest)
    if as_json:
        _print_json(document)
        return
    tables = ("features", "request")
    for key, value in document.items():
        if key not in tables:
            print(f"{key:<13}{_text(value)}")
    for key in tables:
        if document.get(key):
            print()
            columns = tuple(document[key][0])
            _print_table(columns, [[_text(row[column]) for column in columns] for row in document[key]], title=key)


def _unknown(name: str, manifest: Manifest) -> Exception:
    from coeval.errors import UnknownFeatureError
    from coeval_pipelines.catalog.summary import names

    known = names(manifest)
    near = difflib.get_close_matches(name, known, n=3)
    return UnknownFeatureError(f"Nothing named {name} is registered.", f"Known are: {', '.join(near or known)}.")


def _manifest() -> Manifest:
    from coeval.client import read_manifest
    from coeval.settings import load_settings

    return read_manifest(load_settings().manifest_path)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}".strip() for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def _print_table(columns: tuple[str, ...], rows: list[list[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
