"""When a job's problem is said: at once, again after a while, and its end once."""

import json
from datetime import UTC, datetime

import pytest

from coeval.errors import UsageError
from coeval.settings import ScheduledJob, Settings
from coeval.spec.time import HOUR, MINUTE
from coeval_pipelines.schedule.book import DONE, FAILED, TIMEOUT, Problem, RunEntry
from coeval_pipelines.schedule.jobs import jobs
from coeval_pipelines.schedule.notices import Notice, alert, judged, webhook

NOON = 1_795_348_800_000_000


def _run(outcome: str, at: int = NOON) -> RunEntry:
    return RunEntry(
        7, "parity", "parity run", at, at, at, outcome, 1, "2 unexplained\nreport /x/parity.html", "/x/7.log"
    )


def test_a_problem_is_said_at_once_and_again_only_after_a_while() -> None:
    problem, say = judged(None, _run(FAILED), 4 * HOUR)
    assert problem == Problem("parity", FAILED, NOON, 0, 1)
    assert say
    said = Problem("parity", FAILED, NOON, NOON, 1)
    assert judged(said, _run(FAILED, NOON + HOUR), 4 * HOUR) == (Problem("parity", FAILED, NOON, NOON, 2), False)
    assert judged(said, _run(FAILED, NOON + 4 * HOUR), 4 * HOUR)[1]


def test_another_outcome_is_another_problem() -> None:
    said = Problem("parity", FAILED, NOON, NOON, 3)
    later = NOON + MINUTE
    assert judged(said, _run(TIMEOUT, later), 4 * HOUR) == (Problem("parity", TIMEOUT, later, 0, 1), True)


def test_the_end_of_a_problem_is_said_if_the_problem_was() -> None:
    assert judged(Problem("parity", FAILED, NOON, NOON, 3), _run(DONE), HOUR) == (None, True)
    assert judged(Problem("parity", FAILED, NOON, 0, 3), _run(DONE), HOUR) == (None, False)
    assert judged(None, _run(DONE), HOUR) == (None, False)


def test_what_was_not_told_is_told_by_the_next_run() -> None:
    assert judged(Problem("parity", FAILED, NOON, 0, 1), _run(FAILED, NOON + MINUTE), 4 * HOUR)[1]


def test_messages_say_what_is_wrong_and_what_to_do() -> None:
    problem = Problem("parity", FAILED, NOON, 0, 2)
    later = NOON + 2 * HOUR
    notice = Notice(_run(FAILED), problem, False, later, "docs/runbooks/parity.md", "https://host/parity.html")
    text = webhook(notice)["text"]
    for part in ("coeval parity: check failed, 2 runs since", "2 unexplained", "https://host/parity.html", "parity.md"):
        assert part in text
    raised = alert(notice)
    assert raised["labels"] == {"alertname": "CoevalJobFailed", "job": "parity", "severity": "critical"}
    assert raised["annotations"]["outcome"] == FAILED
    # It ends by itself where no further run says that it goes on.
    assert datetime.fromisoformat(raised["endsAt"]) == datetime.fromtimestamp(later / 1e6, tz=UTC)
    ended = alert(Notice(_run(DONE, NOON + HOUR), problem, True, later))
    assert ended["labels"] == raised["labels"]
    assert datetime.fromisoformat(ended["endsAt"]) == datetime.fromtimestamp((NOON + HOUR) / 1e6, tz=UTC)
    assert "well again, after 1.0 h" in ended["annotations"]["summary"]


def test_jobs_of_the_settings_go_over_the_defaults() -> None:
    found = jobs(
        {"parity": ScheduledJob(command="parity run card_spend", every="30m"), "ingest": ScheduledJob(command="")}
    )
    assert found["parity"].command == ("parity", "run", "card_spend")
    assert found["parity"].runbook == "docs/runbooks/parity.md"
    assert "ingest" not in found
    assert "correct" in found


def test_times_are_counted_from_the_same_instant_whoever_asks() -> None:
    (job,) = [item for item in jobs({}).values() if item.name == "ingest"]
    at = datetime(2026, 11, 22, 5, 31, 7, tzinfo=UTC)
    assert job.after(at) == datetime(2026, 11, 22, 5, 45, tzinfo=UTC)
    due = list(job.due(at, datetime(2026, 11, 22, 6, 30, tzinfo=UTC)))
    assert [item.strftime("%H:%M") for item in due] == ["05:45", "06:00", "06:15", "06:30"]
    (daily,) = [item for item in jobs({}).values() if item.name == "correct"]
    assert daily.after(at) == datetime(2026, 11, 23, 2, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "item",
    [
        ScheduledJob(command="parity run"),
        ScheduledJob(command="parity run", every="1h", cron="0 * * * *"),
        ScheduledJob(command="parity run", every="often"),
        ScheduledJob(command="parity run", every="0s"),
        ScheduledJob(command="parity run", cron="61 * * * *"),
        ScheduledJob(command="parity run", every="1h", timeout="long"),
    ],
)
def test_a_job_without_a_time_that_can_be_read_is_refused(item: ScheduledJob) -> None:
    with pytest.raises(UsageError, match="mine"):
        jobs({"mine": item})


def test_webhooks_are_left_for_child_processes_to_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEVAL_NOTIFY__WEBHOOKS", json.dumps(["https://hooks.example/T0/secret"]))
    monkeypatch.setenv("COEVAL_SCHEDULE", json.dumps({"parity": {"command": "parity run", "every": "5m"}}))
    settings = Settings()
    assert settings.notify.webhooks[0].get_secret_value().endswith("secret")
    variables = settings.variables()
    assert not any("secret" in value or "**" in value for value in variables.values())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings().schedule == settings.schedule
