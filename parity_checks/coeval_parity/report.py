"""A parity result as one self-contained HTML page, for whoever is on call. It knows jinja2, and writes one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coeval_parity.describe import iso
from coeval_parity.result import BENIGN, Cause, FeatureParity, Mismatch, ParityResult, Suspect, ViewParity
from coeval_parity.text import age, named, shown
from coeval_pipelines.control import ControlPlane

MAX_FAILING_KEYS = 25
MAX_BENIGN_KEYS = 8
"""Keys that the page shows in full; the JSON has every one that was kept."""

SUSPECTS = {
    Suspect.LOST_UPDATE: "updates were lost on their way to the store",
    Suspect.APPLIED_TWICE: "events were counted twice",
    Suspect.CORRUPTED_STATE: "stored state was changed by something else",
    Suspect.SHIFTED_WINDOW: "a build that puts tile edges elsewhere",
    Suspect.SHIFTED_TIME: "event times read in another time zone",
    Suspect.WRONG_KEY: "values under another key than theirs",
    Suspect.FLOAT_ROUNDING: "exact numbers added as doubles",
}
"""What each suspect comes to, for the page."""
MEANINGS = {
    Cause.IN_FLIGHT: "Available, not yet certified to be in the store. Benign; gone at the next run.",
    Cause.LATE: "Came after its tile was final. Benign up to the view's late share; the next batch load mends it.",
    Cause.STALE: "Not delivered within the promised freshness, or in tiles that no writer owns.",
    Cause.TTL: "One side applies another ttl.",
    Cause.DEFINITION: "The served value was computed by another version of the view.",
    Cause.CLOCK: "The store knows events that were not available yet at the instant of the read: a clock is ahead.",
    Cause.ERASED: "A subject was erased; what is left of its time is not written anew yet. Benign.",
    Cause.REJECTED: "The store counts records that the log refuses: one side's validation lets too much through.",
    Cause.UNEXPLAINED: "No late or in-flight event accounts for it: store or log was changed, or lost something.",
}
ACTIONS = {
    Cause.IN_FLIGHT: "Nothing, unless it stays: then see the lag of the stream and of the online writer.",
    Cause.LATE: "Nothing. If the share keeps growing, raise the source's allowed lateness or load by batch more often.",
    Cause.STALE: "See whether the stream job and the online writer run and keep up. Restart what stands still; a batch "
    "load up to the stream's start fills tiles that nobody owns.",
    Cause.TTL: "Deploy one version everywhere: the reader and the training side disagree about the definition.",
    Cause.DEFINITION: "Fill the view again under its current version, and find the writer that still runs the old one.",
    Cause.CLOCK: "Check the clocks of producers and brokers, then run parity again.",
    Cause.ERASED: "Load by batch: coeval backfill run --correct.",
    Cause.REJECTED: "Look at the records: coeval deadletter list. Find the job that judges them by other rules (an "
    "old version, another schema), then fill the view again.",
    Cause.UNEXPLAINED: "Start with the tiles marked below. More online than in the log: the log lost events, or "
    "something else writes to the store. Less online: a write was lost. Do not promote anything that reads this view. "
    "Fill the view again from batch and changelog, then run parity on it.",
}
_NOT_READY = (
    "The store was wiped, or never filled. Readers refuse to guess. Wait for it to heal, or fill the view from batch "
    "and changelog; then run parity again."
)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is wrong or worth knowing: what, since when, and what to do."""

    cause: str
    failing: bool
    count: int
    where: str
    since: str
    meaning: str
    action: str


@dataclass(frozen=True, slots=True)
class KeyCard:
    """Every kept difference of one key of one view."""

    view: str
    name: str
    failing: bool
    items: tuple[Mismatch, ...]


def write_report(control: ControlPlane, result: ParityResult, path: Path) -> None:
    """Write the page of a run, with the runs before it from the control plane."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_html(result, control.parity_history()), encoding="utf-8")


def render_html(result: ParityResult, history: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page. `history` holds totals of runs, oldest first; those after this one are left out."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coeval_parity", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"iso": iso, "age": age, "shown": shown, "number": "{:,}".format, "percent": "{:.2%}".format}
    earlier = [run for run in history if not result.run or run["run"] <= result.run]
    failing, benign = _cards(result)
    return environment.get_template("parity.html.j2").render(
        r=result,
        headline=result.headline,
        title=title(result),
        advice=advice(result),
        bars=[_bar(run) for run in earlier],
        failing_since=_failing_since(earlier),
        segments=_segments,
        views=sorted(result.views, key=lambda view: not view.breaches()),
        failing=failing[:MAX_FAILING_KEYS],
        benign=benign[:MAX_BENIGN_KEYS],
        hidden=max(0, len(failing) - MAX_FAILING_KEYS) + max(0, len(benign) - MAX_BENIGN_KEYS),
        causes=list(Cause),
        benign_causes=BENIGN,
    )


def title(result: ParityResult) -> str:
    """The verdict in one sentence."""
    if result.passed:
        return "What is served is what training would use"
    broken = [*dict.fromkeys(view.view for view in result.views if view.breaches())]
    if not broken:
        return "Nothing was compared"
    names = broken[0] if len(broken) == 1 else f"{', '.join(broken[:-1])} and {broken[-1]}"
    return f"Do not trust {names}"


def advice(result: ParityResult) -> list[Advice]:
    """One entry per cause that occurred, those that fail the run first."""
    found = [_not_ready(view) for view in result.views if not view.ready]
    for cause in sorted(result.causes, key=lambda cause: (cause in BENIGN, cause)):
        entry = _advice(result, cause)
        if entry is not None:
            found.append(entry)
    return sorted(found, key=lambda item: not item.failing)


def _not_ready(view: ViewParity) -> Advice:
    meaning = f"Version {view.version} has no ready marker: every read is UNAVAILABLE."
    return Advice("unavailable", True, view.compared, view.view, "", meaning, _NOT_READY)


def _advice(result: ParityResult, cause: Cause) -> Advice | None:
    # A replay has a view once per version that was served.
    counts: Counter[str] = Counter()
    for view in result.views:
        counts[view.view] += view.cause(cause) if view.ready else 0
    counts = +counts
    if not counts:
        return None
    times = [item.since for item in result.mismatches if item.cause is cause and item.since is not None]
    over = any(item.over and item.budget.cause == cause for view in result.views for item in view.budgets)
    return Advice(
        cause=str(cause),
        failing=over or cause not in BENIGN,
        count=sum(counts.values()),
        where=", ".join(f"{name} ({count:,})" for name, count in counts.items()),
        since=iso(min(times)) if times else "",
        meaning=MEANINGS[cause] + (_suspected(result) if cause is Cause.UNEXPLAINED else ""),
        action=ACTIONS[cause],
    )


def _suspected(result: ParityResult) -> str:
    """What is probably behind it, in words."""
    ranked = sorted(result.suspects.items(), key=lambda item: (-item[1], item[0]))
    found = [f"{SUSPECTS[suspect]} ({count:,})" for suspect, count in ranked]
    return f" Suspected, as it would give exactly what is stored: {'; '.join(found)}." if found else ""


def _cards(result: ParityResult) -> tuple[list[KeyCard], list[KeyCard]]:
    """The differing keys, with the most features at fault first: those that fail the run, and the benign ones."""
    grouped: dict[tuple[str, str], list[Mismatch]] = {}
    for item in result.mismatches:
        grouped.setdefault((item.view, item.key), []).append(item)
    cards = [
        KeyCard(view, named(items[0]), any(item.cause not in BENIGN for item in items), tuple(items))
        for (view, _), items in grouped.items()
    ]
    cards.sort(key=lambda card: -len(card.items))
    return [card for card in cards if card.failing], [card for card in cards if not card.failing]


def _bar(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as a bar: shares of the values that differ benignly and not."""
    compared = run.get("compared") or 0
    causes = run.get("causes") or {}
    benign = sum(count for cause, count in causes.items() if cause in BENIGN)
    wrong = sum(causes.values()) - benign
    return {
        "run": run["run"],
        "at": iso(run["at"]),
        "passed": run["passed"],
        "benign": _height(benign, compared),
        "wrong": _height(wrong, compared),
        "label": f"run {run['run']}, {iso(run['at'])}: {benign:,} benign, {wrong:,} failing of {compared:,}",
    }


def _height(count: int, compared: int) -> float:
    """Pixels of 40: a tenth of the values fills the bar, and one value is still to be seen."""
    if not count or not compared:
        return 0.0
    return round(min(40.0, max(3.0, 400.0 * count / compared)), 1)


def _failing_since(history: Sequence[Mapping[str, Any]]) -> str:
    """The first run of the unbroken row of failures up to now; empty where the latest passed."""
    first = ""
    for run in reversed(history):
        if run["passed"]:
            break
        first = f"run {run['run']}, {iso(run['at'])}"
    return first


def _segments(item: FeatureParity | ViewParity) -> list[tuple[str, float]]:
    """The bar of a line: percent of values per fate, each that occurs at least wide enough to be seen."""
    features = item.features if isinstance(item, ViewParity) else (item,)
    compared = sum(feature.compared for feature in features)
    counts = {cause: sum(feature.causes.get(cause, 0) for feature in features) for cause in Cause}
    widths = [(str(cause), max(1.5, 100.0 * count / compared)) for cause, count in counts.items() if count]
    return [("match", 100.0 - sum(width for _, width in widths)), *widths] if compared else []
