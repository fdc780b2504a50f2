"""The stream's Java function judges every record as the log does: what is wrong with it, and what it holds."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from coeval.settings import Settings
from coeval.spec.model import EventSource, Field
from coeval.spec.records import MAX_NESTING, Event, Reason, Record, parse_record
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType
from coeval_pipelines.local.artefacts import ensure_jars
from coeval_pipelines.streaming.literals import text
from coeval_pipelines.streaming.sql import JUDGE, JUDGE_FUNCTION, declared
from coeval_pipelines.streamjar import stream_jar
from tests.support import flink_batch

SEED = 20261121
FUZZED = 20_000
NOW = 1_790_000_000_000_000
_DECIMALS = [
    DataType.parse(f"decimal({p},{s})") for p, s in ((9, 2), (4, 4), (18, 0), (18, 18), (19, 3), (38, 0), (38, 38))
]
_KINDS = (INT64, FLOAT64, BOOL, DATE, TIMESTAMP, STRING, *_DECIMALS)
SOURCE = EventSource(
    "events",
    "events",
    (
        Field("id", STRING, nullable=False),
        Field("at", TIMESTAMP, nullable=False),
        *(Field(f"v{place}", kind) for place, kind in enumerate(_KINDS)),
        Field("größe", INT64),
        Field("unused", INT64),
        Field("key_text", STRING, origin="key"),
        Field("key_number", INT64, origin="header:number"),
    ),
    event_id="id",
    event_ts="at",
)
USED = [field for field in SOURCE.fields if field.name != "unused"]

_NUMBERS = (
    *("0", "-0", "1", "-1", "00", "01", "-01", "+1", "1.", ".5", "1.0", "-0.0", "0.00", "1.50", "12.345", "1e2", "1E2"),
    *("1e", "1e+2", "1e-2", "1e0002", "1e400", "-1e400", "1e-400", "4.9e-324", "1.7976931348623157e308", "0x1", "1_0"),
    *(str(2**63 - 1), str(2**63), str(-(2**63)), str(-(2**63) - 1), "9" * 19, "9" * 20, "9" * 400, "-" + "9" * 18),
    *("9999999.99", "99999999.99", "-9999999.99", "9999999.999", "0.1234", "0.12345", "-0.9999", "1.2345", "0.0000"),
    *("9" * 38, "9" * 39, "-" + "9" * 38, "0." + "9" * 38, "0." + "9" * 39, "0." + "0" * 37 + "1", "9" * 16 + ".999"),
    *(
        "0.1",
        "123456789.123456789",
        "2.2250738585072011e-308",
        "9007199254740993",
        "1.00000000000000011102230246251565",
    ),
)
_TIMES = (
    *("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.123456Z"),
    *("2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z"),
    *(
        "2026-01-01t00:00:00Z",
        "2026-01-01T00:00:00z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T00:00Z",
    ),
    *("2026-01-01T23:60:00Z", "2024-02-29T12:00:00-05:30", "2026-02-29T12:00:00Z", "1900-02-29T00:00:00Z"),
    *("2000-02-29T00:00:00Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    *(
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+23:60",
    ),
    *("2026-01-01T00:00:00+00:99", "2026-01-01T00:00:00+0100", "2026-01-01T00:00:00-00:00", "2026-13-01T00:00:00Z"),
    *(
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "20260101",
    ),
    *("2026-01-01T00:00:00Z\n", " 2026-01-01T00:00:00Z", "2026-01-01", "2026-02-29", "2024-02-29", "0000-01-01"),
    *("0001-01-01", "9999-12-31", "1970-01-01", "1969-12-31", "1600-02-29", "1700-02-29", "2026-1-1", "2026-01-011"),
    *("٢٠٢٦-01-01", "2026-01-01T00:00:00+01:00:00", "12026-01-01", "-026-01-01", "2026-12-32"),
)
_TEXTS = (
    *(
        "",
        " ",
        "true",
        "false",
        "True",
        "TRUE",
        "null",
        "t",
        "nan",
        "inf",
        "Infinity",
        "é",
        "\U0001f600",
        "\x00",
        "\x7f",
    ),
    *('a"b\\c/d', "line\nfeed\ttab\r\b\f", "|%", "１２", "1 ", " 1", "1\n", "\ufeff1", "\u2028", "x" * 5000),
)
_OTHERS = ("null", "true", "false", "[]", "{}", "[1]", '{"a":1}', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0031"')
_LITERALS = (*_NUMBERS, *_TIMES, *_TEXTS)


def _document(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"id": f"e{rng.randrange(10**6)}", "at": "2026-09-21T13:20:00.5Z"}
    for place in range(len(_KINDS)):
        if rng.random() < 0.5:
            found[f"v{place}"] = rng.choice(_GOOD[place])
    if rng.random() < 0.3:
        found["größe"] = rng.randrange(10)
    if rng.random() < 0.3:
        found["other"] = rng.choice(({"a": [1, {"b": None}], "c": "]}"}, [], {}, [[1.5, True]], "text", None, "é"))
    return found


_GOOD: tuple[tuple[Any, ...], ...] = (
    (1, "-7", 2**63 - 1),
    (1.5, "1e10", -0.0),
    (True, False, "true"),
    ("2026-01-01",),
    ("2026-01-01T00:00:00+02:00",),
    ("plain", "ü", 'quo"te', "tab\t", "\U0001f600", 17, True),
    *(("0", "-0.0" if kind.scale else 0, None) for kind in _DECIMALS),
)


def literals() -> Iterator[bytes]:
    """Every literal in every field, as a text and, where JSON can say it so, as it is."""
    for field in SOURCE.fields:
        if field.origin:
            continue
        for literal in _LITERALS:
            document = {"id": "e", "at": "2026-01-01T00:00:00Z"} | {field.name: literal}
            yield json.dumps(document, ensure_ascii=len(literal) % 2 == 0).encode()
            bare = json.dumps(document | {field.name: "@"}).replace('"@"', literal)
            yield bare.encode()
        for other in (
            "null",
            "true",
            "false",
            "[]",
            "{}",
            "[1]",
            '{"a":1}',
            '"\\ud800"',
            '"\\ud83d\\ude00"',
            '"\\u0031"',
        ):
            yield (
                json.dumps({"id": "e", "at": "2026-01-01T00:00:00Z"} | {field.name: "@"}).replace('"@"', other).encode()
            )


_ILL_FORMED = (
    *(b"\xff", b"\xc0\x80", b"\xc1\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"),
    b"\xf8\x88\x80\x80\x80",
)


def malformed() -> Iterator[bytes | None]:
    """Records that are broken in known ways, each beside one that is not."""
    good = '"id":"e","at":"2026-01-01T00:00:00Z"'
    yield None
    yield from (b"", b" ", b"null", b"17", b'"text"', b"[]", b"[{}]", b"{}", b"not json", b"\xff", b"{", b"}", b"NaN")
    inside = (
        *("", ',"a":1', ',"a":NaN', ',"a":Infinity', ',"a":-Infinity', ',"a":nan', ',"a":tru', ',"a":nulls', ',"a":01'),
        *(',"a":1.', ',"a":.1', ',"a":-', ',"a":+1', ',"a":1e', ',"a":1e+', ',"a":0x1', ',"a":-0', ',"a":-0.0e-0', ","),
        *(',"a"', ',"a":', ",a:1", ",'a':1", ',"a":[1,]', ',"a":[,1]', ',"a":[1 2]', ',"a":{"b":1,}', ',"a":{"b"}'),
        *(',"a":"\t"', ',"a":"\n"', ',"a":"\x00"', ',"a\x01":1', ',"a":"\\x"', ',"a":"\\u12"', ',"a":"\\u12g4"'),
        *(',"a":"\\u+123"', ',"a":"\\', ',"a":"\\"', ',"a":"\x7f\x80"', ',"a":"\\ud800"', ',"\\ud800":1,"\\ud800":2'),
        *(',"\\udc00\\ud800":1', ',"a":"\\ud800\\u0041"', ',"a":"\\ud800\\ud800\\udc00"', ',"a":"\\ud800\\u12"'),
        *(
            ',"a":1,"a":2',
            ',"a":1,"\\u0061":2',
            ',"id":"f"',
            ',"\\u0069d":"f"',
            ',"a":{"b":1,"b":1}',
            ',"b":[{"c":1,"c":2}]',
        ),
        *(',"a":{"b":1,"b":1},', ',"a":1,"a":2,', ',"a":{"":1,"":2}', ',"":1,"":2', ',"a":{"x":1},"b":{"x":1}'),
        *(',"a":{"b":1,"b":1},"c":NaN', ',"c":NaN,"a":{"b":1,"b":1}', ',"größe":1,"gr\\u00f6\\u00dfe":2', ',"größe":3'),
        *(',"\\ud83d\\ude00":1,"\U0001f600":2', ',"a":"' + '\\"' * 50 + '"', ',"v0":{"a":1,"a":2}', ',"v0":1,"v0":1'),
        *(',"/":1,"\\/":2', ',"v0":"\\u0031"', ',"v5":"\\ud800"', ',"id":null', ',"a":' + "9" * 5000),
    )
    for extra in inside:
        yield ("{" + good + extra + "}").encode()
        yield ("{" + extra.removeprefix(",") + "," + good + "}").encode()
    yield b"\xef\xbb\xbf{" + good.encode() + b"}"
    yield ("{" + good + "}").encode("utf-16")
    yield ("{" + good + "}").encode("utf-32")
    for outside in (" ", "\n\t\r ", "\x0b", "\u00a0", "x", "{}", ",", "}", "\x00"):
        yield ("{" + good + "}" + outside).encode()
        yield (outside + "{" + good + "}").encode()
    for ill in (
        b"\xff",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\x80",
        b"\xf8\x88\x80\x80\x80",
    ):
        yield b"{" + good.encode() + b',"a":"' + ill + b'"}'
        yield b'{"a":1,"a":2,"b":"' + ill + b'"}'
    for depth in (MAX_NESTING - 2, MAX_NESTING - 1, MAX_NESTING, MAX_NESTING + 1, 5000, 200_000):
        yield ("{" + good + ',"a":' + "[" * depth + "]" * depth + "}").encode()
        yield ("{" + good + ',"a":' + '{"a":' * depth + "1" + "}" * depth + "}").encode()
        yield ("{" + good + ',"b":{"c":1,"c":2},"a":' + "[" * depth + "}").encode()
        yield ("{" + good + ',"a":"' + "[" * depth + '\\"[","b":[[]]}').encode()
    many = ",".join(f'"k{n}":{n}' for n in range(3000))
    yield ("{" + good + "," + many + "}").encode()
    yield ("{" + good + "," + many + ',"k17":0}').encode()


def fuzzed(rng: random.Random, count: int) -> Iterator[bytes]:
    """Valid records, hurt at random."""
    for _ in range(count):
        document = _document(rng)
        value = json.dumps(document, ensure_ascii=rng.random() < 0.5).encode()
        for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
            value = _hurt(rng, value)
        yield value


def _hurt(rng: random.Random, value: bytes) -> bytes:
    at = rng.randrange(len(value) + 1)
    to = min(len(value), at + rng.randrange(12))
    match rng.randrange(9):
        case 0:
            return value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]
        case 1:
            return value[:at]
        case 2:
            return value[:at] + value[to:]
        case 3:
            return value[:to] + value[at:]
        case 4:
            return value[:at] + rng.choice(_SNIPPETS) + value[at:]
        case 5:
            return value.replace(b'"v1"', b'"v0"', 1)
        case 6:
            literal = json.dumps(rng.choice(_LITERALS)) if rng.random() < 0.5 else rng.choice(_LITERALS)
            return value.replace(
                b": ", b": " + literal.encode() + b', "x%d": ' % rng.randrange(3), 1 + rng.randrange(2)
            )
        case 7:
            return value.replace(b"e", b"\\u0065", rng.randrange(3))
        case _:
            return value[:-1] + b', "' + rng.choice(("v0", "v3", "id", "at", "other")).encode() + b'": 1}'


_SNIPPETS = (
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b" ",
        b"0",
        b"-",
        b".",
        b"e5",
        b"null",
        b"NaN",
        b"\x00",
        b"\xc3",
    ),
    *(b"\\ud800", b"\\udc00", b"\\u00e9", b"\\n", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b'{"a":1,"a":2}', b"[[[["),
)


def records() -> list[Record]:
    """All of them, with keys and headers that are texts, numbers, neither, or not there."""
    rng = random.Random(SEED)
    values = [*literals(), *malformed(), *fuzzed(rng, FUZZED)]
    # A quarter, so that most records are still judged by what they say themselves.
    keys = (None, None, b"", b"k", "ü".encode(), b"\xff")
    headers = (None, None, b"7", b"-0", b"07", b"x", b"\xff", b"")
    found = []
    for offset, value in enumerate(values):
        unusual = rng.random() < 0.25
        number = rng.choice(headers) if unusual else None
        sent = (
            [("number", b"old"), ("number", number), ("other", b"\xff")] if rng.random() < 0.5 else [("number", number)]
        )
        found.append(Record(value, _available(rng), 0, offset, rng.choice(keys) if unusual else None, sent))
    return found


def _available(rng: random.Random) -> int:
    first = 1_767_225_600_000_000  # 2026-01-01
    return rng.choice((NOW, NOW, NOW * 4, first, first - SOURCE.max_future_skew, first - SOURCE.max_future_skew - 1000))


def expected(record: Record) -> tuple[Any, ...]:
    """What the function has to give."""
    judged = parse_record(SOURCE, record)
    if isinstance(judged, Reason):
        return (judged.value, None, None, None, record.available_at, *(None for _ in USED))
    assert isinstance(judged, Event)
    values = (judged.values[field.name] for field in USED)
    return (None, judged.event_id, judged.declared_ts, judged.event_ts, judged.available_at, *values)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sequence[Record], Sequence[tuple[Any, ...]]]:
    """All records, and what Flink made of them."""
    print(f"seed {SEED}")
    settings = Settings()
    ensure_jars(settings)
    given = records()
    schema = {"n": "BIGINT", "v": "BYTES", "k": "BYTES", "h": "MAP<STRING, BYTES>", "ms": "BIGINT"}
    call = f"{JUDGE}(v, k, h, TO_TIMESTAMP_LTZ(ms, 3), {text(declared(SOURCE, USED))})"
    (found,) = flink_batch.run(
        tmp_path_factory.mktemp("judged"),
        "records",
        schema,
        [_row(record) for record in given],
        [f"SELECT n, judged.* FROM records, LATERAL TABLE({call}) AS judged"],
        {"pipeline.jars": stream_jar(settings).as_uri()},
        [JUDGE_FUNCTION],
    )
    return given, sorted(found)


def _row(record: Record) -> dict[str, Any]:
    headers = {name: _base64(value) for name, value in record.headers}
    ms = record.available_at // 1000
    return {"n": record.offset, "v": _base64(record.value), "k": _base64(record.key), "h": headers, "ms": ms}


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def test_every_record_is_judged_as_in_the_log(
    judged: tuple[Sequence[Record], Sequence[tuple[Any, ...]]],
) -> None:
    given, found = judged
    assert [row[0] for row in found] == list(range(len(given)))
    wrong = [
        (record, row[1:]) for record, row in zip(given, found, strict=True) if not _same(row[1:], expected(record))
    ]
    shown = "\n".join(f"{record}\n  stream {row}\n  log    {expected(record)}" for record, row in wrong[:10])
    assert not wrong, f"{len(wrong)} of {len(given)} differ\n{shown}"


def _same(row: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    # Text by text: 1 and 1.0 are not the same, nor are 0.0 and -0.0.
    return list(map(repr, row)) == list(map(repr, wanted))


def test_the_records_are_of_every_kind(judged: tuple[Sequence[Record], Sequence[tuple[Any, ...]]]) -> None:
    outcomes = Counter(row[1] for row in judged[1])
    print(outcomes)
    assert set(outcomes) == {None, *(reason.value for reason in Reason)}
    assert min(outcomes.values()) > 50
    assert outcomes[None] > FUZZED / 20
