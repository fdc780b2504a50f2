"""Claims about changelogs that were cut: when batch has all that they said, and what is told where it has not."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from coeval.aggregations.tiles import tile_plan
from coeval.spec.model import WindowedView
from coeval.spec.time import DAY, MINUTE
from coeval.spec.types import micros
from coeval_pipelines.coordination.forgotten import cut_without, refusal
from tests.support import catalog

MANIFEST = catalog.manifest()
START = micros(datetime(2026, 3, 20, 10, 7, tzinfo=UTC))


@given(st.integers(0, 2**40), st.integers(0, 30 * DAY))
def test_at_that_cut_every_tile_is_final_that_a_lost_record_may_be_of(millisecond: int, age: int) -> None:
    view, first_left = MANIFEST.views["card_spend"], millisecond * 1000
    assert isinstance(view, WindowedView)
    cut = cut_without(view, MANIFEST, first_left)
    lost = max(0, first_left + 999 - age)
    for item in tile_plan(view, catalog.PAYMENTS).granularities:
        assert lost // item.hop < item.final_before(cut, catalog.PAYMENTS.allowed_lateness)


def test_of_rows_the_log_up_to_the_first_record_left_is_enough() -> None:
    assert cut_without(MANIFEST.views["latest_payment"], MANIFEST, START) == START + 1000


def test_a_whole_changelog_asks_for_no_cut() -> None:
    assert cut_without(MANIFEST.views["card_spend"], MANIFEST, None) == 0


def test_the_error_names_the_backfill_and_from_when_on_it_helps() -> None:
    cut = cut_without(MANIFEST.views["card_spend"], MANIFEST, START)
    assert cut == micros(datetime(2026, 3, 21, tzinfo=UTC)) + 10 * MINUTE
    short = {"card_spend": cut, "latest_payment": START + 1000}
    helps = cut + 2 * MINUTE
    assert refusal(short, helps).instruction == "Run coeval backfill run card_spend latest_payment --correct"
    assert refusal(short, helps - 1).instruction.startswith("Run, after 2026-03-21T00:12:00Z: coeval backfill run")
    assert "changelogs of card_spend, latest_payment have lost records" in refusal(short, cut).reason
