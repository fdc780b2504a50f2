"""`coeval init`, `plan`, `apply` and `catalog validate`: start a catalog, see what it changes, register it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coeval_pipelines.catalog import look_commands as look

if TYPE_CHECKING:
    from collections.abc import Callable

    from coeval_pipelines.catalog.apply import Allowed
    from coeval_pipelines.catalog.plan import Plan
    from coeval_pipelines.catalog.report import Report

AsJson = look.AsJson
Repository = Annotated[Path | None, typer.Option("--repo", help="The feature repository (default: feature_repo/).")]
Remove = Annotated[
    list[str] | None, typer.Option("--remove", help="A view or service that vanished from the files and may go.")
]
Break = Annotated[
    list[str] | None, typer.Option("--break", help="An event source that may break with what is on its topic.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    group = typer.Typer(help="Look at the registered catalog, or check the one in the files.", no_args_is_help=True)
    group.command("list")(look.list_views)
    group.command("show")(look.show)
    group.command("lineage")(look.lineage)
    group.command("docs")(look.docs)
    group.command("validate")(validate)
    app.command("init")(init)
    app.command("plan")(plan)
    app.command("apply")(apply)
    app.add_typer(group, name="catalog")


def init(
    name: Annotated[str, typer.Argument(help="The project: lower-case letters, digits, underscores.")],
    path: Annotated[Path | None, typer.Option(help="The directory to write it to (default: ./NAME).")] = None,
) -> None:
    """Start a catalog that runs: entities, sources, views, a derived feature, a service.

    Example: coeval init taxi && cd taxi && coeval plan
    """
    from coeval_pipelines.catalog.starter import start

    with look.writing(path or Path(name)):
        files = start(name, path or Path(name))
    for written in files:
        print(written)
    print(f"Next: cd {shlex.quote(str(path or name))} && coeval plan", file=sys.stderr)


def plan(repo: Repository = None, remove: Remove = None, breaking: Break = None, as_json: AsJson = False) -> None:
    """Say what applying the feature repository changes, and what that costs. Changes nothing; exit code 2 if refused.

    Example: coeval plan --remove card_geo
    """
    from coeval_pipelines.catalog import apply as work
    from coeval_pipelines.catalog.baseline import registered, released, settings_of
    from coeval_pipelines.catalog.deployed import look as look_around
    from coeval_pipelines.catalog.plan import make_plan
    from coeval_pipelines.catalog.plan_text import as_document, lines

    repository = work.find_repository(repo)
    settings, allowed = settings_of(repository), work.Allowed(tuple(remove or ()), tuple(breaking or ()))
    before = registered(settings), released(settings)
    report = _reading(repository, lambda progress: work.read(settings, repository, progress, allowed))
    found = make_plan(report, look_around(settings, *before, report.manifest), allowed.remove, allowed.breaking)
    if as_json:
        print(json.dumps(as_document(found), indent=2))
    else:
        _print_lines(lines(found))
    if found.refused:
        raise typer.Exit(2)


def apply(repo: Repository = None, remove: Remove = None, breaking: Break = None, as_json: AsJson = False) -> None:
    """Register the feature repository with Feast and compile the manifest, as `feast apply` does there."""
    from coeval_pipelines.catalog.apply import Allowed
    from coeval_pipelines.catalog.apply import apply as work

    _compile(work, repo, Allowed(tuple(remove or ()), tuple(breaking or ())), "Applied", as_json)


def validate(repo: Repository = None, remove: Remove = None, breaking: Break = None, as_json: AsJson = False) -> None:
    """Check the feature repository as `coeval apply` would, and say what applying it would change. Changes nothing."""
    from coeval_pipelines.catalog.apply import Allowed
    from coeval_pipelines.catalog.apply import validate as work

    _compile(work, repo, Allowed(tuple(remove or ()), tuple(breaking or ())), "Valid", as_json)


def _compile(work: Callable[..., Report], repo: Path | None, allowed: Allowed, verb: str, as_json: bool) -> None:
    from coeval_pipelines.catalog.apply import find_repository
    from coeval_pipelines.catalog.baseline import registered, released, settings_of
    from coeval_pipelines.catalog.deployed import Deployed
    from coeval_pipelines.catalog.plan import make_plan

    repository = find_repository(repo)
    settings = settings_of(repository)
    before = registered(settings)
    released(settings)  # The guard reads it too, in the process of Feast: what cannot be read is better said here.
    report = _reading(repository, lambda progress: work(settings, repository, progress, allowed))
    _report(report, make_plan(report, Deployed(registered=before), allowed.remove, allowed.breaking), verb, as_json)


def _reading(repository: Path, action: Callable[[Callable[[str], None]], Report]) -> Report:
    """Run an action that reads the repository, saying so; what Feast printed is shown where a file does not run."""
    from rich.console import Console

    from coeval.errors import CatalogError

    console = Console(stderr=True)
    said: list[str] = []
    try:
        with console.status(f"feast reads {repository} (its start takes some seconds)"):
            return action(said.append)
    except CatalogError as error:
        if error.reason.startswith("feast apply failed"):
            print("\n".join(said), file=sys.stderr)
        raise


def _report(report: Report, plan: Plan, verb: str, as_json: bool) -> None:
    from coeval_pipelines.catalog.plan_text import changed, short
    from coeval_pipelines.catalog.summary import counts

    manifest = report.manifest
    if as_json:
        head = {"manifest": manifest.hash, "counts": counts(manifest)}
        look.print_json(head | {"changes": changed(plan), "notes": report.notes})
        return
    amounts = ", ".join(f"{number} {kind}" for kind, number in counts(manifest).items())
    print(f"{verb}: {amounts}; manifest {manifest.hash[:12]}")
    for line in (*short(plan), *(f"note: {note}" for note in report.notes)):
        print(f"  {line}")


def _print_lines(styled: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 400, highlight=False)
    for text, style in styled:
        console.print(Text(text, style=style), soft_wrap=True)
