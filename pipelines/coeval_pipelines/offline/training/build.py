"""Training sets: built, or extended by new rows. Whichever engine computes, the rest is this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coeval.errors import EngineError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.training import KNOWLEDGE, Labels, TrainingSet
from coeval.training import Engine as Said
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.choice import AUTO, Choice
from coeval_pipelines.offline.log_files import purge
from coeval_pipelines.offline.spine_rules import TIMESTAMP_COLUMN, key_fields
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.digest import columns_of
from coeval_pipelines.offline.training.engines import Engine, T, chosen, opened
from coeval_pipelines.offline.training.labels import delay_of
from coeval_pipelines.offline.training.lineage import erased_since, inputs_now, lineage_of, part_of, sources_of
from coeval_pipelines.offline.training.registry import Document, Kept
from coeval_pipelines.offline.training.report import report_of
from coeval_pipelines.offline.training.summary import Summary

Say = Callable[[str], None]
_KEEP_HOURS = 7 * 24
"""How long somebody may go on reading a version that was replaced."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A training set that is asked for. `at` (microseconds UTC) is the instant of every row of a spine without."""

    asked: Asked
    spine: object
    labels: Labels | None = None
    knowledge: str = "available"
    engine: str = AUTO
    at: int | None = None

    def __post_init__(self) -> None:
        if self.knowledge not in KNOWLEDGE:
            raise UsageError(f"knowledge cannot be {self.knowledge!r}.", f"Choose one of: {', '.join(KNOWLEDGE)}.")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that were computed together: their table, its columns by role, and what the lineage says of them."""

    table: Any
    content: Summary
    columns: Mapping[str, list[str]]
    inputs: Inputs
    lineage: Mapping[str, Any]

    @property
    def given(self) -> list[str]:
        """The columns that are no features: what they are computed from again."""
        return [*self.columns["spine"], *self.columns["labels"]]


def quiet(_: str) -> None:
    """Say nothing."""


def build(settings: Settings, wanted: Wanted, name: str | None = None, say: Say = quiet) -> TrainingSet:
    """Build a training set; with a name it is kept, in the place of an earlier one of that name, in one commit.

    Raises:
        UsageError: the spine or the labels lack something, or `name` cannot be one.
        NeedsSparkError: the engine is to be this process, and cannot be.
        EngineError: Spark fails, or a table cannot be read or written.
    """
    asked = wanted.asked
    if name is not None:
        registry.set_path(settings, asked.manifest.tenant, name)
    say("sizing the sources and the spine")
    choice = chosen(settings, asked, wanted.spine, wanted.engine, wanted.labels)
    say(f"{choice.engine}: {choice.why}")
    with opened(settings, choice) as engine:
        part = compute(engine, settings, wanted, inputs_now(settings, asked), choice, say)
        erased = name is not None and _lost(settings, asked, name)
        document = describe(engine, asked, part, wanted.knowledge, name, erased, say)
        if name is None:
            rows = engine.rows(part.table)
            return training_set(document, None, choice, lambda: rows)
        kept = replace_set(engine, settings, asked.manifest, name, part.table, document, say)
    return training_set(kept.document, kept, choice, lambda: read_version(settings, kept))


def extend(
    settings: Settings, kept: Kept, spine: object, labels: Labels | None, engine: str, say: Say = quiet
) -> TrainingSet:
    """Compute new rows by the definitions of a training set, and add them as another part of it, in one commit.

    Raises:
        UsageError: the new rows have other columns than it, or something that it holds was erased since.
        NeedsSparkError, EngineError: as `build`.
    """
    with registry.locked(kept.path):
        kept = registry.kept_set(settings, kept.document.lineage["tenant"], kept.name)
        lineage = kept.document.lineage
        asked = Asked.of(kept.manifest, lineage["service"])
        if erased_since(settings, asked, lineage):
            raise UsageError(
                f"Something that {kept.name} may hold was erased.", f"First: coeval training-set rebuild {kept.name}"
            )
        _check_labels(lineage, labels)
        wanted = Wanted(asked, spine, labels, lineage["knowledge"], engine)
        choice = chosen(settings, asked, spine, engine, labels)
        say(f"{choice.engine}: {choice.why}")
        with opened(settings, choice) as worker:
            part = compute(worker, settings, wanted, inputs_now(settings, asked), choice, say)
            _check_columns(kept, part)
            document = describe(worker, asked, part, wanted.knowledge, kept.name, lineage["erased"], say, kept)
            say("writing rows and lineage")
            worker.commit(part.table, kept.path, document.to_json(), append=True)
    kept = registry.kept_set(settings, lineage["tenant"], kept.name)
    return training_set(kept.document, kept, choice, lambda: read_version(settings, kept))


def compute(engine: Engine[T], settings: Settings, wanted: Wanted, inputs: Inputs, choice: Choice, say: Say) -> Part:
    """The rows of a spine with labels and features, and what they were made of.

    Raises:
        UsageError: the spine or the labels lack something.
    """
    asked, now = wanted.asked, time.time_ns() // 1000
    say("reading the spine")
    given = spine = engine.read(wanted.spine, asked, wanted.at)
    columns: dict[str, list[str]] = {"spine": _names(spine), "labels": [], "features": asked.outputs}
    if wanted.labels is not None:
        say("joining the labels that were known in time")
        given = engine.labelled(spine, asked, wanted.labels, now, inputs)
        columns["labels"] = [name for name in _names(given) if name not in columns["spine"]]
    part = compute_given(engine, settings, asked, given, columns, inputs, wanted.knowledge, choice, say)
    labels = None
    if wanted.labels is not None:
        labels = _labelled(wanted.labels, columns["labels"], part.content, engine.count(spine))
    return replace(part, lineage={**part.lineage, "labels": labels, "built_at": now})


def compute_given(
    engine: Engine[T],
    settings: Settings,
    asked: Asked,
    given: T,
    columns: Mapping[str, list[str]],
    inputs: Inputs,
    knowledge: str,
    choice: Choice,
    say: Say,
    profiled: bool = True,
) -> Part:
    """Rows that have their labels, with their features, and what the lineage says of them.

    Raises:
        EngineError: there are more or fewer rows than before.
    """
    say("computing what was known at each instant")
    table = engine.features(asked, given, inputs, knowledge)
    say("summing up" if not profiled else "profiling")
    content = engine.summary(table, [*columns["spine"], *columns["labels"]], profiled=profiled)
    rows = engine.count(given)
    if rows != content.rows:
        raise EngineError(f"{rows} spine rows became {content.rows}.", "This is a defect: please report it.")
    lineage = part_of(content, inputs, sources_of(engine, asked, inputs, settings), choice)
    return Part(table, content, columns, inputs, lineage)


def describe(
    engine: Engine[T],
    asked: Asked,
    part: Part,
    knowledge: str,
    name: str | None,
    erased: bool,
    say: Say,
    kept: Kept | None = None,
) -> Document:
    """What is said of a part's rows, and of those that are kept already; `erased`: they may have been more once."""
    content, tables, parts = part.content, [part.table], [part.lineage]
    if kept is not None:
        say("profiling what was there")
        there = engine.stored(kept.path, kept.version)
        tables, parts = [there, part.table], [*kept.document.lineage["parts"], part.lineage]
        content = engine.summary(there, part.given)
        content.merge(part.content)
    private = {field.name for field in key_fields(asked.views)} | _personal(asked)
    profile = content.profile(private)
    until = int(content.sketches[TIMESTAMP_COLUMN].greatest or 0) if content.rows else 0
    say("comparing with what became known later")
    report = report_of(engine, asked, tables, part.given, part.inputs, knowledge, profile, until)
    lineage = lineage_of(asked, name, knowledge, part.columns, parts, content) | {"erased": erased}
    return Document(lineage, profile, report, asked.manifest.to_json())


def replace_set(
    engine: Engine[T], settings: Settings, manifest: Manifest, name: str, table: T, document: Document, say: Say
) -> Kept:
    """Put rows and document in the place of what a training set was."""
    path = registry.set_path(settings, manifest.tenant, name)
    with registry.locked(path):
        say("writing rows and lineage")
        engine.commit(table, path, document.to_json())
        purge(path, _KEEP_HOURS)
        return registry.kept_set(settings, manifest.tenant, name)


def read_version(settings: Settings, kept: Kept) -> Any:
    """The rows of a version of a training set as an Arrow table."""
    from coeval_pipelines.offline.training.local import LocalEngine

    return LocalEngine(settings).stored(kept.path, kept.version)


def training_set(document: Document, kept: Kept | None, choice: Choice, read: Callable[[], Any]) -> TrainingSet:
    """As callers get it."""
    return TrainingSet(
        name=kept.name if kept else None,
        path=kept.path if kept else None,
        rows=document.lineage["rows"],
        lineage=document.lineage,
        profile=document.profile,
        report=document.report,
        engine=Said(choice.engine, choice.why),
        read=read,
    )


def _names(table: Any) -> list[str]:
    return list(getattr(table, "column_names", None) or table.columns)


def _lost(settings: Settings, asked: Asked, name: str) -> bool:
    """Whether events that an earlier training set of that name may hold were erased since it was built."""
    before = registry.find(settings, asked.manifest.tenant, name)
    return before is not None and erased_since(settings, asked, before.document.lineage)


def _labelled(labels: Labels, names: Sequence[str], content: Summary, rows: int) -> dict[str, Any]:
    return {
        "delay": labels.delay,
        "at": labels.at,
        "delay_microseconds": delay_of(labels),
        "left_out": rows - content.rows,
        "without": {name: content.sketches[name].nulls for name in names} if content.rows else {},
    }


def _personal(asked: Asked) -> set[str]:
    fields = {f"{view.name}__{field.name}": field for view in (*asked.views, *asked.derived) for field in view.features}
    return {name for name, field in fields.items() if field.pii != "none"}


def _check_labels(lineage: Any, labels: Labels | None) -> None:
    before = lineage["parts"][0]["labels"]
    if (before is None) != (labels is None) or (labels and before["delay_microseconds"] != delay_of(labels)):
        said = f"labels with a delay of {before['delay']}" if before else "no labels"
        raise UsageError(f"{lineage['name']} has {said}.", "Give the same for its new rows.")


def _check_columns(kept: Kept, part: Part) -> None:
    there = {name: column["type"] for name, column in kept.document.profile["columns"].items()}
    columns = kept.document.lineage["columns"]
    found = dict(columns_of(part.content.schema))
    if found != there or part.columns != columns:
        differing = sorted({name for name in {*found, *there} if found.get(name) != there.get(name)})
        raise UsageError(
            f"The new rows have other columns than {kept.name}: {', '.join(differing) or 'in another order'}.",
            f"Give the columns {', '.join(columns['spine'])}.",
        )
