"""Deploy and reconcile: what should run, and making it so. Flink is reached through the streaming room's front door."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.handoff import is_streamed


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


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


def deploy(settings: Settings, manifest: Manifest, control: ControlPlane, since: int) -> dict[str, str]:
    """Deploy every view of a manifest: the stream owns tiles from `since` on; returns Flink job ids by source.

    A view version keeps the `since` of its first deployment. Running it again changes nothing.
    """
    from coeval_pipelines.streaming.broker import ensure_topics

    with only_one(settings, "deploy"):
        control.save_manifest(manifest, now())
        for view in manifest.views.values():
            control.deploy(view.name, view.version, manifest.hash, since, now())
        ensure_topics(settings, manifest)
        control.release(manifest.hash, now())
        return _run_jobs(settings, manifest, control)


def reconcile(settings: Settings, control: ControlPlane) -> dict[str, str]:
    """Submit the jobs of the deployed manifest that do not run; returns the ids of all that run now, by source."""
    with only_one(settings, "deploy"):
        manifest = control.released()
        return {} if manifest is None else _run_jobs(settings, manifest, control)


def ownership(manifest: Manifest, control: ControlPlane) -> Mapping[str, int]:
    """By streamed view, the instant from which on the stream owns its tiles."""
    found = {view.name: control.deployment(view.name, view.version) for view in manifest.views.values()}
    return {name: item.since for name, item in found.items() if item and is_streamed(manifest.views[name])}


def _run_jobs(settings: Settings, manifest: Manifest, control: ControlPlane) -> dict[str, str]:
    from coeval_pipelines.streaming.submit import submit

    return submit(settings, manifest, ownership(manifest, control), resume=True)
