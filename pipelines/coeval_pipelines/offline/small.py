"""Every feature of a service for a spine, computed in this process: a log that fits its memory needs no Spark.

The same rows, columns and types as `service_features.service_features` gives. It knows Arrow and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from coeval.aggregations.states import Ints, Mask
from coeval.aggregations.tiles import tile_plan
from coeval.arrow import arrow_type
from coeval.derived import run_derived
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import (
    BatchSource,
    DerivedView,
    EventSource,
    Field,
    RowView,
    View,
    WindowedView,
    columns_read,
    with_columns,
)
from coeval_pipelines.arrow import physical_numpy, single
from coeval_pipelines.offline.arrow_events import BEGINNING, Facts, Span, source_facts
from coeval_pipelines.offline.arrow_spine import CheckedSpine, checked
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.asof_kernel import latest_events
from coeval_pipelines.offline.columns import derived_input, derived_output, finalised_array
from coeval_pipelines.offline.evaluated import SEEN, seen_rows
from coeval_pipelines.offline.kernel import Events, Spine, Values, window_values
from coeval_pipelines.offline.retention import check_begins
from coeval_pipelines.quarantine import check_quarantine

FactsOf: TypeAlias = Callable[[EventSource | BatchSource, frozenset[str], Span], Facts]
"""What reads the rows of a source: these columns of it, and as much as a span needs."""

_BATCH = 50_000
"""Rows that a derived function is given at once, as Spark gives them."""
_PART = 1_000_000
"""Events and spine rows that the interval kernel is given at once."""


def small_features(
    settings: Settings, asked: Asked, spine: pa.Table, inputs: Inputs, knowledge: str = "available"
) -> pa.Table:
    """The spine's columns and rows, in their order, then view__feature in the service's order, derived features too.

    Raises:
        UsageError: the spine lacks something or asks for values that would need events that were let go, or the files
            of a batch source are not as declared.
        NeedsSparkError: a table is one that only Spark reads.
        CheckFailedError: a batch of a log is quarantined.
    """
    rows = checked(spine, asked)
    check_quarantine(settings, asked.manifest.tenant, asked.views)
    if rows.table.num_rows:
        check_begins(settings, asked.manifest, asked.views, rows.earliest, inputs.logs)
    read = reader_of(settings, asked.manifest, inputs)
    return features_of(asked, rows, read, knowledge)


def reader_of(settings: Settings, manifest: Manifest, inputs: Inputs) -> FactsOf:
    """What reads the rows of these versions of the logs."""

    def read(source: EventSource | BatchSource, columns: frozenset[str], span: Span) -> Facts:
        return source_facts(settings, manifest, source, columns, inputs, span)

    return read


def features_of(asked: Asked, rows: CheckedSpine, read: FactsOf, knowledge: str = "available") -> pa.Table:
    """The same of rows that were checked, whatever `read` gives being what is known of a source."""
    views = [_narrowed(view, asked.stored) for view in asked.views]
    columns = {name: rows.table.column(name) for name in rows.table.column_names}
    for name in asked.sources:
        mine = [view for view in views if view.source == name]
        columns |= source_features(asked.manifest, mine, rows, read, knowledge)
    table = pa.table(columns)
    for derived in asked.derived:
        table = _with_derived(table, derived)
    return table.select([*rows.table.column_names, *asked.outputs])


def _narrowed(view: View, stored: Sequence[str]) -> View:
    """The view with those features alone that are asked for."""
    names = {field.name for field in view.features if f"{view.name}__{field.name}" in stored}
    features = tuple(field for field in view.features if field.name in names)
    if isinstance(view, RowView):
        return replace(view, features=features)
    return replace(view, features=features, aggregates=tuple(a for a in view.aggregates if a.feature in names))


def source_features(
    manifest: Manifest, views: Sequence[View], spine: CheckedSpine, read: FactsOf, knowledge: str
) -> dict[str, pa.ChunkedArray]:
    """The features of the views of one source, which is read once.

    Raises:
        UsageError, NeedsSparkError: as `small_features`.
    """
    source = manifest.sources[views[0].source]
    columns = frozenset[str]().union(*map(columns_read, views))
    span = Span(min(_since(view, spine) for view in views), spine.latest, knowledge)
    facts = read(source, columns, span)
    found: dict[str, pa.ChunkedArray] = {}
    for view in views:
        values = _view_features(view, with_columns(source, view), facts, spine, knowledge)
        found |= {f"{view.name}__{name}": value for name, value in values.items()}
    return found


def _since(view: View, spine: CheckedSpine) -> int:
    """The time before which an event decides nothing: the reach of the longest window and its tile, or the ttl's."""
    if isinstance(view, WindowedView):
        return spine.earliest - view.reach
    return spine.earliest - view.ttl if view.ttl else BEGINNING


def _view_features(
    view: View, source: EventSource | BatchSource, facts: Facts, spine: CheckedSpine, knowledge: str
) -> dict[str, pa.Array]:
    facts = facts.of(columns_read(view)).where(facts.event_ts >= _since(view, spine))
    facts = _seen(view, source, facts)
    asked, keys = spine.coded(view.key, facts.physical)
    facts, keys = facts.where(keys >= 0), keys[keys >= 0]
    known_at = facts.available_at if knowledge == "available" else facts.event_ts
    rows = Spine(asked, spine.q)
    if isinstance(view, RowView):
        return _row_features(view, facts, keys, known_at, rows)
    assert isinstance(source, EventSource)
    return _window_features(view, source, facts, keys, known_at, rows)


def _seen(view: View, source: EventSource | BatchSource, facts: Facts) -> Facts:
    """What the view selects, with the columns that it computes."""
    if not (view.where or view.columns):
        return facts
    expressions = [item.expression for item in view.columns] + ([view.where] if view.where else [])
    read = frozenset[str]().union(*(item.columns for item in expressions))
    inputs = {name: facts.physical(source.field(name)) for name in sorted(read)}
    computed = seen_rows(view, inputs, len(facts.event_ts))
    columns = facts.columns
    for item in view.columns:
        columns = columns.append_column(item.field.name, computed.column(item.field.name))
    return replace(facts, columns=columns).where(computed.column(SEEN).to_numpy())


def _row_features(view: RowView, facts: Facts, keys: Ints, known_at: Ints, rows: Spine) -> dict[str, pa.Array]:
    position = (facts.partition, facts.offset)
    events = Events(keys, facts.event_ts, facts.available_at, {}, position)
    latest = latest_events(events, known_at, rows, strict=view.stream, ttl=view.ttl)
    taken = pa.array(latest, mask=latest < 0)
    return {
        field.name: single(facts.columns.column(field.name)).take(taken).cast(arrow_type(field.type))
        for field in view.features
    }


def _window_features(
    view: WindowedView, source: EventSource, facts: Facts, keys: Ints, known_at: Ints, rows: Spine
) -> dict[str, pa.Array]:
    """Some keys at a time, so that what the kernel takes beside the rows themselves does not grow with them."""
    parts = 1 + (len(keys) + len(rows.q)) // _PART
    places, answers = [], []
    for part in range(parts):
        mine, asked = keys % parts == part, rows.key % parts == part
        some = Spine(rows.key[asked], rows.q[asked])
        answers.append(_windows(view, source, facts.where(mine), keys[mine], known_at[mine], some))
        places.append(np.flatnonzero(asked))
    back = pa.array(np.argsort(np.concatenate(places)))
    return {
        field.name: pa.concat_arrays([answer.pop(field.name) for answer in answers]).take(back)
        for field in view.features
    }


def _windows(
    view: WindowedView, source: EventSource, facts: Facts, keys: Ints, known_at: Ints, rows: Spine
) -> dict[str, pa.Array]:
    components = [item for granularity in tile_plan(view, source).granularities for item in granularity.components]
    columns = {item.column: _values(view, source.field(item.column), facts) for item in components}
    events = Events(keys, facts.event_ts, known_at, columns, (facts.partition, facts.offset))
    found = window_values(view, source, events, rows)
    return {field.name: finalised_array(field.type, found[field.name]) for field in view.features}


def _values(view: WindowedView, field: Field, facts: Facts) -> Values:
    if all(item.function == "count" for item in view.aggregates if item.column == field.name):
        valid: Mask = facts.columns.column(field.name).is_valid().to_numpy()
        return Values(np.ones(len(valid), dtype=np.int64), valid)
    return Values(*physical_numpy(facts.physical(field)))


def _with_derived(table: pa.Table, view: DerivedView) -> pa.Table:
    """Add the features of a derived view, computed by the function that also serves them."""
    inputs = [*(ref.full_name for ref in view.inputs), *(field.name for field in view.request)]
    parts: dict[str, list[pa.Array]] = {field.name: [] for field in view.features}
    for batch in table.select(inputs).combine_chunks().to_batches(max_chunksize=_BATCH):
        computed = run_derived(view, {name: derived_input(batch.column(name)) for name in inputs})
        for field in view.features:
            parts[field.name].append(derived_output(field.type, computed[field.name]))
    for field in view.features:
        column = pa.chunked_array(parts[field.name], arrow_type(field.type))
        table = table.append_column(f"{view.name}__{field.name}", column)
    return table
