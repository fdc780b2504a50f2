"""The feature server beside a real broker: events produced, served values logged, drains, commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from coeval.access.tenants import Grant, read_tenants
from coeval.settings import Settings
from coeval_pipelines.kafka import client_options
from coeval_pipelines.local.prepare import free_port
from coeval_pipelines.streaming.broker import Broker
from tests.support.serving import ASK, Client, Running, Tenancy, serving, tenancy

COEVAL = str(Path(sys.executable).with_name("coeval"))


@pytest.fixture(scope="module")
def own(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    found = broker.model_copy(update={"home": tmp_path_factory.mktemp("server")})
    with Broker(found.kafka) as admin:
        admin.create("payments", 2, {})
    return found


@pytest.fixture(scope="module")
def credentials(own: Settings) -> Tenancy:
    found = tenancy(own)
    found.key("bank", "reads", Grant(services=("*",)))
    found.write(own.tenants_path)
    return found


@pytest.fixture(scope="module")
def server(own: Settings, credentials: Tenancy) -> Iterator[Running]:
    with serving(own, serving_log=1.0, max_rows=50) as found:
        yield found


def _event(number: int, **changes: Any) -> bytes:
    event = {"event_id": f"w-{number}", "paid_at": "2026-03-01T10:00:00Z", "card_id": 7, "merchant_id": "m", **changes}
    return json.dumps(event).encode()


def _consumed(settings: Settings, topic: str, count: int) -> list[Any]:
    from kafka import KafkaConsumer

    options = {**client_options(settings.kafka), "auto_offset_reset": "earliest", "consumer_timeout_ms": 20_000}
    consumer = KafkaConsumer(topic, **options)
    found = [record for record, _ in zip(consumer, range(count), strict=False)]
    consumer.close()
    return found


def test_events_stand_in_the_topic_where_the_answer_says(server: Running, own: Settings, credentials: Tenancy) -> None:
    bank = server.client(credentials.keys["bank", "all"])
    # As they are, to the byte: "1.50" and spaces are kept.
    lines = [
        _event(1, amount="1.50"),
        b'{"event_id": "w-2",  "paid_at":"2026-03-01T10:00:00Z", "card_id":8, "merchant_id":"m"}',
    ]
    answer = bank("POST", "/v1/events/payments", b"\n".join(lines) + b"\n\n")
    assert answer.status == 200
    positions = answer.json["positions"]
    found = {(record.partition, record.offset): record for record in _consumed(own, "payments", 2)}
    for line, (partition, offset) in zip(lines, positions, strict=True):
        record = found[partition, offset]
        assert record.value == line
        assert record.key.decode() == json.loads(line)["event_id"]
    # Sent again, an event comes to its partition again, where it is known for a duplicate.
    again = bank("POST", "/v1/events/payments", lines[0]).json["positions"]
    assert again[0][0] == positions[0][0]
    assert again[0][1] > positions[0][1]


@pytest.mark.parametrize(
    ("lines", "reasons"),
    [
        ([b"{"], [(1, "unparseable")]),
        ([_event(1), _event(2, card_id="x"), b"[]"], [(2, "bad_literal"), (3, "unparseable")]),
        ([_event(1, card_id=None)], [(1, "null_required")]),
        ([_event(1, paid_at="2099-01-01T00:00:00Z")], [(1, "future_dated")]),
        ([b'{"event_id": "a", "event_id": "b"}'], [(1, "duplicate_field")]),
    ],
)
def test_one_event_that_would_be_rejected_holds_all_back(
    server: Running, own: Settings, credentials: Tenancy, lines: list[bytes], reasons: list[tuple[int, str]]
) -> None:
    bank = server.client(credentials.keys["bank", "all"])
    with Broker(own.kafka) as admin:
        before = admin.ends({"payments": 2})
        answer = bank("POST", "/v1/events/payments", b"\n".join(lines))
        assert admin.ends({"payments": 2}) == before
    assert (answer.status, answer.json["code"]) == (422, "EVENT")
    assert [(item["line"], item["reason"]) for item in answer.json["details"]] == reasons


def test_events_take_a_grant_a_source_and_a_size(server: Running, credentials: Tenancy) -> None:
    reader = server.client(credentials.keys["bank", "reads"])
    assert reader("POST", "/v1/events/payments", _event(1)).status == 403
    bank = server.client(credentials.keys["bank", "all"])
    assert bank("POST", "/v1/events/nope", _event(1)).status == 404
    assert bank("POST", "/v1/events/payments", b"\n").status == 422
    assert bank("POST", "/v1/events/payments", b"\n".join([_event(1)] * 51)).status == 413
    assert bank("POST", "/v1/events/payments", _event(1, note="x" * 1_000_000)).status == 413


def test_what_is_served_is_logged_with_what_a_replay_needs(
    server: Running, own: Settings, credentials: Tenancy
) -> None:
    shop = server.client(credentials.keys["shop", "all"])
    served = shop("POST", "/v1/features", ASK).json
    rows = [json.loads(record.value) for record in _consumed(own, "shop.served", 2)]
    assert [row["entities"]["card_id"] for row in sorted(rows, key=lambda row: row["entities"]["card_id"])] == [7, 8]
    for row in rows:
        at = served["entities"]["card_id"].index(row["entities"]["card_id"])
        assert row["manifest"] == served["manifest"]
        # What describes a person is left out.
        plain = [name for name in served["features"] if not name.startswith("latest_payment")]
        assert row["features"] == {name: served["features"][name][at] for name in plain}
        assert row["statuses"] == {name: served["statuses"][name][at] for name in plain}
        assert row["service"] == "risk"


@pytest.fixture
def process(own: Settings, credentials: Tenancy) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """`coeval serve`, as a user starts it."""
    port = free_port()
    extra = {
        "COEVAL_SERVER__PORT": str(port),
        "COEVAL_SERVER__DRAIN_SECONDS": "1",
        "COEVAL_LOG_LEVEL": "info",
        "COEVAL_SERVER__MAX_SECONDS": "5",
    }
    child = subprocess.Popen(
        [COEVAL, "serve"],
        env=os.environ | own.variables() | extra,
        stderr=subprocess.PIPE,
        text=True,
    )
    client = Client(port, credentials.keys["bank", "all"])
    until = time.monotonic() + 60
    while True:
        try:
            if client("GET", "/ready").status == 200:
                break
        except OSError:
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
    yield child, client
    if child.poll() is None:
        child.kill()
    child.wait()
    assert child.stderr is not None
    child.stderr.close()


def test_a_server_that_is_told_to_stop_answers_what_it_was_asked(
    process: tuple[subprocess.Popen[str], Client],
) -> None:
    child, client = process
    stop = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", client.port, timeout=10)
        headers = {"Authorization": f"Bearer {client.key}", "Content-Type": "application/json"}
        while not stop.is_set():
            connection.request("POST", "/v1/features", json.dumps(ASK), headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(statuses) < 20:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    drained = client("GET", "/ready")
    assert drained.status == 503
    # It is not ready any more, and serves on for as long as it takes a load balancer to notice.
    before = len(statuses)
    while len(statuses) < before + 20:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert child.wait(20) == -signal.SIGTERM
    assert set(statuses) == {200}
    assert child.stderr is not None
    log = child.stderr.read()
    assert '"event": "drains"' in log
    request = next(json.loads(line) for line in log.splitlines() if '"route": "/v1/features"' in line)
    assert (request["tenant"], request["caller"], request["rows"], request["status"]) == ("bank", "all", 2, 200)
    assert "m-1" not in log


def _coeval(own: Settings, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | own.variables() | extra
    return subprocess.run([COEVAL, *arguments], env=environment, text=True, capture_output=True, check=False)


def test_tenants_are_made_on_the_command_line(own: Settings, credentials: Tenancy) -> None:
    home = own.home / "fresh"
    home.mkdir()
    own = own.model_copy(update={"home": home})
    nobody = _coeval(own, "serve")
    assert nobody.returncode == 2
    assert "coeval tenants add" in nobody.stderr
    assert _coeval(own, "tenants", "add", "bank", "--home", str(credentials.tenants["bank"].home)).returncode == 0
    users = _coeval(own, "tenants", "redis", "bank", "--apply")
    assert users.returncode == 0, users.stderr
    assert users.stdout.count("user bank-") == 2
    made = _coeval(own, "tenants", "key", "bank", "--name", "till", "--service", "p*", "--admin")
    key = made.stdout.strip()
    assert key.startswith("cvl_")
    assert key.rpartition("_")[2] not in own.tenants_path.read_text()
    shown = _coeval(own, "tenants", "list", "--json")
    assert "sha256" not in shown.stdout
    assert json.loads(shown.stdout)["bank"]["keys"][0]["grant"]["services"] == ["p*"]
    with serving(own) as running:
        client = running.client(key)
        assert client("POST", "/v1/features", {"service": "plain", "entities": ASK["entities"]}).status == 200
        assert client("POST", "/v1/features", ASK).status == 403
        url = f"http://127.0.0.1:{running.port}"
        sla = _coeval(own, "sla", "--url", url, COEVAL_API_KEY=key)
        assert sla.returncode == 0, sla.stderr
        assert "plain" in sla.stdout
        refused = _coeval(own, "sla", "--url", url)
        assert refused.returncode == 2
        assert "401" in refused.stderr
        # New passwords, and the server goes on with them: in a new room, without a request that fails.
        (room,) = running.server.rooms.opened()
        assert _coeval(own, "tenants", "redis", "bank").returncode == 0
        assert read_tenants(own.tenants_path).named("bank").redis_password_file == room.tenant.redis_password_file
        assert _coeval(own, "tenants", "redis", "bank", "--apply").returncode == 0
        until = time.monotonic() + 10
        while running.server.rooms.opened() == [room]:
            assert client("POST", "/v1/features", {"service": "plain", "entities": ASK["entities"]}).status == 200
            assert time.monotonic() < until
        assert len(list((own.home / "secrets").iterdir())) == 2
        # What is given of a tenant that is there changes, and nothing else.
        assert _coeval(own, "tenants", "add", "bank", "--concurrency", "3").returncode == 0
        changed = read_tenants(own.tenants_path).named("bank")
        assert (changed.concurrency, changed.home, len(changed.keys)) == (3, room.tenant.home, 1)
        assert _coeval(own, "tenants", "add", "B:*").returncode == 2
    assert _coeval(own, "sla", "--url", url).returncode == 3
    assert _coeval(own, "tenants", "revoke", "bank", "nope").returncode == 2
    assert _coeval(own, "tenants", "key", "bank", "--name", "x", "--pii", "secret").returncode == 2
    assert _coeval(own, "tenants", "revoke", "bank", "till").returncode == 0
    assert _coeval(own, "tenants", "remove", "bank").returncode == 0
    assert json.loads(_coeval(own, "tenants", "list", "--json").stdout) == {}
