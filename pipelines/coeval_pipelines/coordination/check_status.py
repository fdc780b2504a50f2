"""What checks found last, for whoever is on call: how many passed, and what to type where one did not. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coeval_pipelines.control.checks import DRIFT, FRESHNESS, QUALITY, REBUILD, REPLAY
from coeval_pipelines.coordination.check_metrics import KINDS, PARITY, Found
from coeval_pipelines.coordination.stream_model import Problem, seconds

_THEN = {
    REPLAY: "coeval parity replay {subject}",
    REBUILD: "coeval parity rebuild {subject}",
    FRESHNESS: "coeval freshness {subject}",
    DRIFT: "coeval drift show {run}",
    QUALITY: "coeval quality show {run}",
}
"""What to type where the newest run of a kind failed."""
CHECK_COLUMNS = ("check", "passed", "oldest")


@dataclass(frozen=True, slots=True)
class CheckStatus:
    """The newest runs of a kind of check: of how many subjects it passed, and how old (seconds) the oldest one is."""

    check: str
    subjects: int
    passed: int
    age: float | None
    """None: of a subject there is none."""


def check_status(found: Found, now: int) -> tuple[CheckStatus, ...]:
    """Each kind that ever ran, and parity, at `now` (microseconds UTC)."""
    parity = [(check.passed, check.at) for check in found.parity]
    others = {kind: [(run.passed, run.at) for _, run in found.of(kind)] for kind in KINDS}
    return tuple(
        CheckStatus(
            kind,
            len(runs) + missing,
            sum(passed for passed, _ in runs),
            None if missing or not runs else (now - min(at for _, at in runs)) / 1e6,
        )
        for kind, runs, missing in ((PARITY, parity, len(found.unchecked)), *((k, r, 0) for k, r in others.items()))
        if runs or missing
    )


def check_row(item: CheckStatus) -> tuple[str, ...]:
    """The cells of a kind."""
    return (item.check, f"{item.passed} of {item.subjects}", "-" if item.age is None else f"{seconds(item.age)} ago")


def check_problems(found: Found, now: int) -> Iterator[Problem]:
    """What failed when it was looked at last, and what nobody has looked at, at `now` (microseconds UTC)."""
    for check in found.parity:
        if not check.passed:
            said = f"parity, {_ago(check.at, now)}: {', '.join(check.breaches)}"
            yield Problem(check.view, said, f"coeval parity show {check.run}")
    for kind in KINDS:
        for subject, run in found.of(kind):
            if not run.passed:
                then = _THEN[kind].format(subject=subject, run=run.run)
                yield Problem(subject, f"{kind} failed {_ago(run.at, now)}", then)
    if found.unchecked:
        yield Problem(", ".join(found.unchecked), "no parity run has looked at it", "coeval parity run")


def _ago(at: int, now: int) -> str:
    return f"{seconds((now - at) / 1e6)} ago"
