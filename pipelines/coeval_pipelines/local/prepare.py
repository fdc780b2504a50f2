"""Make the files that components start from: the broker's storage, Flink's private home. Safe to run again."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

from coeval.errors import MissingExtraError, StackError
from coeval.settings import FlinkSettings, KafkaSettings, RedisSettings, Settings
from coeval_pipelines.local.artefacts import Jars, java
from coeval_pipelines.local.components import Component, host_port


def prepare(settings: Settings, jars: Jars, component: Component) -> None:
    """Make what a component needs before its first start."""
    component.cwd.mkdir(parents=True, exist_ok=True)
    component.log.parent.mkdir(parents=True, exist_ok=True)
    if component.name == "broker":
        _broker(settings, jars, component.cwd)
    elif component.name == "jobmanager":
        _flink(settings, jars, component.cwd)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_settings(home: Path) -> Settings:
    """Settings of a stack of its own: state in `home`, ports that are free now. For tests and second stacks."""
    return Settings(
        home=home,
        redis=RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0"),
        kafka=KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}"),
        flink=FlinkSettings(rest_url=f"http://127.0.0.1:{free_port()}"),
    )


def _broker(settings: Settings, jars: Jars, directory: Path) -> None:
    host, port = host_port(settings.kafka.bootstrap, 9092)
    controller = free_port()
    properties = directory / "server.properties"
    properties.write_text(
        f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={directory / "data"}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""
    )
    if (directory / "data" / "meta.properties").exists():
        return
    classpath = ":".join(str(jar) for jar in jars.kafka)
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # One argument: an id may begin with a dash, which alone would be taken for an option.
    options = [f"--cluster-id={cluster}", "-c", str(properties)]
    command = [java(), "-cp", classpath, "kafka.tools.StorageTool", "format", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"The broker's storage cannot be formatted: {done.stderr[-500:]}", f"Look at {directory}.")


def _flink(settings: Settings, jars: Jars, home: Path) -> None:
    spec = find_spec("pyflink")
    if spec is None or spec.origin is None:
        raise MissingExtraError("apache-flink is not installed.", "pip install 'coeval[streaming]'")
    package = Path(spec.origin).parent
    for name in ("lib", "conf", "log", "tmp"):
        (home / name).mkdir(exist_ok=True)
    shutil.copytree(package / "bin", home / "bin", dirs_exist_ok=True)
    # With this script there, Flink's own would look for a home of its own choice.
    (home / "bin" / "find_flink_home.py").unlink(missing_ok=True)
    shutil.copytree(package / "conf", home / "conf", dirs_exist_ok=True)
    for jar in [*(package / "lib").iterdir(), *jars.flink]:
        link = home / "lib" / jar.name
        link.unlink(missing_ok=True)
        link.symlink_to(jar)
    opt = home / "opt"
    opt.unlink(missing_ok=True)
    opt.symlink_to(package / "opt")
    plugin = home / "plugins" / "metrics-prometheus"
    plugin.parent.mkdir(exist_ok=True)
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(package / "plugins" / plugin.name)
    config = _flink_config(settings, home, _java_options(package)) + _reporter(settings.metrics.flink_ports)
    (home / "conf" / "config.yaml").write_text(config)


def _reporter(ports: str) -> str:
    if not ports:
        return ""
    factory = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
    return f"""metrics.reporters: prometheus
metrics.reporter.prometheus.factory.class: {factory}
metrics.reporter.prometheus.port: {ports}
metrics.reporter.prometheus.filter.excludes: "*.KafkaProducer:*"
"""


def _java_options(package: Path) -> str:
    lines = (package / "conf" / "config.yaml").read_text().splitlines()
    return next(line.strip().removeprefix("all: ") for line in lines if line.strip().startswith("all: "))


# RocksDB's caches and write buffers are managed memory; state in memory is the heap's.
_MANAGED = {
    "hashmap": "taskmanager.memory.managed.size: 64m",
    "rocksdb": "taskmanager.memory.managed.fraction: 0.5",
}


def _flink_config(settings: Settings, home: Path, java_options: str) -> str:
    host, port = host_port(settings.flink.rest_url, 8081)
    return f"""env.java.opts.all: {java_options}
jobmanager.rpc.address: {host}
jobmanager.rpc.port: {free_port()}
jobmanager.bind-host: {host}
jobmanager.memory.process.size: 1g
jobmanager.execution.failover-strategy: region
taskmanager.bind-host: {host}
taskmanager.host: {host}
taskmanager.registration.timeout: 30 s
cluster.registration.error-delay: 1 s
cluster.registration.max-timeout: 5 s
taskmanager.memory.process.size: {settings.flink.worker_memory}
{_MANAGED[settings.flink.state_backend]}
taskmanager.numberOfTaskSlots: {settings.flink.task_slots}
rest.address: {host}
rest.bind-address: {host}
rest.port: {port}
heartbeat.timeout: 10 s
heartbeat.interval: 1 s
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 2147483647
restart-strategy.fixed-delay.delay: 1 s
execution.checkpointing.dir: {(home / "checkpoints").as_uri()}
execution.checkpointing.savepoint-dir: {(home / "savepoints").as_uri()}
execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION
execution.checkpointing.num-retained: 3
execution.checkpointing.interval: {round(settings.flink.checkpoint_seconds * 1000)} ms
io.tmp.dirs: {home / "tmp"}
classloader.check-leaked-classloader: false
python.executable: {sys.executable}
python.client.executable: {sys.executable}
"""
