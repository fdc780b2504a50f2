"""Progress certificates: once Redis has reached these changelog ends, it covers these source offsets. It knows Kafka.

Flink flushes mini-batches and sinks at the barrier of a checkpoint and commits its source offsets O once that is
complete. So if O is read first and the changelogs' ends E after, all that O made was in the changelogs before E.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import sqlalchemy as sa
import structlog

from coeval.errors import BrokerError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_pipelines.complaints import Complaints
from coeval_pipelines.control import ALIVE, Certificate, ControlPlane, Run
from coeval_pipelines.streaming.broker import Broker, Offsets, partitions_of
from coeval_pipelines.streaming.names import changelog_topic, group_id, run_views

PERIOD_SECONDS = 1.0
_KEPT = 1000
"""The newest certificates of a run that are all kept, about an hour of them; of the time before, one an hour."""
_LOG: Any = structlog.get_logger("coeval.certifier")


class Certifier:
    """Records certificates of all deployed manifests in a thread of its own, until closed. A context manager."""

    def __init__(self, settings: Settings, control: ControlPlane) -> None:
        self._kafka = settings.kafka
        self._control = control
        self._stop = threading.Event()
        self._seen: dict[int, Offsets] = {}
        self._complaints = Complaints(_LOG, "cannot certify progress")
        self._thread = threading.Thread(target=self._run, name="certifier", daemon=True)

    def __enter__(self) -> Certifier:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            try:
                with Broker(self._kafka) as broker:
                    self._work(broker)
            except (BrokerError, sa.exc.OperationalError) as error:
                self._complaints.say(error)
            except Exception:
                # The boundary of a thread. Without certificates nothing online can be believed: start afresh.
                _LOG.exception("the certifier failed: ending the writer, for its supervisor to start again")
                os.kill(os.getpid(), signal.SIGTERM)
                raise

    def _work(self, broker: Broker) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            # A run that was stopped has committed once more, with its savepoint.
            for run in self._control.runs(statuses=ALIVE):
                manifest = self._control.manifest(run.manifest_hash)
                if manifest is not None:
                    self._certify(broker, manifest, run)
            self._complaints.well()

    def _certify(self, broker: Broker, manifest: Manifest, run: Run) -> None:
        source = manifest.sources[run.source]
        assert isinstance(source, EventSource)
        offsets = broker.committed(group_id(manifest, run), source.topic)
        if not offsets or self._seen.get(run.number) == offsets:
            return
        topics = [changelog_topic(manifest, view) for view in run_views(manifest, run)]
        present = partitions_of(broker, topics)
        if len(present) == len(topics):
            self._record(Certificate(run.source, run.number, offsets, broker.ends(present), time.time_ns() // 1000))

    def _record(self, certificate: Certificate) -> None:
        self._seen[certificate.run] = dict(certificate.offsets)
        known = self._control.certificates(certificate.source, certificate.run)
        # The same offsets with later ends say less: after a restart of the writer nothing new is to be recorded.
        if any(old.offsets == certificate.offsets for old in known):
            return
        self._control.record_certificate(certificate)
        self._control.forget_certificates(certificate.run, _KEPT)


def deployed_manifests(control: ControlPlane) -> list[Manifest]:
    """The manifests of all deployments, each once."""
    hashes = {deployment.manifest_hash: None for deployment in control.deployments()}
    return [manifest for content_hash in hashes if (manifest := control.manifest(content_hash)) is not None]
