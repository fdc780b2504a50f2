"""The training sets that are kept: each a Delta table whose commits say what they are of. It knows the file system.

Table and document are one commit, so whoever reads sees both or neither.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coeval.errors import UsageError
from coeval.files import remove_tree
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_pipelines.offline.log_files import open_table, purge
from coeval_pipelines.offline.tables import latest_version
from coeval_pipelines.offline.training.engines import COMMIT

FORMAT = 1
"""Of the document; one of another is not read."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a commit says: lineage, profile and report of all rows, and the manifest that they were computed by."""

    lineage: Mapping[str, Any]
    profile: Mapping[str, Any]
    report: Mapping[str, Any]
    manifest: str

    def to_json(self) -> str:
        """As a commit holds it."""
        parts = {"lineage": self.lineage, "profile": self.profile, "report": self.report, "manifest": self.manifest}
        return json.dumps({"training_set": FORMAT, **parts})

    @staticmethod
    def of(text: str) -> Document | None:
        """The document in a text; None where it is something else."""
        try:
            found = json.loads(text)
        except ValueError:
            return None
        if not isinstance(found, dict) or found.get("training_set") != FORMAT:
            return None
        return Document(found["lineage"], found["profile"], found["report"], found["manifest"])


@dataclass(frozen=True, slots=True)
class Kept:
    """A training set: its name, its table, and the version of it that the document is of."""

    name: str
    path: Path
    version: int
    document: Document

    @property
    def manifest(self) -> Manifest:
        """The manifest that its features were computed by."""
        return Manifest.from_json(self.document.manifest)


def directory(settings: Settings, tenant: str) -> Path:
    """Where the training sets of a tenant are."""
    return settings.table_root / tenant / "training_sets"


def set_path(settings: Settings, tenant: str, name: str) -> Path:
    """The table of a training set.

    Raises:
        UsageError: there cannot be one of that name.
    """
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not plain.isalnum() or name.startswith((".", "_")):
        raise UsageError(f"{name!r} cannot name a training set.", "Use letters, digits, '-', '_' and '.'.")
    return directory(settings, tenant) / name


def kept_sets(settings: Settings, tenant: str) -> list[Kept]:
    """Every training set of a tenant, by name."""
    found = (_newest(path) for path in _directories(settings, tenant) if path.name[0] != ".")
    return [item for item in found if item is not None]


def _directories(settings: Settings, tenant: str) -> list[Path]:
    return sorted((path for path in directory(settings, tenant).glob("*") if path.is_dir()), key=str)


def kept_set(settings: Settings, tenant: str, name: str) -> Kept:
    """The training set of that name.

    Raises:
        UsageError: there is none.
    """
    found = find(settings, tenant, name)
    if found is None:
        raise _unknown(settings, tenant, name)
    return found


def _unknown(settings: Settings, tenant: str, name: str) -> UsageError:
    known = ", ".join(item.name for item in kept_sets(settings, tenant))
    return UsageError(f"There is no training set {name!r}.", f"Known: {known or 'none'}.")


def find(settings: Settings, tenant: str, name: str) -> Kept | None:
    """The training set of that name; None where there is none.

    Raises:
        UsageError: there cannot be one of that name.
    """
    return _newest(set_path(settings, tenant, name))


def part_versions(kept: Kept) -> list[int]:
    """The version of the table that brought each part, in their order."""
    found: dict[int, int] = {}
    for version, document in _documents(kept.path):
        parts = len(document.lineage["parts"])
        found.setdefault(parts, version)
        if parts == 1:
            break
    return [found[number] for number in sorted(found)]


def pins(settings: Settings, manifest: Manifest, source: EventSource) -> Mapping[int, Sequence[str]]:
    """The versions of a source's log that training sets were made of, and their names."""
    found: dict[int, list[str]] = defaultdict(list)
    for kept in kept_sets(settings, manifest.tenant):
        parts = kept.document.lineage["parts"]
        versions = {part["sources"].get(source.name, {}).get("version") for part in parts}
        for version in sorted(versions - {None}):
            found[version].append(kept.name)
    return found


def unfinished(settings: Settings, tenant: str) -> list[str]:
    """Names under which a build or a removal is under way, or was killed: there are files, and no training set."""
    return sorted({_name(path) for path in _directories(settings, tenant) if path.name[0] == "." or not _newest(path)})


def remove(settings: Settings, tenant: str, name: str) -> None:
    """Remove a training set with every version of it, or what a killed build left of one; on a disk, at once.

    Raises:
        UsageError: there is none.
    """
    path = set_path(settings, tenant, name)
    if not (path.exists() or name in unfinished(settings, tenant)):
        raise _unknown(settings, tenant, name)
    with _alone(settings, tenant, name):
        if not isinstance(path, Path):
            # Object by object: readers fail from the first on, rather than find an older version.
            for item in sorted((path / "_delta_log").glob("*"), key=str):
                if item.is_file():
                    item.unlink()
        remove_tree(path)


@contextmanager
def locked(settings: Settings, tenant: str, name: str) -> Iterator[None]:
    """Let nobody else write the training set for so long; waits for who does, and ends what was killed."""
    with _alone(settings, tenant, name):
        found = find(settings, tenant, name)
        if found is not None and found.document.lineage["erased"]:
            forget(found.path, part_versions(found)[0])
        yield


@contextmanager
def _alone(settings: Settings, tenant: str, name: str) -> Iterator[None]:
    locks = settings.delta / tenant / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{name}.training_set").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def forget(path: Path, version: int) -> None:
    """Leave nothing of what a training set was before a version that replaced it: no rows, no statistics, no documents.

    It may be cut off and done again: the files that say there is something to forget go last.
    """
    before = _older(path, version)
    if not before:
        return
    open_table(path, version).create_checkpoint()
    purge(path, 0, range(version, latest_version(path) or version))
    for item in before:
        item.unlink()


def _older(path: Path, version: int) -> list[Path]:
    """The files of a table's log that are of versions before one, the oldest first."""
    found = ((_version_of(item), str(item), item) for item in (path / "_delta_log").iterdir())
    return [item for at, _, item in sorted(found) if at < version]


def unforgotten(settings: Settings, tenant: str) -> list[str]:
    """The training sets of which something is still there that an erasure is to take: it was killed too soon."""
    kept = (item for item in kept_sets(settings, tenant) if item.document.lineage["erased"])
    return [item.name for item in kept if _older(item.path, part_versions(item)[0])]


def _version_of(item: Path) -> float:
    """The version of a table that a file of its log is of: a commit, a checkpoint, a checksum of either."""
    digits = item.name.lstrip(".").partition(".")[0]
    return int(digits) if digits.isdigit() else math.inf


def _name(path: Path) -> str:
    """The name of the training set that a directory is of, or was before it was removed."""
    return path.name[1:].removesuffix(".removed") if path.name[0] == "." else path.name


def _newest(path: Path) -> Kept | None:
    return next((Kept(path.name, path, version, document) for version, document in _documents(path)), None)


def _documents(path: Path) -> Iterator[tuple[int, Document]]:
    """Versions of a table with the documents of their commits, newest first; others may have made some without."""
    commits = {int(item.stem): item for item in (path / "_delta_log").glob("*.json") if item.stem.isdigit()}
    for version in sorted(commits, reverse=True):
        for line in commits[version].read_text().splitlines():
            said = json.loads(line).get("commitInfo", {}).get(COMMIT)
            document = Document.of(said) if said else None
            if document:
                yield version, document
