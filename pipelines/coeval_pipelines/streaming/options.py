"""How Flink is to run a stream job: its options, and the checkpoint it starts from. It knows where checkpoints are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from coeval.settings import FlinkSettings, Settings
from coeval_pipelines.control.model import Run
from coeval_pipelines.streaming.sql import STATE_SLACK, SourceJob

MAX_PARALLELISM = 128
"""Key groups: fixed from the first day, or state could not be taken over by another parallelism."""


class StaleStateError(Exception):
    """There is state to restore, and it is too old to be whole: the run has to be replaced by one that rewinds."""


def checkpoint_root(settings: Settings, job: SourceJob) -> Path:
    """Where a run's checkpoints and savepoints are kept; of another graph they are kept elsewhere."""
    return checkpoints_of(settings, job.name) / job.graph


def checkpoints_of(settings: Settings, name: str) -> Path:
    """Where all of a job is kept, by its name."""
    return settings.home.resolve() / "local" / "checkpoints" / name


def start_of(settings: Settings, run: Run, job: SourceJob, now: float) -> str:
    """The checkpoint or savepoint (a URI) that a run starts from; empty where it has none yet and begins without state.

    State is kept for a time that is counted by the clock of the machine: after a downtime beyond the slack, restored
    tiles would begin again from zero, and the store's guard would refuse their updates. `now` is seconds since the
    epoch.

    Raises:
        StaleStateError: the newest one was written too long ago.
    """
    written = {path: _written_at(path) for path in states(checkpoint_root(settings, job))}
    if run.restore:
        restored = Path(unquote(urlsplit(run.restore).path)) / "_metadata"
        written[restored] = _written_at(restored)
    at, newest = max(((at, path) for path, at in written.items() if at), default=(0.0, None))
    if newest is None:
        return ""
    if now - at > STATE_SLACK / 1e6:
        raise StaleStateError
    return newest.parent.as_uri()


def states(directory: Path) -> Iterator[Path]:
    """The metadata files of the checkpoints and savepoints below a directory that are complete."""
    found = directory.rglob("*/_metadata")
    return (path for path in found if path.parent.name.startswith(("chk-", "savepoint-")))


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        # Flink deletes a checkpoint once it has a newer one: it may do so while we look.
        return 0.0


def job_options(settings: Settings, run: Run, job: SourceJob, checkpoint: str) -> dict[str, str]:
    """The Flink options of a run's job, which starts from a checkpoint (a URI) or, where it is empty, without state."""
    root = checkpoint_root(settings, job)
    rest = urlsplit(settings.flink.rest_url)
    options = {
        "execution.target": "remote",
        "rest.address": rest.hostname or "127.0.0.1",
        "rest.port": str(rest.port or 8081),
        "execution.attached": "false",
        "pipeline.name": job.name,
        "pipeline.max-parallelism": str(MAX_PARALLELISM),
        "parallelism.default": str(run.parallelism),
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "2147483647",
        "restart-strategy.fixed-delay.delay": "1 s",
        **_checkpointing(settings.flink, root),
        **_tables(settings.flink, job),
    }
    if not checkpoint:
        return options
    # Claimed: Flink deletes it once newer ones replace it, so that restarts do not fill the disk. What another run left
    # is not ours to delete: it may have to start from it again.
    mode = "CLAIM" if root.as_uri() in checkpoint else "NO_CLAIM"
    return options | {"execution.state-recovery.path": checkpoint, "execution.state-recovery.claim-mode": mode}


def _checkpointing(flink: FlinkSettings, root: Path) -> Mapping[str, str]:
    interval = f"{int(flink.checkpoint_seconds * 1000)} ms"
    return {
        "execution.checkpointing.dir": root.as_uri(),
        "execution.checkpointing.savepoint-dir": root.as_uri(),
        "execution.checkpointing.interval": interval,
        # Where one takes long, the job gets as much time to itself before the next.
        "execution.checkpointing.min-pause": interval,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.incremental": "true",
        # A checkpoint that fails (a full disk) costs nothing but time after a later failure; the next one may succeed.
        "execution.checkpointing.tolerable-failed-checkpoints": "2147483647",
        "state.backend.type": flink.state_backend,
    }


def _tables(flink: FlinkSettings, job: SourceJob) -> Mapping[str, str]:
    return {
        "execution.buffer-timeout.interval": "10 ms",
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
        "table.exec.state.ttl": f"{job.state_ttl // 1000} ms",
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": f"{flink.mini_batch_milliseconds} ms",
        "table.exec.mini-batch.size": "5000",
        # The changelog is keyed by entity while a tile is keyed by entity and tile: every update is to be seen.
        "table.exec.sink.upsert-materialize": "NONE",
        "table.exec.sink.require-on-conflict": "false",
        "table.optimizer.agg-phase-strategy": "TWO_PHASE",
        # What several outputs read is planned and computed once: the judged records, the good events.
        "table.optimizer.reuse-optimize-block-with-digest-enabled": "true",
    }
