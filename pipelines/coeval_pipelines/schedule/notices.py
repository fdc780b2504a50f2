"""What is said of a run, and when: a new problem at once, the same one again after a while, its end once. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from coeval.spec.time import HOUR, MINUTE
from coeval.spec.types import iso
from coeval_pipelines.schedule.book import DONE, Problem, RunEntry


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to be told: of a job that fails, or is well again (`resolved`).

    `until` (microseconds UTC) is when the next run will have said whether that is still so.
    """

    entry: RunEntry
    problem: Problem
    resolved: bool
    until: int
    runbook: str = ""
    report: str = ""

    @property
    def headline(self) -> str:
        """The notice in one line."""
        job = f"coeval {self.entry.job}"
        if self.resolved:
            return f"{job} is well again, after {_since(self.problem, self.entry)}"
        again = (
            f", {self.problem.runs} runs since {iso(self.problem.since, seconds=True)}" if self.problem.runs > 1 else ""
        )
        return f"{job}: {self.problem.outcome}{again}"


def judged(known: Problem | None, entry: RunEntry, repeat: int) -> tuple[Problem | None, bool]:
    """The open problem of a job after a run, and whether it, or its end, is to be said now.

    `repeat` (microseconds): how long the same problem is not said again.
    """
    now = entry.ended_at or entry.started_at
    if entry.outcome == DONE:
        return None, known is not None and known.said_at > 0
    if known is None or known.outcome != entry.outcome:
        return Problem(entry.job, entry.outcome, now, 0, 1), True
    return replace(known, runs=known.runs + 1), now - known.said_at >= repeat


def webhook(notice: Notice) -> dict[str, Any]:
    """As Slack, and what speaks like it, takes it."""
    lines = [f"*{notice.headline}*"]
    if not notice.resolved:
        lines += [f"```{notice.entry.summary}```"] if notice.entry.summary else []
        lines += [f"report: {notice.report}"] if notice.report else []
        lines += [f"what to do: {notice.runbook}"] if notice.runbook else []
        lines += [f"log: {notice.entry.log}"] if notice.entry.log else []
    return {"text": "\n".join(lines)}


def alert(notice: Notice) -> dict[str, Any]:
    """As Alertmanager takes it: one alert for as long as the job fails, which ends by itself where no run comes."""
    ends = (notice.entry.ended_at or notice.entry.started_at) if notice.resolved else notice.until
    annotations = {
        "outcome": notice.problem.outcome,
        "summary": notice.headline,
        "description": notice.entry.summary,
        "runbook": notice.runbook,
        "report": notice.report,
    }
    return {
        "labels": {"alertname": "CoevalJobFailed", "job": notice.entry.job, "severity": "critical"},
        "annotations": {name: text for name, text in annotations.items() if text},
        "startsAt": iso(notice.problem.since),
        "endsAt": iso(ends),
    }


def _since(problem: Problem, entry: RunEntry) -> str:
    length = (entry.ended_at or entry.started_at) - problem.since
    return f"{length / HOUR:.1f} h" if length >= HOUR else f"{length / MINUTE:.0f} min"
