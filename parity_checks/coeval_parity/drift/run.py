"""A drift run: read the window and its baseline, compare every feature, keep the result and write its page."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from coeval.client import read_manifest
from coeval.errors import ManifestError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.time import DAY
from coeval.spec.types import iso
from coeval_parity.drift.bins import OTHER, UNSEEN
from coeval_parity.drift.compare import Sides, compare, dependence
from coeval_parity.drift.features import encode
from coeval_parity.drift.result import DriftResult, FeatureDrift
from coeval_parity.drift.rules import Kind, Rules
from coeval_parity.drift.tables import Rows, Table, open_drift_table
from coeval_parity.drift.windows import Span, earlier_windows, last_window, members
from coeval_parity.served_features import bring_up_to_date
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import DRIFT, CheckBook

WEEKS = 8


@dataclass(frozen=True, slots=True)
class Ask:
    """What to compare. Without `against`, the window is compared with those of the same weekday before it.

    `length` and `until` are microseconds; None: of a table that is compared with another, all of it. With `ingest`,
    what was served is taken from the serving log first.
    """

    window: str
    against: str | None = None
    time: str | None = None
    length: int | None = None
    until: int | None = None
    weeks: int = WEEKS
    features: tuple[str, ...] = ()
    ingest: bool = True


def run_drift(
    settings: Settings,
    ask: Ask,
    rules: Rules,
    on_progress: Callable[[str], None] | None = None,
    html: Path | None = None,
) -> DriftResult:
    """Compare, keep the result in the control plane, and write its page (default: reports/drift.html under the home).

    Raises:
        UsageError: a table is not there, has no rows or no instants, or nothing to compare.
        BrokerError: what was served is asked for, and the serving log cannot be read.
    """
    from coeval_parity.drift.report import write_page

    manifest = _manifest(settings)
    result = find_drift(settings, manifest, ask, rules, on_progress or (lambda message: None))
    path = html or settings.home / "reports" / "drift.html"
    result = replace(result, report=str(path))
    with closing(ControlPlane.open(settings)) as control:
        book = CheckBook(control)
        number = book.record(
            DRIFT, ask.window, result.at, result.manifest_hash, passed=result.passed, result=result.to_document()
        )
        result = replace(result, run=number)
        write_page(result, book.history(DRIFT, ask.window), path)
    return result


def find_drift(
    settings: Settings, manifest: Manifest | None, ask: Ask, rules: Rules, say: Callable[[str], None]
) -> DriftResult:
    """Compare, and keep nothing."""
    if manifest is not None:
        bring_up_to_date(settings, manifest, (ask.window, ask.against or ""), say, ingest=ask.ingest)
    table = open_drift_table(settings, manifest, ask.window, ask.time)
    baseline = table if ask.against is None else open_drift_table(settings, manifest, ask.against)
    span = _span(table, ask)
    names = _names(table, baseline, ask.features, rules)
    per = _per(table, baseline, rules)
    earlier = earlier_windows(span, ask.weeks) if span else []
    say(f"reading {ask.window}")
    window = table.read([*names, *table.keys, *per], [span] if span else ())
    if not window.of:
        when = f" from {iso(span[0])} to {iso(span[1])}" if span else ""
        raise UsageError(f"{ask.window} has no rows{when}.", "Name another window: --last, --until")
    say(f"reading {baseline.name}")
    old = baseline.read([*names, *baseline.keys, *per], earlier if ask.against is None else ())
    groups = _groups(old, earlier)
    found = compare_rows(table, names, old, window, groups, rules, say)
    return DriftResult(
        at=time.time_ns() // 1000,
        manifest_hash=manifest.hash if manifest else "",
        window=ask.window,
        baseline=ask.against or f"the same weekday of the {ask.weeks} weeks before",
        start=span[0] if span else None,
        end=span[1] if span else None,
        earlier=len(np.unique(groups[groups >= 0])),
        features=tuple(found),
        notes=tuple(_notes(window, old)),
    )


def compare_rows(
    table: Table,
    names: Sequence[str],
    baseline: Rows,
    window: Rows,
    groups: NDArray[np.int64],
    rules: Rules,
    say: Callable[[str], None] = lambda message: None,
) -> list[FeatureDrift]:
    """Compare features of rows that were read; `groups` is to which earlier window each baseline row belongs."""
    sides = sides_of(table, baseline, window, groups, rules, len(names))
    found = []
    for name in names:
        say(f"comparing {name}")
        columns = (baseline.table[name], window.table[name])
        instants = (baseline.instants, window.instants)
        feature = encode(name, columns, instants, rules.of(name)[1], is_id=name in table.ids)
        drift = compare(feature, sides, rules)
        found.append(_anonymous(drift) if name in table.private else drift)
    return found


def sides_of(
    table: Table, baseline: Rows, window: Rows, groups: NDArray[np.int64], rules: Rules, features: int
) -> Sides:
    """What is the same for every feature that is compared."""
    per = rules.per if rules.per is not None else _finest(table.keys, window)
    return Sides(groups, _dependence(baseline, per), _dependence(window, per), max(features, 1))


def _anonymous(drift: FeatureDrift) -> FeatureDrift:
    """The picture of a feature without the values themselves."""
    said = (OTHER, UNSEEN, "null")
    what = "range" if drift.kind is Kind.NUMBER else "value"
    numbered = enumerate(drift.bins, 1)
    bins = (item if item.label in said else replace(item, label=f"{what} {number}") for number, item in numbered)
    return replace(drift, bins=tuple(bins))


def _manifest(settings: Settings) -> Manifest | None:
    try:
        return read_manifest(settings.manifest_path)
    except ManifestError:
        return None


def _span(table: Table, ask: Ask) -> Span | None:
    """The instants of the window; None: all rows of it."""
    if ask.against is not None and ask.length is None and ask.until is None:
        return None
    if not table.time:
        raise UsageError(f"{table.name} has no column of instants.", "Name one: --time COLUMN")
    return last_window(table.bounds()[1], ask.length or DAY, ask.until)


def _names(table: Table, baseline: Table, asked: Collection[str], rules: Rules) -> list[str]:
    both = [name for name in table.features if name in baseline.files.types]
    unknown = sorted(set(asked) - set(both))
    if unknown:
        raise UsageError(f"There is no feature {', '.join(unknown)} in both tables.", f"There are: {', '.join(both)}.")
    names = [name for name in both if rules.of(name)[1] is not Kind.SKIP and (not asked or name in asked)]
    if not names:
        raise UsageError("The tables have no feature in common.", "Compare tables that have columns of the same name.")
    return names


def _per(table: Table, baseline: Table, rules: Rules) -> list[str]:
    """The column that the rules name as that whose rows are not independent."""
    if rules.per is None:
        return []
    for side in (table, baseline):
        if rules.per not in side.files.types:
            raise UsageError(
                f"{side.name} has no column {rules.per}, which the rules name as per.",
                f"It has: {', '.join(side.files.types)}.",
            )
    return [rules.per]


def _groups(rows: Rows, earlier: list[Span]) -> NDArray[np.int64]:
    if rows.instants is None:
        return np.full(rows.table.num_rows, -1, dtype=np.int64)
    return members(rows.instants, earlier)


def _finest(keys: Collection[str], rows: Rows) -> str | None:
    """The entity key of which there are most."""
    present = [name for name in sorted(keys) if name in rows.table.column_names]
    return max(present, key=lambda name: pc.count_distinct(rows.table[name]).as_py(), default=None)


def _dependence(rows: Rows, per: str | None) -> float:
    if per is None or per not in rows.table.column_names:
        return 1.0
    counts = pc.value_counts(rows.table[per].combine_chunks()).field("counts").to_numpy().astype(np.float64)
    return dependence(counts)


def _notes(window: Rows, baseline: Rows) -> list[str]:
    sides = (("window", window), ("baseline", baseline))
    return [
        f"{rows.table.num_rows:,} of {rows.of:,} rows of the {name} were looked at"
        for name, rows in sides
        if rows.table.num_rows < rows.of
    ]
