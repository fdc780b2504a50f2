"""Two kills of what runs on Spark, one of Python and one of the JVM; `make chaos-offline` does twenty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from coeval.settings import Settings, load_settings
from coeval_pipelines.coordination.backfill_commands import register as register_backfill
from coeval_pipelines.offline.commands import register as register_offline
from tests.chaos.kills import DRIVER, JVM, Study
from tests.chaos.offline_phases import phases
from tests.chaos.offline_world import Run, Sizes, Store, World

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEED = 20261122
SIZES = Sizes(history=400, topic=400, late=0, spine=0, cards=100)
MOMENTS_SECONDS = 10.0
"""Kills come within so many seconds of a command's start: what it takes to start a JVM and to begin to work."""


@pytest.fixture
def run(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Commands that nobody disturbs have the session of the tests: a second one takes longer than all of the rest."""
    app = typer.Typer()
    register_offline(app)
    register_backfill(app)

    def invoke(settings: Settings, command: Sequence[str]) -> None:
        for name, value in settings.variables().items():
            monkeypatch.setenv(name, value)
        load_settings.cache_clear()
        done = CliRunner().invoke(app, list(command), catch_exceptions=False)
        assert not done.exit_code, done.output

    yield invoke
    load_settings.cache_clear()


def test_what_is_killed_is_never_half_and_ends_as_if_it_had_not_been(
    run: Run, broker: Settings, tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    world = World(broker, tmp_path, SIZES, SEED, run)
    study = Study(SEED, print)
    with closing(Store(broker, world)) as store:
        ingest, fill, *_ = phases(world, store)
        found = [kill for phase in (ingest, fill) for kill in study.run(phase, 1, MOMENTS_SECONDS)]
    assert not [kill for kill in found if kill.wrong]
    assert [kill.aimed_at for kill in found] == [DRIVER, JVM]
    assert all(kill.killed for kill in found)
