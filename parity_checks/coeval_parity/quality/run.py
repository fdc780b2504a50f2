"""A quality run: batches of logs and tables of features held to their rules; verdicts on batches are written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coeval.client import read_manifest
from coeval.errors import NeedsSparkError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_parity.drift.tables import LOG, TRAINING, Table, open_drift_table
from coeval_parity.drift.windows import Span
from coeval_parity.quality.expectations import Pages, Position
from coeval_parity.quality.frames import (
    arrow_batch,
    batch_columns,
    batch_rows,
    spark_batch,
    spark_table,
    to_pandas,
)
from coeval_parity.quality.named_rows import name_rows
from coeval_parity.quality.result import Checked, QualityResult, TableCheck
from coeval_parity.quality.rules import POSITION, Rule, check_columns, log_rules, own_rules, table_rules
from coeval_parity.served_features import SERVED, bring_up_to_date
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import QUALITY, CheckBook
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.offline.tables import latest_version, table_path
from coeval_pipelines.quarantine import Broken, Quarantine, Verdict

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PANDAS, SPARK, AUTO = "pandas", "spark", "auto"
LARGE = 500_000
"""Rows above which Spark is asked, if nobody says which engine."""
Found = tuple[TableCheck, dict[int, list[Position]]]


@dataclass(frozen=True, slots=True)
class RowsAtFault:
    """The rows of a checked table or batch that break a rule, told by the values of their `identity` columns."""

    check: str
    rule: str
    column: str
    identity: tuple[str, ...]
    rows: Sequence[Position]


@dataclass(frozen=True, slots=True)
class _Batch:
    source: EventSource
    number: int
    rules: Sequence[Rule]

    @property
    def identity(self) -> tuple[str, ...]:
        return POSITION


@dataclass(frozen=True, slots=True)
class _Table:
    table: Table
    title: str
    rules: Sequence[Rule]
    span: Span | None

    @property
    def identity(self) -> tuple[str, ...]:
        return tuple(column for column in (*sorted(self.table.keys), self.table.time) if column)


@dataclass
class _Run:
    settings: Settings
    manifest: Manifest
    suites: Path
    engine: str
    last: int | None
    say: Callable[[str], None]
    pages: Pages
    sessions: ExitStack
    spark: SparkSession | None

    def session(self) -> SparkSession:
        """The Spark session, opened when it is first needed."""
        from coeval_pipelines.offline.session import spark_session

        if self.spark is None:
            self.spark = self.sessions.enter_context(spark_session(self.settings))
        return self.spark


def run_quality(
    settings: Settings,
    subjects: Sequence[str],
    suites: Path,
    *,
    batch: int | None = None,
    engine: str = AUTO,
    last: int | None = None,
    ingest: bool = True,
    spark: SparkSession | None = None,
    say: Callable[[str], None] = lambda message: None,
    on_rows: Callable[[RowsAtFault], None] = lambda found: None,
) -> QualityResult:
    """Check subjects: log:SOURCE (its batches without a verdict, or one), training:NAME, served:SERVICE, or a path.

    Without subjects, every log. What was found of each is kept before the next is checked; batches that fail are
    quarantined. `suites` holds one's own rules, `last` is how far back from its latest instant a table is checked
    (microseconds; None: all of it). With `ingest`, what was served is taken from the serving log first. `on_rows` is
    told which rows break a rule, which for tables of features is kept nowhere.

    Raises:
        UsageError: a subject is not there, a suite is none, or names a column that is not there; nothing was checked.
        BrokerError: what was served is asked for, and the serving log cannot be read.
    """
    manifest = read_manifest(settings.manifest_path)
    names = list(subjects) or [f"{LOG}{source.name}" for source in manifest.event_sources]
    bring_up_to_date(settings, manifest, names, say, ingest=ingest)
    with ExitStack() as sessions:
        pages = Pages(settings.home / "quality")
        run = _Run(settings, manifest, suites, engine, last, say, pages, sessions, spark)
        planned = [item for name in names for item in _planned(run, name, batch)]
        for stray in _strays(run, {item.title for item in planned if isinstance(item, _Table)}):
            say(f"{stray} is not used: no source, training set or service is called so")
        control = sessions.enter_context(closing(ControlPlane.open(settings)))
        result = _kept(control, names, QualityResult(time.time_ns() // 1000, manifest.hash, ()))
        for item in planned:
            check, failing = _check(run, item)
            for number, rows in failing.items():
                rule = item.rules[number]
                on_rows(RowsAtFault(check.name, rule.type, rule.column, item.identity, rows))
            result = _kept(control, names, replace(result, checks=(*result.checks, check)))
            if isinstance(item, _Batch):
                _judge(settings, manifest, item.source, check, failing, result.run, result.at)
        return _kept(control, names, replace(result, docs=pages.write())) if planned else result


def _kept(control: ControlPlane, names: Sequence[str], result: QualityResult) -> QualityResult:
    """The result as far as the run has come, written down; with its number."""
    number = CheckBook(control).record(
        QUALITY,
        ",".join(names),
        result.at,
        result.manifest_hash,
        passed=result.passed,
        result=result.to_document(),
        run=result.run or None,
    )
    return replace(result, run=number)


def _planned(run: _Run, name: str, batch: int | None) -> Sequence[_Batch | _Table]:
    """What is to be checked under a name, and by which rules."""
    if not name.startswith(LOG):
        return [_planned_table(run, name)]
    source = next((item for item in run.manifest.event_sources if item.name == name.removeprefix(LOG)), None)
    if source is None:
        known = ", ".join(item.name for item in run.manifest.event_sources)
        raise UsageError(f"There is no event source {name.removeprefix(LOG)!r}.", f"Known: {known or 'none'}.")
    own = own_rules(run.suites, source.name)
    check_columns(source.name, own, batch_columns(source))
    run.pages.verify(source.name, own)
    newest = ingest_journal(run.settings, run.manifest.tenant, source.name).last_done()
    now = time.time_ns() // 1000
    return [
        _Batch(source, number, [*log_rules(run.manifest, source, now, newest=number == newest), *own])
        for number in _batches(run, source, batch)
    ]


def _planned_table(run: _Run, name: str) -> _Table:
    table = open_drift_table(run.settings, run.manifest, name)
    title = _title(name)
    own = own_rules(run.suites, title)
    check_columns(title, own, list(table.files.types))
    run.pages.verify(title, own)
    rules = [*table_rules(run.manifest, table.files.types, table.time), *own]
    return _Table(table, title, rules, _span(table, run.last))


def _title(name: str) -> str:
    """What a table of features is called in file names: of suites, and of pages."""
    if name.startswith(SERVED):
        return f"served_{name.removeprefix(SERVED)}"
    return name.removeprefix(TRAINING) if name.startswith(TRAINING) else Path(name).stem


def _span(table: Table, last: int | None) -> Span | None:
    if last is None:
        return None
    if not table.time:
        raise UsageError(f"{table.name} has no column of instants.", "Check all of it: leave out --last.")
    end = table.bounds()[1] + 1
    return end - last, end


def _strays(run: _Run, titles: set[str]) -> list[Path]:
    """Suites that are of nothing that is known."""
    sets = table_path(run.settings, run.manifest, "training_sets", "any").parent
    known = titles | {source.name for source in run.manifest.event_sources}
    known |= {_title(f"{SERVED}{service.name}") for service in run.manifest.services}
    known |= {path.name for path in sets.glob("*")}
    return [path for path in sorted(run.suites.glob("*.json")) if path.stem not in known]


def _batches(run: _Run, source: EventSource, batch: int | None) -> list[int]:
    """The batches that are done and have no verdict; or the one that is named."""
    book = ingest_journal(run.settings, run.manifest.tenant, source.name)
    done = [number for number in range(book.last_done() + 1) if book.report(number) is not None]
    if batch is not None:
        if batch not in done:
            raise UsageError(f"The log of {source.name} has no batch {batch}.", f"It has: {done or 'none'}.")
        return [batch]
    if latest_version(table_path(run.settings, run.manifest, "log", source.name)) is None:
        return []
    judged = {item.batch for item in Quarantine(run.settings, run.manifest.tenant, source.name).verdicts()}
    return [number for number in done if number not in judged]


def _check(run: _Run, item: _Batch | _Table) -> Found:
    if isinstance(item, _Table):
        return _check_table(run, item)
    source = item.source.name
    run.say(f"checking batch {item.number} of {source}: {len(item.rules)} rules")
    frame, engine, rows = _batch_frame(run, item.source, item.number)
    checked, failing = run.pages.check(f"{source} batch {item.number}", frame, engine, item.rules, POSITION)
    return _table_check(f"{LOG}{source}", item.number, engine, rows, checked, failing), failing


def _batch_frame(run: _Run, source: EventSource, batch: int) -> tuple[Any, str, int]:
    """The frame of a batch, by which engine it is, and its rows."""
    try:
        large = run.engine == SPARK or (
            run.engine == AUTO and batch_rows(run.settings, run.manifest, source, batch) > LARGE
        )
        if not large:
            table = arrow_batch(run.settings, run.manifest, source, batch)
            return to_pandas(table), PANDAS, table.num_rows
    except NeedsSparkError:
        if run.engine == PANDAS:
            raise
    frame = spark_batch(run.session(), run.settings, run.manifest, source, batch)
    return frame, SPARK, frame.count()


def _check_table(run: _Run, item: _Table) -> Found:
    table = item.table
    run.say(f"checking {table.name}: {len(item.rules)} rules")
    if run.engine == SPARK or (run.engine == AUTO and table.files.rows > LARGE):
        frame, engine = spark_table(run.session(), run.settings, run.manifest, table, item.span), SPARK
        rows = frame.count()
    else:
        read = table.rows(list(table.files.types), [item.span] if item.span else ())
        frame, engine, rows = to_pandas(read), PANDAS, read.num_rows
    checked, failing = run.pages.check(item.title, frame, engine, item.rules, item.identity)
    return _table_check(table.name, None, engine, rows, checked, failing), failing


def _table_check(
    subject: str, batch: int | None, engine: str, rows: int, checked: list[Checked], failing: dict[int, list[Position]]
) -> TableCheck:
    broken = {row for number, items in failing.items() if checked[number].breaks for row in items}
    return TableCheck(subject, batch, engine, rows, tuple(checked), len(broken))


def _judge(
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    found: TableCheck,
    failing: dict[int, list[Position]],
    run: int,
    at: int,
) -> None:
    """Write down which rows of a batch break what, then the verdict on it."""
    assert found.batch is not None
    broken = [(item, failing.get(number, [])) for number, item in enumerate(found.rules) if item.breaks]
    name_rows(settings, manifest, source, found.batch, run, [(item.rule, item.column, rows) for item, rows in broken])
    named = tuple(Broken(item.rule, item.column, len(rows)) for item, rows in broken)
    verdict = Verdict(source.name, found.batch, run, at, found.rows, named)
    Quarantine(settings, manifest.tenant, source.name).record(verdict)
