"""Building a training set again from its lineage: the same versions of everything give the same rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.erasure import concerning
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.choice import Choice, choose, decide
from coeval_pipelines.offline.log_files import live_files
from coeval_pipelines.offline.spine_rules import TIMESTAMP_COLUMN, key_fields
from coeval_pipelines.offline.tables import latest_version, table_path
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.apart import NOTHING, Apart, apart
from coeval_pipelines.offline.training.build import quiet
from coeval_pipelines.offline.training.engines import T, opened
from coeval_pipelines.offline.training.job import Job, Part, Say, given_columns, without
from coeval_pipelines.offline.training.lineage import erased_since, inputs_now, inputs_of
from coeval_pipelines.offline.training.registry import Kept
from coeval_pipelines.offline.training.summary import Summary

_WRITTEN_TO = "the table does not hold the rows that were built: something else wrote to it"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found: the content hash that was, the one that is, and what differs, in words.

    `erased`: something that the set may have held was erased, and it was replaced by what is left, from the logs as
    they are now. Without, nothing is written. `stored` is the content hash of the rows in the table, `apart` says which
    of them are not what they are when computed again, and `changed` names the batch sources whose files are others.
    """

    name: str
    engine: Choice
    before: str
    after: str
    differences: tuple[str, ...]
    erased: bool
    stored: str = ""
    apart: Apart = NOTHING
    changed: tuple[str, ...] = ()

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
        if is_erased(settings, kept):
            return _left(settings, kept, engine, say)
    return compare(settings, kept, engine, say)


def is_erased(settings: Settings, kept: Kept) -> bool:
    """Whether something that a training set may hold was erased since it was built: it cannot be what it was."""
    lineage = kept.document.lineage
    return erased_since(settings, Asked.of(kept.manifest, lineage["service"]), lineage)


def _left(settings: Settings, kept: Kept, engine: str, say: Say) -> Rebuilt:
    """Replace a training set, which nobody else may write meanwhile, by what an erasure left of it."""
    with _job(settings, kept, engine, say) as job:
        after = _replaced(job, kept)
    return Rebuilt(kept.name, job.choice, kept.document.lineage["content_hash"], after, (), erased=True)


def obstacle(settings: Settings, kept: Kept) -> str:
    """What was done on purpose and stands in the way of building a set again as it was, as far as can be told at once.

    '' where there is nothing.

    Raises:
        EngineError: a table cannot be reached, or a version of it is gone that nobody took on purpose.
    """
    if is_erased(settings, kept):
        return "something that it may hold was erased since it was built"
    manifest = kept.manifest
    for part in kept.document.lineage["parts"]:
        for name, version in inputs_of(part).logs.items():
            if version is None or _readable(table_path(settings, manifest, "log", name), version):
                continue
            gone = f"version {version} of the log of {name} is not there any more"
            # Retention spares the versions that sets are made of; taking the bytes of what was erased does not.
            if concerning(manifest.sources[name], ErasureTable(settings, manifest.tenant).erasures()):
                return gone
            raise EngineError(f"{gone}, and no erasure took it.", "Bring its files back, or build the set anew.")
    return ""


def altered(settings: Settings, kept: Kept, engine: str, say: Say = quiet) -> str:
    """Whether a set's table does not hold the rows that were built, in words ('': it does); its inputs are not read.

    Raises:
        EngineError: the table cannot be read, or Spark fails.
    """
    lineage = kept.document.lineage
    outputs = Asked.of(kept.manifest, lineage["service"]).outputs
    choice = decide((), lineage["rows"], len(outputs), engine)
    say("looking at the rows that are kept")
    with opened(settings, choice) as worker, _reading(kept):
        stored = worker.summary(worker.stored(kept.path, _newest(kept)), profiled=False).hash
    return "" if stored == lineage["content_hash"] else _WRITTEN_TO


@contextmanager
def _reading(kept: Kept) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        said = error if isinstance(error, OSError) else type(error).__name__  # Arrow's errors quote values
        reason = f"Of {kept.name}, or of what it was made of, something cannot be read: {said}."
        raise EngineError(reason, "Its files were removed or damaged; build it anew.") from error


def _readable(path: Path, version: int) -> bool:
    """Whether a version of a table is there, with all of its files."""
    from deltalake.exceptions import DeltaError

    try:
        return all((path / name).exists() for name in live_files(path, version))
    except (DeltaError, FileNotFoundError):
        return False
    except OSError as error:
        raise EngineError(f"{path} cannot be reached: {error}.", "Is COEVAL_TABLES right, and up?") from error


def compare(settings: Settings, kept: Kept, engine: str, say: Say = quiet) -> Rebuilt:
    """Compute the features of a training set again, of which nothing was erased, and compare. Nothing is written.

    Raises:
        EngineError: a version of a log cannot be read any more, or Spark fails.
        NeedsSparkError: the engine is to be this process, and cannot be.
        LetGoError: events that it was made of were let go.
        UsageError: the files of a batch source are not there.
        CheckFailedError: a batch of a log that it was made of is quarantined.
    """
    before = kept.document.lineage["content_hash"]
    with _job(settings, kept, engine, say) as job, _reading(kept):
        content, differences, changed = _again(job, kept)
        stored = job.engine.summary(job.engine.stored(kept.path, _newest(kept)), profiled=False).hash
        apart = NOTHING if content.hash == stored == before else _apart(job, kept)
    if stored != before:
        differences.append(_WRITTEN_TO)
    if content.hash != before:
        differences.append(f"content {before[:16]} -> {content.hash[:16]}")
    return Rebuilt(
        kept.name,
        job.choice,
        before,
        content.hash,
        tuple(differences),
        erased=False,
        stored=stored,
        apart=apart,
        changed=changed,
    )


@contextmanager
def _job(settings: Settings, kept: Kept, engine: str, say: Say) -> Iterator[Job[Any]]:
    """A training set's own work, from the versions of now."""
    lineage = kept.document.lineage
    asked = Asked.of(kept.manifest, lineage["service"])
    choice = choose(settings, asked, lineage["rows"], engine)
    say(f"{choice.engine}: {choice.why}")
    with opened(settings, choice) as worker:
        yield Job(worker, settings, asked, inputs_now(settings, asked), lineage["knowledge"], choice, say)


def _again(job: Job[T], kept: Kept) -> tuple[Summary, list[str], tuple[str, ...]]:
    """The content of all parts, computed again; what of their inputs is not as it was; whose files are others."""
    columns = kept.document.lineage["columns"]
    content: Summary | None = None
    differences, changed = list[str](), dict[str, None]()
    for number, part, stored in _parts(job, kept):
        given = job.engine.only(stored, given_columns(columns))
        again = replace(job, inputs=inputs_of(part)).part_of(given, columns, profiled=False)
        other = _other_files(part, again.lineage)
        differences += [f"part {number}: {text}" for text in _differing(part, again.lineage, other)]
        changed |= dict.fromkeys(other)
        if content is None:
            content = again.content
        else:
            content.merge(again.content)
    assert content is not None, "a set has a part"
    return content, differences, tuple(changed)


def _apart(job: Job[T], kept: Kept) -> Apart:
    """Which rows, as readers of the table get them, are not what they are when computed again."""
    job.say("looking for the rows that differ")
    columns, parts = kept.document.lineage["columns"], list(_parts(job, kept))
    if len(parts) == 1:  # also what something else wrote to the table since
        parts = [(1, parts[0][1], job.engine.stored(kept.path, _newest(kept)))]
    keys = [field.name for field in key_fields(job.asked.views)] + [TIMESTAMP_COLUMN]
    found = NOTHING
    for _, part, stored in parts:
        given = given_columns(columns)
        count, features, rows = job.engine.differing(job.asked, stored, given, inputs_of(part), job.knowledge)
        found = found.plus(apart(count, features, rows, keys))
    return found


def _parts(job: Job[T], kept: Kept) -> Iterator[tuple[int, Mapping[str, Any], T]]:
    """The parts of a set: number, lineage, rows."""
    parts, before = kept.document.lineage["parts"], set[str]()
    for number, (part, version) in enumerate(zip(parts, registry.part_versions(kept), strict=True), start=1):
        job.say(f"part {number} of {len(parts)}")
        there = live_files(kept.path, version)
        yield number, part, job.engine.stored(kept.path, version, sorted(there - before))
        before = there


def _newest(kept: Kept) -> int:
    """The newest version of a set's table, whoever made it."""
    found = latest_version(kept.path)
    return kept.version if found is None else found


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


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], changed: Sequence[str]) -> list[str]:
    found = []
    if before["spine"] != after["spine"]:
        found.append("the spine in the table is not the one that it was built from")
    return found + [f"the files of {name} have changed" for name in changed]


def _other_files(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The batch sources whose files are not what they were."""
    return [
        name
        for name, source in before["sources"].items()
        if source.get("content_hash") != after["sources"][name].get("content_hash")
    ]
