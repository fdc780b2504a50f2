"""What checks found last, for whoever is on call: how many passed, and what to type where one did not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from coeval.spec.time import DAY
from coeval_pipelines.control.checks import DRIFT, FRESHNESS, KINDS, PARITY, QUALITY, REBUILD, REPLAY, Newest
from coeval_pipelines.control.gate import Gate
from coeval_pipelines.coordination.stream_model import Problem, seconds

CHECK_COLUMNS = ("check", "passed", "oldest")
_RECENT = 7 * DAY
"""A check whose newest run is older says nothing of now: what it was about may be gone."""
_THEN = {
    REPLAY: "coeval parity replay {subject}",
    REBUILD: "coeval parity rebuild {subject}",
    FRESHNESS: "coeval freshness {subject}",
    DRIFT: "coeval drift show {run}",
    QUALITY: "coeval quality show {run}",
}
"""What to type where the newest run of a kind failed."""


@dataclass(frozen=True, slots=True)
class CheckStatus:
    """A kind of check: of how many subjects it passed, and how old (seconds) the oldest of its newest runs is."""

    check: str
    subjects: int
    passed: int
    age: float | None
    """None: of a subject there is none."""


Runs = Mapping[str, Mapping[str, Newest]]
"""By kind and subject the newest run."""


def recent(runs: Runs, now: int) -> Runs:
    """Of the newest runs those of the last seven days before `now` (microseconds UTC)."""
    return {
        kind: {subject: run for subject, run in found.items() if now - run.at <= _RECENT}
        for kind, found in runs.items()
    }


def check_status(gates: Sequence[Gate], runs: Runs, now: int) -> tuple[CheckStatus, ...]:
    """Parity, by the gates of the views that readers have, and every other kind that ran, at `now`."""
    found = []
    if gates:
        looked = [gate.check.at for gate in gates if gate.check]
        whole = len(looked) == len(gates)
        passed = sum(gate.passed for gate in gates)
        found.append(CheckStatus(PARITY, len(gates), passed, _age(min(looked), now) if whole else None))
    for kind in KINDS:
        if newest := [*runs.get(kind, {}).values()]:
            passed = sum(run.passed for run in newest)
            found.append(CheckStatus(kind, len(newest), passed, _age(min(run.at for run in newest), now)))
    return tuple(found)


def check_row(item: CheckStatus) -> tuple[str, ...]:
    """The cells of a kind."""
    return (item.check, f"{item.passed} of {item.subjects}", "-" if item.age is None else f"{seconds(item.age)} ago")


def check_problems(gates: Sequence[Gate], runs: Runs, now: int) -> Iterator[Problem]:
    """What failed when it was looked at last, and what parity has not looked at, at `now` (microseconds UTC)."""
    for gate in gates:
        if not gate.passed:
            then = f"coeval parity show {gate.check.run}" if gate.check else f"coeval parity run {gate.view}"
            yield Problem(gate.view, f"parity: {gate.why}", then)
    for kind in KINDS:
        for subject, run in runs.get(kind, {}).items():
            if not run.passed:
                # Training sets are named as such in the book, and by their name alone in commands.
                then = _THEN[kind].format(subject=subject.rpartition(":")[2], run=run.run)
                yield Problem(subject, f"{kind} failed {seconds(_age(run.at, now))} ago", then)


def _age(at: int, now: int) -> float:
    return (now - at) / 1e6
