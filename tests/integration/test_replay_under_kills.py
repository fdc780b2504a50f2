"""A short study of answers under kill -9; `make chaos-replay` runs the long one."""

from __future__ import annotations

from pathlib import Path

from coeval_parity.result import Cause
from coeval_pipelines.local.prepare import free_settings
from tests.chaos.replay import Plan, Study

PLAN = Plan(seed=20261122, responses=3000, kinds=("redis", "writer"), kills=1, events_per_s=50, requests_per_s=20)


def test_every_answer_is_explained_though_writer_and_store_were_killed(tmp_path: Path) -> None:
    print(PLAN)
    outcome = Study(free_settings(tmp_path), PLAN, print).run()
    assert outcome.result is not None
    assert sorted(outcome.kills) == ["redis", "writer"]
    assert min(view.keys_online for view in outcome.result.views) > PLAN.responses * 0.9
    assert outcome.result.causes.get(Cause.UNEXPLAINED, 0) == 0, outcome.result.failing()
    # Something was served, and some of it was not there yet.
    assert any(item.matched for view in outcome.result.views for item in view.features)
    assert outcome.result.causes.get(Cause.IN_FLIGHT, 0) > 0
