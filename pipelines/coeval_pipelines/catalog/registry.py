"""The hook into `feast apply`: a registry store that compiles the catalog before anything is committed.

Feast hands its registry store the complete registry at the very end of an apply. The store compiles it there: on an
error nothing is written and Feast's command line prints the error; else registry and manifest are written, each at once
or not at all. It knows Feast's registry files and the settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from coeval.derived import load_function
from coeval.errors import CatalogError, CoevalError
from coeval.files import write_whole
from coeval.spec.manifest import Manifest
from coeval_pipelines.catalog.baseline import registered, released, settings_of
from coeval_pipelines.catalog.compile import compile_project
from coeval_pipelines.catalog.errors import BrokenCatalogError, DefinitionError, Problem
from coeval_pipelines.catalog.evolution import BREAK, refused_changes
from coeval_pipelines.catalog.lenient import read_on
from coeval_pipelines.catalog.locate import locate
from coeval_pipelines.catalog.names import nearest
from coeval_pipelines.catalog.removal import REMOVE, named_in, refusals
from coeval_pipelines.catalog.report import DRY_RUN, REPORT, Report
from coeval_pipelines.catalog.trust import leave_out_code

if TYPE_CHECKING:
    from feast.base_feature_view import BaseFeatureView
    from feast.repo_config import RegistryConfig

read_on()

_DECLARED: list[dict[str, BaseFeatureView]] = []
"""The views of the apply that is about to commit; empty outside of one."""


def declare(views: Iterable[Any]) -> None:
    """Say that an apply is about to commit, and which views it declares; the provider hears of it just before.

    Feast keeps the registered view where only its source, the order of its entities or its tiling changed, so that the
    registry, and everything compiled from it, would go on saying the old.
    """
    _DECLARED[:] = [{view.name: view for view in views}]


class CoevalRegistryStore(RegistryStore):
    """Keeps the registry in a file under the state directory, and the manifest beside it."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path | None) -> None:
        self._repository = Path(repo_path or Path.cwd())
        self._settings = settings_of(self._repository)
        self._home = self._settings.home
        self._path = self._home / registry_config.path
        self._draft: Registry | None = None

    def get_registry_proto(self) -> Registry:
        """The committed registry; an empty one where nothing is committed yet."""
        if self._draft is not None:
            return self._draft
        registry = self._read()
        left = leave_out_code(registry)
        if left:
            print(f"Left out of the registry: definitions that hold code ({left}).", file=sys.stderr)
        return registry

    def _read(self) -> Registry:
        try:
            registry = Registry()
            registry.ParseFromString(self._path.read_bytes())
            return registry
        except FileNotFoundError:
            return Registry()
        except (OSError, DecodeError) as error:
            fix = "Restore it, or move it away: it is written anew from the files."
            raise DefinitionError("registry", f"{self._path} cannot be read: {error}", fix) from error

    def update_registry_proto(self, registry_proto: Registry) -> None:
        """Compile, then commit registry and manifest; outside an apply, the registry alone.

        Raises:
            BrokenCatalogError: definitions cannot be compiled; nothing was written.
        """
        if not registry_proto.entities:
            # Feast opens a project with a commit of its own. What it applies has an entity, if only Feast's dummy.
            self._draft = registry_proto
            return
        if not _DECLARED:
            # Deletions come one by one: half a catalog must not become the manifest that everything reads.
            changed = _specs(registry_proto) != _specs(self._read())
            self._commit(registry_proto)
            if changed:  # and not merely what Feast notes of a `feast materialize`
                said = "Registry changed outside `feast apply`: the manifest stays as it was applied last."
                print(said, file=sys.stderr)
            return
        _as_declared(registry_proto, _DECLARED.pop())
        report = self._report(registry_proto)
        if REPORT in os.environ:
            write_whole(Path(os.environ[REPORT]), report.to_json())
        if DRY_RUN in os.environ:
            return
        if report.problems:
            raise BrokenCatalogError(report.problems)
        self._commit(registry_proto)
        write_whole(self._home / "manifest.json", report.manifest.to_json().encode())
        print(f"Manifest {report.manifest.hash[:12]} compiled: {self._home / 'manifest.json'}")
        for note in report.notes:
            print(f"  note: {note}")

    def _commit(self, registry: Registry) -> None:
        registry.last_updated.GetCurrentTime()
        write_whole(self._path, registry.SerializeToString())
        self._draft = None

    def teardown(self) -> None:
        """Forget the registry. The manifest stays: what is deployed goes on reading it."""
        self._path.unlink(missing_ok=True)

    def _report(self, registry: Registry) -> Report:
        done = compile_project(registry, _project(registry))
        removed, broken = (named_in(os.environ.get(name, "")) for name in (REMOVE, BREAK))
        there = self._there()
        changed = refused_changes(next(filter(None, there), None), done.manifest, broken)
        problems = [*done.problems, *self._missing_functions(done.manifest), *changed]
        located = [replace(item, location=item.location or locate(self._repository, item)) for item in problems]
        refused = refusals(there, done.defined, removed)
        return Report(done.manifest, done.defined, (*located, *refused), done.notes)

    def _there(self) -> tuple[Manifest | None, Manifest | None]:
        """What is registered and what runs: either would miss what vanished."""
        try:
            return registered(self._settings), released(self._settings)
        except CoevalError as error:
            raise DefinitionError("registry", error.reason.rstrip("."), error.instruction) from error

    def _missing_functions(self, manifest: Manifest) -> Iterator[Problem]:
        # Imported, not called: a misspelt path must not wait for the first request to be found out.
        root = str(self._repository.resolve().parent)
        if root not in sys.path:
            sys.path.insert(0, root)
        for view in manifest.derived_views:
            try:
                load_function(view.function)
            except CatalogError as error:
                fix = _near_function(view.function) or error.instruction
                yield Problem(f"derived view {view.name}", error.reason.rstrip("."), fix)


def _near_function(path: str) -> str:
    """What a misspelt function of a module that is there may be meant to be; '' where the module is not there."""
    module, _, name = path.partition(":")
    found = sys.modules.get(module)
    return nearest(name, [item for item, value in vars(found).items() if isfunction(value)]) if found else ""


def _project(registry: Registry) -> str:
    names = [project.spec.name for project in registry.projects]
    if len(names) != 1:
        raise DefinitionError(
            "registry",
            f"it holds the projects {', '.join(names) or 'none'}; a state directory belongs to one",
            "Give each project its own COEVAL_HOME, or remove registry.db there and apply again.",
        )
    return str(names[0])


def _specs(registry: Registry) -> set[bytes]:
    """What the objects of a registry say, without what happened to them."""
    views = (*registry.feature_views, *registry.stream_feature_views, *registry.on_demand_feature_views)
    objects = (*views, *registry.entities, *registry.feature_services)
    sources = {item.SerializeToString(deterministic=True) for item in registry.data_sources}
    return sources | {item.spec.SerializeToString(deterministic=True) for item in objects}


def _as_declared(registry: Registry, declared: Mapping[str, BaseFeatureView]) -> None:
    for item in (*registry.feature_views, *registry.stream_feature_views):
        if item.spec.name in declared:
            project = item.spec.project
            item.spec.CopyFrom(declared[item.spec.name].to_proto().spec)
            item.spec.project = project
