"""Claims about canaries: what a source may declare, the event that is sent, and where it would count."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event as Signal

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from coeval.reference.oracle import key_of, seen_by
from coeval.settings import MetricsSettings, Settings
from coeval.spec.canary import canary_record
from coeval.spec.expressions import Expression
from coeval.spec.manifest import Manifest, view_version
from coeval.spec.model import Constant, EventSource, Field
from coeval.spec.records import Event, Reason, parse_record
from coeval.spec.types import BOOL, INT64, DataType
from coeval_pipelines.catalog.canaries import canary_notes, check_reserved, with_canary
from coeval_pipelines.catalog.errors import BrokenCatalogError
from coeval_pipelines.catalog.tags import canary_literals, check_tags
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.streaming.canary import Canaries, whole_milliseconds
from tests.support.catalog import CARD_SPEND, PAIR, PAYMENTS, manifest

AT = 1_795_000_000_123_456
HAS_POINTS = Expression("not", BOOL, (Expression("is_null", BOOL, (Expression("column", INT64, value="points"),)),))
CANARY = {"card_id": "-1", "merchant_id": "canary"}


def _declared(source: EventSource = PAYMENTS, stated: Mapping[str, str] = CANARY) -> EventSource:
    return with_canary("source payments", source, stated)


def _sent(source: EventSource) -> Event:
    event = parse_record(source, canary_record(source, AT))
    assert isinstance(event, Event), event
    return event


def test_a_canary_is_a_valid_event_under_its_key_at_its_instant() -> None:
    event = _sent(_declared())
    assert (event.event_id, event.event_ts, event.available_at) == (f"canary-{AT}", AT, AT)
    assert [key_of(view, event) for view in (CARD_SPEND, PAIR)] == [(-1,), (-1, "canary")]
    assert event.values["amount"] is None


def test_a_canary_is_not_ahead_of_its_record_where_a_source_allows_no_skew() -> None:
    source = _declared(replace(PAYMENTS, max_future_skew=0))
    kept = AT // 1000 * 1000  # what Kafka keeps of a record's time
    assert parse_record(source, replace(canary_record(source, AT), available_at=kept)) is Reason.FUTURE_DATED
    sent = replace(canary_record(source, whole_milliseconds(AT)), available_at=kept)
    assert isinstance(parse_record(source, sent), Event)


def test_canaries_go_on_after_an_error_that_nobody_thought_of(tmp_path: Path) -> None:
    again = Signal()

    class Broken(ControlPlane):
        asked = 0

        def released(self) -> Manifest | None:
            self.asked += 1
            if self.asked > 1:
                again.set()
            raise ZeroDivisionError("by zero")

    settings = Settings(home=tmp_path, metrics=MetricsSettings(canary_seconds=0.01))
    with (
        closing(Broken(settings.control_url)) as control,
        capture_logs() as logs,
        Canaries(settings, control, CollectorRegistry()),
    ):
        assert again.wait(60)
    assert [(entry["event"], entry["error"]) for entry in logs] == [("canaries do not go on", "by zero")]


def test_what_is_required_and_not_named_gets_a_neutral_literal() -> None:
    kinds = ("int64", "float64", "decimal(9,2)", "string", "bool", "timestamp", "date")
    more = tuple(Field(f"r{index}", DataType.parse(kind), nullable=False) for index, kind in enumerate(kinds))
    values = _sent(_declared(replace(PAYMENTS, fields=PAYMENTS.fields + more))).values
    assert [values[field.name] for field in more] == [0, 0.0, 0, "canary", 0, AT, AT // 86_400_000_000]


def test_columns_of_key_and_headers_are_written_there() -> None:
    fields = tuple(
        replace(field, origin={"card_id": "key", "merchant_id": "header:shop"}.get(field.name, ""))
        for field in PAYMENTS.fields
    )
    source = _declared(replace(PAYMENTS, fields=fields))
    record = canary_record(source, AT)
    assert (record.key, record.headers) == (b"-1", [("shop", b"canary")])
    assert key_of(PAIR, _sent(source)) == (-1, "canary")


def test_an_integer_can_be_the_identity() -> None:
    numbered = tuple(
        replace(item, type=DataType.parse("int64")) if item.name == "event_id" else item for item in PAYMENTS.fields
    )
    assert _sent(_declared(replace(PAYMENTS, fields=numbered))).event_id == str(AT)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"card": "-1"}, "'card' is not a column that it can set"),
        ({"event_id": "x"}, "'event_id' is not a column that it can set"),
        ({"card_id": "one"}, "'one' is not a literal of int64"),
    ],
)
def test_a_canary_that_does_not_fit_is_refused(stated: dict[str, str], said: str) -> None:
    with pytest.raises(BrokenCatalogError, match=said):
        _declared(stated=stated)


def test_the_tag_holds_texts_numbers_and_booleans_by_column() -> None:
    assert canary_literals('{"card_id": -1, "merchant_id": "c", "test": true}') == {
        "card_id": "-1",
        "merchant_id": "c",
        "test": "true",
    }
    for text in ("[]", "{}", '{"card_id": null}', "-1"):
        with pytest.raises(BrokenCatalogError, match=r"coeval\.io/canary: it cannot be read"):
            check_tags("event source", "source payments", {"coeval.io/canary": text})


def test_notes_say_that_canaries_are_real_events() -> None:
    def notes(stated: Mapping[str, str]) -> list[str]:
        return list(canary_notes(replace(manifest(), event_sources=(_declared(stated=stated),))))

    assert notes(CANARY) == [
        "canaries of payments are real events of its log and training data, under card_id=-1, merchant_id=canary"
    ]
    assert list(canary_notes(manifest())) == []


def test_a_canary_that_would_count_for_somebodys_key_is_refused() -> None:
    def check(stated: Mapping[str, str], where: Expression | None = None) -> None:
        source = _declared(stated=stated)
        views = tuple(replace(view, where=where) for view in manifest().windowed_views)
        check_reserved(replace(manifest(), event_sources=(source,), windowed_views=views), source)

    check(CANARY)
    with pytest.raises(BrokenCatalogError, match="card_merchant: its key merchant_id may be somebody's") as caught:
        check({"card_id": "-1"})
    assert "card_spend" not in str(caught.value)
    check({"card_id": "-1"}, where=HAS_POINTS)
    check_reserved(manifest(), PAYMENTS)


def test_a_canary_travels_in_the_manifest_and_restates_no_view() -> None:
    declared = _declared()
    whole = replace(manifest(), event_sources=(declared,))
    assert Manifest.from_json(whole.to_json()).event_sources[0].canary == (
        Constant("card_id", "-1"),
        Constant("merchant_id", "canary"),
    )
    assert view_version(CARD_SPEND, declared) == view_version(CARD_SPEND, PAYMENTS)
    assert seen_by(CARD_SPEND, [_sent(declared)])
