"""The coordinator: keeps the deployed jobs running, heals a store that lost its data, sends canaries, shows metrics."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import closing

import redis
import sqlalchemy as sa
import structlog

from coeval.errors import CoevalError
from coeval.logs import configure_logging
from coeval.settings import Settings, load_settings
from coeval_pipelines.complaints import Complaints
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
        # Healing waits for the jobs that reconciling brings back: each has a thread of its own.
        healer = threading.Thread(target=serve, args=(lambda: heal_released(settings, control), stop, "cannot heal"))
        healer.start()
        serve(lambda: reconcile_released(settings, control), stop, "cannot reconcile")
        healer.join()


def serve(tick: Callable[[], None], stop: threading.Event, complaint: str) -> None:
    """Tick until told to stop; a component that is away is waited for, and said once."""
    complaints = Complaints(_LOG, complaint)
    while not stop.wait(PERIOD_SECONDS):
        try:
            tick()
            complaints.well()
        except (CoevalError, redis.RedisError, sa.exc.SQLAlchemyError) as error:
            complaints.say(error)


def reconcile_released(settings: Settings, control: ControlPlane) -> None:
    """Bring what runs in line with what is deployed, once something is released."""
    if control.released() is not None:
        reconcile(settings, control)


def heal_released(settings: Settings, control: ControlPlane) -> None:
    """Heal what is not ready of what is released; returns at once where all is."""
    manifest = control.released()
    if manifest is None:
        return
    healed = heal(settings, manifest, control)
    if healed:
        _LOG.warning("views were not ready: healed from batch and changelog", views=healed)


if __name__ == "__main__":
    main()
