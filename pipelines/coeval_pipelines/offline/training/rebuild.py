"""Building a training set again from its lineage: the same versions of everything give the same rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.choice import Choice, choose
from coeval_pipelines.offline.log_files import live_files
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.build import quiet
from coeval_pipelines.offline.training.engines import T, opened
from coeval_pipelines.offline.training.job import Job, Part, Say, given_columns, without
from coeval_pipelines.offline.training.lineage import erased_since, inputs_now, inputs_of
from coeval_pipelines.offline.training.registry import Kept
from coeval_pipelines.offline.training.summary import Summary


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found: the content hash that was, the one that is, and what differs, in words.

    `erased`: something that the set may have held was erased, and it was replaced by what is left, from the logs as
    they are now. Without, nothing is written.
    """

    name: str
    engine: Choice
    before: str
    after: str
    differences: tuple[str, ...]
    erased: bool

    @property
    def same(self) -> bool:
        """Whether it is what it was, or what an erasure left of it."""
        return self.erased or not self.differences


def rebuild(settings: Settings, kept: Kept, engine: str, say: Say = quiet) -> Rebuilt:
    """Compute the features of a training set again, each part from the versions that it was made of.

    Raises:
        EngineError: a version of a log cannot be read any more, or Spark fails.
        NeedsSparkError: the engine is to be this process, and cannot be.
    """
    tenant = kept.document.lineage["tenant"]
    with registry.locked(settings, tenant, kept.name):
        # What others wrote until now is built upon, not lost.
        kept = registry.kept_set(settings, tenant, kept.name)
        if _erased(settings, kept):
            return _left(settings, kept, engine, say)
    return _compared(settings, kept, engine, say)


def _erased(settings: Settings, kept: Kept) -> bool:
    lineage = kept.document.lineage
    return erased_since(settings, Asked.of(kept.manifest, lineage["service"]), lineage)


def _left(settings: Settings, kept: Kept, engine: str, say: Say) -> Rebuilt:
    """Replace a training set, which nobody else may write meanwhile, by what an erasure left of it."""
    with _job(settings, kept, engine, say) as job:
        after = _replaced(job, kept)
    return Rebuilt(kept.name, job.choice, kept.document.lineage["content_hash"], after, (), erased=True)


def _compared(settings: Settings, kept: Kept, engine: str, say: Say) -> Rebuilt:
    before = kept.document.lineage["content_hash"]
    with _job(settings, kept, engine, say) as job:
        try:
            content, differences = _again(job, kept)
        except OSError as error:
            reason = f"A version that {kept.name} was made of cannot be read: {error}."
            raise EngineError(reason, "Its files were removed; build it anew.") from error
    if content.hash != before:
        differences.append(f"content {before[:16]} -> {content.hash[:16]}")
    return Rebuilt(kept.name, job.choice, before, content.hash, tuple(differences), erased=False)


@contextmanager
def _job(settings: Settings, kept: Kept, engine: str, say: Say) -> Iterator[Job[Any]]:
    """A training set's own work, from the versions of now."""
    lineage = kept.document.lineage
    asked = Asked.of(kept.manifest, lineage["service"])
    choice = choose(settings, asked, lineage["rows"], engine)
    say(f"{choice.engine}: {choice.why}")
    with opened(settings, choice) as worker:
        yield Job(worker, settings, asked, inputs_now(settings, asked), lineage["knowledge"], choice, say)


def _again(job: Job[T], kept: Kept) -> tuple[Summary, list[str]]:
    """The content of all parts, computed again, and what of their inputs is not as it was."""
    lineage, engine = kept.document.lineage, job.engine
    content: Summary | None = None
    differences, before = list[str](), set[str]()
    for number, (part, version) in enumerate(zip(lineage["parts"], registry.part_versions(kept), strict=True), start=1):
        job.say(f"part {number} of {len(lineage['parts'])}")
        there = live_files(kept.path, version)
        stored = engine.stored(kept.path, version, sorted(there - before))
        given = engine.only(stored, given_columns(lineage["columns"]))
        again = replace(job, inputs=inputs_of(part)).part_of(given, lineage["columns"], profiled=False)
        differences += [f"part {number}: {text}" for text in _differing(part, again.lineage)]
        if content is None:
            content = again.content
        else:
            content.merge(again.content)
        before = there
    assert content is not None, "a set has a part"
    return content, differences


def _replaced(job: Job[T], kept: Kept) -> str:
    """Put in its place what is left of a training set after an erasure, as one part; gives the content hash."""
    job.say("something of it was erased: building what is left from the logs as they are now")
    lineage = kept.document.lineage
    given = job.engine.only(job.engine.stored(kept.path, kept.version), given_columns(lineage["columns"]))
    part = job.part_of(given, lineage["columns"])
    labels = [item["labels"] for item in lineage["parts"] if item["labels"] is not None]
    said = {"labels": _labelled(labels, part, lineage["columns"]["labels"]), "built_at": time.time_ns() // 1000}
    part = replace(part, lineage={**part.lineage, **said})
    document = job.document(part, kept.name, erased=True)
    job.put(kept.name, part, document)
    return str(document.lineage["content_hash"])


def _labelled(labels: Sequence[Mapping[str, Any]], part: Part[T], names: Sequence[str]) -> dict[str, Any] | None:
    """What is said of the labels of all parts together."""
    if not labels:
        return None
    left_out = sum(item["left_out"] for item in labels)
    return {**labels[-1], "left_out": left_out, "without": without(names, part.content)}


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    found = []
    if before["spine"] != after["spine"]:
        found.append("the spine in the table is not the one that it was built from")
    for name, source in before["sources"].items():
        if source.get("content_hash") != after["sources"][name].get("content_hash"):
            found.append(f"the files of {name} have changed")
    return found
