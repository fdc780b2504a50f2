"""Claims about the read plan: what is asked for, and that many keys are hashed as one is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.errors import EntityKeyError
from coeval.online.keys import buckets_of, data_key, ready_key
from coeval.online.plan import ReadPlanner
from coeval.spec.keys import bucket_of
from coeval.spec.model import ServiceView
from tests.support import catalog

MANIFEST = catalog.manifest()
PLANNER = ReadPlanner(MANIFEST, MANIFEST.services[0].views)


@given(st.lists(st.text(max_size=12), min_size=65, max_size=90), st.integers(1, 64))
def test_many_keys_are_hashed_as_each_of_them_is(keys: list[str], partitions: int) -> None:
    assert buckets_of(keys, partitions) == [bucket_of(key, partitions) for key in keys]


def test_a_plan_asks_for_every_key_once_and_for_each_bucket_what_is_ready() -> None:
    plan = PLANNER.plan({"card_id": [1, 2], "merchant_id": ["m", "ü|%"]})
    data = [
        data_key("bank", read.view, key)
        for read in plan.reads
        for key in (["i1|sm", "i2|sü%7C%25"] if read.view.name == "card_merchant" else ["i1", "i2"])
    ]
    touched = {bucket for read in plan.reads for bucket in read.buckets}
    assert plan.keys[: len(data)] == data
    assert sorted(plan.keys[len(data) :]) == sorted(ready_key("bank", bucket) for bucket in touched)
    assert {bucket: plan.keys[at] for bucket, at in plan.markers.items()} == {
        bucket: ready_key("bank", bucket) for bucket in touched
    }


@pytest.mark.parametrize(
    ("cards", "says"),
    [
        ([1, None], "null"),
        ([True], "not a int64"),
        ([2**63], "beyond int64"),
        ([1.0], "not a int64"),
        (["1"], "not a int64"),
        ([np.nan], "not a int64"),
    ],
)
def test_a_key_of_the_wrong_type_is_refused_with_its_name(cards: list[object], says: str) -> None:
    with pytest.raises(EntityKeyError, match=f"card_id of card_merchant.*{says}"):
        PLANNER.plan({"card_id": cards, "merchant_id": ["m"] * len(cards)})


def test_half_a_character_is_no_key() -> None:
    with pytest.raises(EntityKeyError, match="merchant_id of card_merchant"):
        PLANNER.plan({"card_id": [1], "merchant_id": ["\ud800"]})


def test_numbers_of_numpy_are_keys() -> None:
    one = ReadPlanner(MANIFEST, [ServiceView("card_spend", catalog.CARD_SPEND.version, ("count_1h",))])
    assert one.plan({"card_id": list(np.array([7, 8]))}) == one.plan({"card_id": [7, 8]})
