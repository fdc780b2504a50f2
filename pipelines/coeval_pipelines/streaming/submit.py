"""Submits the stream jobs, one per event source, in a client process of its own: only that imports pyflink."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from coeval.errors import CoevalError, EngineError
from coeval.settings import Settings, load_settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.streaming.jobs import GRAPH_PARAMETER, FlinkCluster
from coeval_pipelines.streaming.names import stream_sources
from coeval_pipelines.streaming.sql import STATE_SLACK, SourceJob, source_job

MAX_PARALLELISM = 128
"""Key groups: fixed from the first day, or state could not be taken over by another parallelism."""
_SUBMIT_SECONDS = 300.0


def submit(settings: Settings, manifest: Manifest, since: Mapping[str, int], resume: bool = True) -> dict[str, str]:
    """Run one job per event source that has stream views; gives the job ids by source name.

    A job that already runs the same graph is kept. One that runs another graph is cancelled first. With `resume`, the
    newest checkpoint of the same graph is restored if it is fresh enough for its state to be whole; else the job reads
    its topic from the beginning, which ends in the same online state. `since` is by view name, microseconds UTC.

    Raises:
        EngineError: the cluster does not answer or refuses; the reason names the log.
    """
    cluster = FlinkCluster.open(settings)
    jobs = _plan(settings, manifest, since)
    kept = _kept(cluster, jobs) if resume else {}
    missing = [job for job in jobs if job.source not in kept]
    for job in missing:
        _cancel_all(cluster, job.name)
    return kept | (_run_client(settings, manifest, since, [job.source for job in missing], resume) if missing else {})


def _plan(settings: Settings, manifest: Manifest, since: Mapping[str, int]) -> list[SourceJob]:
    sources = stream_sources(manifest)
    return [source_job(manifest, source.name, since, settings.kafka.bootstrap) for source in sources]


def _kept(cluster: FlinkCluster, jobs: list[SourceJob]) -> dict[str, str]:
    wanted = {job.name: job for job in jobs}
    live = [found for found in cluster.jobs() if found.live and found.name in wanted]
    return {
        wanted[found.name].source: found.id for found in live if cluster.graph(found.id) == wanted[found.name].graph
    }


def _cancel_all(cluster: FlinkCluster, name: str) -> None:
    for found in cluster.jobs():
        if found.name == name and found.live:
            cluster.cancel(found.id)


def _run_client(
    settings: Settings, manifest: Manifest, since: Mapping[str, int], sources: list[str], resume: bool
) -> dict[str, str]:
    logs = settings.home.resolve() / "local" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "submit.log"
    body = logs / "submit.manifest.json"
    body.write_text(manifest.to_json())
    command = [sys.executable, "-m", "coeval_pipelines.streaming.submit", "--manifest", str(body)]
    command += ["--since", json.dumps(dict(since)), "--sources", ",".join(sources), *([] if resume else ["--rewind"])]
    with log.open("w") as stream:
        client = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, env=_client_environment(settings), text=True
        )
        try:
            output, _ = client.communicate(timeout=_SUBMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            client.kill()
            client.wait()
            raise EngineError(
                f"Flink did not take the stream job within {_SUBMIT_SECONDS} s.", f"Read {log}"
            ) from error
        except BaseException:
            client.kill()
            client.wait()
            raise
    if client.returncode:
        raise EngineError(f"Flink did not take the stream job: {_last_words(log)}", f"Read {log}")
    return dict(json.loads(output))


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return (causes or lines or ["the client said nothing"])[-1][:500]


def _client_environment(settings: Settings) -> dict[str, str]:
    """The child sees the same settings as this process, wherever they came from, and imports from the same places."""
    paths = [path for path in sys.path if path]
    return {**os.environ, **settings.variables(), **settings.secrets(), "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(frozen=True, slots=True)
class Start:
    """Where a job starts: from a checkpoint's path, or (None) from the beginning of its topic."""

    checkpoint: str | None


def newest_checkpoint(root: Path, now: float) -> Start:
    """The newest complete checkpoint under a job's root, unless its state may have outlived its time to live.

    Time to live is processing time: after a downtime beyond the slack, restored tiles would begin again from zero and
    the store's guard would refuse their updates. `now` is seconds since the epoch.
    """
    complete = [(path.stat().st_mtime, path.parent) for path in root.glob("*/chk-*/_metadata")]
    if not complete:
        return Start(None)
    written, newest = max(complete)
    fresh = now - written < STATE_SLACK / 1e6
    return Start(newest.as_uri() if fresh else None)


def job_options(settings: Settings, job: SourceJob, jobs: int, resume: bool, now: float) -> dict[str, str]:
    """The Flink options of a job; `jobs` is how many share the cluster's slots."""
    root = settings.home.resolve() / "local" / "checkpoints" / job.name / job.graph
    rest = urlsplit(settings.flink.rest_url)
    parallelism = max(1, min(settings.kafka.partitions, settings.flink.task_slots // max(1, jobs)))
    options = {
        "execution.target": "remote",
        "rest.address": rest.hostname or "127.0.0.1",
        "rest.port": str(rest.port or 8081),
        "execution.attached": "false",
        "pipeline.name": job.name,
        "pipeline.global-job-parameters": f"{GRAPH_PARAMETER}:{job.graph}",
        "pipeline.max-parallelism": str(MAX_PARALLELISM),
        "parallelism.default": str(parallelism),
        "execution.buffer-timeout.interval": "10 ms",
        "execution.checkpointing.dir": root.as_uri(),
        "execution.checkpointing.interval": f"{int(settings.flink.checkpoint_seconds * 1000)} ms",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "2147483647",
        "restart-strategy.fixed-delay.delay": "1 s",
        "table.local-time-zone": "UTC",
        "table.exec.state.ttl": f"{job.state_ttl // 1000} ms",
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "100 ms",
        "table.exec.mini-batch.size": "5000",
        # The changelog is keyed by entity while a tile is keyed by entity and tile: every update is to be seen.
        "table.exec.sink.upsert-materialize": "NONE",
        "table.exec.sink.require-on-conflict": "false",
        "table.optimizer.agg-phase-strategy": "TWO_PHASE",
    }
    start = newest_checkpoint(root, now) if resume else Start(None)
    if start.checkpoint is None:
        return options
    # Claimed: Flink deletes it once newer ones replace it, so that restarts do not fill the disk.
    claimed = {"execution.state-recovery.claim-mode": "CLAIM"}
    return options | claimed | {"execution.state-recovery.path": start.checkpoint}


def _connector(settings: Settings) -> str:
    found = sorted(settings.jars.rglob("flink-sql-connector-kafka-*.jar"))
    if not found:
        raise EngineError(f"The Flink Kafka connector is not in {settings.jars}.", "Resolve the artefacts: coeval up")
    return found[-1].as_uri()


def _execute(job: SourceJob, options: Mapping[str, str]) -> str:
    from pyflink.common import Configuration
    from pyflink.table import EnvironmentSettings, TableEnvironment

    configuration = Configuration()
    for name, value in options.items():
        configuration.set_string(name, value)
    environment = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    )
    result = None
    for statement in job.statements:
        result = environment.execute_sql(statement)
    client = None if result is None else result.get_job_client()
    if client is None:
        raise EngineError(f"Flink gave no job for {job.name}.")
    return str(client.get_job_id())


def main(arguments: list[str] | None = None) -> int:
    """The client process: submit, print the job ids as JSON."""
    parser = argparse.ArgumentParser(description="Submit the stream jobs of a manifest to Flink.")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--since", default="{}", help="JSON: microseconds by view name")
    parser.add_argument("--sources", default="", help="names, separated by commas; all where empty")
    parser.add_argument("--rewind", action="store_true", help="ignore checkpoints, start at the earliest offset")
    chosen = parser.parse_args(arguments)
    settings = load_settings()
    manifest = Manifest.from_json(chosen.manifest.read_text())
    jobs = _plan(settings, manifest, json.loads(chosen.since))
    names = set(chosen.sources.split(",")) - {""} or {job.source for job in jobs}
    connector = {"pipeline.jars": _connector(settings)}
    ids: dict[str, str] = {}
    for job in jobs:
        if job.source in names:
            options = job_options(settings, job, len(jobs), not chosen.rewind, time.time())
            ids[job.source] = _execute(job, options | connector)
    print(json.dumps(ids))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CoevalError as error:
        # The parent takes the last line of the log for the reason.
        print(error.reason, file=sys.stderr)
        sys.exit(error.exit_code)
