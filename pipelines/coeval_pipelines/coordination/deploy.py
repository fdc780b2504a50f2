"""Deploy, switch, retire, reconcile: what should run, and making it so. Engines are reached through their own rooms.

A changed view is a new version that fills beside the old one. Readers follow the released manifest: `switch` releases
another once it is filled and parity has passed, `retire` ends what the released one does not name.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from coeval.client import open_redis
from coeval.errors import CheckFailedError, UsageError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination import runs
from coeval_pipelines.coordination.changes import Change, ownership, plan
from coeval_pipelines.coordination.floors import bring_up, drop, of_manifest, served
from coeval_pipelines.coordination.runs import now

__all__ = ["now", "ownership"]

Say = Callable[[str], None]


@contextmanager
def only_one(settings: Settings, what: str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an operation: one process at a time, freed when the holder dies.

    Gives whether the lock is held: always, unless another process holds it and `wait` is false.
    """
    path = settings.home / "local" / f"{what}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def plan_deploy(settings: Settings, manifest: Manifest, control: ControlPlane, since: int) -> tuple[Change, ...]:
    """What `deploy` would do. Changes nothing.

    Raises:
        BrokerError: the broker does not answer.
    """
    known = ownership(manifest, control)
    return plan(settings, manifest, control, {view: known.get(view, since) for view in manifest.views})


def deploy(
    settings: Settings, manifest: Manifest, control: ControlPlane, since: int, say: Say = lambda _: None
) -> dict[int, str]:
    """Have every view of a manifest filled: the stream owns tiles from `since` on; returns Flink job ids by run.

    A view version keeps the `since` of its first deployment. Running it again changes nothing. The manifest is released
    to readers at once where none is, or where all its versions are those of the one that is.
    """
    from coeval_pipelines.streaming.broker import ensure_topics

    with only_one(settings, "deploy"):
        control.save_manifest(manifest, now())
        for view in manifest.views.values():
            control.deploy(view.name, view.version, manifest.hash, since, now())
        ensure_topics(settings, manifest)
        changes = plan(settings, manifest, control, ownership(manifest, control))
        for change in changes:
            say(f"{change.source}: {change.action}: {change.why}")
        ids = runs.carry_out(settings, control, changes, say)
        if _same_versions(control.released(), manifest):
            release(settings, control, manifest)
        return ids


def _same_versions(released: Manifest | None, manifest: Manifest) -> bool:
    if released is None:
        return True
    versions = {view.name: view.version for view in released.views.values()}
    return all(versions.get(view.name) == view.version for view in manifest.views.values())


def release(settings: Settings, control: ControlPlane, manifest: Manifest) -> None:
    """Let readers follow a manifest; where they do already, nothing changes."""
    released = control.released()
    if released is None or released.hash != manifest.hash:
        control.release(manifest.hash, now())
    partial = settings.released_path.with_suffix(".partial")
    partial.write_text(manifest.to_json())
    partial.replace(settings.released_path)


def switch(settings: Settings, manifest: Manifest, control: ControlPlane) -> None:
    """Release a manifest: every view must be ready, and, unless it was released before, its last parity run passed.

    Raises:
        UsageError: it is not deployed.
        CheckFailedError: a view is not ready, or parity has not passed.
    """
    with only_one(settings, "deploy"):
        missing = [view.name for view in manifest.views.values() if not control.deployment(view.name, view.version)]
        if missing or control.manifest(manifest.hash) is None:
            raise UsageError(f"Not deployed: {', '.join(missing) or manifest.hash[:12]}.", "coeval stream deploy")
        bring_up(settings, control, manifest.tenant, lambda: of_manifest(manifest))
        with closing(open_redis(settings)) as client:
            writer = OnlineWriter(client, manifest.tenant)
            unready = [view.name for view in manifest.views.values() if not writer.is_ready(view)]
        if unready:
            names = " ".join(unready)
            raise CheckFailedError(f"Not filled yet: {', '.join(unready)}.", f"Fill them: coeval backfill run {names}")
        if not control.was_released(manifest.hash) and not control.parity_passed(manifest.hash):
            raise CheckFailedError(
                f"Parity has not passed for the manifest {manifest.hash[:12]}.", "Check it: coeval parity run"
            )
        release(settings, control, manifest)


def retire(settings: Settings, control: ControlPlane, say: Say = lambda _: None) -> list[str]:
    """End the filling of view versions that the released manifest does not name; returns them.

    Where a run fills others too, a new run for those alone takes over from it. What is stored is deleted.

    Raises:
        UsageError: nothing is released.
    """
    with only_one(settings, "deploy"):
        manifest = control.released()
        if manifest is None:
            raise UsageError("Nothing is released.", "coeval stream deploy")
        changes = runs.merge_changes(settings, manifest, control)
        runs.carry_out(settings, control, changes, say)
        runs.end_orphans(control, manifest)
        kept = {(view.name, view.version) for view in manifest.views.values()}
        retired = [item for item in control.deployments() if (item.view, item.version) not in kept]
        versions = served(settings, control, manifest)
        for item in retired:
            control.retire(item.view, item.version)
        gone = {(item.view, item.version) for item in retired}
        drop(settings, [item for item in versions if item.name in gone])
        return [f"{item.view} {item.version}" for item in retired]


def reconcile(settings: Settings, control: ControlPlane) -> dict[int, str]:
    """Submit the jobs that should run and do not, end the runs that were replaced; ids of all that run, by run."""
    with only_one(settings, "deploy"):
        runs.end_replaced(control)
        return runs.ensure_jobs(settings, control)
