"""The feature server over HTTP and a real Redis: what it answers, and what it refuses to whom."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from http.client import HTTPConnection
from typing import Any

import pyarrow as pa
import pytest
import redis
from prometheus_client import generate_latest
from pydantic import SecretStr

from coeval.access.tenants import Grant
from coeval.client import FeatureStore
from coeval.errors import StoreError
from coeval.online import store as online
from coeval.online.result import Status
from coeval.online.writer import OnlineWriter
from coeval.server.audit import entries_about
from coeval.server.wire import ARROW
from coeval.settings import RedisSettings, Settings
from tests.support.online import updates, write
from tests.support.serving import (
    AMOUNTS,
    ASK,
    FEAST_ASK,
    NOW,
    READ_ALL,
    SECRET,
    Client,
    Running,
    Tenancy,
    manifest,
    payment,
    serving,
    tenancy,
)


@pytest.fixture(scope="module")
def own(redis_server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return redis_server.model_copy(update={"home": tmp_path_factory.mktemp("server")})


@pytest.fixture(scope="module")
def credentials(own: Settings) -> Tenancy:
    found = tenancy(own)
    found.key("bank", "nothing", Grant())
    found.key("bank", "plain", Grant(services=("plain",)))
    found.key("bank", "no pii", Grant(services=("*",)))
    found.key("bank", "expired", READ_ALL, days=-1)
    found.write(own.tenants_path)
    return found


@pytest.fixture(scope="module")
def server(own: Settings, credentials: Tenancy) -> Iterator[Running]:
    with serving(own, max_rows=1_000, max_bytes=100_000) as found:
        yield found


@pytest.fixture
def bank(server: Running, credentials: Tenancy) -> Client:
    return server.client(credentials.keys["bank", "all"])


def test_features_as_json_are_those_of_the_sdk(bank: Client, own: Settings) -> None:
    found = bank("POST", "/v1/features", ASK).json
    store = FeatureStore(manifest("bank"), redis.Redis.from_url(own.redis.url))
    amounts = [Decimal("30.00"), Decimal(1)]
    same = store.get_features("risk", ASK["entities"], request={"payment_amount": amounts})
    assert list(found["features"]) == list(same.names)
    for name, values in same.to_dict().items():
        if name in ASK["entities"]:
            assert found["entities"][name] == values
        else:
            shown = [format(item, "f") if isinstance(item, Decimal) else item for item in values]
            assert found["features"][name] == shown
    assert found["statuses"] == {name: [item.name for item in items] for name, items in same.status.items()}
    assert found["manifest"] == manifest("bank").hash
    assert found["age_seconds"]["card_spend"][0] >= 60
    assert found["age_seconds"]["card_spend"][1] is None


def test_features_as_arrow_have_their_types_and_statuses(bank: Client) -> None:
    many = {
        **ASK,
        "entities": {"card_id": [7] * 600, "merchant_id": ["m-1"] * 600},
        "request": {"payment_amount": [1] * 600},
    }
    answer = bank("POST", "/v1/features", many, {"Accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.body).read_all()
    assert table.num_rows == 600
    assert table.schema.field("card_spend__sum_amount_1h").type == pa.decimal128(38, 2)
    assert set(table["card_spend__count_1h@status"].to_pylist()) == {Status.PRESENT}
    assert table.schema.metadata[b"manifest"].decode() == manifest("bank").hash
    assert b"5=UNAVAILABLE" in table.schema.metadata[b"statuses"]


def test_lists_of_features_keep_their_order(bank: Client) -> None:
    names = ["card_spend:max_amount_24h", "latest_payment:note", "card_spend:count_1h"]
    found = bank("POST", "/v1/features", {"features": names, "entities": {"card_id": [7]}}).json
    assert list(found["features"]) == [name.replace(":", "__") for name in names]
    assert found["features"]["latest_payment__note"] == ["späti"]


def test_a_batch_answers_each_for_itself(bank: Client) -> None:
    wrong = {
        "service": "risk",
        "entities": {"card_id": ["7"], "merchant_id": ["m"]},
        "request": {"payment_amount": [1]},
    }
    found = bank("POST", "/v1/batch", {"requests": [ASK, wrong, 5, {"service": "nope", "entities": {}}]}).json[
        "results"
    ]
    assert [item["status"] for item in found] == [200, 422, 422, 404]
    assert found[0]["result"]["features"]["card_spend__count_1h"] == [1, 0]
    assert found[1]["error"]["code"] == "ENTITY_KEY"
    assert "int64" in found[1]["error"]["reason"] + found[1]["error"]["instruction"]


def test_feasts_route_speaks_as_feast_does(bank: Client) -> None:
    found = bank("POST", "/get-online-features", FEAST_ASK).json
    names = found["metadata"]["feature_names"]
    results = dict(zip(names, found["results"], strict=True))
    assert names[:2] == ["card_id", "merchant_id"]
    assert results["card_spend__count_1h"]["values"] == [1, 0]
    # Feast has no status for a value that holds by rule.
    assert results["card_spend__count_1h"]["statuses"] == ["PRESENT", "PRESENT"]
    assert results["card_spend__sum_fee_1h"]["statuses"] == ["NULL_VALUE", "NOT_FOUND"]
    assert results["latest_payment__note"]["statuses"] == ["PRESENT", "NOT_FOUND"]
    short = bank("POST", "/get-online-features", {"features": ["card_spend:count_1h"], "entities": {"card_id": [7]}})
    assert short.json["metadata"]["feature_names"] == ["card_id", "count_1h"]
    clash = {"features": ["card_merchant:max_points_7d", "latest_payment:points", "card_spend:sum_points_7d"]}
    assert bank("POST", "/get-online-features", clash | {"entities": ASK["entities"]}).status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "REQUEST"),
        (b"[1]", 422, "REQUEST"),
        (b"{", 422, "REQUEST"),
        (b'{"service": "\xff"}', 422, "REQUEST"),
        ({"service": "risk", "features": ["a:b"], "entities": {}}, 422, "REQUEST"),
        ({"service": 5, "entities": {}}, 422, "REQUEST"),
        ({"service": "risk", "entities": {}, "tenant": "shop"}, 422, "REQUEST"),
        ({"service": "risk", "entities": 7}, 422, "REQUEST"),
        ({"service": "risk", "entities": {"card_id": 7}}, 422, "REQUEST"),
        ({"service": "plain", "entities": [{"card_id": 7, "merchant_id": "m"}]}, 422, "REQUEST"),
        ({"service": "plain", "entities": {"card_id": [1], "merchant_id": ["m"], "zz": ["x"]}}, 422, "ENTITY_KEY"),
        ({"service": "p" * 300, "entities": {}}, 413, "TOO_LARGE"),
        ({"features": ["a:b"] * 1_001, "entities": {}}, 413, "TOO_LARGE"),
        ({"service": "risk", "entities": {"card_id": [{}], "merchant_id": ["m"]}}, 422, "ENTITY_KEY"),
        ({"service": "risk", "entities": {"card_id": [None], "merchant_id": ["m"]}}, 422, "REQUEST"),
        ({"service": "plain", "entities": {"card_id": [None], "merchant_id": ["m"]}}, 422, "ENTITY_KEY"),
        ({"service": "plain", "entities": {"card_id": [2**64], "merchant_id": ["m"]}}, 422, "ENTITY_KEY"),
        ({"service": "plain", "entities": {"card_id": [1.0], "merchant_id": ["m"]}}, 422, "ENTITY_KEY"),
        ({"service": "plain", "entities": {"card_id": [1, 2], "merchant_id": ["m"]}}, 422, "ENTITY_KEY"),
        ({**ASK, "request": {"payment_amount": ["1.234", 1]}}, 422, "REQUEST"),
        ({**ASK, "request": {"payment_amount": ["x", 1]}}, 422, "REQUEST"),
        ({**ASK, "request": {"payment_amount": [1]}}, 422, "REQUEST"),
        ({**ASK, "request": {"payment_amount": 1}}, 422, "REQUEST"),
        ({**ASK, "deadline_ms": -1}, 422, "REQUEST"),
        ({**ASK, "deadline_ms": "soon"}, 422, "REQUEST"),
        ({"service": "risk@00000000", "entities": {}}, 404, "MANIFEST"),
        ({"service": "rsk", "entities": {}}, 404, "UNKNOWN_FEATURE"),
        ({"features": ["card_spend:count_1y"], "entities": {}}, 403, "ACCESS"),
        ({"service": "plain", "entities": {"card_id": [1] * 1001, "merchant_id": ["m"] * 1001}}, 413, "TOO_LARGE"),
        (b" " * 100_001, 413, "TOO_LARGE"),
    ],
)
def test_what_cannot_be_answered_says_why(bank: Client, body: object, status: int, code: str) -> None:
    answer = bank("POST", "/v1/features", body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["reason"]
    assert answer.json["instruction"]
    assert answer.json["request"] == answer.headers["x-request-id"]


def test_a_body_without_a_length_is_cut_off_too(server: Running, credentials: Tenancy) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    key = credentials.keys["bank", "all"]
    chunks = (b" " * 50_000 for _ in range(3))
    connection.request("POST", "/v1/features", chunks, {"Authorization": f"Bearer {key}"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_service_can_be_asked_as_it_was(own: Settings, bank: Client) -> None:
    old = manifest("bank")
    home = own.home / "bank"
    (home / "manifests").mkdir(exist_ok=True)
    (home / "manifests" / f"{old.hash}.json").write_text(old.to_json())
    answer = bank("POST", "/v1/features", {**ASK, "service": f"risk@{old.hash[:12]}"})
    assert answer.status == 200
    assert answer.json["manifest"] == old.hash


ROUTES = [
    ("POST", "/v1/features", ASK),
    ("POST", "/v1/batch", {"requests": [ASK]}),
    ("POST", "/get-online-features", FEAST_ASK),
    ("POST", "/v1/events/payments", b"{}"),
    ("GET", "/v1/services", None),
    ("GET", "/v1/manifest", None),
    ("GET", "/v1/sla", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.parametrize("key", [None, "", "cvl_", "cvl_aaaa_bbbb", "x.y.z", "expired", "Ü" * 10])
def test_nobody_gets_anything(
    server: Running, credentials: Tenancy, method: str, path: str, body: object, key: str | None
) -> None:
    shown = credentials.keys.get(("bank", key or ""), key)
    headers = {} if shown is None else {"Authorization": f"Bearer {shown}".encode().decode("latin-1")}
    answer = server.client()(method, path, body, headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json["code"] == "CREDENTIAL"


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_a_credential_that_grants_nothing_gets_nothing(
    server: Running, credentials: Tenancy, method: str, path: str, body: object
) -> None:
    answer = server.client(credentials.keys["bank", "nothing"])(method, path, body)
    if path == "/v1/batch":
        assert [item["status"] for item in answer.json["results"]] == [403]
    elif path == "/v1/services":
        assert answer.json["services"] == []
    else:
        assert answer.status == 403


@pytest.mark.parametrize("tenant", AMOUNTS)
@pytest.mark.parametrize(("method", "path", "body"), [*ROUTES[:3], *ROUTES[4:]])
def test_the_tenant_is_the_credentials_whatever_is_asked(
    server: Running, credentials: Tenancy, tenant: str, method: str, path: str, body: object
) -> None:
    other = next(name for name in AMOUNTS if name != tenant)
    client = server.client(credentials.keys[tenant, "all"])
    tricks = {"X-Tenant": other, "X-Coeval-Tenant": other, "Host": other, "Cookie": f"tenant={other}"}
    for headers in ({}, tricks):
        for where in (path, f"{path}?tenant={other}"):
            answer = client(method, where, body, headers)
            assert answer.status == 200
            text = answer.body.decode()
            assert f'"{other}"' not in text.replace(f'"project":"{other}"', "")
            if method == "POST":
                amount = AMOUNTS[tenant] / 100
                assert f"{amount:.2f}" in text
                assert f"{AMOUNTS[other] / 100:.2f}" not in text


@pytest.mark.parametrize("name", ["tenant", "project", "home", "manifest"])
def test_a_tenant_in_the_payload_is_refused(bank: Client, name: str) -> None:
    assert bank("POST", "/v1/features", {**ASK, name: "shop"}).status == 422
    assert bank("POST", "/v1/batch", {"requests": [ASK], name: "shop"}).status == 422
    for service in ("shop:risk", "shop/risk", "../shop/risk", "risk@shop"):
        assert bank("POST", "/v1/features", {**ASK, "service": service}).status == 404


def _as(own: Settings, user: str) -> RedisSettings:
    return own.redis.model_copy(update={"username": user, "password": SecretStr(SECRET)})


def test_a_reader_of_one_tenant_reaches_no_key_of_another_by_any_command(own: Settings, credentials: Tenancy) -> None:
    admin = redis.Redis.from_url(own.redis.url)
    victim = next(iter(admin.scan_iter("shop:*"))).decode()
    mine = next(iter(admin.scan_iter("bank:*card_spend*"))).decode()
    before = {key: admin.dump(key) for key in admin.scan_iter("shop:*")}
    client = online.connect(_as(own, "bank-reader"))
    assert client.get(mine)
    harmless = {
        "auth",
        "command",
        "info",
        "ping",
        "quit",
        "readonly",
        "reset",
        "select",
        "cluster",
        "hello",
        "readwrite",
    }
    tried = 0
    for name, about in admin.command().items():
        if name in harmless:
            continue
        arguments = [victim] * (abs(about["arity"]) - 1)
        with pytest.raises((redis.exceptions.NoPermissionError, redis.exceptions.ExecAbortError), match="permission"):
            client.execute_command(name, *arguments)
        tried += 1
    assert tried > 150
    for name in ("set", "del", "expire", "append"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(name, mine, "1")
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.mget(mine, victim)
    assert {key: admin.dump(key) for key in admin.scan_iter("shop:*")} == before
    client.close()
    admin.close()


def test_a_writer_of_one_tenant_writes_its_own_and_nothing_else(own: Settings, credentials: Tenancy) -> None:
    admin = redis.Redis.from_url(own.redis.url)
    client = online.connect(_as(own, "bank-writer"))
    at = int(NOW.timestamp() * 1e6)
    (view, *_) = manifest("bank").views.values()
    write(OnlineWriter(client, "bank"), view, updates(view, manifest("bank"), [payment("bank", 0, at - 60_000_000)]))
    with pytest.raises(redis.RedisError, match=r"(?i)perm|access"):
        write(OnlineWriter(client, "shop"), view, updates(view, manifest("shop"), [payment("shop", 9, at)]))
    victim = next(iter(admin.scan_iter("shop:*card_spend*"))).decode()
    for script in (f"return redis.call('GET', '{victim}')", "return redis.call('GET', ARGV[1])"):
        with pytest.raises(redis.RedisError, match=r"(?i)perm|access"):
            client.eval(script, 0, victim)
    forbidden = [
        "flushall",
        "keys *",
        "config get *",
        "acl list",
        f"debug object {victim}",
        "client list",
        "script flush",
    ]
    forbidden += [
        "client pause 1",
        "client kill type normal",
        "randomkey",
        "dbsize",
        "monitor",
        "swapdb 0 1",
        "shutdown",
    ]
    for command in (text.split() for text in forbidden):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)
    client.close()
    admin.close()


def test_even_a_reader_with_anothers_manifest_reads_nothing(own: Settings, credentials: Tenancy) -> None:
    store = FeatureStore(manifest("shop"), online.connect(_as(own, "bank-reader")))
    with pytest.raises(StoreError, match=r"(?i)permission|NOPERM"):
        store.get_features("plain", ASK["entities"])


def test_personal_features_take_a_grant_and_leave_a_trail(
    server: Running, credentials: Tenancy, own: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = server.client(credentials.keys["bank", "no pii"])
    refused = stranger("POST", "/v1/features", ASK, {"X-Request-ID": "asked-1"})
    assert refused.status == 403
    assert "personal" in refused.json["reason"]
    assert stranger("POST", "/v1/features", {"service": "plain", "entities": ASK["entities"]}).status == 200
    trail = server.server.audit
    before = trail.path.read_text().count("\n")
    allowed = server.client(credentials.keys["bank", "all"])
    assert allowed("POST", "/v1/features", ASK, {"X-Request-ID": "asked-2"}).status == 200
    lines = [json.loads(line) for line in trail.path.read_text().splitlines()]
    assert lines[before]["event"] == "read"
    assert lines[before]["classes"] == {"personal": 4}
    assert lines[before]["request"] == "asked-2"
    # Whoever has the key finds them by any of their keys, and only them.
    for subject, found in (
        ({"card_id": 7}, True),
        ({"card_id": 8, "merchant_id": "m-1"}, True),
        ({"card_id": 9}, False),
    ):
        about = [json.loads(line)["request"] for line in entries_about(trail.path.parent, "bank", subject)]
        assert ("asked-2" in about) is found
    assert not any("asked-2" in line for line in entries_about(trail.path.parent, "shop", {"card_id": 7}))
    (line,) = (item for item in lines if item["event"] == "refused" and item["request"] == "asked-1")
    assert line["what"] == "risk"
    assert trail.path.stat().st_mode & 0o077 == 0
    # Neither the trail nor the log says whom it is about.
    logged = capsys.readouterr()
    assert "asked-2" in logged.out + logged.err
    for text in (trail.path.read_text(), logged.err, logged.out):
        assert "m-1" not in text
        assert "späti" not in text


def test_an_answer_that_cannot_be_audited_is_not_given(own: Settings, credentials: Tenancy) -> None:
    own = own.model_copy(update={"home": own.home / "full"})
    trail = own.home / "audit" / "audit.jsonl"
    trail.parent.mkdir(parents=True)
    trail.symlink_to("/dev/full")
    credentials.write(own.tenants_path)
    with serving(own) as running:
        client = running.client(credentials.keys["bank", "all"])
        answer = client("POST", "/v1/features", ASK)
        assert answer.status == 503
        assert "audit" in answer.json["reason"]
        assert client("POST", "/v1/features", {"service": "plain", "entities": ASK["entities"]}).status == 200


def test_a_key_is_refused_within_a_second_of_being_revoked(own: Settings, credentials: Tenancy) -> None:
    own = own.model_copy(update={"home": own.home / "revoked"})
    own.home.mkdir()
    changed = Tenancy(dict(credentials.tenants))
    key = changed.key("bank", "short", READ_ALL)
    changed.write(own.tenants_path)
    with serving(own) as running:
        client = running.client(key)
        assert client("POST", "/v1/features", ASK).status == 200
        credentials.write(own.tenants_path)
        until = time.monotonic() + 5
        while client("POST", "/v1/features", ASK).status != 401:
            assert time.monotonic() < until


def test_a_tenant_has_so_many_rows_a_second_and_others_theirs(own: Settings, credentials: Tenancy) -> None:
    own = own.model_copy(update={"home": own.home / "quota"})
    own.home.mkdir()
    small = Tenancy(dict(credentials.tenants), credentials.keys)
    small.tenants["bank"] = small.tenants["bank"].model_copy(update={"rows_per_second": 4.0})
    small.write(own.tenants_path)
    with serving(own) as running:
        bank, shop = (running.client(small.keys[name, "all"]) for name in AMOUNTS)
        answers = [bank("POST", "/v1/features", ASK) for _ in range(4)]
        assert [answer.status for answer in answers][:2] == [200, 200]
        refused = answers[-1]
        assert refused.status == 429
        assert refused.json["code"] == "LIMIT"
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert shop("POST", "/v1/features", ASK).status == 200


def test_too_many_at_once_are_refused_at_once(own: Settings, credentials: Tenancy) -> None:
    own = own.model_copy(update={"home": own.home / "slots"})
    own.home.mkdir()
    small = Tenancy(dict(credentials.tenants), credentials.keys)
    small.tenants["bank"] = small.tenants["bank"].model_copy(update={"concurrency": 1})
    small.write(own.tenants_path)
    held = redis.Redis.from_url(own.redis.url)
    with serving(own) as running, ThreadPoolExecutor(4) as pool:
        bank, shop = (running.client(small.keys[name, "all"]) for name in AMOUNTS)
        assert bank("POST", "/v1/features", ASK).status == 200
        held.execute_command("CLIENT", "PAUSE", 1000)
        answers = list(pool.map(lambda _: bank("POST", "/v1/features", ASK), range(4)))
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200, 429, 429, 429]
        assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 429)
        assert shop("POST", "/v1/features", ASK).status == 200
    held.close()


def test_a_deadline_is_kept_and_a_store_that_is_away_is_said(own: Settings, credentials: Tenancy) -> None:
    held = redis.Redis.from_url(own.redis.url)
    short = own.model_copy(update={"redis": own.redis.model_copy(update={"timeout_seconds": 0.3})})
    with serving(short) as running:
        client = running.client(credentials.keys["bank", "all"])
        assert client("POST", "/v1/features", ASK).status == 200
        held.execute_command("CLIENT", "PAUSE", 1500)
        late = client("POST", "/v1/features", {**ASK, "deadline_ms": 50})
        assert late.status == 200
        assert {status for column in late.json["statuses"].values() for status in column} == {"UNAVAILABLE"}
        assert {value for column in late.json["features"].values() for value in column} == {None}
        away = client("POST", "/v1/features", ASK)
        assert away.status == 503
        assert (away.json["code"], away.headers["retry-after"]) == ("STORE", "1")
        assert client("GET", "/ready").status == 503
        assert client("GET", "/health").status == 200
        until = time.monotonic() + 10
        while client("POST", "/v1/features", ASK).status != 200:
            assert time.monotonic() < until
        metrics = generate_latest(running.server.meters.registry).decode()
        assert 'coeval_server_requests_refused_total{code="STORE",tenant="bank"}' in metrics
        assert 'coeval_server_unavailable_values_total{service="risk",tenant="bank"}' in metrics
        failed = next(line for line in metrics.splitlines() if line.startswith("coeval_read_failed_total{"))
        assert float(failed.split()[-1]) >= 2
    held.close()


def test_slas_are_the_administrators(server: Running, credentials: Tenancy, bank: Client) -> None:
    bank("POST", "/v1/features", ASK)
    found: dict[str, Any] = {item["service"]: item for item in bank("GET", "/v1/sla").json["services"]}
    assert found["risk"]["kept"]["5m"]["requests"] >= 1
    assert 60 <= found["risk"]["newest"]["card_spend"] < 7200
    assert server.client(credentials.keys["bank", "plain"])("GET", "/v1/sla").status == 403
    assert bank("GET", "/v1/manifest").body.decode() == manifest("bank").to_json()


def test_services_are_those_that_may_be_read(server: Running, credentials: Tenancy) -> None:
    found = server.client(credentials.keys["bank", "plain"])("GET", "/v1/services").json["services"]
    assert [item["name"] for item in found] == ["plain"]
    assert found[0]["entities"] == {"card_id": "int64", "merchant_id": "string"}


def test_a_manifest_of_another_tenant_is_not_served(own: Settings, credentials: Tenancy) -> None:
    own = own.model_copy(update={"home": own.home / "mixed"})
    own.home.mkdir()
    mixed = Tenancy(dict(credentials.tenants), credentials.keys)
    home = credentials.tenants["shop"].home
    mixed.tenants["bank"] = mixed.tenants["bank"].model_copy(update={"home": home})
    mixed.write(own.tenants_path)
    with serving(own) as running:
        answer = running.client(mixed.keys["bank", "all"])("POST", "/v1/features", ASK)
        assert (answer.status, answer.json["code"]) == (503, "INFRASTRUCTURE")
        assert "shop" not in answer.body.decode()
        # The others are served all the same.
        assert running.client(mixed.keys["shop", "all"])("POST", "/v1/features", ASK).status == 200
        assert running.client()("GET", "/ready").status == 200
        metrics = generate_latest(running.server.meters.registry).decode()
        assert 'coeval_server_tenant_ready{tenant="bank"} 0.0' in metrics
        assert 'coeval_server_tenant_ready{tenant="shop"} 1.0' in metrics


def test_a_pinned_definition_does_not_undo_a_stricter_class(own: Settings, credentials: Tenancy) -> None:
    own = own.model_copy(update={"home": own.home / "stricter"})
    (own.home / "bank" / "manifests").mkdir(parents=True)
    old = manifest("bank")
    views = tuple(
        replace(view, features=tuple(replace(item, pii="sensitive") for item in view.features))
        for view in old.windowed_views
    )
    now = replace(old, windowed_views=views)
    (own.home / "bank" / "manifest.json").write_text(now.to_json())
    (own.home / "bank" / "manifests" / f"{old.hash}.json").write_text(old.to_json())
    changed = Tenancy(dict(credentials.tenants), credentials.keys)
    changed.tenants["bank"] = changed.tenants["bank"].model_copy(update={"home": own.home / "bank"})
    changed.write(own.tenants_path)
    with serving(own) as running:
        client = running.client(credentials.keys["bank", "all"])
        for service in ("plain", f"plain@{old.hash[:12]}"):
            answer = client("POST", "/v1/features", {"service": service, "entities": ASK["entities"]})
            assert answer.status == 403
            assert "sensitive" in answer.json["reason"]


def test_a_batch_is_one_request_by_its_rows(server: Running, credentials: Tenancy) -> None:
    bank = server.client(credentials.keys["bank", "all"])
    ask = {"service": "plain", "entities": {"card_id": [7] * 600, "merchant_id": ["m-1"] * 600}}
    found = bank("POST", "/v1/batch", {"requests": [ask, ask]}).json["results"]
    assert [item["status"] for item in found] == [200, 413]


def test_a_service_that_may_not_be_read_is_refused_like_one_that_there_is_not(
    server: Running, credentials: Tenancy
) -> None:
    client = server.client(credentials.keys["bank", "plain"])
    texts = set()
    for body in ({"service": "risk", "entities": {}}, {"service": "nope", "entities": {}}):
        answer = client("POST", "/v1/features", body)
        assert answer.status == 403
        texts.add(answer.json["reason"] + answer.json["instruction"])
    assert len(texts) == 1
    for name in ("latest_payment:note", "latest_payment:nope"):
        answer = client("POST", "/v1/features", {"features": [name], "entities": {"card_id": [7]}})
        assert answer.status == 403
        assert answer.json["reason"] == f"{name} is in no service that this credential may read."
    assert (
        client("POST", "/v1/features", {"features": ["card_spend:count_1h"], "entities": {"card_id": [7]}}).status
        == 200
    )


def test_an_open_door_is_not_open_to_pages(own: Settings, credentials: Tenancy) -> None:
    home = own.model_copy(update={"home": credentials.tenants["bank"].home})
    with serving(home, open_tenant="bank") as running:
        client = running.client()
        assert client("POST", "/v1/features", ASK, {"Origin": "http://127.0.0.1"}).status == 401
        assert client("POST", "/v1/features", ASK, {"Host": "evil.example"}).status == 401
        assert client("POST", "/v1/features", ASK, {"Host": "localhost:80"}).status == 200


def test_an_open_door_serves_one_tenant_to_anybody(own: Settings, credentials: Tenancy) -> None:
    home = own.model_copy(update={"home": credentials.tenants["bank"].home})
    with serving(home, open_tenant="bank") as running:
        assert running.client()("POST", "/v1/features", ASK).json["features"]["card_spend__sum_amount_1h"][0] == "10.00"
