"""Submits the jobs of runs in a client process of its own: only that imports pyflink."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.errors import CoevalError, EngineError
from coeval.settings import Settings, load_settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control.model import Run
from coeval_pipelines.kafka import SHADED, java_properties
from coeval_pipelines.streaming.literals import VIEW, VIEW_AS
from coeval_pipelines.streaming.options import job_options
from coeval_pipelines.streaming.sql import SourceJob, source_job
from coeval_pipelines.streamjar import stream_jar

if TYPE_CHECKING:
    from pyflink.table import TableEnvironment, TableResult

_SUBMIT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Submission:
    """A run to be started from a checkpoint (a URI), or, where that is empty, from its first offsets without state."""

    manifest: Manifest
    run: Run
    checkpoint: str = ""


def job_of(settings: Settings, manifest: Manifest, run: Run) -> SourceJob:
    """The job of a run on the broker that the settings name."""
    return source_job(manifest, run, java_properties(settings.kafka, SHADED))


def submit(settings: Settings, submissions: Sequence[Submission]) -> dict[int, str]:
    """Hand the jobs of runs to Flink; gives their job ids by the number of the run. It does not look what runs already.

    Raises:
        EngineError: the cluster does not answer or refuses; the reason names the log.
    """
    if not submissions:
        return {}
    logs = settings.home.resolve() / "local" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "submit.log"
    documents = [
        {"manifest": item.manifest.to_json(), "run": asdict(item.run), "checkpoint": item.checkpoint}
        for item in submissions
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=logs) as body:
        json.dump(documents, body)
        body.flush()
        return {int(number): job for number, job in json.loads(_run_client(settings, body.name, log)).items()}


def _run_client(settings: Settings, body: str, log: Path) -> str:
    command = [sys.executable, "-m", "coeval_pipelines.streaming.submit", body]
    with log.open("w") as stream:
        client = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, env=_client_environment(settings), text=True
        )
        try:
            output, _ = client.communicate(timeout=_SUBMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"Flink did not take the stream jobs within {_SUBMIT_SECONDS:.0f} s.", f"Read {log}"
            ) from error
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()
    if client.returncode:
        raise EngineError(f"Flink did not take the stream jobs: {_last_words(log)}", f"Read {log}")
    return output


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return (causes or lines or ["the client said nothing"])[-1][:500]


def _client_environment(settings: Settings) -> dict[str, str]:
    """The child sees the same settings as this process, wherever they came from, and imports from the same places."""
    paths = [path for path in sys.path if path]
    return {**os.environ, **settings.variables(), **settings.secrets(), "PYTHONPATH": os.pathsep.join(paths)}


def _jars(settings: Settings) -> str:
    """What a job brings along: the Kafka connector, and the classes of this very version."""
    found = sorted(settings.jars.rglob("flink-sql-connector-kafka-*.jar"))
    own = stream_jar(settings)
    if not found or not own.exists():
        missing = own.name if found else "flink-sql-connector-kafka"
        raise EngineError(f"{missing} is not in {settings.jars}.", "Resolve the artefacts: coeval up")
    return f"{found[-1].as_uri()};{own.as_uri()}"


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
        result = _state(environment, statement)
    client = None if result is None else result.get_job_client()
    if client is None:
        raise EngineError(f"Flink gave no job for {job.name}.")
    return str(client.get_job_id())


def _state(environment: TableEnvironment, statement: str) -> TableResult | None:
    name, is_view, query = statement.removeprefix(VIEW).partition(VIEW_AS)
    if not (statement.startswith(VIEW) and is_view):
        return environment.execute_sql(statement)
    # As a table object: a view of text is planned anew wherever it is named, and its function called once for each.
    environment.create_temporary_view(name, environment.sql_query(query))
    return None


def main(arguments: list[str] | None = None) -> int:
    """The client process: submit, print the job ids by run as JSON."""
    parser = argparse.ArgumentParser(description="Submit the jobs of stream runs to Flink.")
    parser.add_argument("submissions", type=Path, help="a JSON list of manifest, run and checkpoint")
    chosen = parser.parse_args(arguments)
    settings = load_settings()
    jars = {"pipeline.jars": _jars(settings)}
    ids: dict[int, str] = {}
    for item in json.loads(chosen.submissions.read_text()):
        run = Run.of(item["run"])
        job = job_of(settings, Manifest.from_json(item["manifest"]), run)
        ids[run.number] = _execute(job, job_options(settings, run, job, item["checkpoint"]) | jars)
    print(json.dumps(ids))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CoevalError as error:
        # The parent takes the last line of the log for the reason.
        print(error.reason, file=sys.stderr)
        sys.exit(error.exit_code)
