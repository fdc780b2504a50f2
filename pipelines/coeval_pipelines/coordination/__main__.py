"""The coordinator: keeps the deployed jobs running, heals a store that lost its data, sends canaries, shows metrics."""

from __future__ import annotations

import signal
import threading
from contextlib import closing

import redis
import sqlalchemy as sa
import structlog

from coeval.errors import CoevalError
from coeval.logs import configure_logging
from coeval.settings import Settings, load_settings
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import reconcile
from coeval_pipelines.coordination.exporter import Exporter
from coeval_pipelines.coordination.fill import heal

PERIOD_SECONDS = 2.0
_LOG = structlog.get_logger(service="coordinator")


def main() -> None:
    """The process: until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logging("info")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with closing(ControlPlane.open(settings)) as control, Exporter(settings, control):
        serve(settings, control, stop)


def serve(settings: Settings, control: ControlPlane, stop: threading.Event) -> None:
    """Tick until told to stop; a component that is away is waited for, and said once."""
    complaint = ""
    while not stop.wait(PERIOD_SECONDS):
        try:
            tick(settings, control)
            complaint = ""
        except (CoevalError, redis.RedisError, sa.exc.SQLAlchemyError) as error:
            if str(error) != complaint:
                complaint = str(error)
                _LOG.warning("cannot reconcile", error=complaint)


def tick(settings: Settings, control: ControlPlane) -> None:
    """Bring what runs in line with what is deployed."""
    manifest = control.released()
    if manifest is None:
        return
    reconcile(settings, control)
    healed = heal(settings, manifest, control)
    if healed:
        _LOG.warning("views were not ready: healed from batch and changelog", views=healed)


if __name__ == "__main__":
    main()
