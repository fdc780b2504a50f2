"""A short campaign of faults on a whole supervised stack; `make chaos` runs the long one."""

from __future__ import annotations

from pathlib import Path

from coeval_pipelines.local.prepare import free_settings
from tests.chaos.campaign import Campaign, Plan

SEED = 20261121
EVENTS = 24_000


def test_nothing_is_lost_or_doubled_whatever_is_killed(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    counts = {"worker": 1, "job manager": 1, "writer": 1, "redis": 1, "redis wiped": 1, "broker": 1}
    plan = Plan(SEED, EVENTS, rate=400.0, counts=counts, views=3, changes=False)
    outcome = Campaign(free_settings(tmp_path), plan, print).run()
    print({name: [round(value, 1) for value in values] for name, values in outcome.recovery.items()})
    assert outcome.verdict.wrong == 0, outcome.verdict.differences
    assert not outcome.uncounted
    assert 0 < outcome.records <= EVENTS
    assert outcome.verdict.tiles > EVENTS
    assert outcome.verdict.rows > 0
    for name, counted in outcome.accounting.items():
        assert counted["good"] > counted["duplicates"] > 0, name
        assert counted["unparseable"] > 0, name
