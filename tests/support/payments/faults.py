"""Ways to spoil the bytes of a good event, each with the reason for which it must be rejected. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from coeval.spec.records import Reason
from coeval.spec.time import DAY, MINUTE
from coeval.spec.types import instant

Spoil = Callable[[bytes, random.Random, int], bytes]
"""From a good document, a source of chance and when it becomes available (microseconds UTC) to a bad one."""


def rfc3339(at: int) -> str:
    """Microseconds as RFC 3339 in UTC."""
    return instant(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _put(field: str, value: str) -> Callable[[bytes], bytes]:
    """Write something else as the value of a field that every document has."""
    pattern = re.compile(rf'"{field}":("[^"]*"|[^,}}]*)'.encode())
    return lambda good: pattern.sub(f'"{field}":{value}'.encode(), good, count=1)


_NUMBER = re.compile(rb'"(amount|score)":("[^"]*"|[^,}]*)')


def _number(good: bytes, rng: random.Random, amounts: tuple[bytes, ...], scores: tuple[bytes, ...]) -> bytes:
    """Spoil the number that the document is about: an amount or a score."""

    def spoilt(found: re.Match[bytes]) -> bytes:
        return b'"%b":%b' % (found[1], rng.choice(amounts if found[1] == b"amount" else scores))

    return _NUMBER.sub(spoilt, good, count=1)


def _excess_digits(good: bytes, rng: random.Random, available: int) -> bytes:
    del available
    return _number(good, rng, (b"1.005", b"0.001", b"12345678901.00", b"1e2"), (b"1e999", b"-1.5e400"))


def _no_number(good: bytes, rng: random.Random, available: int) -> bytes:
    del available
    words = (b'"NaN"', b'"Infinity"', b'"twelve"', b'"+1.00"', b'""')
    return _number(good, rng, words, words)


def _bare_nan(good: bytes, rng: random.Random, available: int) -> bytes:
    del available
    words = (b"NaN", b"Infinity", b"-Infinity")
    return _number(good, rng, words, words)


def _truncated(good: bytes, rng: random.Random, available: int) -> bytes:
    del available
    return good[: rng.randrange(1, len(good))]


def _not_utf8(good: bytes, rng: random.Random, available: int) -> bytes:
    del available
    return good.replace(b'"event_id":"', b'"event_id":"' + rng.choice((b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80")))


def _bad_timestamp(good: bytes, rng: random.Random, available: int) -> bytes:
    day = rfc3339(available)
    spoilt = ("2026-02-30T00:00:00Z", day[:-1], day.replace("T", " "), day[:10], "1767225600000", day[:-1] + "123Z")
    return _put("occurred_at", f'"{rng.choice(spoilt)}"')(good)


def _future_dated(good: bytes, rng: random.Random, available: int) -> bytes:
    ahead = rng.choice((5 * MINUTE + 1, 6 * MINUTE, rng.randrange(5 * MINUTE + 1, 3 * DAY)))
    return _put("occurred_at", f'"{rfc3339(available + ahead)}"')(good)


FAULTS: dict[str, tuple[Reason, Spoil]] = {
    "truncated": (Reason.UNPARSEABLE, _truncated),
    "not_utf8": (Reason.UNPARSEABLE, _not_utf8),
    "trailing_text": (Reason.UNPARSEABLE, lambda good, rng, _: good + rng.choice((b" x", b"}", b",{}", good))),
    "array": (Reason.UNPARSEABLE, lambda good, rng, _: b"[" + good + b"]"),
    "duplicate_field": (Reason.DUPLICATE_FIELD, lambda good, rng, _: good[:-1] + b',"event_id":"again"}'),
    "null_key": (Reason.NULL_REQUIRED, lambda good, rng, _: _put("card_id", "null")(good)),
    "missing_id": (Reason.NULL_REQUIRED, lambda good, rng, _: good.replace(b'"event_id":', b'"event_key":', 1)),
    "bad_integer": (
        Reason.BAD_LITERAL,
        lambda good, rng, _: _put("card_id", rng.choice(("12.0", "1e3", '"+7"', '"007"', "9223372036854775808")))(good),
    ),
    "excess_digits": (Reason.BAD_LITERAL, _excess_digits),
    "bad_timestamp": (Reason.BAD_LITERAL, _bad_timestamp),
    "future_dated": (Reason.FUTURE_DATED, _future_dated),
    "not_a_number": (Reason.BAD_LITERAL, _no_number),
    "bare_nan": (Reason.UNPARSEABLE, _bare_nan),
}
