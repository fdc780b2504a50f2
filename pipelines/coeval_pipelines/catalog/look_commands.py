"""`coeval catalog ...`: look at what is registered, as tables, JSON, a picture or pages."""

from __future__ import annotations

import difflib
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coeval.spec.manifest import Manifest

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def list_views(as_json: AsJson = False) -> None:
    """List the registered views: keys, windows, features, owner, promised freshness, version."""
    from coeval_pipelines.catalog.summary import listing

    manifest = _manifest()
    lines = listing(manifest)
    if as_json:
        print_json(lines)
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
        print_json(document)
        return
    tables = ("features", "columns", "request")
    for key, value in document.items():
        if key not in tables:
            print(f"{key:<13}{_text(value)}")
    for key in tables:
        if document.get(key):
            print()
            columns = tuple(document[key][0])
            _print_table(columns, [[_text(row[column]) for column in columns] for row in document[key]], title=key)


def lineage(
    name: Annotated[str, typer.Argument(help="Something with a name: a topic, source, view, service ...")] = "",
    as_json: AsJson = False,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    picture: Annotated[Path | None, typer.Option("--svg", help="Write a picture to this file.")] = None,
) -> None:
    """Show what comes from what: from topics and files to sources, views, derived views and services.

    With a name, all that leads to it and all that it leads to.
    """
    from coeval.errors import UsageError
    from coeval_pipelines.catalog import lineage as graphs
    from coeval_pipelines.catalog.docs import deprecated
    from coeval_pipelines.catalog.picture import svg

    if (as_json, as_mermaid, picture is not None).count(True) > 1:
        raise UsageError("Two forms of one picture were asked for.", "Give one of --json, --mermaid and --svg.")
    manifest = _manifest()
    whole = graphs.lineage(manifest)
    graph = graphs.around(whole, name) if name else whole
    if not graph.nodes:
        raise _unknown(name, manifest)
    if picture:
        with writing(picture):
            picture.write_text(svg(graph, old=deprecated(manifest)), encoding="utf-8")
        print(picture)
    elif as_json:
        print_json(graph.document())
    else:
        print("\n".join(graphs.mermaid(graph) if as_mermaid else graphs.tree(graph, name)))


def docs(out: Annotated[Path, typer.Option("--out", help="The directory to write to.")]) -> None:
    """Write the registered catalog as a page to browse, search and print: it loads nothing from anywhere."""
    from coeval_pipelines.catalog.docs import write_docs

    manifest = _manifest()
    with writing(out):
        written = write_docs(manifest, out)
    for path in written:
        print(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say it as an error of usage where a path that was asked for cannot be written."""
    from coeval.errors import UsageError

    try:
        yield
    except OSError as error:
        reason = f"{path} cannot be written: {error.strerror or error} ({error.filename or path})."
        raise UsageError(reason, "Give a path in a directory that is there and may be written to.") from error


def _unknown(name: str, manifest: Manifest) -> Exception:
    from coeval.errors import UnknownFeatureError
    from coeval_pipelines.catalog.summary import names

    known = names(manifest)
    near = difflib.get_close_matches(name, known, n=3)
    return UnknownFeatureError(f"Nothing named {name} is registered.", f"Known are: {', '.join(near or known)}.")


def _manifest() -> Manifest:
    from coeval.errors import ManifestError
    from coeval.settings import load_settings
    from coeval_pipelines.catalog.baseline import registered

    settings = load_settings()
    manifest = registered(settings)
    if manifest is None:
        raise ManifestError(f"No manifest at {settings.manifest_path}.", "Register the catalog: coeval apply")
    return manifest


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}".strip() for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_json(document: object) -> None:
    """Print a document as JSON on stdout."""
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
