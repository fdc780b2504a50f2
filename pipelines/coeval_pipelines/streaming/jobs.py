"""The stream jobs as Flink's REST interface shows them: list, wait, cancel. It knows Flink by HTTP only."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coeval.errors import EngineError
from coeval.settings import Settings

_POLL_SECONDS = 0.3
_HTTP_SECONDS = 10.0
_LIVE = frozenset({"INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "RECONCILING", "FAILING"})


@dataclass(frozen=True, slots=True)
class Job:
    """A job that the cluster knows. `running_tasks` of `tasks` run; a job in state RUNNING may still be deploying."""

    id: str
    name: str
    state: str
    tasks: int
    running_tasks: int
    started_at: int
    """Milliseconds since the epoch."""

    @property
    def live(self) -> bool:
        """Whether it runs or will run again by itself."""
        return self.state in _LIVE

    @property
    def healthy(self) -> bool:
        """Whether every task runs."""
        return self.state == "RUNNING" and 0 < self.tasks == self.running_tasks


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """How a job's checkpoints go: the newest complete one, and how many were completed and failed since it started."""

    at: int
    """When the newest was complete, microseconds UTC; 0: none is."""
    bytes: int
    seconds: float
    completed: int
    failed: int


class FlinkCluster:
    """The REST interface of a session cluster."""

    def __init__(self, rest_url: str) -> None:
        self._url = rest_url.rstrip("/")

    @staticmethod
    def open(settings: Settings) -> FlinkCluster:
        """The cluster that the settings name."""
        return FlinkCluster(settings.flink.rest_url)

    def jobs(self, prefix: str = "coeval-") -> tuple[Job, ...]:
        """The jobs whose name begins so, newest first.

        Raises:
            EngineError: the cluster does not answer.
        """
        found = [_job(item) for item in self._get("/jobs/overview")["jobs"] if item["name"].startswith(prefix)]
        return tuple(sorted(found, key=lambda job: -job.started_at))

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            EngineError: the cluster does not answer, or has forgotten the job.
        """
        for job in self.jobs(""):
            if job.id == job_id:
                return job
        raise EngineError(f"Flink does not know the job {job_id}.", "Deploy the stream again: coeval stream deploy")

    def free_slots(self) -> int:
        """How many task slots nothing uses."""
        return int(self._get("/overview").get("slots-available", 0))

    def checkpointing(self, job_id: str) -> Checkpoints:
        """How its checkpoints go."""
        found = self._get(f"/jobs/{job_id}/checkpoints")
        newest, counts = (found.get("latest") or {}).get("completed") or {}, found.get("counts") or {}
        return Checkpoints(
            at=int(newest.get("latest_ack_timestamp", 0)) * 1000,
            bytes=int(newest.get("state_size", 0)),
            seconds=newest.get("end_to_end_duration", 0) / 1000,
            completed=int(counts.get("completed", 0)),
            failed=int(counts.get("failed", 0)),
        )

    def restarts(self, job_id: str) -> int:
        """How often Flink has restarted a job by itself since it was submitted."""
        found: Any = self._get(f"/jobs/{job_id}/metrics?get=numRestarts")
        return sum(int(item["value"]) for item in found)

    def failure(self, job_id: str) -> str:
        """The first line of the latest failure; empty where there was none."""
        entries = self._get(f"/jobs/{job_id}/exceptions").get("exceptionHistory", {}).get("entries", [])
        return str(entries[0].get("stacktrace", "")).splitlines()[0] if entries else ""

    def cancel(self, job_id: str, deadline_seconds: float = 60.0) -> None:
        """Cancel a job and wait until it is gone; its newest checkpoint is kept.

        Raises:
            EngineError: it did not end in time.
        """
        self._request("PATCH", f"/jobs/{job_id}?mode=cancel")
        deadline = time.monotonic() + deadline_seconds
        while self.job(job_id).live:
            if time.monotonic() > deadline:
                raise EngineError(f"The job {job_id} is not cancelled after {deadline_seconds:.0f} s.")
            time.sleep(_POLL_SECONDS)

    def stop(self, job_id: str, directory: str, deadline_seconds: float = 120.0) -> str:
        """Stop a job with a savepoint below a directory (a URI); gives the savepoint's URI.

        Raises:
            EngineError: the savepoint failed or is not there in time; the job may run on.
        """
        body = {"targetDirectory": directory, "drain": False}
        trigger = self._request("POST", f"/jobs/{job_id}/stop", body)["request-id"]
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() < deadline:
            state = self._get(f"/jobs/{job_id}/savepoints/{trigger}")
            if state["status"]["id"] == "COMPLETED":
                operation = state["operation"]
                if "location" in operation:
                    return str(operation["location"])
                raise EngineError(
                    f"The savepoint of {job_id} failed: {_cause(operation)}",
                    "The job runs on. Mend what is said, or, where no savepoint can be had: coeval stream rewind.",
                )
            time.sleep(_POLL_SECONDS)
        raise EngineError(f"The savepoint of {job_id} is not there after {deadline_seconds:.0f} s.")

    def await_healthy(self, job_id: str, deadline_seconds: float = 120.0) -> Job:
        """Wait until every task of a job runs.

        Raises:
            EngineError: it failed, or does not run in time; the reason carries Flink's own.
        """
        deadline = time.monotonic() + deadline_seconds
        while not (job := self.job(job_id)).healthy:
            if not job.live or time.monotonic() > deadline:
                cause = self.failure(job_id) or "no failure is reported; are there enough task slots?"
                raise EngineError(f"The job {job.name} is {job.state}, not running: {cause}", f"Look at {self._url}")
            time.sleep(_POLL_SECONDS)
        return job

    def _get(self, path: str) -> dict[str, Any]:
        return self._request("GET", path)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_HTTP_SECONDS) as response:  # noqa: S310
                answer = response.read()
        except urllib.error.HTTPError as error:
            raise EngineError(f"Flink answers {method} {path} with {error.code}.", f"Look at {self._url}") from error
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"Flink does not answer at {self._url}: {error}.", "Start it: coeval up") from error
        return json.loads(answer) if answer else {}


def _cause(operation: Mapping[str, Any]) -> str:
    """The root of a failure: the last that caused another."""
    lines = str(operation.get("failure-cause", {}).get("stack-trace", "")).splitlines()
    causes = [line.strip() for line in lines if line.strip().startswith("Caused by:")]
    return causes[-1] if causes else (lines or ["no cause is given"])[0]


def _job(item: Mapping[str, Any]) -> Job:
    tasks = item["tasks"]
    return Job(item["jid"], item["name"], item["state"], tasks["total"], tasks["running"], item["start-time"])
