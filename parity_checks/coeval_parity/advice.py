"""What a parity result comes to: what is wrong, since when, and what to type next. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coeval.spec.types import iso
from coeval_parity.result import BENIGN, Cause, Mismatch, ParityResult, Suspect, ViewParity

RUNBOOK = "docs/runbooks/parity.md"
_LAG, _BACKFILL, _WIPED = (f"docs/runbooks/{name}.md" for name in ("lag", "backfill", "store-wiped"))
SUSPECTS = {
    Suspect.LOST_UPDATE: "updates were lost on their way to the store",
    Suspect.APPLIED_TWICE: "events were counted twice",
    Suspect.CORRUPTED_STATE: "stored state was changed by something else",
    Suspect.SHIFTED_WINDOW: "a build that puts tile edges elsewhere",
    Suspect.SHIFTED_TIME: "event times read in another time zone",
    Suspect.WRONG_KEY: "values under another key than theirs",
    Suspect.FLOAT_ROUNDING: "exact numbers added as doubles",
    Suspect.OFFLINE_SIDE: "the offline engine is wrong, not the store",
}
"""What each suspect comes to, in words."""
MEANINGS = {
    Cause.IN_FLIGHT: "Available, not yet certified to be in the store. Benign; gone at the next run.",
    Cause.LATE: "Came after its tile was final. Benign up to the view's budget.",
    Cause.STALE: "Not delivered within the promised freshness, or in tiles that no writer owns.",
    Cause.TTL: "One side applies another ttl.",
    Cause.DEFINITION: "The served value was computed by another version of the view.",
    Cause.CLOCK: "The store knows events from after the read: a reader's clock is behind, or a producer's ahead.",
    Cause.ERASED: "A subject was erased; what is left of its time is not written anew yet. Benign.",
    Cause.REJECTED: "The store counts records that the log refuses: one side's validation lets too much through.",
    Cause.UNEXPLAINED: "No late or in-flight event accounts for it: store or log was changed, or lost something.",
}
FEW = 3
"""Views that are named one by one."""
_BUILDS = {Suspect.SHIFTED_WINDOW, Suspect.SHIFTED_TIME, Suspect.WRONG_KEY, Suspect.FLOAT_ROUNDING}
"""Suspects that a wrong build of a writer leaves behind."""
_DELIVERED = (Cause.STALE, Cause.IN_FLIGHT)
"""Causes that whoever delivers the values is behind."""


@dataclass(frozen=True, slots=True)
class Todo:
    """One thing to do: in words, and the command to type, where there is one."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is wrong or worth knowing. `worst` is the key that differs most, where one was kept."""

    cause: str
    failing: bool
    count: int
    where: str
    since: str
    meaning: str
    todo: tuple[Todo, ...]
    runbook: str = RUNBOOK
    worst: Mismatch | None = None


def advice(result: ParityResult) -> list[Advice]:
    """One entry per cause that occurred; those that fail the run first, the most values first."""
    found = [_not_ready(result, view) for view in result.views if not view.ready]
    found += [entry for cause in Cause if (entry := _advice(result, cause)) is not None]
    return sorted(found, key=lambda item: (not item.failing, -item.count))


def _not_ready(result: ParityResult, view: ViewParity) -> Advice:
    todo = (
        Todo("See whether it is being filled; the coordinator does so by itself", "coeval stream status"),
        Todo("If nothing fills it", f"coeval backfill run {view.view}"),
        _again([view.view]),
    )
    meaning = f"Version {view.version} has no ready marker: the store was wiped or never filled, and every read is "
    meaning += "UNAVAILABLE."
    return Advice("unavailable", True, view.compared, view.view, "", meaning, todo, _WIPED)


def _advice(result: ParityResult, cause: Cause) -> Advice | None:
    # A replay has a view once per version that was served.
    counts: Counter[str] = Counter()
    for view in result.views:
        counts[view.view] += view.cause(cause) if view.ready else 0
    views = [name for name, count in counts.most_common() if count]
    if not views:
        return None
    mine = [item for item in result.mismatches if item.cause is cause and item.view in views]
    times = [item.since for item in mine if item.since is not None]
    over = [name for name in views if _is_over(result, name, cause)]
    failing = cause not in BENIGN or bool(over)
    worst = _worst(mine)
    return Advice(
        cause=str(cause),
        failing=failing,
        count=counts.total(),
        where=some([f"{name} ({counts[name]:,})" for name in views]) if len(views) > 1 else views[0],
        since=iso(min(times)) if times else "",
        meaning=MEANINGS[cause] + (_suspected(result) if cause is Cause.UNEXPLAINED else ""),
        todo=tuple(_todo(result, cause, over or views, mine, worst) if failing else _calm(cause, views)),
        runbook=_runbook(cause, mine),
        worst=worst,
    )


def _is_over(result: ParityResult, view: str, cause: Cause) -> bool:
    """Whether more values of a view differ for a benign cause than it tolerates."""
    spent = [item for one in result.views if one.view == view for item in one.budgets]
    return any(item.over and item.budget.cause == cause for item in spent)


def _runbook(cause: Cause, mine: Sequence[Mismatch]) -> str:
    """Where more is said of a cause."""
    if (cause is Cause.STALE and _unowned(mine)) or (cause in _DELIVERED and _of_batch(mine)):
        return _BACKFILL
    return _LAG if cause in _DELIVERED else RUNBOOK


def _suspected(result: ParityResult) -> str:
    """What is probably behind it, in words."""
    found = [f"{SUSPECTS[suspect]} ({count:,})" for suspect, count in _ranked(result)]
    return f" Suspected: {'; '.join(found)}." if found else ""


def _ranked(result: ParityResult) -> list[tuple[Suspect, int]]:
    return sorted(result.suspects.items(), key=lambda item: (-item[1], item[0]))


def _worst(items: Sequence[Mismatch]) -> Mismatch | None:
    """A difference of the key in which most features differ; of several the first."""
    features = Counter((item.view, item.key) for item in items)
    return max(items, key=lambda item: features[item.view, item.key], default=None)


def _calm(cause: Cause, views: Sequence[str]) -> list[Todo]:
    """What to do about a benign cause within its bounds."""
    match cause:
        case Cause.LATE:
            return [_load("Nothing: the next batch load with --correct mends it. To mend it now", views, "--correct")]
        case Cause.ERASED:
            return [_load("Nothing, or let batch write it anew now", views, "--correct")]
        case _:
            return [Todo("Nothing, unless it stays: then see the lag of stream and writer", "coeval stream status")]


def _todo(
    result: ParityResult, cause: Cause, views: Sequence[str], mine: Sequence[Mismatch], worst: Mismatch | None
) -> list[Todo]:
    """What to do about a cause that fails the run: look, find what did it, mend, compare again."""
    look = [Todo("See the worst key, event by event", explain_command(result, worst))] if worst else []
    if result.kind == "replay":
        # What was served is past; whether the store is wrong now decides what to mend.
        return [*look, Todo("See whether the store is still wrong; its page says how to mend it", _parity(views))]
    sources = list(dict.fromkeys(view.source for view in result.views if view.view in views and view.source))
    # A load is computed by the offline engine: where that is wrong, it would write over what is right.
    right = [name for name in views if not _suspects(result, name)[Suspect.OFFLINE_SIDE]]
    proven = all(_suspects(result, name).total() >= _count(result, name, cause) for name in right)
    ask = _behind(result, proven=proven) if cause is Cause.UNEXPLAINED else _ask(cause, mine, sources)
    mend = _mend(cause, mine, right, proven=proven) if right else []
    return [*look, *ask, *mend, _again(views)]


def _suspects(result: ParityResult, view: str) -> Counter[Suspect]:
    """What is probably behind the unexplained values of a view."""
    found: Counter[Suspect] = Counter()
    for item in (item for one in result.views if one.view == view for item in one.features):
        found.update(item.suspects)
    return found


def _count(result: ParityResult, view: str, cause: Cause) -> int:
    return sum(one.cause(cause) for one in result.views if one.view == view)


def _ask(cause: Cause, mine: Sequence[Mismatch], sources: Sequence[str]) -> list[Todo]:
    """How to find out what did it."""
    match cause:
        case Cause.STALE if _unowned(mine):
            return []
        case Cause.STALE | Cause.IN_FLIGHT if _of_batch(mine):
            return [Todo("Are loads scheduled, and do they get through?", "coeval backfill status")]
        case Cause.STALE | Cause.IN_FLIGHT:
            return [Todo("Do job and writer run, and keep up? Restart what stands still", "coeval stream status")]
        case Cause.TTL | Cause.DEFINITION:
            return [Todo("Find the reader or writer that runs another version, deploy one", "coeval stream plan")]
        case Cause.CLOCK:
            return [Todo("Correct the clock first: a producer's, the broker's or a server's")]
        case Cause.REJECTED:
            of = f" --source {sources[0]}" if len(sources) == 1 else ""
            return [Todo("Find the job that lets these records through: an old jar?", f"coeval deadletter list{of}")]
        case _:
            return []


def _behind(result: ParityResult, *, proven: bool) -> list[Todo]:
    """How to find the defect that is suspected most, and what must not be overlooked beside it."""
    suspects = [suspect for suspect, _ in _ranked(result)]
    wanted = [*suspects[:1], *(item for item in suspects[1:] if item is Suspect.OFFLINE_SIDE)]
    return [_find(suspect) for suspect in (*wanted, *([] if proven else [Suspect.NONE]))]


def _find(suspect: Suspect) -> Todo:
    """How to find a defect."""
    if suspect in _BUILDS:
        return Todo("First replace the build that writes: which job was submitted last?", "coeval stream status")
    match suspect:
        case Suspect.LOST_UPDATE:
            return Todo("What did the writer lose? Look for refusals and restarts", _logs("writer"))
        case Suspect.APPLIED_TWICE:
            return Todo("Was the stream's state lost? Look for restores", _logs("coordinator"))
        case Suspect.CORRUPTED_STATE:
            return Todo("Something else wrote to the store: who has its credentials?", _logs("writer"))
        case Suspect.OFFLINE_SIDE:
            return Todo("The store may be right: load nothing, keep the log, and report it; it is a bug of ours")
        case _:
            return Todo("Is the log whole? Compare it with its topic", "coeval log status")


def _logs(component: str) -> str:
    return f"coeval stream logs --component {component} --since 6h"


def _mend(cause: Cause, mine: Sequence[Mismatch], views: Sequence[str], *, proven: bool) -> list[Todo]:
    """How to mend what the store holds; `proven`: a suspect says that the store is wrong, and not the log."""
    if cause in _DELIVERED and _of_batch(mine):
        return [_load("What changed in the files has not been loaded", views)]
    if cause is Cause.STALE:
        return [_load("Nobody delivers some tiles: a batch load is missing", views)] if _unowned(mine) else []
    if cause is Cause.LATE:
        return [_load("Have batch write the tiles anew; then see the source's allowed_lateness", views, "--correct")]
    if cause is Cause.ERASED:
        return [_load("Have batch write anew what is left of the time of those who were erased", views, "--correct")]
    if cause in (Cause.CLOCK, Cause.IN_FLIGHT):
        return []
    # Nothing came late, so that a correction that is not forced would leave the view as it is.
    anew = "Have batch write everything anew"
    if cause is Cause.UNEXPLAINED and not proven:
        anew = "Only if the log is whole, as the store would lose what it lacks: have batch write everything anew"
    return [_load(anew, views, "--correct --force")]


def _load(text: str, views: Sequence[str], options: str = "") -> Todo:
    """A batch load of the views; of many only those that differ most."""
    rest = len(views) - FEW
    command = " ".join(["coeval backfill run", *views[:FEW], options]).strip()
    return Todo(f"{text} (and then of the other {rest} views)" if rest > 0 else text, command)


def some(names: Sequence[str], few: int = FEW) -> str:
    """A few names, and how many there are beside them."""
    beside = [f"{len(names) - few} more"] if len(names) > few else []
    *before, last = [*names[:few], *beside]
    return f"{', '.join(before)} and {last}" if before else last


def _unowned(mine: Sequence[Mismatch]) -> bool:
    """Whether tiles differ that neither the stream nor batch delivers."""
    return any(step.differs and step.owner.startswith("nobody") for item in mine for step in item.steps)


def _of_batch(mine: Sequence[Mismatch]) -> bool:
    """Whether all that differs is batch's to deliver."""
    owners = [step.owner for item in mine for step in item.steps if step.differs]
    return bool(owners) and all(owner.startswith("batch") for owner in owners)


def _again(views: Sequence[str]) -> Todo:
    return Todo("Compare again; it has to pass before anything is promoted", _parity(views))


def _parity(views: Sequence[str]) -> str:
    return " ".join(["coeval parity run", *(views if len(views) <= FEW else ())])


def explain_command(result: ParityResult, item: Mismatch) -> str:
    """What to type to see one key, as of the response where it is of a replay."""
    key = " ".join(shlex.quote(f"{name}={value}") for name, value in item.entity.items())
    at = ""
    if result.kind == "replay" and item.at is not None:
        at = f" --at {iso(item.at)}"
    return f"coeval explain {item.view} {key}{at}"
