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
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.streaming.broker import Broker, Offsets, partitions_of
from coeval_pipelines.streaming.names import group_prefix, group_topics, stream_sources

PERIOD_SECONDS = 1.0
_LOG: Any = structlog.get_logger("coeval.certifier")


class Certifier:
    """Records certificates of all deployed manifests in a thread of its own, until closed. A context manager."""

    def __init__(self, settings: Settings, control: ControlPlane) -> None:
        self._kafka = settings.kafka
        self._control = control
        self._stop = threading.Event()
        self._seen: dict[str, Offsets] = {}
        self._thread = threading.Thread(target=self._run, name="certifier", daemon=True)

    def __enter__(self) -> Certifier:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        complaint = ""
        while not self._stop.wait(PERIOD_SECONDS):
            try:
                with Broker(self._kafka) as broker:
                    self._work(broker)
            except (BrokerError, sa.exc.OperationalError) as error:
                if str(error) != complaint:
                    complaint = str(error)
                    _LOG.warning("cannot certify progress", error=complaint)
            except Exception:
                # The boundary of a thread. Without certificates nothing online can be believed: start afresh.
                _LOG.exception("the certifier failed: ending the writer, for its supervisor to start again")
                os.kill(os.getpid(), signal.SIGTERM)
                raise

    def _work(self, broker: Broker) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            for manifest in deployed_manifests(self._control):
                for source in stream_sources(manifest):
                    self._certify(broker, manifest, source.name, source.topic)

    def _certify(self, broker: Broker, manifest: Manifest, source: str, topic: str) -> None:
        for group in broker.groups(group_prefix(manifest, source)):
            offsets = broker.committed(group, topic)
            if not offsets or self._seen.get(group) == offsets:
                continue
            topics = group_topics(manifest, source, group)
            present = partitions_of(broker, topics)
            if len(present) == len(topics):
                self._record(group, Certificate(source, offsets, broker.ends(present), time.time_ns() // 1000))

    def _record(self, group: str, certificate: Certificate) -> None:
        self._seen[group] = dict(certificate.offsets)
        known = self._control.certificates(certificate.source)
        # The same offsets with later ends say less: after a restart of the writer nothing new is to be recorded.
        if any(old.offsets == certificate.offsets and old.ends.keys() == certificate.ends.keys() for old in known):
            return
        self._control.record_certificate(certificate)


def deployed_manifests(control: ControlPlane) -> list[Manifest]:
    """The manifests of all deployments, each once."""
    hashes = {deployment.manifest_hash: None for deployment in control.deployments()}
    return [manifest for content_hash in hashes if (manifest := control.manifest(content_hash)) is not None]
