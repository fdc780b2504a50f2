"""Features without Spark: the forms of a spine, what is wrong with one, files, and which engine is chosen when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyarrow import csv
from structlog.testing import capture_logs

from coeval.errors import NeedsSparkError, UsageError
from coeval.reference import value_at
from coeval.settings import Settings
from coeval.spec.records import Event
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import micros, to_physical
from coeval_pipelines.offline.arrow_spine import read_table
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.choice import Size, choose, decide
from coeval_pipelines.offline.small import small_features
from coeval_pipelines.offline.tables import table_path
from tests.support import catalog
from tests.support.delta_log import write_log
from tests.support.offline import LIMITS, limit_rows, manifest, write_limits

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
MANIFEST = manifest()
ASKED = Asked.of(MANIFEST, "risk")
NOTHING = Inputs({"payments": None, "limits": None}, 0)
LOG = Inputs({"payments": 0, "limits": None}, 0)


def _event(number: int, card: int, at: int) -> Event:
    values = {
        "event_id": f"e{number}", "paid_at": at, "card_id": card, "merchant_id": "m-1", "amount": 100 + number,
        "fee": 1, "points": number, "note": None,
    }  # fmt: skip
    return Event(f"e{number}", at, at, 0, number, values, at)


EVENTS = [_event(number, number % 3, START + number * HOUR) for number in range(60)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A log of a few payments, and limits of a card."""
    settings = Settings(home=tmp_path)
    write_log(table_path(settings, MANIFEST, "log", "payments"), catalog.PAYMENTS, EVENTS)
    write_limits(settings, limit_rows([(1, START, START, 500, 0.5, "gold")]))
    return settings


def _spine() -> pa.Table:
    return pa.table(
        {
            "card_id": pa.array([2, 1, 0, 1, 77]),
            "merchant_id": pa.array(["m-1", "m-1", "m-2", "m-1", "m-1"]),
            "event_timestamp": pa.array([START + n * DAY for n in (1, 2, 1, 0, 1)], pa.timestamp("us", tz="UTC")),
            "payment_amount": pa.array([1.0, 2.0, 3.0, 4.0, None]),
        }
    )


def test_rows_keep_their_order_and_values_equal_the_oracle(settings: Settings) -> None:
    found = small_features(settings, ASKED, _spine(), LOG)
    assert found.column_names == [*_spine().column_names, *ASKED.outputs]
    assert found.select(_spine().column_names).equals(_spine())
    view = catalog.CARD_SPEND
    for row, asked in zip(found.to_pylist(), _spine().to_pylist(), strict=True):
        expected = value_at(view, catalog.PAYMENTS, EVENTS, (asked["card_id"],), micros(asked["event_timestamp"]))
        got = {field.name: to_physical(field.type, row[f"card_spend__{field.name}"]) for field in view.features}
        assert got == {name: value.value for name, value in expected.items()}
    assert found.column("card_limit__tier").to_pylist() == [None, "gold", None, "gold", None]


def test_before_anything_was_ingested_counts_are_zero_and_all_else_is_null(settings: Settings) -> None:
    found = small_features(settings, ASKED, _spine(), NOTHING)
    assert found.column("card_spend__count_1h").to_pylist() == [0] * 5
    assert found.column("latest_payment__points").null_count == 5


def test_rows_of_a_file_that_are_no_events_are_left_out_and_counted(settings: Settings) -> None:
    (row,) = limit_rows([(1, START, START, 500, 0.5, "gold")])
    wrong = ({"score": float("nan")}, {"set_at": None}, {"card_id": None})
    later = {**row.values, "set_at": START + HOUR, "tier": "wrong"}
    write_limits(settings, [row, *(replace(row, values={**later, **change}) for change in wrong)])
    with capture_logs() as said:
        found = small_features(settings, ASKED, _spine(), LOG)
    assert found.column("card_limit__tier").to_pylist() == [None, "gold", None, "gold", None]
    assert [(item["source"], item["rows"]) for item in said] == [("limits", 3)]


def test_a_spine_without_rows_gives_the_columns(settings: Settings) -> None:
    found = small_features(settings, ASKED, _spine().slice(0, 0), LOG)
    assert found.schema == small_features(settings, ASKED, _spine(), LOG).schema
    assert found.num_rows == 0


def _forms(directory: Path) -> dict[str, Any]:
    spine = _spine()
    pq.write_table(spine, directory / "spine.parquet", use_deprecated_int96_timestamps=True)
    csv.write_csv(spine, directory / "spine.csv")
    write_deltalake(str(directory / "spine"), spine)
    instants = spine.column("event_timestamp").cast(pa.int64())
    return {
        "pandas": spine.to_pandas(),
        "polars": pl.from_arrow(spine),
        "polars categories": pl.from_arrow(spine).with_columns(pl.col("merchant_id").cast(pl.Categorical)),  # type: ignore[union-attr]
        "Parquet, with instants as Impala writes them": directory / "spine.parquet",
        "CSV": str(directory / "spine.csv"),
        "Delta": directory / "spine",
        "microseconds": spine.set_column(2, "event_timestamp", instants),
        "nanoseconds": spine.set_column(
            2, "event_timestamp", spine.column(2).cast(pa.timestamp("ns", tz="Asia/Tokyo"))
        ),
        "narrow integers": spine.set_column(0, "card_id", spine.column(0).cast(pa.int8())),
    }


@pytest.mark.parametrize("name", ["with_labels.csv", "selected.parquet"])
def test_a_path_is_no_query_whatever_it_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith(".csv"):
        csv.write_csv(_spine(), name)
    else:
        pq.write_table(_spine(), name)
    assert read_table(name, ASKED).num_rows == len(_spine())
    for query in ("SELECT * FROM a", " with a AS (SELECT 1) SELECT * FROM a", "select\n1"):
        with pytest.raises(NeedsSparkError):
            read_table(query, ASKED)


def test_every_form_of_a_spine_gives_the_same_features(settings: Settings, tmp_path: Path) -> None:
    expected = small_features(settings, ASKED, _spine(), LOG).select(ASKED.outputs)
    for name, form in _forms(tmp_path).items():
        found = small_features(settings, ASKED, read_table(form, ASKED), LOG)
        assert found.select(ASKED.outputs).equals(expected), name


@pytest.mark.parametrize(
    ("column", "becomes", "says"),
    [
        ("card_id", None, "no column card_id, a key"),
        ("payment_amount", None, "no column payment_amount, a request input"),
        ("event_timestamp", None, "no column event_timestamp"),
        ("event_timestamp", pa.timestamp("us"), "no time zone"),
        ("event_timestamp", pa.string(), "event_timestamp is a string"),
        ("card_id", pa.string(), "card_id is a string; this key is a int64"),
        ("card_id", pa.null(), "1 rows of the spine have no card_id"),
        ("event_timestamp", pa.null(), "1 rows of the spine have no event_timestamp"),
        ("card_spend__count_1h", pa.int64(), "already has columns named card_spend__count_1h"),
        ("__row", pa.int64(), "already has columns named __row"),
    ],
)
def test_a_wrong_spine_is_refused_with_its_reason(
    settings: Settings, column: str, becomes: pa.DataType | None, says: str
) -> None:
    spine = _spine().slice(0, 1)
    kind = spine.schema.field(column).type if column in spine.column_names else pa.int64()
    rest = spine.drop([column]) if column in spine.column_names else spine
    if becomes is not None:
        nulls = becomes == pa.null()
        rest = rest.append_column(column, pa.array([None if nulls else 1], pa.int64()).cast(kind if nulls else becomes))
    with pytest.raises(UsageError, match=says):
        small_features(settings, ASKED, rest, LOG)


def test_a_naive_pandas_spine_is_refused(settings: Settings) -> None:
    frame = _spine().to_pandas()
    frame["event_timestamp"] = frame["event_timestamp"].dt.tz_localize(None)
    with pytest.raises(UsageError, match="no time zone"):
        read_table(frame, ASKED)


@pytest.mark.parametrize(("spine", "says"), [(17, "cannot be a int"), ("/nowhere.parquet", "cannot be read")])
def test_what_is_no_spine_is_refused(spine: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_table(spine, ASKED)


def test_a_csv_spine_keeps_texts_and_says_where_it_is_wrong(tmp_path: Path) -> None:
    path, head = tmp_path / "spine.csv", "card_id,merchant_id,event_timestamp,payment_amount\n"
    path.write_text(f"{head}7,0012,2026-03-20T10:00:00Z,1.50\n")
    assert read_table(path, ASKED).column("merchant_id").to_pylist() == ["0012"]
    path.write_text(f"{head}seven,0012,2026-03-20T10:00:00Z,1.50\n")
    with pytest.raises(UsageError, match="seven"):
        read_table(path, ASKED)


def test_a_query_needs_spark() -> None:
    with pytest.raises(NeedsSparkError, match="for Spark only"):
        read_table("  select * from somewhere", ASKED)


def test_files_that_only_spark_reads_say_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "parts" / "day=2026-03-20").mkdir(parents=True)
    for changes in ({"format": "orc"}, {"path": "parts"}, {"path": "s3://bucket/limits"}, {"path": "limits*.parquet"}):
        asked = replace(ASKED, manifest=replace(MANIFEST, batch_sources=(replace(LIMITS, **changes),)))
        with pytest.raises(NeedsSparkError):
            small_features(settings, asked, _spine(), LOG)
        choice = choose(settings, asked, 5)
        assert choice.engine == "spark" and choice.why


def test_files_that_are_not_there_are_the_same_trouble_everywhere(settings: Settings) -> None:
    asked = replace(ASKED, manifest=replace(MANIFEST, batch_sources=(replace(LIMITS, path="gone.parquet"),)))
    with pytest.raises(UsageError, match="The files of limits cannot be read"):
        choose(settings, asked, 5)
    with pytest.raises(UsageError, match="The files of limits cannot be read"):
        small_features(settings, asked, _spine(), LOG)


def test_the_choice_is_made_by_what_the_tables_say_of_their_size(settings: Settings) -> None:
    choice = choose(settings, ASKED, 5)
    assert choice.engine == "local"
    assert "66 rows (1 of limits, 60 of payments, 5 of the spine)" in choice.why
    assert choose(settings, ASKED, 50_000_000).engine == "spark"
    assert choose(settings, ASKED, 50_000_000, "local").engine == "local"
    assert choose(settings, ASKED, 5, "spark").engine == "spark"
    with pytest.raises(UsageError, match="no engine 'flink'"):
        choose(settings, ASKED, 5, "flink")


@pytest.mark.parametrize(
    ("rows", "spine", "features", "engine"),
    [
        (5_000_000, 1_000_000, 43, "local"),
        (14_000_000, 1, 1, "local"),
        (15_000_000, 1, 1, "spark"),
        (0, 4_000_000, 43, "local"),
        (0, 5_000_000, 43, "spark"),
        (0, 5_000_000, 10, "local"),
        (8_000_000, 2_000_000, 100, "spark"),
    ],
)
def test_the_bound_is_of_memory(rows: int, spine: int, features: int, engine: str) -> None:
    assert decide([Size("a", rows - rows // 2), Size("b", rows // 2)], spine, features).engine == engine


def test_nothing_is_chosen_for_spark_because_a_log_does_not_exist_yet(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    write_limits(settings, [])
    assert choose(settings, ASKED, 5).engine == "local"
