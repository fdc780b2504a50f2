"""The short version of `make faults`: one seed and a few faults, each found and called by its name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from coeval.settings import Settings
from tests.faults.faults import FAULTS, Fault
from tests.faults.study import clean_run, run_fault

SEED = 11
SHORT = ("dropped", "zone", "doubles", "swapped", "corrupted", "server's clock", "rejects")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worlds are."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def clean(redis_server: Settings, home: Path) -> Counter[str]:
    """What a sound world has."""
    return clean_run(redis_server, home, SEED)


def test_a_sound_world_has_late_events_and_nothing_else(clean: Counter[str]) -> None:
    assert set(clean) == {"late"}


@pytest.mark.parametrize(
    "fault", [item for item in FAULTS if any(name in item.name for name in SHORT)], ids=lambda item: str(item.name)
)
def test_a_fault_is_found_and_named(redis_server: Settings, home: Path, clean: Counter[str], fault: Fault) -> None:
    found = run_fault(redis_server, home, fault, SEED, clean)
    assert found.detected
    assert found.right, found.labels
    assert found.labels[found.expected] >= 0.8 * sum(found.labels.values())
