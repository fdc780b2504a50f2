"""The local stack survives what happens to it, and leaves nothing behind. Real processes, one stack for the module."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from coeval.errors import StackError
from coeval.settings import Settings
from coeval_pipelines.local import stack
from coeval_pipelines.local.components import ENGINES, host_port
from coeval_pipelines.local.prepare import free_settings
from coeval_pipelines.local.state import ComponentStatus, Process, StackStatus, read_state, write_state
from coeval_pipelines.local.supervisor import LARGE_LOG_BYTES


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A full stack that tests may hurt; whatever they did, nothing of it runs afterwards."""
    settings = free_settings(tmp_path_factory.mktemp("own"))
    stack.up(settings, ENGINES)
    yield settings
    stack.down(settings)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a stack that is not started yet; for tests that need only Redis."""
    settings = free_settings(tmp_path)
    yield settings
    stack.down(settings)


def part(status: StackStatus, name: str) -> ComponentStatus:
    return next(item for item in status.components if item.name == name)


def running(status: StackStatus) -> list[Process]:
    known = [status.supervisor, *(item.process for item in status.components)]
    return [process for process in known if process and process.find()]


def wait_until(holds: Callable[[], bool], seconds: float = 90.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


def coeval(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from coeval.cli import main; main()", *arguments],
        env={**os.environ, **settings.variables()},
        cwd=settings.home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_started_stack_is_healthy_and_says_where_it_is(own: Settings) -> None:
    status = stack.status(own)
    assert status.healthy
    assert [item.name for item in status.components] == list(ENGINES)
    assert part(status, "redis").address in own.redis.url
    assert part(status, "broker").address == own.kafka.bootstrap
    assert all(Path(item.log).exists() for item in status.components)


def test_the_broker_creates_topics_as_soon_as_it_is_called_healthy(own: Settings) -> None:
    from kafka.admin import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=own.kafka.bootstrap)
    try:
        admin.create_topics({"proof": {"num_partitions": 2, "replication_factor": 1}})
        assert "proof" in admin.list_topics()
    finally:
        admin.close()


def test_up_leaves_a_running_stack_as_it_is(own: Settings) -> None:
    before = stack.status(own)
    assert stack.up(own, ENGINES) == before


def test_up_refuses_to_take_another_stack_for_the_one_that_was_asked_for(own: Settings) -> None:
    moved = own.model_copy(update={"redis": free_settings(own.home).redis})
    with pytest.raises(StackError, match="runs with redis at"):
        stack.up(moved, ENGINES)
    with pytest.raises(StackError, match="runs without writer"):
        stack.up(own, (*ENGINES, "writer"))


def test_a_killed_worker_comes_back_and_is_healthy_only_when_it_has_registered(own: Settings) -> None:
    old = part(stack.status(own), "taskmanager")
    assert old.process
    os.killpg(old.process.pid, signal.SIGKILL)
    assert wait_until(lambda: part(stack.status(own), "taskmanager").health == "starting", 10)
    assert wait_until(lambda: stack.status(own).healthy)
    new = part(stack.status(own), "taskmanager")
    assert new.process != old.process
    assert new.restarts == old.restarts + 1


def test_a_killed_job_manager_finds_its_worker_again(own: Settings) -> None:
    old = stack.status(own)
    manager = part(old, "jobmanager").process
    assert manager
    os.killpg(manager.pid, signal.SIGKILL)
    assert wait_until(lambda: part(stack.status(own), "jobmanager").health != "healthy", 10)
    assert wait_until(lambda: stack.status(own).healthy)
    assert part(stack.status(own), "taskmanager").process == part(old, "taskmanager").process


def test_a_killed_supervisor_takes_its_children_along_and_up_recovers(own: Settings) -> None:
    old = stack.status(own)
    assert old.supervisor
    os.kill(old.supervisor.pid, signal.SIGKILL)
    assert wait_until(lambda: not running(old), 30), running(old)
    assert not stack.status(own).running
    assert {item.health for item in stack.status(own).components} == {"stopped"}
    assert stack.up(own, ENGINES).healthy


def test_down_ends_every_process_and_a_second_down_has_nothing_to_do(own: Settings) -> None:
    before = stack.status(own)
    assert len(running(before)) == 1 + len(ENGINES)
    assert stack.down(own)
    assert running(before) == []
    assert not stack.down(own)


def test_a_taken_port_is_named_with_its_holder_and_the_setting_that_moves_it(small: Settings) -> None:
    with socket.create_server(host_port(small.redis.url, 0)), pytest.raises(StackError) as caught:
        stack.up(small, ("redis",))
    assert f"pid {os.getpid()}" in caught.value.reason
    assert "COEVAL_REDIS__URL" in caught.value.instruction
    assert not stack.status(small).running


def test_an_address_of_another_machine_is_refused_as_what_it_is(small: Settings) -> None:
    # 192.0.2.0/24 is reserved for documentation: no machine has it.
    far = small.model_copy(update={"redis": small.redis.model_copy(update={"url": "redis://192.0.2.1:6379/0"})})
    with pytest.raises(StackError, match="cannot listen at") as caught:
        stack.up(far, ("redis",))
    assert "COEVAL_REDIS__URL" in caught.value.instruction


def test_a_stale_state_file_harms_no_process_that_was_given_its_pid(small: Settings) -> None:
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        recycled = Process(bystander.pid, psutil.Process(bystander.pid).create_time() - 3600)
        log = str(small.home / "redis.log")
        (small.home / "local").mkdir()
        write_state(small, StackStatus(recycled, (ComponentStatus("redis", "", "healthy", 0, log, recycled),)))
        assert not stack.status(small).running
        assert stack.up(small, ("redis",)).healthy
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_outlived_a_killed_supervisor_is_ended_before_a_new_start(small: Settings) -> None:
    # As on a platform where children do not die with their parent: a child, and something it had started.
    command = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    environment = {**os.environ, **small.variables()}
    left = subprocess.Popen([sys.executable, "-c", command], start_new_session=True, env=environment)
    try:
        leader = psutil.Process(left.pid)
        assert wait_until(lambda: len(leader.children()) == 1, 20)
        grandchild = Process.of(leader.children()[0].pid)
        (small.home / "local").mkdir()
        recorded = ComponentStatus("redis", "", "healthy", 0, "", Process.of(left.pid))
        write_state(small, StackStatus(None, (recorded,)))
        left.kill()
        left.wait()
        assert grandchild
        assert grandchild.find()
        assert stack.up(small, ("redis",)).healthy
        assert grandchild.find() is None
    finally:
        left.kill()
        left.wait()


def test_a_damaged_state_file_counts_as_no_stack(small: Settings) -> None:
    (small.home / "local").mkdir()
    (small.home / "local" / "stack.json").write_text('{"supervisor": ')
    assert read_state(small) == StackStatus(None)
    assert stack.up(small, ("redis",)).healthy


def test_a_component_that_cannot_start_fails_early_with_its_last_words_and_nothing_is_left(small: Settings) -> None:
    directory = small.home / "local" / "redis"
    directory.mkdir(parents=True)
    (directory / "appendonly.aof").write_text("this is no log of writes")
    seen: list[StackStatus] = []
    started = time.monotonic()
    with pytest.raises(StackError, match="redis ended 3 times") as caught:
        stack.up(small, ("redis",), seen.append)
    assert time.monotonic() - started < 60
    assert "Bad file format reading the append only file" in caught.value.reason
    assert "redis.log" in caught.value.instruction
    assert not any(running(status) for status in seen)


def test_redis_keeps_its_data_over_down_and_up(small: Settings) -> None:
    import redis

    stack.up(small, ("redis",))
    with redis.Redis.from_url(small.redis.url) as client:
        client.set("kept", "yes")
    stack.down(small)
    stack.up(small, ("redis",))
    with redis.Redis.from_url(small.redis.url) as client:
        assert client.get("kept") == b"yes"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_redis_that_dies_is_back_at_once(small: Settings) -> None:
    old = part(stack.up(small, ("redis",)), "redis")
    assert old.process
    os.kill(old.process.pid, signal.SIGKILL)
    assert wait_until(lambda: part(stack.status(small), "redis").restarts == 1, 5)
    assert wait_until(lambda: stack.status(small).healthy, 10)


def test_two_ups_at_once_start_one_stack(small: Settings) -> None:
    code = (
        "from coeval.settings import load_settings; from coeval_pipelines.local import stack;"
        "print(stack.up(load_settings(), ('redis',)).supervisor.pid)"
    )
    environment = {**os.environ, **small.variables()}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    pids = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    supervisor = read_state(small).supervisor
    assert supervisor
    assert pids == {str(supervisor.pid)}


def test_an_interrupted_up_leaves_nothing_running(small: Settings) -> None:
    code = (
        "from coeval.settings import load_settings; from coeval_pipelines.local import stack;"
        "stack.up(load_settings(), ('redis', 'broker'))"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **small.variables()}, stderr=subprocess.DEVNULL
    )
    assert wait_until(lambda: any(item.process for item in stack.status(small).components), 60)
    before = stack.status(small)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) != 0
    assert running(before) == []
    assert not stack.status(small).running


def test_a_large_log_is_put_aside_at_the_next_start(small: Settings) -> None:
    log = small.home / "local" / "logs" / "redis.log"
    log.parent.mkdir(parents=True)
    with log.open("wb") as handle:
        handle.truncate(LARGE_LOG_BYTES + 1)
    stack.up(small, ("redis",))
    assert log.stat().st_size < LARGE_LOG_BYTES
    assert log.with_suffix(".log.1").stat().st_size > LARGE_LOG_BYTES


def test_status_of_a_stopped_stack_exits_3_and_down_says_that_nothing_ran(small: Settings) -> None:
    status = coeval(small, "status", "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["healthy"] is False
    down = coeval(small, "down")
    assert (down.returncode, down.stdout.strip()) == (0, "nothing was running")
