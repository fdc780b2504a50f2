"""The command groups of this room; `coeval training-set` itself."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from coeval_pipelines.offline import log_commands

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Add the command groups to the root."""
    log_commands.register(app)
    training_set = typer.Typer(help="Point-in-time-correct training sets.", no_args_is_help=True)
    training_set.command("build")(build)
    app.add_typer(training_set, name="training-set")


def build(
    service: Annotated[str, typer.Argument(help="The feature service, e.g. coupon_propensity.")],
    spine: Annotated[str, typer.Option(help="Parquet files or a Delta table, or a SELECT, with event_timestamp.")],
    name: Annotated[str, typer.Option(help="The name of the training set.")],
    knowledge: Annotated[str, typer.Option(help="available (what could be known then) or final.")] = "available",
    as_json: AsJson = False,
) -> None:
    """Build a training set: every spine row with the features that were visible at its event_timestamp."""
    from coeval.client import read_manifest
    from coeval.settings import load_settings
    from coeval_pipelines.offline.session import spark_session
    from coeval_pipelines.offline.training_set import build_training_set

    settings = load_settings()
    manifest = read_manifest(settings.manifest_path)
    with spark_session(settings) as spark:
        built = build_training_set(spark, settings, manifest, service, spine, name, knowledge)
    if as_json:
        document = {"path": str(built.path), "rows_in": built.rows_in, "rows_out": built.rows_out}
        print(json.dumps({**document, "lineage": dict(built.lineage)}, indent=2))
    else:
        print(f"{built.rows_out:,} rows of {built.rows_in:,}   {built.path}")
        print(f"content {built.lineage['content_hash'][:16]}   manifest {built.lineage['manifest'][:12]}")
