"""What to do next: every action follows from the cause and the suspect, and is a command that can be typed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any

import pytest
import typer
from typer.main import get_command

from coeval.spec.model import Tolerance
from coeval_parity.advice import Advice, advice, explain_command, some
from coeval_parity.result import BENIGN, Cause, Mismatch, ParityResult, Suspect
from tests.support.parity_pages import AT, difference, failing, feature, passing, view

FORCED = "coeval backfill run card_spend --correct --force"


def result(cause: Cause, suspect: Suspect = Suspect.NONE, item: Mismatch | None = None) -> ParityResult:
    """A run in which a few values of one view differ for one cause."""
    found = replace(
        feature("card_spend", "sum_amount_1h", {cause: {0: 3}}, 900), suspects={suspect: 3} if suspect else {}
    )
    entry = item or difference("card_spend", "sum_amount_1h", cause, 4711, suspect)
    return replace(failing(), views=(view("card_spend", (found,), 10),), mismatches=(entry,))


def commands(found: Advice) -> list[str]:
    """What to type, in order."""
    return [todo.command for todo in found.todo if todo.command]


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause not in BENIGN])
def test_a_cause_that_fails_the_run_begins_with_its_worst_key_and_ends_with_another_run(cause: Cause) -> None:
    (found,) = advice(result(cause))
    assert found.failing
    assert commands(found)[0] == "coeval explain card_spend card_id=4711"
    assert commands(found)[-1] == "coeval parity run card_spend"


@pytest.mark.parametrize(
    ("cause", "suspect", "expected"),
    [
        (Cause.UNEXPLAINED, Suspect.LOST_UPDATE, ["coeval stream logs --component writer --since 6h", FORCED]),
        (Cause.UNEXPLAINED, Suspect.APPLIED_TWICE, ["coeval stream logs --component coordinator --since 6h", FORCED]),
        (Cause.UNEXPLAINED, Suspect.SHIFTED_TIME, ["coeval stream status", FORCED]),
        (Cause.UNEXPLAINED, Suspect.NONE, ["coeval log status", FORCED]),
        (Cause.UNEXPLAINED, Suspect.OFFLINE_SIDE, []),
        (Cause.REJECTED, Suspect.NONE, ["coeval deadletter list --source payments", FORCED]),
        (Cause.DEFINITION, Suspect.NONE, ["coeval stream plan", FORCED]),
        (Cause.STALE, Suspect.NONE, ["coeval backfill run card_spend"]),
        (Cause.CLOCK, Suspect.NONE, []),
    ],
)
def test_what_lies_between_follows_from_cause_and_suspect(cause: Cause, suspect: Suspect, expected: list[str]) -> None:
    (found,) = advice(result(cause, suspect))
    assert commands(found)[1:-1] == expected


def test_what_the_stream_has_to_deliver_is_no_matter_of_a_batch_load() -> None:
    item = difference("card_spend", "sum_amount_1h", Cause.STALE, 4711)
    steps = tuple(replace(step, owner="stream") for step in item.steps)
    (found,) = advice(result(Cause.STALE, item=replace(item, steps=steps)))
    assert commands(found)[1:-1] == ["coeval stream status"]
    assert found.runbook == "docs/runbooks/lag.md"


@pytest.mark.parametrize("cause", [Cause.STALE, Cause.IN_FLIGHT])
def test_what_batch_has_to_deliver_is_no_matter_of_the_stream(cause: Cause) -> None:
    item = difference("card_spend", "sum_amount_1h", cause, 4711)
    steps = tuple(replace(step, owner="batch load 7") for step in item.steps)
    (found,) = advice(strict(result(cause, item=replace(item, steps=steps)), "in_flight"))
    assert commands(found)[1:-1] == ["coeval backfill status", "coeval backfill run card_spend"]
    assert found.runbook == "docs/runbooks/backfill.md"


def test_what_nothing_is_suspected_of_is_mended_from_the_log_only_if_that_is_whole() -> None:
    (sure,) = advice(result(Cause.UNEXPLAINED, Suspect.LOST_UPDATE))
    (unsure,) = advice(result(Cause.UNEXPLAINED))
    load = [next(todo.text for todo in found.todo if todo.command == FORCED) for found in (sure, unsure)]
    assert [text.startswith("Only if the log is whole") for text in load] == [False, True]
    base = result(Cause.UNEXPLAINED, Suspect.LOST_UPDATE)
    more = replace(base.views[0].features[0], causes={Cause.UNEXPLAINED: 5})
    (partly,) = advice(replace(base, views=(replace(base.views[0], features=(more,)),)))
    assert commands(partly)[1:-1] == ["coeval stream logs --component writer --since 6h", "coeval log status", FORCED]


def test_views_of_which_the_offline_side_is_wrong_are_not_loaded() -> None:
    base = result(Cause.UNEXPLAINED, Suspect.LOST_UPDATE)
    wrong = replace(feature("limits", "count_1h", {Cause.UNEXPLAINED: {0: 1}}, 900), suspects={Suspect.OFFLINE_SIDE: 1})
    (found,) = advice(replace(base, views=(*base.views, view("limits", (wrong,), 10))))
    assert FORCED in commands(found)
    assert any("load nothing" in todo.text for todo in found.todo)


def test_late_values_call_for_a_batch_load_only_beyond_their_bound() -> None:
    (calm,) = advice(passing())
    assert (calm.failing, calm.todo[0].text.startswith("Nothing")) == (False, True)
    (urgent,) = advice(strict(passing(), "late"))
    assert urgent.failing
    assert commands(urgent)[1:] == ["coeval backfill run card_spend --correct", "coeval parity run card_spend"]


def strict(base: ParityResult, cause: str) -> ParityResult:
    """The run under budgets that let nothing differ for a cause."""
    return replace(
        base,
        views=tuple(
            replace(one, features=tuple(replace(item, budgets=(Tolerance(cause, 0.0),)) for item in one.features))
            for one in base.views
        ),
    )


def test_values_in_flight_beyond_their_budget_are_a_matter_of_lag() -> None:
    (found,) = advice(strict(result(Cause.IN_FLIGHT), "in_flight"))
    assert found.failing
    assert commands(found)[1:] == ["coeval stream status", "coeval parity run card_spend"]
    assert found.runbook == "docs/runbooks/lag.md"


def test_a_view_that_is_not_ready_is_filled_not_explained() -> None:
    base = result(Cause.UNEXPLAINED)
    (found,) = advice(replace(base, views=(replace(base.views[0], ready=False),), mismatches=()))
    assert found.cause == "unavailable"
    assert commands(found)[:2] == ["coeval stream status", "coeval backfill run card_spend"]
    assert found.runbook.endswith("store-wiped.md")


def test_a_replay_explains_the_key_as_of_its_response_and_asks_whether_the_store_is_wrong_now() -> None:
    (found,) = advice(replace(result(Cause.UNEXPLAINED), kind="replay"))
    assert commands(found) == [
        "coeval explain card_spend card_id=4711 --at 2026-11-20T03:12:41Z",
        "coeval parity run card_spend",
    ]


def test_the_most_values_come_first_and_what_is_benign_last() -> None:
    found = advice(failing())
    assert [(item.cause, item.failing) for item in found] == [
        ("unexplained", True),
        ("stale", True),
        ("definition", True),
        ("late", False),
        ("in_flight", False),
    ]


def test_keys_are_quoted_for_a_shell() -> None:
    item = difference("v", "x", Cause.TTL, 1, entity={"name": "it's; rm -rf $HOME", "n": 3})
    command = explain_command(failing(), replace(item, at=AT))
    assert shlex.split(command) == ["coeval", "explain", "v", "name=it's; rm -rf $HOME", "n=3"]


def test_of_many_names_a_few_are_said() -> None:
    assert some(["a"]) == "a"
    assert some(["a", "b", "c"]) == "a, b and c"
    assert some([*"abcdef"]) == "a, b, c and 3 more"


def test_every_command_is_one_of_ours() -> None:
    suspects = [result(Cause.UNEXPLAINED, suspect) for suspect in Suspect]
    causes = [result(cause) for cause in Cause]
    typed = {command for item in [*suspects, *causes] for found in advice(item) for command in commands(found)}
    assert len(typed) > 8
    app = typer.Typer()
    for entry in entry_points(group="coeval.commands"):
        entry.load()(app)
    for command in typed:
        words = shlex.split(command)[1:]
        found: Any = get_command(app)
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, command
