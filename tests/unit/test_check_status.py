"""What `coeval status` says of checks: how many passed, and what to type where one did not."""

from __future__ import annotations

from coeval.spec.time import HOUR, MINUTE
from coeval_pipelines.control import ParityCheck
from coeval_pipelines.control.checks import DRIFT, FRESHNESS, QUALITY, REBUILD, REPLAY, Newest
from coeval_pipelines.coordination.check_metrics import Found
from coeval_pipelines.coordination.check_status import CheckStatus, check_problems, check_row, check_status
from coeval_pipelines.coordination.stream_model import Problem

NOW = 1_795_000_000_000_000
GOOD = ParityCheck("card_spend", "3f2a91bc", NOW - 12 * MINUTE, 10, 100, 100, {}, run=7)
BAD = ParityCheck("latest_payment", "77aa", NOW - 3 * HOUR, 10, 100, 98, {}, ("2 unexplained", "late 6%"), run=6)


def _newest(run: int, passed: bool, age: int = MINUTE) -> Newest:
    return Newest(run, NOW - age, "hash", passed, {})


def test_a_catalog_that_nobody_looked_at_is_said_to_be() -> None:
    found = Found("bank", unchecked=("card_spend", "latest_payment"))
    assert check_status(found, NOW) == (CheckStatus("parity", 2, 0, None),)
    assert check_row(check_status(found, NOW)[0]) == ("parity", "0 of 2", "-")
    said = "no parity run has looked at it"
    assert [*check_problems(found, NOW)] == [Problem("card_spend, latest_payment", said, "coeval parity run")]


def test_each_kind_says_how_many_passed_and_how_old_the_oldest_is() -> None:
    runs = {DRIFT: {"log:payments": _newest(3, True)}, FRESHNESS: {"a": _newest(1, True), "b": _newest(2, False, HOUR)}}
    found = Found("bank", (GOOD, BAD), runs=runs)
    assert [check_row(item) for item in check_status(found, NOW)] == [
        ("parity", "1 of 2", "3 h ago"),
        ("freshness", "1 of 2", "60 min ago"),
        ("drift", "1 of 1", "60 s ago"),
    ]


def test_what_failed_says_what_to_type() -> None:
    kinds = (REPLAY, REBUILD, FRESHNESS, DRIFT, QUALITY)
    runs = {kind: {"it": _newest(number, False), "other": _newest(9, True)} for number, kind in enumerate(kinds)}
    problems = [*check_problems(Found("bank", (GOOD, BAD), runs=runs), NOW)]
    assert problems[0] == Problem("latest_payment", "parity, 3 h ago: 2 unexplained, late 6%", "coeval parity show 6")
    assert [problem.then for problem in problems[1:]] == [
        "coeval parity replay it",
        "coeval parity rebuild it",
        "coeval freshness it",
        "coeval drift show 3",
        "coeval quality show 4",
    ]
    assert {problem.subject for problem in problems[1:]} == {"it"}
