"""Claims about columns that stand in a record's key or headers, and about what else a source declares of its topic."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from coeval.spec.manifest import view_version
from coeval.spec.model import EventSource, Field
from coeval.spec.records import Event, Reason, Record, parse_record
from coeval.spec.types import INT64, STRING
from coeval_pipelines.catalog.errors import BrokenCatalogError
from coeval_pipelines.catalog.schema import column, from_json_schema, to_json_schema
from tests.support import catalog

AT = 1_800_000_000_000_000
GOOD = {"event_id": "e1", "paid_at": "2026-11-20T23:58:01Z", "card_id": 7, "merchant_id": "m", "amount": "1.50"}
TRACE = Field("trace_id", STRING, origin="header:trace-id")
ACCOUNT = Field("account", INT64, nullable=False, origin="key")


def source(*extra: Field) -> EventSource:
    return replace(catalog.PAYMENTS, fields=(*catalog.PAYMENTS.fields, *extra))


def read(declared: EventSource, key: bytes | None = None, *headers: tuple[str, bytes | None]) -> Event | Reason:
    document = GOOD | {"trace_id": "of the JSON", "account": 1}
    return parse_record(declared, Record(json.dumps(document).encode(), AT, 0, 0, key, headers))


def value(outcome: Event | Reason, name: str) -> object:
    assert isinstance(outcome, Event), outcome
    return outcome.values[name]


def test_a_column_is_read_from_the_key_by_the_grammar_of_its_type() -> None:
    assert value(read(source(ACCOUNT), b"42"), "account") == 42
    assert read(source(ACCOUNT), b"042") == Reason.BAD_LITERAL
    assert read(source(ACCOUNT), b"") == Reason.BAD_LITERAL


def test_the_last_header_of_a_name_counts() -> None:
    headers = (("trace-id", b"first"), ("trace-id", b"last"), ("other", b"no"))
    assert value(read(source(TRACE), None, *headers), "trace_id") == "last"


def test_a_missing_header_is_null_and_so_is_one_without_a_value() -> None:
    assert value(read(source(TRACE)), "trace_id") is None
    assert value(read(source(TRACE), None, ("trace-id", b"x"), ("trace-id", None)), "trace_id") is None


def test_a_record_without_the_key_that_a_column_needs_is_rejected() -> None:
    assert read(source(ACCOUNT)) == Reason.NULL_REQUIRED


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80", b"ab\xc3"])
def test_what_is_no_text_is_a_bad_literal(raw: bytes) -> None:
    assert read(source(TRACE), None, ("trace-id", raw)) == Reason.BAD_LITERAL
    assert read(source(replace(TRACE, origin="key")), raw) == Reason.BAD_LITERAL


def test_the_schema_carries_where_a_column_stands() -> None:
    declared = (
        column("event_id", "string", "Id.", pii="none", required=True),
        column("trace_id", "string", "Trace.", pii="none", origin="header:trace-id"),
        column("account", "int64", "Account.", pii="none", origin="key"),
    )
    assert from_json_schema("source s", to_json_schema(declared)) == declared


@pytest.mark.parametrize("origin", ["header:", "header: x", "value", "headers:x", "Key", "header:x'y"])
def test_an_unknown_place_is_refused(origin: str) -> None:
    schema = to_json_schema([column("trace_id", "string", "Trace.", pii="none", origin=origin)])
    with pytest.raises(BrokenCatalogError, match='Use "key" or "header:NAME"'):
        from_json_schema("source s", schema)


def test_where_a_column_stands_is_part_of_the_version_and_who_drops_duplicates_is_not() -> None:
    view, plain = catalog.CARD_SPEND, catalog.PAYMENTS
    fields = tuple(replace(field, origin="key") if field.name == "card_id" else field for field in plain.fields)
    assert view_version(view, replace(plain, fields=fields)) != view_version(view, plain)
    assert view_version(view, replace(plain, dedup=False, expected_rate=50.0)) == view_version(view, plain)
    assert view_version(view, source(TRACE)) == view_version(view, plain)
