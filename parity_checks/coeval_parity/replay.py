"""Replay parity: every logged response is computed again as of its instant, and every difference gets its cause.

It knows the control plane, the log by either engine, and the table of what was served; the store is not asked.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coeval.errors import UnknownFeatureError, UsageError
from coeval.files import write_whole
from coeval.online.result import Column, Status
from coeval.reference.oracle import is_visible, visible_events
from coeval.settings import Settings
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field, View
from coeval.spec.types import INT64_MAX, Kind, Physical
from coeval_parity.cases import read_evidence
from coeval_parity.compare import Comparison, compare, value_in
from coeval_parity.counterfactual import narrowed, near
from coeval_parity.describe import symptom_of
from coeval_parity.engines import engine
from coeval_parity.evidence import Case
from coeval_parity.expected import Log
from coeval_parity.hours import Hours
from coeval_parity.judge import Docket, Judged, earliest_of, other_definitions
from coeval_parity.online_state import Look, Served
from coeval_parity.past import History, history_of
from coeval_parity.past_causes import Answer, Moment, explain_past
from coeval_parity.report import render_html
from coeval_parity.result import ParityResult, ViewParity, worst_first
from coeval_parity.screen import Screened
from coeval_parity.served import Response, forget, ingest_served, names_erased, physical, responses
from coeval_parity.tally import tally
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import REPLAY, CheckBook
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.offline.choice import AUTO
from coeval_pipelines.offline.retention import reach
from coeval_pipelines.streaming.names import changelog_topic

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Progress = Callable[[str], None]
_KEPT = 200
"""Replays of each view of which the counts are kept."""


@dataclass(frozen=True, slots=True)
class Span:
    """From an instant on, and before another (microseconds UTC); None: no bound."""

    since: int | None = None
    until: int | None = None


@dataclass(slots=True)
class _Answers:
    """What was served of one view version: a row per response, values by feature; None where it was not logged."""

    keys: list[str] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    rows: list[Response] = field(default_factory=list)


@dataclass(slots=True)
class _Served:
    """What was served by one manifest, by view."""

    manifest: Manifest
    views: dict[str, _Answers] = field(default_factory=dict)


def run_replay(
    settings: Settings,
    manifest: Manifest,
    span: Span,
    views: Sequence[str] | None = None,
    on_progress: Progress | None = None,
    *,
    ingest: bool = True,
    wanted: str = AUTO,
    spark: SparkSession | None = None,
    html: Path | None = None,
) -> ParityResult:
    """Compute every logged response of a span again and compare it, value by value; write the page.

    Each is computed by the manifest that it was served with. With `ingest`, the serving log and the topics are read
    first. Derived features and those that describe a person are not logged in a way that can be computed again.

    Raises:
        UnknownFeatureError: there is no such view.
        UsageError: there is no response in the span that can be compared.
        BrokerError, EngineError: a component is missing or fails.
    """
    say = on_progress or (lambda message: None)
    started = time.monotonic()
    if ingest:
        report = ingest_served(settings, manifest)
        say(
            f"{report.rows:,} responses taken from the serving log, {report.unreadable:,} unreadable, "
            f"{report.let_go:,} let go"
        )
    else:
        forget(settings, manifest)
    with closing(ControlPlane.open(settings)) as control:
        answers, notes = _by_view(settings, manifest, control, span, set(views or ()))
        if not answers:
            what = f"No response{' of ' + ', '.join(views) if views else ''} can be compared in that span"
            raise UsageError(
                "; ".join((what, *notes)) + ".", "Take another span, or log some: COEVAL_SERVER__SERVING_LOG=0.01"
            )
        judged: list[tuple[ViewParity, Judged]] = []
        for item in answers:
            judged += _replayed(settings, item, manifest, control, wanted, spark, say, ingest=ingest)
    result = ParityResult(
        at=max(max(found.at) for item in answers for found in item.views.values()),
        manifest_hash=manifest.hash,
        views=tuple(view for view, _ in judged),
        mismatches=tuple(sorted((entry for _, item in judged for entry in item.kept), key=worst_first)),
        omitted=sum(item.omitted for _, item in judged),
        seconds=time.monotonic() - started,
        notes=notes,
        kind="replay",
    )
    path = html or settings.home / "reports" / "replay.html"
    result = replace(result, report=str(path))
    write_whole(path, render_html(result))
    _keep(settings, result)
    return result


def _keep(settings: Settings, result: ParityResult) -> None:
    """Keep the counts of each view, all its versions together: for metrics, and without a key or a value."""
    checks = result.checks()
    at = time.time_ns() // 1000
    with closing(ControlPlane.open(settings)) as control:
        book = CheckBook(control)
        for view in dict.fromkeys(check.view for check in checks):
            mine = [check for check in checks if check.view == view]
            causes = Counter[str]()
            for check in mine:
                causes.update(check.causes)
            counts = {name: sum(getattr(check, name) for check in mine) for name in ("keys", "compared", "matched")}
            found = {**counts, "causes": dict(causes), "seconds": result.seconds}
            passed = all(check.passed for check in mine)
            book.record(REPLAY, view, at, result.manifest_hash, passed=passed, result=found)
            book.forget(REPLAY, view, _KEPT)


def _by_view(
    settings: Settings, manifest: Manifest, control: ControlPlane, span: Span, wanted: set[str]
) -> tuple[list[_Served], tuple[str, ...]]:
    """The responses by manifest and view; what was left out, in words."""
    found: dict[str, _Served | None] = {manifest.hash: _Served(manifest)}
    erasures = ErasureTable(settings, manifest.tenant).erasures()
    journals = [ingest_journal(settings, manifest.tenant, source.name) for source in manifest.event_sources]
    begins = {source.name: book.begins() for source, book in zip(manifest.event_sources, journals, strict=True)}
    left_out: dict[str, int] = defaultdict(int)
    for response in responses(settings, manifest, span.since, span.until):
        if response.manifest not in found:
            known = control.manifest(response.manifest)
            found[response.manifest] = _Served(known) if known else None
        served = found[response.manifest]
        if served is None:
            left_out["of a manifest that the control plane does not know"] += 1
        elif names_erased(manifest, response.entities, erasures):
            left_out["of erased subjects"] += 1
        else:
            for name in sorted({feature.partition("__")[0] for feature in response.features}):
                view = served.manifest.views.get(name)
                if view is None or (wanted and name not in wanted):
                    continue
                if _is_let_go(served.manifest, view, response.at, begins.get(view.source)):
                    left_out[f"of {name} that need events the log has let go"] += 1
                else:
                    _add(served.views.setdefault(name, _Answers()), view, response)
    names = {name for item in found.values() if item for name in item.manifest.views}
    if wanted - names:
        raise UnknownFeatureError(
            f"There is no view {', '.join(sorted(wanted - names))}, now or where anything was served.",
            f"Known: {', '.join(sorted(names))}.",
        )
    notes = tuple(f"{count:,} responses {why} are not compared" for why, count in left_out.items())
    return [item for item in found.values() if item and item.views], notes


def _is_let_go(manifest: Manifest, view: View, at: int, begins: int | None) -> bool:
    """Whether a value needs events from before the instant at which the log begins (None: it has them all)."""
    source = manifest.sources[view.source]
    if begins is None or not isinstance(source, EventSource):
        return False
    back = reach(view, source)
    return back is None or at - back < begins


def _add(answers: _Answers, view: View, response: Response) -> None:
    parts = [physical(item, response.entities[item.name]) for item in view.key]
    answers.keys.append(encode_key(view.key, parts))
    answers.at.append(response.at)
    answers.rows.append(response)


def _replayed(
    settings: Settings,
    served: _Served,
    applied: Manifest,
    control: ControlPlane,
    wanted: str,
    spark: SparkSession | None,
    say: Progress,
    *,
    ingest: bool,
) -> list[tuple[ViewParity, Judged]]:
    manifest = served.manifest
    views = [manifest.views[name] for name in sorted(served.views)]
    rows = sum(len(item.keys) for item in served.views.values())
    done: list[tuple[ViewParity, Judged]] = []
    with engine(settings, manifest, views, rows, wanted, spark, say, applied) as open_log:
        log = open_log(ingest)
        for view in views:
            answers = served.views[view.name]
            past = history_of(control, changelog_topic(manifest, view), view)
            screened = _screened(log, view, answers, past)
            say(f"{view.name}: {len(answers.keys):,} responses computed again")
            judged = _judged(log, screened, past, other_definitions(manifest, control, view))
            parity = tally(screened, judged, screened.look.delivery)
            done.append((replace(parity, keys=len(set(answers.keys)), keys_online=len(answers.keys)), judged))
    return done


def _screened(log: Log, view: View, answers: _Answers, past: History) -> Screened:
    at = np.array(answers.at, dtype=np.int64)
    expected = log.values(view, answers.keys, at)
    columns = {item.name: _column(view, item, answers.rows) for item in view.features}
    served = Served(tuple(answers.keys), at, columns, ready=True)
    # What was not logged (of a person), or had no value to be believed, is not compared.
    comparisons = {name: _known(compare(columns[name], expected[name]), columns[name]) for name in expected}
    seen = Look(view, past.at(int(at.max())), served, {})
    return Screened(seen, served, len(at), expected, comparisons, Hours.of_instants(at))


def _column(view: View, field: Field, rows: Sequence[Response]) -> Column:
    name = f"{view.name}__{field.name}"
    statuses = [row.statuses.get(name, Status.UNAVAILABLE.name) for row in rows]
    known = [status != Status.UNAVAILABLE.name for status in statuses]
    values = [physical(field, row.features[name]) if it else None for row, it in zip(rows, known, strict=True)]
    null = np.array([value is None for value in values], dtype=bool)
    return Column(field.type, _array(field, values), null, np.array([Status[item] for item in statuses], dtype=np.int8))


def _array(field: Field, values: Sequence[Physical]) -> Any:
    if field.type.kind is Kind.STRING:
        return np.array(values, dtype=object)
    filled = [0 if value is None else value for value in values]
    if field.type.kind is Kind.FLOAT64:
        return np.array(filled, dtype=np.float64)
    small = all(-(2**63) <= value < 2**63 for value in filled)  # type: ignore[operator]
    return np.array(filled, dtype=np.int64 if small else object)


def _known(comparison: Comparison, column: Column) -> Comparison:
    """The comparison without what was not served; the others keep their places."""
    unknown = column.status == Status.UNAVAILABLE
    outcome = np.where(unknown, np.int8(-1), comparison.outcome)
    return replace(comparison, outcome=outcome)


def _judged(log: Log, screened: Screened, past: History, definitions: Sequence[View]) -> Judged:
    """Every difference with its cause; the events of a key are read once, whatever was served of it."""
    view = screened.look.view
    docket = Docket(screened.hours)
    rows: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, comparison in screened.comparisons.items():
        for row in comparison.mismatches.tolist():
            rows[screened.served.keys[row]].append((row, name))
    keys = sorted(rows)
    views = {field.name: narrowed(view, field.name) for field in view.features}
    evidence = read_evidence(log, view, keys, earliest_of(view, screened), definitions)
    for key in keys:
        base = evidence.case(key, 0)
        every = visible_events(view, base.events, base.key, INT64_MAX)
        for row, names in groupby(sorted(rows[key]), key=lambda item: item[0]):
            q = int(screened.served.at[row])
            then = replace(base, q=q, known=[event for event in every if is_visible(view, event, q)])
            moment = Moment(past, q, partial(_answers, screened, views, row))
            for _, name in names:
                _judge_value(docket, screened, replace(then, view=views[name], feature=name), key, row, moment)
    return docket.close()


def _answers(screened: Screened, views: Mapping[str, View], row: int) -> list[Answer]:
    """The values of a response that were compared."""
    compared = [name for name, comparison in screened.comparisons.items() if comparison.outcome[row] >= 0]
    return [Answer(views[name], name, *_both(screened, name, row)) for name in compared]


def _both(screened: Screened, name: str, row: int) -> tuple[Physical, Physical]:
    """What was served, and what was expected."""
    return value_in(screened.served.columns[name], row), value_in(screened.expected[name], row)


def _judge_value(docket: Docket, screened: Screened, case: Case, key: str, row: int, moment: Moment) -> None:
    served, expected = _both(screened, case.feature, row)
    case = replace(case, served=served, expected=expected)
    if near(case, served, expected):
        docket.within[case.feature] += 1
        return
    docket.enter(case, row, key, explain_past(case, moment), symptom_of(served, expected))
