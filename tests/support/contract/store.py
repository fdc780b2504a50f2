"""Cases in a real online store: a client, guarded writes in any order, and reads at each case's own instant."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import redis

from coeval.aggregations.tiles import tile_plan
from coeval.online.erase import OnlineEraser
from coeval.online.plan import ReadPlanner
from coeval.online.reader import OnlineReader
from coeval.online.result import Column, Status
from coeval.online.writer import OnlineWriter
from coeval.spec.keys import bucket_of
from coeval.spec.manifest import Manifest
from coeval.spec.model import ServiceView, View, WindowedView
from coeval.spec.types import to_logical
from tests.support.contract import catalog
from tests.support.contract.adapters import by_view
from tests.support.contract.cases import Case
from tests.support.contract.compare import Answer, Answers

_CALL = 500


def shuffled_writes(writer: OnlineWriter, view: View, updates: Iterable[Any], rng: random.Random) -> None:
    """Apply updates in any order, some of them again: writes commute and are idempotent."""
    found = list(updates)
    found += rng.sample(found, len(found) // 2)
    rng.shuffle(found)
    buckets: dict[int, list[Any]] = defaultdict(list)
    for update in found:
        buckets[bucket_of(update.key, view.partitions)].append(update)
    for bucket, mine in buckets.items():
        for start in range(0, len(mine), _CALL):
            writer.apply(view, bucket, mine[start : start + _CALL])


def erase(client: redis.Redis, tenant: str, cases: Sequence[Case], epoch: int = 0) -> None:
    """Erase the subjects of cases of one view in the store; runs up to `epoch` had read the log before that."""
    eraser = OnlineEraser(client, tenant)
    for case in cases:
        view = catalog.VIEWS[case.view]
        plan = tile_plan(view, catalog.stream_of(view)) if isinstance(view, WindowedView) else None
        for erasure in case.erasures:
            eraser.erase(view, plan, [replace(erasure, epoch=epoch)])


def read_at_instants(client: redis.Redis, manifest: Manifest, cases: Sequence[Case], suffix: str = "") -> list[Answers]:
    """What the reader serves for each case at its instant; cases of one view and instant share a read."""
    found: list[Answers] = [{} for _ in cases]
    for name, places in by_view(cases).items():
        view = manifest.views[name + suffix]
        instants: dict[int, list[int]] = defaultdict(list)
        for place in places:
            instants[cases[place].q].append(place)
        for q, mine in instants.items():
            answers = _read(client, manifest, view, [cases[place] for place in mine], q)
            for place, answer in zip(mine, answers, strict=True):
                found[place] = answer
    return found


def _read(client: redis.Redis, manifest: Manifest, view: View, cases: Sequence[Case], q: int) -> list[Answers]:
    service = ServiceView(view.name, view.version, tuple(field.name for field in view.features))
    entities = {
        field.name: [to_logical(field.type, case.key[index]) for case in cases] for index, field in enumerate(view.key)
    }
    columns = OnlineReader(client, lambda: q).read(ReadPlanner(manifest, [service]), entities).columns[view.name]
    return [{name: _answer(column, row) for name, column in columns.items()} for row in range(len(cases))]


def _answer(column: Column, row: int) -> Answer:
    status = Status(int(column.status[row])).name
    if column.null[row]:
        return None, status
    value = column.values[row]
    return (value.item() if hasattr(value, "item") else value), status
