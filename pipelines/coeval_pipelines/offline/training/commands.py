"""`coeval training-set`: build, list, show, diff, rebuild, extend, remove."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coeval.settings import Settings
    from coeval.training import Labels
    from coeval_pipelines.offline.training.registry import Kept

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Name = Annotated[str, typer.Argument(help="A training set: coeval training-set list.")]
Engine = Annotated[str, typer.Option(help="auto (by size), local (this process, no Java) or spark.")]
Spine = Annotated[
    str, typer.Option(help="Parquet files, a CSV file or a Delta table, or a SELECT of Spark's, with event_timestamp.")
]
LabelTable = Annotated[str, typer.Option("--labels", help="A table of labels: keys, an instant, and the labels.")]
Delay = Annotated[str, typer.Option(help="How long after its event_timestamp a label may become known, e.g. 30d.")]
LabelTime = Annotated[str, typer.Option(help="The column of --labels that says when a label became known.")]


def register(app: typer.Typer) -> None:
    """Add the command group to the root."""
    group = typer.Typer(
        help="Training sets: the features of a service as they were known at each instant of a spine.\n\n"
        "A set is one Delta table whose last commit says what it was made of (lineage), what its values are like"
        " (profile) and what to know about it (report).",
        no_args_is_help=True,
    )
    group.command("build")(build)
    group.command("list")(list_sets)
    for command in (show, diff, rebuild, extend, remove):
        group.command(command.__name__)(command)
    app.add_typer(group, name="training-set")


def build(
    service: Annotated[str, typer.Argument(help="The feature service, e.g. coupon_propensity, or service@hash.")],
    spine: Spine,
    name: Annotated[str, typer.Option(help="The name of the training set; an earlier one of that name is replaced.")],
    knowledge: Annotated[str, typer.Option(help="available (what could be known then) or final.")] = "available",
    labels: LabelTable = "",
    label_delay: Delay = "",
    label_time: LabelTime = "event_timestamp",
    engine: Engine = "auto",
    as_json: AsJson = False,
) -> None:
    """Build a training set: every spine row with the features that were visible at its event_timestamp.

    The spine has the service's keys, event_timestamp, the request inputs of derived features, and any other columns;
    all of them are kept. Until it is written whole, an earlier set of that name stays as it is.

    \b
    coeval training-set build coupon_propensity --spine spine.parquet --name march
    coeval training-set build coupon_propensity --spine spine.parquet --name march \\
        --labels redeemed.parquet --label-delay 30d
    """
    from coeval.manifests import Manifests
    from coeval.settings import load_settings
    from coeval_pipelines.offline.asked import Asked
    from coeval_pipelines.offline.training.build import Wanted
    from coeval_pipelines.offline.training.build import build as run
    from coeval_pipelines.offline.training.text import built_lines

    settings = load_settings()
    asked = Asked.of(*Manifests(settings).offline(service))
    wanted = Wanted(asked, spine, _labels(labels, label_delay, label_time), knowledge, engine)
    built = run(settings, wanted, name, _say)
    if as_json:
        print(json.dumps({"path": str(built.path), "lineage": built.lineage, "report": built.report}, indent=2))
    else:
        print("\n".join(built_lines(built)))


def list_sets(as_json: AsJson = False) -> None:
    """List the training sets: name, service, rows, content hash, when and by which engine it was built."""
    from coeval_pipelines.offline.training.registry import kept_sets, unfinished, unforgotten
    from coeval_pipelines.offline.training.text import list_lines, listed

    settings = _settings()
    tenant = _tenant(settings)
    sets, rest, held = kept_sets(settings, tenant), unfinished(settings, tenant), unforgotten(settings, tenant)
    if as_json:
        document = {"training_sets": [listed(item) for item in sets], "unfinished": rest, "unforgotten": held}
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(list_lines(sets, rest, held)))


def show(name: Name, as_json: AsJson = False) -> None:
    """Show what a training set was made of, what its values are like, and what to know about it."""
    from coeval_pipelines.offline.training.text import show_lines

    kept = _kept(_settings(), name)
    document = kept.document
    if as_json:
        parts = {"lineage": document.lineage, "profile": document.profile, "report": document.report}
        print(json.dumps({"path": str(kept.path), "version": kept.version, **parts}, indent=2))
    else:
        print("\n".join(show_lines(kept)))


def diff(
    one: Annotated[str, typer.Argument(help="The training set to compare with.")],
    other: Annotated[str, typer.Argument(help="The training set that is compared.")],
    as_json: AsJson = False,
) -> None:
    """Say what differs between two training sets: rows, columns, distributions; and why, by what they were made of.

    The population stability index (PSI) of a column is usually called moderate from 0.1, and large from 0.25.
    """
    from coeval_pipelines.offline.training.diff import difference
    from coeval_pipelines.offline.training.text import diff_lines

    settings = _settings()
    found = difference(_kept(settings, one).document, _kept(settings, other).document)
    print(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(diff_lines(found)))


def rebuild(name: Name, engine: Engine = "auto", as_json: AsJson = False) -> None:
    """Build a training set again from the versions that it was made of, and compare. Exit code 1 where it differs.

    Nothing is written, unless something that it may hold was erased: then it is replaced by what is left.
    """
    from dataclasses import asdict

    from coeval_pipelines.offline.training.rebuild import rebuild as run
    from coeval_pipelines.offline.training.text import rebuilt_lines

    settings = _settings()
    found = run(settings, _kept(settings, name), engine, _say)
    print(json.dumps({**asdict(found), "same": found.same}, indent=2) if as_json else "\n".join(rebuilt_lines(found)))
    if not found.same:
        raise typer.Exit(1)


def extend(
    name: Name,
    spine: Spine,
    labels: LabelTable = "",
    label_delay: Delay = "",
    label_time: LabelTime = "event_timestamp",
    engine: Engine = "auto",
    as_json: AsJson = False,
) -> None:
    """Add new rows to a training set, by its own definitions; those that are there are not computed again."""
    from coeval_pipelines.offline.training.build import extend as run
    from coeval_pipelines.offline.training.text import built_lines

    settings = _settings()
    more = _labels(labels, label_delay, label_time)
    built = run(settings, _kept(settings, name), spine, more, engine, _say)
    if as_json:
        print(json.dumps({"path": str(built.path), "lineage": built.lineage, "report": built.report}, indent=2))
    else:
        print("\n".join(built_lines(built)))


def remove(name: Name, as_json: AsJson = False) -> None:
    """Remove a training set with all its versions, or what a killed build left of one.

    The versions of the log that it named may be let go then.
    """
    from coeval_pipelines.offline.training.registry import remove as run

    settings = _settings()
    run(settings, _tenant(settings), name)
    print(json.dumps({"removed": name}) if as_json else f"{name} is removed.")


def _labels(table: str, delay: str, at: str) -> Labels | None:
    from coeval.errors import UsageError
    from coeval.training import Labels

    if bool(table) != bool(delay):
        raise UsageError("Labels come with a delay.", "Give both: --labels FILE --label-delay 30d")
    return Labels(table, delay, at) if table else None


def _settings() -> Settings:
    from coeval.settings import load_settings

    return load_settings()


def _tenant(settings: Settings) -> str:
    from coeval.manifests import read_manifest

    return read_manifest(settings.manifest_path).tenant


def _kept(settings: Settings, name: str) -> Kept:
    from coeval_pipelines.offline.training.registry import kept_set

    return kept_set(settings, _tenant(settings), name)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
