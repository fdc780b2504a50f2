"""What was served as a table of features: typed by the manifest, of one service, beside what a model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coeval.errors import UnknownFeatureError, UsageError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.time import DAY
from coeval_parity.drift.rules import Rules
from coeval_parity.drift.run import Ask, find_drift
from coeval_parity.drift.tables import open_drift_table
from coeval_parity.served import _append, served_path
from coeval_parity.served_features import UNREADABLE, served_columns
from coeval_pipelines.erasures import ErasureTable
from tests.support import catalog

MANIFEST = catalog.manifest()
SERVICE = "served:risk"
MONDAY = 1_772_409_600_000_000
"""2026-03-02T00:00:00Z, in microseconds."""
NAMES = tuple(served_columns(MANIFEST, "risk").features)


def _rows(documents: list[tuple[int, Mapping[str, Any]]], first: int = 0) -> list[dict[str, object]]:
    """Rows of the table of what was served: (at, features other than null)."""
    shared = {"topic": "t.served", "partition": 0, "service": "risk", "manifest": MANIFEST.hash, "statuses": "{}"}
    entities = json.dumps({"card_id": 7, "merchant_id": "m-1"})
    return [
        {
            "offset": first + number,
            "at": at,
            "entities": entities,
            "features": json.dumps(dict.fromkeys(NAMES) | dict(features)),
            **shared,
        }
        for number, (at, features) in enumerate(documents)
    ]


def _served(home: Path, rows: list[dict[str, object]]) -> Settings:
    settings = Settings(home=home)
    _append(served_path(settings, MANIFEST.tenant), rows)
    return settings


def test_values_have_the_types_of_the_manifest_and_what_has_not_is_named(tmp_path: Path) -> None:
    good = {
        "card_spend__count_1h": 3,
        "card_spend__sum_amount_1h": "12.34",
        "card_spend__mean_amount_1h": 1.5,
        "latest_payment__note": "two\nlines",
        "against_usual__ratio": 0.25,
    }
    rows = _rows([(MONDAY, good), (MONDAY + 1, {"card_spend__count_1h": "many", "against_usual__ratio": []})])
    settings = _served(tmp_path, rows)
    table = open_drift_table(settings, MANIFEST, SERVICE)
    assert (table.time, table.keys) == ("at", {"card_id", "merchant_id"})
    read = table.rows(list(table.files.types)).to_pylist()
    assert read[0]["card_id"] == 7
    assert {name: read[0][name] for name in good} == good | {"card_spend__sum_amount_1h": Decimal("12.34")}
    assert [row[UNREADABLE] for row in read] == [None, "card_spend__count_1h against_usual__ratio"]
    assert read[1]["card_spend__count_1h"] is None


def test_rows_of_another_service_and_from_before_it_had_its_features_are_left_out(tmp_path: Path) -> None:
    rows = _rows([(MONDAY + number, {}) for number in range(3)])
    rows[1]["service"] = "another"
    rows[2]["features"] = json.dumps(dict.fromkeys(NAMES[1:]))
    table = open_drift_table(_served(tmp_path, rows), MANIFEST, SERVICE)
    assert table.rows(["at"]).column("at").to_pylist() == [MONDAY]


def test_what_is_not_logged_is_no_column() -> None:
    card = MANIFEST.windowed_views[1]
    fields = tuple(replace(item, pii="sensitive" if item.name == "count_1h" else item.pii) for item in card.features)
    private = replace(MANIFEST, windowed_views=(MANIFEST.windowed_views[0], replace(card, features=fields)))
    assert set(NAMES) - set(served_columns(private, "risk").features) == {"card_spend__count_1h"}


def _week(random: np.random.Generator, mean: float, start: int = MONDAY) -> list[tuple[int, Mapping[str, Any]]]:
    at = start + np.sort(random.integers(0, 7 * DAY, 3000))
    values = random.gamma(2, mean / 2, 3000)
    return [
        (int(moment), {"card_spend__mean_amount_1h": float(value)}) for moment, value in zip(at, values, strict=True)
    ]


def test_serving_is_compared_with_what_the_model_was_trained_on_and_with_the_week_before(tmp_path: Path) -> None:
    random = np.random.default_rng(20261122)
    weeks = _week(random, 10) + _week(random, 10, MONDAY + 7 * DAY) + _week(random, 20, MONDAY + 14 * DAY)
    settings = _served(tmp_path, _rows(weeks))
    trained = {"card_id": pa.array(np.arange(4000)), "card_spend__mean_amount_1h": random.gamma(2, 5, 4000)}
    trained["event_timestamp"] = pa.array([datetime(2026, 2, 1, tzinfo=UTC)] * 4000, pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table(trained), tmp_path / "trained.parquet")
    # Both by entity: 3,000 responses of one card alone say next to nothing.
    rules = Rules(per="at")
    feature = ("card_spend__mean_amount_1h",)
    second = Ask(SERVICE, length=7 * DAY, until=MONDAY + 14 * DAY, weeks=1, features=feature, ingest=False)
    third = replace(second, until=MONDAY + 21 * DAY)
    for ask, passes in ((second, True), (third, False)):
        assert find_drift(settings, MANIFEST, ask, rules, lambda _: None).passed == passes
        by_training = replace(ask, against=str(tmp_path / "trained.parquet"))
        found = find_drift(settings, MANIFEST, by_training, Rules(per="card_spend__mean_amount_1h"), lambda _: None)
        assert found.passed == passes
        assert found.features[0].rows == 3000


def test_who_was_erased_is_not_looked_at(tmp_path: Path) -> None:
    settings = _served(tmp_path, _rows([(MONDAY, {})]))
    ErasureTable(settings, MANIFEST.tenant).record(Erasure("card_id", 7, MONDAY), MONDAY, lambda: 0)
    with pytest.raises(UsageError, match="has no rows"):
        find_drift(settings, MANIFEST, Ask(SERVICE, ingest=False), Rules(), lambda _: None)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(UsageError, match="Nothing that was served"):
        open_drift_table(settings, MANIFEST, SERVICE)
    with pytest.raises(UnknownFeatureError, match="rsik"):
        open_drift_table(settings, MANIFEST, "served:rsik")
