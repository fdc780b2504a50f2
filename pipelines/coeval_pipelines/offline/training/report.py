"""The report of a training set: late events, nulls, and what depends on when things became known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coeval.spec.model import EventSource, WindowedView
from coeval.spec.time import duration
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.training.engines import Engine, T

SAMPLE = 10_000
"""Rows, about, that are computed a second time with the other knowledge; of fewer all are."""
_ALL = 2**64


def report_of(
    engine: Engine[T],
    asked: Asked,
    tables: Sequence[T],
    spine: Sequence[str],
    inputs: Inputs,
    knowledge: str,
    profile: Mapping[str, Any],
    until: int,
) -> dict[str, Any]:
    """The report of the rows of some tables, whose spine has these columns and ends at an instant."""
    rows = profile["rows"]
    nulls = {name: profile["columns"][name]["nulls"] for name in asked.outputs}
    return {
        "rows": rows,
        # No event is read that was not available: by the as-of join itself, which the contract's tests hold.
        "future_leaks": 0 if knowledge == "available" else None,
        "late_share": _late_shares(engine, asked, inputs, until),
        "null_share": {name: count / rows if rows else 0.0 for name, count in nulls.items()},
        "availability": _availability(engine, asked, tables, spine, inputs, knowledge, rows),
    }


def _late_shares(engine: Engine[T], asked: Asked, inputs: Inputs, until: int) -> dict[str, float]:
    """Per windowed feature, the share of the events before the spine's end that came after their tile was final."""
    found: dict[str, tuple[int, dict[str, int]]] = {}
    shares: dict[str, float] = {}
    for used in asked.service.views:
        view = asked.manifest.views[used.view]
        if not isinstance(view, WindowedView):
            continue
        source = asked.manifest.sources[view.source]
        assert isinstance(source, EventSource)
        if source.name not in found:
            found[source.name] = engine.late(asked, source, inputs, until)
        events, late = found[source.name]
        hops = {aggregate.feature: duration(aggregate.hop) for aggregate in view.aggregates}
        shares |= {f"{view.name}__{name}": late[hops[name]] / events if events else 0.0 for name in used.features}
    return shares


def _availability(
    engine: Engine[T],
    asked: Asked,
    tables: Sequence[T],
    spine: Sequence[str],
    inputs: Inputs,
    knowledge: str,
    rows: int,
) -> dict[str, Any]:
    """Per feature, the share of rows whose value would be another with the other knowledge, where it is above 0."""
    below = None if rows <= SAMPLE else _ALL // rows * SAMPLE
    sampled = pa.concat_tables([engine.sample(table, spine, below) for table in tables])
    other = "final" if knowledge == "available" else "available"
    found = engine.in_order(asked, engine.table(sampled.select(list(spine))), inputs, other)
    shares = {name: _differing(sampled.column(name), found.column(name)) for name in asked.outputs}
    return {"rows": sampled.num_rows, "share": {name: share for name, share in shares.items() if share}}


def _differing(one: pa.ChunkedArray, other: pa.ChunkedArray) -> float:
    if not len(one):
        return 0.0
    same = pc.fill_null(pc.equal(one, other), False)
    both_null = pc.and_(one.is_null(), other.is_null())
    return float(pc.mean(pc.invert(pc.or_(same, both_null))).as_py())
