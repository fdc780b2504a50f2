"""Claims about dead letters: what is wrong with them, how they are repaired, and what is never sent again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coeval.cli.app import APP, _register
from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.model import EventSource
from coeval.spec.records import Reason, Record
from coeval.spec.time import DAY, HOUR
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.deadletters import Place, Replay, ReplayBook
from coeval_pipelines.coordination.deadletter import header, unread
from coeval_pipelines.coordination.deadletter_commands import _confirmed
from coeval_pipelines.offline.deadletters import (
    Reject,
    Summary,
    not_in_bulk,
    parse_position,
    position_text,
    reject_of,
)
from coeval_pipelines.offline.repairs import ERASED, repair, setting, why
from tests.support import catalog
from tests.support.poison import GOOD, POISON, START


def _reject(value: bytes, reason: Reason = Reason.BAD_LITERAL, at: int = START + 11 * HOUR) -> Reject:
    return Reject("payments", reason, Record(value, at, 0, 7))


def test_what_is_wrong_is_said_by_field() -> None:
    says = {reason: why(catalog.PAYMENTS, _reject(value, reason)) for reason, value in POISON}
    assert why(catalog.PAYMENTS, _reject(POISON[0][1])) == ["amount: '12.505' is no decimal(9,2) (bad_literal)"]
    assert len(says[Reason.BAD_LITERAL]) == 2  # both fields of the one with words
    assert says[Reason.NULL_REQUIRED] == ["card_id: no int64 (null_required)"]
    assert "a key stands twice" in says[Reason.DUPLICATE_FIELD][0]
    assert says[Reason.FUTURE_DATED] == ["paid_at: ahead of its record (future_dated)"]
    assert "Unterminated string" in says[Reason.UNPARSEABLE][0]
    assert why(catalog.PAYMENTS, _reject(json.dumps(GOOD).encode())) == []


def test_a_repair_is_judged_before_anything_is_sent() -> None:
    change = setting(catalog.PAYMENTS, ["amount=12.50"])
    mended = repair(catalog.PAYMENTS, _reject(POISON[0][1]), change, START + DAY)
    assert not mended.problems
    assert json.loads(mended.value or b"")["amount"] == 12.50
    still = repair(catalog.PAYMENTS, _reject(POISON[1][1]), change, START + DAY)
    assert still.problems == ("points: 'x' is no int64 (bad_literal)",)
    # The clock has passed it by.
    assert not repair(catalog.PAYMENTS, _reject(POISON[5][1]), None, START + 2 * DAY).problems
    assert repair(catalog.PAYMENTS, _reject(POISON[3][1]), change, START + DAY).problems[0].startswith("the repair")
    twice = repair(catalog.PAYMENTS, _reject(POISON[4][1]), setting(catalog.PAYMENTS, ["note=x"]), START + DAY)
    assert "amount stands twice" in twice.problems[0]
    left_out = repair(catalog.PAYMENTS, _reject(POISON[0][1]), lambda raw: None, START + DAY)
    assert left_out.problems == ("the repair left it out",)


def test_numbers_keep_every_digit_through_a_repair() -> None:
    raw = b'{"event_id": "e", "paid_at": "2026-03-20T10:00:00Z", "card_id": 9007199254740993, "merchant_id": "m",'
    raw += b' "amount": 0.10}'
    mended = repair(catalog.PAYMENTS, _reject(raw), setting(catalog.PAYMENTS, ["note=null"]), START + DAY)
    document = json.loads(mended.value or b"")
    assert (document["card_id"], document["note"]) == (9007199254740993, None)
    assert b'"amount": 0.10,' in (mended.value or b"")
    assert not mended.problems
    again = repair(catalog.PAYMENTS, _reject(raw), setting(catalog.PAYMENTS, ["amount=12.50", "note=7"]), START + DAY)
    assert b'"amount": 12.50,' in (again.value or b"")
    assert b'"note": "7"' in (again.value or b"")


@pytest.mark.parametrize("text", ["amount", "amuont=1", "=1"])
def test_a_field_that_the_source_does_not_have_is_not_set(text: str) -> None:
    with pytest.raises(UsageError, match="sets no field"):
        setting(catalog.PAYMENTS, [text])


AT = START + 11 * HOUR
GONE = Erasure("card_id", 4711, AT + HOUR)
UNREADABLE = {
    "a bad field elsewhere": json.dumps({**GOOD, "card_id": 4711, "amount": "x"}).encode(),
    "the subject as a text": json.dumps({**GOOD, "card_id": "4711", "amount": "x"}).encode(),
    "an escaped name": b'{"card\\u005fid": 4711, "amount": "x"}',
    "the subject stands twice": b'{"card_id": 1, "card_id": 4711}',
    "cut off": b'{"event_id": "e", "card_id" : "4711", "merch',
    "cut off in the value": b'{"event_id": "e", "card_id" : "4711',
}


def _row(value: bytes, at: int | None = AT, headers: list[dict[str, object]] | None = None) -> dict[str, object]:
    place = {"topic": "payments", "partition": 0, "offset": 7, "available_at": at}
    return {"reason": "bad_literal", "value": bytearray(value), "key": None, "headers": headers, **place}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_reject_of_an_erased_subject_is_told_without_its_bytes_and_never_sent(value: bytes) -> None:
    found = reject_of(catalog.PAYMENTS, _row(value), "log", [GONE])
    assert (found.erased, found.record.value, why(catalog.PAYMENTS, found)) == (True, None, [ERASED])
    assert repair(catalog.PAYMENTS, found, lambda _: json.dumps(GOOD).encode(), AT + DAY).problems == (ERASED,)
    later = reject_of(catalog.PAYMENTS, _row(value, GONE.at + 1), "log", [GONE])
    assert (later.erased, later.record.value) == (False, value)
    assert not reject_of(catalog.PAYMENTS, _row(value), "log", [replace(GONE, value=47)]).erased
    assert not reject_of(catalog.PAYMENTS, _row(value), "log", [replace(GONE, column="household_id")]).erased


def test_a_repair_does_not_bring_an_erased_subject_back() -> None:
    nobody = reject_of(catalog.PAYMENTS, _row(json.dumps({**GOOD, "card_id": None}).encode()), "log", [GONE])
    assert not nobody.erased
    change = setting(catalog.PAYMENTS, ["card_id=4711"])
    refused = repair(catalog.PAYMENTS, nobody, change, AT + DAY, [GONE])
    assert (refused.value, refused.problems) == (None, (ERASED,))
    assert not repair(catalog.PAYMENTS, nobody, setting(catalog.PAYMENTS, ["card_id=4712"]), AT + DAY, [GONE]).problems
    newer = replace(nobody, record=replace(nobody.record, available_at=GONE.at + 1))
    assert not repair(catalog.PAYMENTS, newer, change, AT + DAY, [GONE]).problems


def test_a_subject_that_stands_in_key_or_header_is_found_there() -> None:
    def at(origin: str) -> EventSource:
        fields = (replace(f, origin=origin) if f.name == "card_id" else f for f in catalog.PAYMENTS.fields)
        return replace(catalog.PAYMENTS, fields=tuple(fields))

    row = _row(b"{", headers=[{"key": "card", "value": bytearray(b"4711")}])
    assert reject_of(at("header:card"), row, "log", [GONE]).erased
    assert reject_of(at("key"), {**row, "key": bytearray(b"4711")}, "log", [GONE]).erased
    assert not reject_of(at("key"), row, "log", [GONE]).erased


def test_a_row_of_a_history_file_without_a_time_is_erased_with_its_subject() -> None:
    assert reject_of(catalog.PAYMENTS, _row(UNREADABLE["the subject as a text"], None), "log", [GONE]).erased


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda raw: {}[raw], "the repair failed: KeyError"),
        (lambda raw: 1 / 0, "the repair failed: ZeroDivisionError: division by zero"),
        (lambda raw: raw.decode(), "the repair failed: it gave str, not bytes"),
    ],
)
def test_a_function_that_fails_is_about_one_record(function: Callable[[bytes], bytes], said: str) -> None:
    (problem,) = repair(catalog.PAYMENTS, _reject(POISON[0][1]), function, START + DAY).problems
    assert problem.startswith(said)


def test_rejects_of_two_logs_or_topics_at_one_position_are_two(tmp_path: Path) -> None:
    places = [Place("one", "payments", 0, 7), Place("two", "payments", 0, 7), Place("one", "payments.v2", 0, 7)]
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        book = ReplayBook(control)
        book.plan([Replay("payments", place, {0: 9}) for place in places[:2]], 5)
        book.sent("payments", places[:1], 6)
        assert {place: item.sent_at for place, item in book.of("payments").items()} == {places[0]: 6, places[1]: None}
    assert len({header(catalog.PAYMENTS, place) for place in places}) == 3


def test_what_a_topic_has_forgotten_is_not_waited_for() -> None:
    assert unread({0: 5, 1: 5, 2: 5}, {0: 7, 1: 0, 2: 9}, {0: 9, 1: 5, 2: 9, 3: 4}) == {0: 7, 3: 0}


def test_a_bulk_replay_says_how_many_of_which_reason_and_is_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Summary("payments", "bad_literal", 12, 1, 2, (0, 1)), Summary("payments", "unparseable", 3, 1, 2, (0, 1))]
    with pytest.raises(UsageError, match="15 rejects would be judged"):
        _confirmed(found, yes=False)
    assert [line.split() for line in capsys.readouterr().err.splitlines()] == [
        ["bad_literal", "12"],
        ["unparseable", "3"],
    ]
    assert (_confirmed(found, yes=True), _confirmed([], yes=False)) == (15, 0)
    assert not_in_bulk("", ()) == ("future_dated",)
    assert not_in_bulk("future_dated", ()) == not_in_bulk("", [(0, 7)]) == ()


def test_fields_are_set_in_records_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coeval.settings import load_settings

    (tmp_path / "manifest.json").write_text(catalog.manifest().to_json())
    monkeypatch.setenv("COEVAL_HOME", str(tmp_path))
    load_settings.cache_clear()
    _register()
    result = CliRunner().invoke(APP, ["deadletter", "replay", "payments", "--set", "amount=1", "--yes"])
    load_settings.cache_clear()
    assert isinstance(result.exception, UsageError), result.output
    assert "--at" in result.exception.instruction


def test_positions_in_history_files_can_be_typed() -> None:
    assert (parse_position("h:5"), position_text((-1, 5)), position_text((0, 5))) == ((-1, 5), "h:5", "0:5")
    with pytest.raises(UsageError, match="is no position"):
        parse_position("x:5")
