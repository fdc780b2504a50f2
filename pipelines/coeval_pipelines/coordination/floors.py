"""The online store and the table of erasures: every version that may be served has every floor.

It knows the table, the control plane and the online store.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from coeval.aggregations.tiles import TilePlan, tile_plan
from coeval.client import open_redis, read_manifest
from coeval.online.erase import Erased, OnlineEraser
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View, WindowedView
from coeval_pipelines.control import ALIVE, ControlPlane
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.erasures import ErasureTable

LET_GO_SECONDS = 2.0
"""How long writers have to see that a version is retired, and to write the batch in hand."""


@dataclass(frozen=True, slots=True)
class Served:
    """A view version that the store may hold values of, and a manifest that defines it."""

    manifest: Manifest
    view: View

    @property
    def name(self) -> tuple[str, str]:
        """The view and its version."""
        return self.view.name, self.view.version

    @property
    def plan(self) -> TilePlan | None:
        """Its tile plan; None for a row view."""
        source = self.manifest.sources[self.view.source]
        if not isinstance(self.view, WindowedView) or not isinstance(source, EventSource):
            return None
        return tile_plan(self.view, source)


def of_manifest(manifest: Manifest, views: Iterable[View] | None = None) -> list[Served]:
    """The view versions of a manifest, or some of them."""
    return [Served(manifest, view) for view in (manifest.views.values() if views is None else views)]


def served(settings: Settings, control: ControlPlane, manifest: Manifest) -> list[Served]:
    """The view versions of a manifest, and all of its tenant: applied, released, deployed or filled by a run."""
    whole = [manifest, control.released()]
    if settings.manifest_path.exists():
        whole.append(read_manifest(settings.manifest_path))
    found = [item for known in whole if known for item in of_manifest(known)]
    named: dict[str, set[str]] = defaultdict(set)
    for deployment in control.deployments():
        named[deployment.manifest_hash].add(deployment.view)
    for run in control.runs(statuses=ALIVE):
        named[run.manifest_hash].update(run.views)
    for content_hash, names in named.items():
        known = control.manifest(content_hash)
        found += of_manifest(known, [known.views[name] for name in sorted(names)]) if known else []
    return list({item.name: item for item in reversed(found) if item.manifest.tenant == manifest.tenant}.values())


def bring_up(
    settings: Settings,
    control: ControlPlane,
    tenant: str,
    versions: Callable[[], Sequence[Served]],
    *,
    wait: bool = True,
) -> Mapping[tuple[str, str], Erased]:
    """Apply what view versions lack of the table of erasures; what was found, by view and version.

    Without `wait`, nothing is done while another process is at it. `versions` is asked only where there are erasures.

    Raises:
        redis.RedisError: the online store does not answer; it may be repeated.
    """
    table = ErasureTable(settings, tenant)
    entries = table.version
    if not entries:
        return {}
    with closing(open_redis(settings)) as client:
        eraser = OnlineEraser(client, tenant)
        behind = [item for item in versions() if min(eraser.applied(item.view).values()) < entries]
        if not behind:
            return {}
        with only_one(settings, "erase", wait=wait) as mine:
            erasures = table.dated(control.last_epoch) if mine else ()
            return {item.name: eraser.bring_up(item.view, item.plan, erasures) for item in behind} if mine else {}


def drop(settings: Settings, versions: Sequence[Served], let_go: float = LET_GO_SECONDS) -> int:
    """Delete what the store holds of view versions that nothing fills any more; returns how many keys.

    Raises:
        redis.RedisError: the online store does not answer.
    """
    if not versions:
        return 0
    time.sleep(let_go)
    with closing(open_redis(settings)) as client:
        return sum(OnlineEraser(client, item.manifest.tenant).drop(item.view) for item in versions)
