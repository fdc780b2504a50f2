"""Generated training sets against the oracle: no value differs, and none is from the future.

COEVAL_TRAINING_SETS=2000 asks for as many (`make exactness`); COEVAL_TRAINING_SEED for others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from coeval.settings import Settings
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.service_features import service_features
from coeval_pipelines.offline.small import small_features
from coeval_pipelines.offline.spine import staged
from coeval_pipelines.offline.tables import table_path
from tests.support import catalog
from tests.support.contract.patching import changed
from tests.support.delta_log import write_log
from tests.support.offline import write_limits
from tests.support.training_worlds import MANIFEST, World, differences, spine_table, world

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETS = int(os.environ.get("COEVAL_TRAINING_SETS", "40"))
SEED = int(os.environ.get("COEVAL_TRAINING_SEED", "20261122"))
TOGETHER = 100
"""Sets of one build: each has cards and merchants of its own."""
ASKED = Asked.of(MANIFEST, "risk")
LOG = Inputs({"payments": 0, "limits": None}, 0)


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    print(f"seed {SEED}, {SETS} sets")
    return [world(SEED + number).moved(number * 10, f"{number}/") for number in range(SETS)]


def _settings(home: Path, worlds: Sequence[World]) -> Settings:
    home.mkdir()
    settings = Settings(home=home)
    events = [event for item in worlds for event in item.payments]
    write_log(table_path(settings, MANIFEST, "log", "payments"), catalog.PAYMENTS, events)
    write_limits(settings, sorted((row for item in worlds for row in item.limits), key=lambda row: row.offset))
    return settings


def _on_spark(spark: SparkSession, settings: Settings, worlds: Sequence[World]) -> pa.Table:
    frame = spark.createDataFrame(spine_table(worlds))
    with staged(spark, settings, frame, ASKED.views) as rows:
        return service_features(spark, settings, ASKED, rows, LOG, "available").toArrow()


def test_training_sets_of_one_process_are_the_oracles(worlds: list[World], tmp_path: Path) -> None:
    wrong = []
    for number, item in enumerate(worlds):
        settings = _settings(tmp_path / str(number), [item])
        wrong += differences(small_features(settings, ASKED, spine_table([item]), LOG), [item])
    assert not wrong, "\n".join([f"{len(wrong)} values differ", *wrong[:20]])


def test_training_sets_of_spark_are_the_oracles(spark: SparkSession, worlds: list[World], tmp_path: Path) -> None:
    wrong = []
    for start in range(0, len(worlds), TOGETHER):
        some = worlds[start : start + TOGETHER]
        wrong += differences(_on_spark(spark, _settings(tmp_path / str(start), some), some), some)
    assert not wrong, "\n".join([f"{len(wrong)} values differ", *wrong[:20]])


def test_a_kernel_that_sees_a_microsecond_of_the_future_is_caught(worlds: list[World], tmp_path: Path) -> None:
    some = worlds[:200]
    settings = _settings(tmp_path / "all", some)
    with changed("coeval_pipelines.offline.kernel", "events.available_at + 1", "events.available_at"):
        found = small_features(settings, ASKED, spine_table(some), LOG)
    assert differences(found, some)
