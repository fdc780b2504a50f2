"""Claims about what a backfill fills."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.commands import to_fill
from tests.support import catalog


def test_what_was_applied_and_not_deployed_does_not_stand_in_the_way_of_a_backfill(tmp_path: Path) -> None:
    released = catalog.manifest()
    (spend,) = (view for view in released.windowed_views if view.name == "card_spend")
    fresh = dataclasses.replace(spend, version="changed")
    others = tuple(view for view in released.windowed_views if view is not spend)
    applied = dataclasses.replace(released, windowed_views=(*others, fresh))
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        _check(control, released, applied)


def _check(control: ControlPlane, released: Manifest, applied: Manifest) -> None:
    assert to_fill(control, applied, ()) == applied  # nothing is released: it is to be deployed first
    control.save_manifest(released, 1)
    control.release(released.hash, 1)
    for view in released.views.values():
        control.deploy(view.name, view.version, released.hash, 0, 1)
    assert to_fill(control, applied, ()) == to_fill(control, applied, ["card_spend"]) == released
    assert to_fill(control, applied, ["card_merchant"]) == applied
    assert to_fill(control, applied, ["nowhere"]) == applied
    control.deploy("card_spend", "changed", applied.hash, 0, 1)
    assert to_fill(control, applied, ()) == applied
