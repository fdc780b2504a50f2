"""A parity result as one self-contained HTML page, for whoever is on call. It reads the control plane, writes pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coeval.files import write_whole
from coeval.spec.types import iso
from coeval_parity import pages, pictures, trends
from coeval_parity.advice import Advice, advice, explain_command, some
from coeval_parity.drift import report as drift
from coeval_parity.drift.result import from_document as drift_result
from coeval_parity.freshness import run as freshness
from coeval_parity.freshness.result import headline, rows
from coeval_parity.result import BENIGN, Cause, Mismatch, ParityResult, Step
from coeval_parity.text import named
from coeval_parity.trends import PastRun
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import DRIFT, QUALITY, CheckBook
from coeval_pipelines.control.parity import ParityBook

MAX_FAILING_KEYS = 25
MAX_BENIGN_KEYS = 8
"""Keys that the page shows in full; the JSON has every one that was kept."""
MAX_STEPS = 12
"""Tiles of one difference that are shown where both sides agree on some of them."""
FIRST_SCREEN = 3
"""Causes and breaches that stand on the first screen; the others are a key press away."""
MAX_TRENDS = 16
"""Lines of causes and views over the last runs."""
RUNS, MAX_CHECKS = 40, 4000
"""Runs that are drawn, and what is read of their views to find them."""
EARLIER_LINKS = 5
"""Runs before this one that the first screen links to."""


@dataclass(frozen=True, slots=True)
class KeyCard:
    """Every kept difference of one key of one view, and what the page calls it."""

    anchor: str
    view: str
    name: str
    failing: bool
    items: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True)
class Beside:
    """The latest run of another check: its verdict, the command that shows it, and its section of the page, if any."""

    name: str
    run: int
    at: int
    passed: bool
    headline: str
    command: str
    section: str = ""


def write_report(control: ControlPlane, result: ParityResult, path: Path) -> None:
    """Write the page of a run, with the runs before it from the control plane, and links to pages beside it."""
    write_whole(path, _page(control, result, path.parent))


def publish_report(control: ControlPlane, result: ParityResult, folder: Path, path: Path | None = None) -> Path:
    """Write the page of the newest run: to `path`, or into the folder under its number and as the newest."""
    if path is not None:
        write_report(control, result, path)
        return path
    return pages.publish(folder, result.run, _page(control, result, folder))


def _page(control: ControlPlane, result: ParityResult, folder: Path) -> str:
    return render_html(result, past_runs(control, result.run), pages.kept(folder), beside(control))


def past_runs(control: ControlPlane, before: int) -> list[PastRun]:
    """What the newest runs up to one found of every view, the oldest first; 0: up to now."""
    checks = ParityBook(control).checks(limit=MAX_CHECKS)
    # Where there are more, the last of these may be a part of its run.
    whole = checks if len(checks) < MAX_CHECKS else [check for check in checks if check.run > checks[-1].run]
    runs = sorted({check.run for check in whole if not before or check.run <= before})[-RUNS:]
    return [
        PastRun(
            check.run,
            check.at,
            check.passed,
            check.compared,
            {Cause(cause): count for cause, count in check.causes.items() if count},
            check.view,
        )
        for check in reversed(whole)
        if check.run in runs
    ]


def beside(control: ControlPlane) -> list[Beside]:
    """The latest runs of freshness, drift and data quality, where there are any."""
    book, found = CheckBook(control), []
    if views := freshness.latest(control):
        ok, at = all(view.ok for view in views), max(view.at for view in views)
        section = pages.render("_freshness.html.j2", rows=rows(views), views=views)
        found.append(Beside("Freshness", 0, at, ok, headline(views), "coeval freshness", section))
    if kept := book.run(DRIFT):
        number, document = kept
        result = drift_result(document)
        section = drift.render(result, book.history(DRIFT, result.window), section=True)
        command = f"coeval drift show {number}"
        found.append(Beside("Drift", number, result.at, result.passed, result.headline, command, section))
    if kept := book.run(QUALITY):
        number, document = kept
        command = f"coeval quality show {number}"
        line = (document["at"], document["passed"], document["headline"], command)
        found.append(Beside("Data quality", number, *line))
    return found


def render_html(
    result: ParityResult,
    history: Sequence[PastRun] = (),
    kept: Mapping[int, str] | None = None,
    others: Sequence[Beside] = (),
) -> str:
    """The page.

    `history` holds totals of the runs up to this one. `kept` are the pages beside it, by run; `others` are checks whose
    latest runs the page names.
    """
    links = kept or {}
    runs, lines = trends.by_run(history), trends.trends(history)
    failing, benign = _cards(result)
    shown = (failing[:MAX_FAILING_KEYS], benign[:MAX_BENIGN_KEYS])
    advised = advice(result)
    return pages.render(
        "parity.html.j2",
        r=result,
        title=title(result),
        mark=f"{'Replay' if result.kind == 'replay' else 'Parity'} {'holds' if result.passed else 'failed'}",
        urgent=[item for item in advised if item.failing][:FIRST_SCREEN] or advised[:FIRST_SCREEN],
        advised=advised,
        first=FIRST_SCREEN,
        places=_places(advised, shown[0] + shown[1]),
        runs=runs,
        bars=trends.run_bars(runs),
        trends=lines[:MAX_TRENDS],
        other_trends=len(lines[MAX_TRENDS:]),
        earlier=[run for run in reversed(runs) if run.run in links and run.run != result.run][:EARLIER_LINKS],
        links=links,
        failing_since=_failing_since(runs),
        views=sorted(result.views, key=lambda view: not view.breaches()),
        failing=shown[0],
        benign=shown[1],
        hidden=len(failing) + len(benign) - len(shown[0]) - len(shown[1]),
        causes=[cause for cause in Cause if cause in result.causes or cause in BENIGN or cause is Cause.UNEXPLAINED],
        every_cause=list(Cause),
        benign_causes=BENIGN,
        others=others,
        pictures=pictures,
        run_width=trends.RUN,
        explain=explain_command,
        telling=telling,
    )


def telling(item: Mismatch) -> tuple[Step, ...]:
    """The parts of a difference to show: all of a few, of many only those on which the sides differ."""
    apart = tuple(step for step in item.steps if step.differs)
    return apart if apart and len(item.steps) > MAX_STEPS else item.steps


def title(result: ParityResult) -> str:
    """The verdict in one sentence."""
    if result.passed:
        return "What is served is what training would use"
    broken = [*dict.fromkeys(view.view for view in result.views if view.breaches())]
    return f"Do not trust {some(broken, 2)}" if broken else "Nothing was compared"


def _cards(result: ParityResult) -> tuple[list[KeyCard], list[KeyCard]]:
    """The differing keys, with the most features at fault first: those that fail the run, and the benign ones."""
    grouped: dict[tuple[str, str], list[Mismatch]] = {}
    for item in result.mismatches:
        grouped.setdefault((item.view, item.key), []).append(item)
    ranked = sorted(grouped.items(), key=lambda entry: -len(entry[1]))
    cards = [
        KeyCard(f"key-{number}", view, named(items[0]), any(item.cause not in BENIGN for item in items), tuple(items))
        for number, ((view, _), items) in enumerate(ranked, 1)
    ]
    return [card for card in cards if card.failing], [card for card in cards if not card.failing]


def _places(advised: Sequence[Advice], cards: Sequence[KeyCard]) -> dict[str, str]:
    """Where on the page the worst key of a cause is shown, by cause."""
    places = {(card.view, card.items[0].key): card.anchor for card in cards}
    found = {item.cause: places.get((item.worst.view, item.worst.key)) for item in advised if item.worst}
    return {cause: anchor for cause, anchor in found.items() if anchor}


def _failing_since(runs: Sequence[PastRun]) -> str:
    """The first run of the unbroken row of failures up to now; empty where the latest passed."""
    first = ""
    for run in reversed(runs):
        if run.passed:
            break
        first = f"run {run.run}, {iso(run.at)}"
    return first
