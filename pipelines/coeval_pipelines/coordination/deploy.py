"""Deploy, switch, retire, reconcile: what should run, and making it so. Engines are reached through their own rooms.

A changed view is a new version that fills beside the old one. Readers follow the released manifest: `switch` releases
another once it is filled and parity has passed, `retire` ends what the released one does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from coeval.client import open_redis
from coeval.errors import CheckFailedError, UsageError
from coeval.files import write_whole
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval.spec.types import iso
from coeval_pipelines.control import ControlPlane, Deployment
from coeval_pipelines.control.gate import gates, refuse_closed
from coeval_pipelines.coordination import requests, runs
from coeval_pipelines.coordination.changes import Change, filled, ownership, plan
from coeval_pipelines.coordination.floors import bring_up, drop, of_manifest, served
from coeval_pipelines.coordination.handoff import is_streamed
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.coordination.runs import now
from coeval_pipelines.streaming.broker import Broker, ensure_topics

Say = Callable[[str], None]


def plan_deploy(settings: Settings, manifest: Manifest, control: ControlPlane, since: int) -> tuple[Change, ...]:
    """What `deploy` would do. Changes nothing.

    Raises:
        BrokerError: the broker does not answer.
    """
    return plan(settings, manifest, control, _owned(settings, manifest, control, since))


def deploy(
    settings: Settings, manifest: Manifest, control: ControlPlane, since: int, say: Say = lambda _: None
) -> dict[int, str]:
    """Have every view of a manifest filled: the stream owns tiles from `since` on; returns Flink job ids by run.

    A view version keeps the `since` of its first deployment. Running it again changes nothing. The manifest is released
    to readers at once where none is, or where all its versions are those of the one that is.

    Raises:
        UsageError: `since` is still to come, or a topic has forgotten records of those tiles.
    """
    with only_one(settings, "deploy"):
        control.save_manifest(manifest, now())
        ensure_topics(settings, manifest)
        owned = _owned(settings, manifest, control, since)
        changes = plan(settings, manifest, control, owned)
        # Kept from here on: what failed before leaves no instant behind that a second attempt could not change.
        for view in manifest.views.values():
            control.deploy(view.name, view.version, manifest.hash, owned.get(view.name, since), now())
        for change in changes:
            say(f"{change.source}: {change.action}: {change.why}")
        ids = runs.carry_out(settings, control, changes, say)
        if _same_versions(control.released(), manifest):
            release(settings, control, manifest)
        return ids


def _owned(settings: Settings, manifest: Manifest, control: ControlPlane, since: int) -> Mapping[str, int]:
    """By streamed view, from when on the stream owns its tiles; of one that is not deployed yet, from `since` on."""
    known = ownership(manifest, control)
    fresh = [view for view in manifest.views.values() if is_streamed(view) and view.name not in known]
    if fresh:
        _check_since(settings, manifest, fresh, since)
    return {**dict.fromkeys((view.name for view in fresh), since), **known}


def _check_since(settings: Settings, manifest: Manifest, fresh: list[View], since: int) -> None:
    if since > now():
        raise UsageError(
            f"The stream cannot own tiles from {iso(since)} on: that is still to come.",
            "Name a past instant (--since), or leave it out: the last midnight UTC.",
        )
    with Broker(settings.kafka) as broker:
        for name in sorted({view.source for view in fresh}):
            source = manifest.sources[name]
            begins = broker.forgotten_until(source.topic)  # type: ignore[union-attr]
            if begins is not None and begins > since - source.max_future_skew:  # type: ignore[union-attr]
                raise UsageError(
                    f"The stream cannot own tiles from {iso(since)} on: the topic of {name} has "
                    f"forgotten what was available before {iso(begins)}.",
                    "Name a later instant (--since); batch fills what is before it: coeval backfill run.",
                )


def _same_versions(released: Manifest | None, manifest: Manifest) -> bool:
    if released is None:
        return True
    versions = {view.name: view.version for view in released.views.values()}
    return all(versions.get(view.name) == view.version for view in manifest.views.values())


def _is_followed(settings: Settings, manifest: Manifest) -> bool:
    path = settings.released_path
    return path.exists() and path.read_text() == manifest.to_json()


def release(settings: Settings, control: ControlPlane, manifest: Manifest) -> None:
    """Let readers follow a manifest; where they do already, nothing changes."""
    released = control.released()
    if released is None or released.hash != manifest.hash:
        control.release(manifest.hash, now())
    # The one that a model may be pinned to before the one that says it is there.
    for path in (settings.manifests / f"{manifest.hash}.json", settings.released_path):
        write_whole(path, manifest.to_json())


def switch(settings: Settings, manifest: Manifest, control: ControlPlane) -> None:
    """Release a manifest: every view must be ready, and what it changes must have passed parity.

    A manifest that was released before may be released again whatever parity says: the way back is always open.

    Raises:
        UsageError: it is not deployed.
        CheckFailedError: a view is not ready, or parity has not passed.
    """
    with only_one(settings, "deploy"):
        missing = [view.name for view in manifest.views.values() if not control.deployment(view.name, view.version)]
        if missing or control.manifest(manifest.hash) is None:
            raise UsageError(f"Not deployed: {', '.join(missing) or manifest.hash[:12]}.", "coeval stream deploy")
        still = unfilled(control, manifest)
        if still:
            raise CheckFailedError(f"No running job fills {', '.join(still)}.", "Run it: coeval stream deploy")
        bring_up(settings, control, manifest.tenant, lambda: of_manifest(manifest))
        with closing(open_redis(settings)) as client:
            writer = OnlineWriter(client, manifest.tenant)
            unready = [view.name for view in manifest.views.values() if not writer.is_ready(view)]
        if unready:
            names = " ".join(unready)
            raise CheckFailedError(f"Not filled yet: {', '.join(unready)}.", f"Fill them: coeval backfill run {names}")
        if not control.was_released(manifest.hash):
            refuse_closed(gates(control, _changes(control, manifest), now()))
        release(settings, control, manifest)


def _changes(control: ControlPlane, manifest: Manifest) -> list[View]:
    """The view versions that readers do not get yet."""
    released = control.released()
    known = {(view.name, view.version) for view in released.views.values()} if released else set()
    return [view for view in manifest.views.values() if (view.name, view.version) not in known]


def unfilled(control: ControlPlane, manifest: Manifest) -> list[str]:
    """The streamed views of a manifest whose version no running run fills."""
    known = filled(control)
    return [
        view.name for view in manifest.views.values() if is_streamed(view) and (view.name, view.version) not in known
    ]


def superseded(control: ControlPlane, manifest: Manifest) -> list[Deployment]:
    """The deployed view versions that a manifest does not name."""
    kept = {(view.name, view.version) for view in manifest.views.values()}
    return [item for item in control.deployments() if (item.view, item.version) not in kept]


def retire(settings: Settings, control: ControlPlane, say: Say = lambda _: None) -> list[str]:
    """End the filling of view versions that the released manifest does not name; returns them.

    Where a run fills others too, a new run for those alone takes over from it. Whoever still reads them is told that
    they are unavailable.

    Raises:
        UsageError: nothing is released.
    """
    with only_one(settings, "deploy"):
        manifest = control.released()
        if manifest is None:
            raise UsageError("Nothing is released.", "coeval stream deploy")
        runs.carry_out(settings, control, requests.merge(settings, manifest, control), say)
        runs.end_orphans(control, manifest)
        retired, versions = superseded(control, manifest), served(settings, control, manifest)
        for item in retired:
            _forget(settings, control, item)
        gone = {(item.view, item.version) for item in retired}
        drop(settings, [item for item in versions if item.name in gone])
        return [f"{item.view} {item.version}" for item in retired]


def _forget(settings: Settings, control: ControlPlane, deployment: Deployment) -> None:
    """Nothing may be believed of a view version that nothing fills: first its markers go, then its deployment."""
    manifest = control.manifest(deployment.manifest_hash)
    view = manifest.views.get(deployment.view) if manifest else None
    if manifest and view:
        with closing(open_redis(settings)) as client:
            OnlineWriter(client, manifest.tenant).unmark(view)
    control.retire(deployment.view, deployment.version)


def reconcile(settings: Settings, control: ControlPlane) -> dict[int, str]:
    """Submit the jobs that should run and do not, end the runs that were replaced; ids of all that run, by run."""
    with only_one(settings, "deploy"):
        runs.end_replaced(control)
        released = control.released()
        if released is not None and not _is_followed(settings, released):
            # A switch that was cut short between the control plane and the file that readers follow.
            release(settings, control, released)
        ids = runs.ensure_jobs(settings, control)
        runs.sweep(settings, control)
        return ids
