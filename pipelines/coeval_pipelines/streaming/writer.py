"""The online writer as a process: it waits for components that are away, and ends on SIGTERM. It knows Kafka and Redis.

Any number of them share the partitions (see `members`); what each does is in `writing`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import Any

import structlog

from coeval.errors import CoevalError
from coeval.logs import configure_logging
from coeval.settings import Settings, load_settings
from coeval_pipelines.complaints import Complaints
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.heartbeat import beat
from coeval_pipelines.streaming.certificates import Certifier
from coeval_pipelines.streaming.members import own_name
from coeval_pipelines.streaming.meters import Meters
from coeval_pipelines.streaming.reading import open_consumer
from coeval_pipelines.streaming.writing import Writer

_RETRY_SECONDS = 1.0
_LOG: Any = structlog.get_logger("coeval.writer")


def serve(settings: Settings, stop: threading.Event) -> None:
    """Run a writer until told to stop; a component that is away is waited for, and said once each time."""
    import redis
    import sqlalchemy as sa
    from kafka.errors import KafkaError

    name, meters, complaints = own_name(), _serve_metrics(settings), Complaints(_LOG, "waiting for a component")
    with contextlib.closing(ControlPlane.open(settings)) as control, Certifier(settings, control):
        while not stop.is_set():
            beat()
            try:
                _serve_once(settings, control, stop, name, meters, complaints)
            except (CoevalError, redis.RedisError, KafkaError, sa.exc.OperationalError) as error:
                complaints.say(error)
                stop.wait(_RETRY_SECONDS)


def _serve_metrics(settings: Settings) -> Meters:
    meters, port = Meters(), settings.metrics.writer_port
    try:
        if port:
            meters.serve(port)
    except OSError as error:
        # Data before metrics: another writer of this machine may have the port.
        _LOG.warning("no metrics are served", port=port, error=str(error))
    return meters


def _serve_once(
    settings: Settings,
    control: ControlPlane,
    stop: threading.Event,
    name: str,
    meters: Meters,
    complaints: Complaints,
) -> None:
    from coeval.client import open_redis

    def well() -> None:
        beat()
        complaints.well()

    with contextlib.closing(open_redis(settings)) as client, contextlib.closing(open_consumer(settings)) as consumer:
        _LOG.info("connected", redis=settings.redis.shown, kafka=settings.kafka.bootstrap)
        Writer(name, control, client, consumer, meters, well).run(stop)


def main() -> int:
    """The process: until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logging("info")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve(settings, stop)
    _LOG.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
