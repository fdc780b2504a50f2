"""The work of one training set by one engine: rows with their features, and all that is said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.training import Labels
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.choice import Choice
from coeval_pipelines.offline.log_files import purge
from coeval_pipelines.offline.spine_rules import TIMESTAMP_COLUMN, key_fields
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.engines import Engine, T
from coeval_pipelines.offline.training.labels import delay_of
from coeval_pipelines.offline.training.lineage import lineage_of, part_of, sources_of
from coeval_pipelines.offline.training.registry import Document, Kept
from coeval_pipelines.offline.training.report import report_of
from coeval_pipelines.offline.training.summary import Summary

Say = Callable[[str], None]
_KEEP_HOURS = 7 * 24
"""How long somebody may go on reading a version that was replaced."""


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """Rows that are computed together: their table and summary, columns by role, and what the lineage says of them."""

    table: T
    content: Summary
    columns: Mapping[str, list[str]]
    lineage: Mapping[str, Any]

    @property
    def given(self) -> list[str]:
        """The columns that are no features: what they are computed from again."""
        return given_columns(self.columns)


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """What a service's features are computed by and from. Progress is said to `say`."""

    engine: Engine[T]
    settings: Settings
    asked: Asked
    inputs: Inputs
    knowledge: str
    choice: Choice
    say: Say

    def part(self, spine: object, labels: Labels | None, at: int | None = None) -> Part[T]:
        """The rows of a spine in any form; with `at` (microseconds UTC), that is the instant of every row.

        Raises:
            UsageError: the spine or the labels lack something.
        """
        now = time.time_ns() // 1000
        self.say("reading the spine")
        given = rows = self.engine.read(spine, self.asked, at)
        columns = {"spine": _names(rows), "labels": list[str](), "features": self.asked.outputs}
        if labels is not None:
            self.say("joining the labels that were known in time")
            given = self.engine.labelled(rows, self.asked, labels, now, self.inputs)
            columns["labels"] = [name for name in _names(given) if name not in columns["spine"]]
        part = self.part_of(given, columns)
        if labels is not None:
            labelled = _labelled(labels, columns["labels"], part.content, self.engine.count(rows))
            part = replace(part, lineage={**part.lineage, "labels": labelled})
        return replace(part, lineage={**part.lineage, "built_at": now})

    def part_of(self, given: T, columns: Mapping[str, list[str]], profiled: bool = True) -> Part[T]:
        """Rows that have their labels, with their features.

        Raises:
            UsageError: they ask for values that would need events that were let go.
            EngineError: there are more or fewer rows than before.
        """
        self.say("computing what was known at each instant")
        table = self.engine.features(self.asked, given, self.inputs, self.knowledge)
        self.say("profiling" if profiled else "summing up")
        content = self.engine.summary(table, given_columns(columns), profiled=profiled)
        rows = self.engine.count(given)
        if rows != content.rows:
            raise EngineError(f"{rows} spine rows became {content.rows}.", "This is a defect: please report it.")
        sources = sources_of(self.engine, self.asked, self.inputs, self.settings)
        return Part(table, content, columns, part_of(content, self.inputs, sources, self.choice))

    def document(
        self, part: Part[T], name: str | None, erased: bool, kept: Kept | None = None, *, reported: bool = True
    ) -> Document:
        """What is said of a part's rows, and of those that are kept already; the report is empty if not `reported`.

        `erased`: events that an earlier set of that name may have held do not exist any more.
        """
        content, tables, parts = part.content, [part.table], [part.lineage]
        if kept is not None:
            self.say("profiling what was there")
            there = self.engine.stored(kept.path, kept.version)
            tables, parts = [there, part.table], [*kept.document.lineage["parts"], part.lineage]
            content = self.engine.summary(there, part.given)
            content.merge(part.content)
        private = {field.name for field in key_fields(self.asked.views)} | _personal(self.asked)
        profile = content.profile(private)
        report: Mapping[str, Any] = {}
        if reported:
            self.say("comparing with what became known later")
            until = int(content.sketches[TIMESTAMP_COLUMN].greatest or 0) if content.rows else 0
            report = report_of(self.engine, self.asked, tables, part.given, self.inputs, self.knowledge, profile, until)
        lineage = lineage_of(self.asked, name, self.knowledge, part.columns, parts, content)
        return Document(lineage | {"erased": erased}, profile, report, self.asked.manifest.to_json())

    def replace(self, name: str, part: Part[T], document: Document) -> Kept:
        """Put a part and its document in the place of what a training set was, in one commit.

        After an erasure nothing stays of what was, neither rows nor documents.

        Raises:
            EngineError: the table cannot be written.
        """
        with registry.locked(self.settings, self.asked.manifest.tenant, name):
            return self.put(name, part, document)

    def put(self, name: str, part: Part[T], document: Document) -> Kept:
        """The same by who holds the lock of the training set."""
        tenant = self.asked.manifest.tenant
        path = registry.set_path(self.settings, tenant, name)
        self.say("writing rows and lineage")
        self.engine.commit(part.table, path, document.to_json())
        kept = registry.kept_set(self.settings, tenant, name)
        if document.lineage["erased"]:
            registry.forget(path, kept.version)
        else:
            purge(path, _KEEP_HOURS)
        return kept


def given_columns(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Of columns by role, those that are no features."""
    return [*columns["spine"], *columns["labels"]]


def _names(table: Any) -> list[str]:
    """The columns of an Arrow table, or of a frame of Spark's."""
    return list(table.schema.names)


def _labelled(labels: Labels, names: Sequence[str], content: Summary, rows: int) -> dict[str, Any]:
    return {
        "delay": labels.delay,
        "at": labels.at,
        "delay_microseconds": delay_of(labels),
        "left_out": rows - content.rows,
        "without": without(names, content),
    }


def without(names: Sequence[str], content: Summary) -> dict[str, int]:
    """By label, how many rows have none."""
    return {name: content.sketches[name].nulls for name in names} if content.rows else {}


def _personal(asked: Asked) -> set[str]:
    views = (*asked.views, *asked.derived)
    fields = [(f"{view.name}__{field.name}", field) for view in views for field in view.features]
    fields += [(field.name, field) for field in asked.request]
    return {name for name, field in fields if field.pii != "none"}
