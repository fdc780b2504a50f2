"""Claims about the pure core: types, literals, time, keys, manifest, records."""

from __future__ import annotations

import dataclasses
import json
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.errors import ManifestError
from coeval.spec.keys import bucket_of, encode_key, murmur2
from coeval.spec.manifest import Manifest, view_version
from coeval.spec.model import Field
from coeval.spec.records import Reason, Record, ingest, parse_record
from coeval.spec.time import DAY, HOUR, MINUTE, ceil_to, duration, floor_to, hop_of, parse_duration
from coeval.spec.types import INT64, STRING, DataType, instant, micros, parse_literal, to_logical, to_physical
from tests.support import catalog

MONEY = DataType.parse("decimal(9,2)")


@given(st.sampled_from([MONEY, DataType.parse("decimal(38,2)"), DataType.parse("decimal(3,3)")]), st.data())
def test_a_decimal_survives_its_physical_form(money: DataType, data: st.DataObject) -> None:
    limit = 10**money.precision - 1
    number = data.draw(st.integers(-limit, limit))
    logical = to_logical(money, number)
    assert isinstance(logical, Decimal)
    assert to_physical(money, logical) == number
    assert parse_literal(money, format(logical, "f")) == number


@pytest.mark.parametrize(
    "text", ["1.005", "+1", "1e2", "01", ".5", "5.", "12345678", "", " 1", "1 ", "١", "NaN", "1_0"]
)
def test_what_is_not_a_decimal_literal_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_literal(MONEY, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-11-21T01:30:00.5+01:30", 1_795_219_200_500_000),
        ("2100-02-28T00:00:00Z", 4_107_456_000_000_000),
    ],
)
def test_instants_are_exact_in_any_zone(text: str, value: int) -> None:
    assert parse_literal(DataType.parse("timestamp"), text) == value
    assert micros(instant(value)) == value


def test_a_naive_datetime_means_nothing() -> None:
    with pytest.raises(ValueError, match="time zone"):
        micros(instant(0).replace(tzinfo=None))


@given(st.integers(-(2**55), 2**55), st.sampled_from([5 * MINUTE, HOUR, DAY]))
def test_floor_and_ceil_enclose_their_instant(at: int, hop: int) -> None:
    assert floor_to(at, hop) <= at <= ceil_to(at, hop)
    assert ceil_to(at, hop) - floor_to(at, hop) in (0, hop)
    assert floor_to(at, hop) % hop == 0


@pytest.mark.parametrize(
    ("window", "slide", "hop"),
    [
        (HOUR, None, 5 * MINUTE),
        (DAY, None, HOUR),
        (7 * DAY, None, HOUR),
        (30 * DAY, None, DAY),
        (DAY, 15 * MINUTE, 15 * MINUTE),
    ],
)
def test_the_hop_follows_the_window(window: int, slide: int | None, hop: int) -> None:
    assert hop_of(window, slide) == hop


@pytest.mark.parametrize(
    ("window", "slide"), [(7 * MINUTE, None), (DAY, 7 * MINUTE), (30 * DAY, HOUR), (10 * HOUR, 5 * HOUR)]
)
def test_windows_that_cannot_be_tiled_are_refused(window: int, slide: int | None) -> None:
    with pytest.raises(ValueError):
        hop_of(window, slide)


def test_durations_read_as_they_are_written() -> None:
    assert [duration(parse_duration(text)) for text in ("90s", "5m", "1h", "24h", "30d")] == [
        "90s",
        "5m",
        "1h",
        "24h",
        "30d",
    ]


PARTS = (Field("a", STRING), Field("b", STRING))


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_two_keys_never_share_a_text(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (encode_key(PARTS, one) == encode_key(PARTS, other)) == (one == other)


def test_the_integer_one_is_not_the_string_one() -> None:
    assert encode_key([Field("k", INT64)], [1]) != encode_key([Field("k", STRING)], ["1"])


def test_a_key_is_never_null() -> None:
    with pytest.raises(ValueError, match="null"):
        encode_key(PARTS, ["x", None])


@pytest.mark.parametrize(
    ("data", "expected"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_buckets_are_the_partitions_of_kafka(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected & 0xFFFFFFFF
    assert bucket_of(data.decode(), 7) == (expected & 0x7FFFFFFF) % 7


def test_a_manifest_survives_its_json_and_keeps_its_hash() -> None:
    manifest = catalog.manifest()
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.hash == manifest.hash
    assert json.loads(manifest.to_json())["schema"] == 3


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema":99}', '{"schema":1,"project":3}', '{"schema":1,"project":"p","tenant":"t","x":1}'],
)
def test_what_is_not_a_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(text)


def test_a_version_changes_with_values_and_not_with_words() -> None:
    view = catalog.manifest().views["latest_payment"]
    version = view_version(view, catalog.PAYMENTS)
    assert version == view.version
    assert view_version(dataclasses.replace(view, description="x", owner="y"), catalog.PAYMENTS) == version
    assert view_version(dataclasses.replace(view, ttl=3 * DAY), catalog.PAYMENTS) != version  # type: ignore[call-arg]
    wider = dataclasses.replace(catalog.PAYMENTS, fields=(*catalog.PAYMENTS.fields, Field("extra", INT64)))
    assert view_version(view, wider) == version
    patient = dataclasses.replace(catalog.PAYMENTS, allowed_lateness=HOUR)
    assert view_version(view, patient) != version


GOOD = {"event_id": "e", "paid_at": "2026-01-01T00:00:00Z", "card_id": 7, "merchant_id": "m", "amount": "1.50"}
AVAILABLE = micros(instant(0).replace(year=2026)) + 1000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"card_id": None}, Reason.NULL_REQUIRED),
        ({"event_id": None}, Reason.NULL_REQUIRED),
        ({"paid_at": None}, Reason.NULL_REQUIRED),
        ({"card_id": "x"}, Reason.BAD_LITERAL),
        ({"amount": "1.505"}, Reason.BAD_LITERAL),
        ({"note": {"a": 1}}, Reason.BAD_LITERAL),
        ({"paid_at": "2026-01-01T00:05:01Z"}, Reason.FUTURE_DATED),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason(change: dict[str, object], reason: Reason) -> None:
    value = json.dumps(GOOD | change).encode()
    assert parse_record(catalog.PAYMENTS, Record(value, AVAILABLE, 0, 0)) == reason


@pytest.mark.parametrize("value", [None, b"", b"[]", b"1", b"{", b'{"a":NaN}', b"\xff", b'{"a":1} x'])
def test_bytes_that_are_no_object_are_unparseable(value: bytes | None) -> None:
    assert parse_record(catalog.PAYMENTS, Record(value, AVAILABLE, 0, 0)) == Reason.UNPARSEABLE


def test_a_json_key_that_stands_twice_is_rejected() -> None:
    value = json.dumps(GOOD)[:-1] + ',"card_id":8}'
    assert parse_record(catalog.PAYMENTS, Record(value.encode(), AVAILABLE, 0, 0)) == Reason.DUPLICATE_FIELD


def test_a_clock_that_is_ahead_is_brought_back() -> None:
    value = json.dumps(GOOD | {"paid_at": "2026-01-01T00:04:00Z"}).encode()
    event = parse_record(catalog.PAYMENTS, Record(value, AVAILABLE, 0, 0))
    assert not isinstance(event, Reason)
    assert event.event_ts == AVAILABLE < event.declared_ts


def test_read_is_good_plus_rejected_plus_duplicate_and_the_first_wins() -> None:
    first = Record(json.dumps(GOOD).encode(), AVAILABLE + 5000, 0, 3)
    twin = Record(json.dumps(GOOD | {"amount": "9.00"}).encode(), AVAILABLE, 1, 9)
    done = ingest(catalog.PAYMENTS, [first, twin, Record(b"?", AVAILABLE, 0, 4)])
    assert (len(done.good), len(done.rejected), len(done.duplicates), done.conflicts) == (1, 1, 1, 1)
    assert done.good[0].values["amount"] == 900


def test_patterns_are_read_alike_by_java() -> None:
    from coeval.spec.types import literal_pattern

    for kind in ("int64", "float64", "bool", "timestamp", "date", "decimal(9,2)", "decimal(3,3)"):
        pattern = literal_pattern(DataType.parse(kind))
        assert pattern is not None
        assert not re.search(r"\\[dwsDWSb]|\(\?|\\p", pattern), "classes differ between engines"
