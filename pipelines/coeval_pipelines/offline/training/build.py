"""Training sets: built, or extended by new rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.training import KNOWLEDGE, Engine, Labels, TrainingSet
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.choice import AUTO, Choice
from coeval_pipelines.offline.tables import latest_version
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.digest import columns_of
from coeval_pipelines.offline.training.engines import chosen, opened
from coeval_pipelines.offline.training.job import Job, Part, Say
from coeval_pipelines.offline.training.labels import delay_of
from coeval_pipelines.offline.training.lineage import erased_since, inputs_now
from coeval_pipelines.offline.training.local import LocalEngine
from coeval_pipelines.offline.training.registry import Document, Kept


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
    before = None if name is None else registry.find(settings, asked.manifest.tenant, name)
    choice = _chosen(settings, wanted, say)
    with opened(settings, choice) as engine:
        job = Job(engine, settings, asked, inputs_now(settings, asked), wanted.knowledge, choice, say)
        part = job.part(wanted.spine, wanted.labels, wanted.at)
        erased = before is not None and erased_since(settings, asked, before.document.lineage)
        # Who asks for one instant, as a job does again and again, wants the rows.
        document = job.document(part, name, erased, reported=wanted.at is None)
        if name is None:
            rows = engine.rows(part.table)
            return _result(document, None, choice, lambda: rows)
        return _kept(settings, job.replace(name, part, document), choice)


def extend(
    settings: Settings, kept: Kept, spine: object, labels: Labels | None, engine: str = AUTO, say: Say = quiet
) -> TrainingSet:
    """Compute new rows by the definitions of a training set, and add them as another part of it, in one commit.

    Raises:
        UsageError: there are no new rows, or they have other columns than it; something that it holds was erased
            since, or something else wrote to its table.
        NeedsSparkError, EngineError: as `build`.
    """
    tenant = kept.document.lineage["tenant"]
    with registry.locked(settings, tenant, kept.name):
        kept = registry.kept_set(settings, tenant, kept.name)
        lineage = kept.document.lineage
        wanted = Wanted(Asked.of(kept.manifest, lineage["service"]), spine, labels, lineage["knowledge"], engine)
        _check_extensible(settings, kept, wanted)
        choice = _chosen(settings, wanted, say)
        with opened(settings, choice) as worker:
            inputs = inputs_now(settings, wanted.asked)
            job = Job(worker, settings, wanted.asked, inputs, wanted.knowledge, choice, say)
            part = job.part(spine, labels)
            _check_rows(part)
            _check_columns(kept, part)
            document = job.document(part, kept.name, lineage["erased"], kept)
            _check_unchanged(kept)
            say("writing rows and lineage")
            worker.commit(part.table, kept.path, document.to_json(), append=True)
        return _kept(settings, registry.kept_set(settings, lineage["tenant"], kept.name), choice)


def _chosen(settings: Settings, wanted: Wanted, say: Say) -> Choice:
    say("sizing the sources and the spine")
    choice = chosen(settings, wanted.asked, wanted.spine, wanted.engine, wanted.labels)
    say(f"{choice.engine}: {choice.why}")
    return choice


def _kept(settings: Settings, kept: Kept, choice: Choice) -> TrainingSet:
    return _result(kept.document, kept, choice, lambda: LocalEngine(settings).stored(kept.path, kept.version))


def _result(document: Document, kept: Kept | None, choice: Choice, read: Callable[[], Any]) -> TrainingSet:
    return TrainingSet(
        name=kept.name if kept else None,
        path=kept.path if kept else None,
        rows=document.lineage["rows"],
        lineage=document.lineage,
        profile=document.profile,
        report=document.report,
        engine=Engine(choice.engine, choice.why),
        read=read,
    )


def _check_extensible(settings: Settings, kept: Kept, wanted: Wanted) -> None:
    lineage, labels = kept.document.lineage, wanted.labels
    _check_unchanged(kept)
    if erased_since(settings, wanted.asked, lineage):
        hint = f"First: coeval training-set rebuild {kept.name}"
        raise UsageError(f"Something that {kept.name} may hold was erased.", hint)
    before = lineage["parts"][0]["labels"]
    if (before is None) != (labels is None) or (labels and before["delay_microseconds"] != delay_of(labels)):
        said = f"labels with a delay of {before['delay']}" if before else "no labels"
        raise UsageError(f"{kept.name} has {said}.", "Give the same for its new rows.")


def _check_rows(part: Part[Any]) -> None:
    if not part.content.rows:
        young = (part.lineage["labels"] or {}).get("left_out", 0)
        why = f": it is too early for the labels of {young}" if young else ""
        raise UsageError(f"No new rows{why}.", "Give rows whose labels can be known by now." if young else "Give some.")


def _check_unchanged(kept: Kept) -> None:
    """Who does not know the lock, a Delta writer say, may have changed the table."""
    if latest_version(kept.path) != kept.version:
        raise UsageError(
            f"The table of {kept.name} was changed by something else.",
            "Build it anew: coeval training-set build; only that knows what its rows are made of.",
        )


def _check_columns(kept: Kept, part: Part[Any]) -> None:
    there = {name: column["type"] for name, column in kept.document.profile["columns"].items()}
    columns = kept.document.lineage["columns"]
    found = dict(columns_of(part.content.schema))
    if found != there or part.columns != columns:
        differing = sorted({name for name in {*found, *there} if found.get(name) != there.get(name)})
        raise UsageError(
            f"The new rows have other columns than {kept.name}: {', '.join(differing) or 'in another order'}.",
            f"Give the columns {', '.join(columns['spine'])}.",
        )
