"""Two kills of what runs on Spark, one of Python and one of the JVM; `make chaos-offline` does twenty."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from coeval.settings import Settings
from tests.chaos.kills import DRIVER, JVM, Study, run_here
from tests.chaos.offline_phases import phases
from tests.chaos.offline_world import Sizes, Store, World

SEED = 20261122
SIZES = Sizes(history=400, topic=400, late=0, spine=0, cards=100)
MOMENTS_SECONDS = 10.0
"""Kills come within so many seconds of a command's start: what it takes to start a JVM and to begin to work."""


@pytest.mark.usefixtures("spark")
def test_what_is_killed_is_never_half_and_ends_as_if_it_had_not_been(broker: Settings, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    world = World(broker, tmp_path, SIZES, SEED, run_here)
    study = Study(SEED, print)
    with closing(Store(broker, world)) as store:
        ingest, fill, *_ = phases(world, store)
        found = [kill for phase in (ingest, fill) for kill in study.run(phase, 1, MOMENTS_SECONDS)]
    assert not [kill for kill in found if kill.wrong]
    assert [kill.victim for kill in found if kill.struck] == [DRIVER, JVM]
