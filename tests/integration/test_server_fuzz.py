"""The whole OpenAPI description, fuzzed: whatever is sent, the server is never at fault itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from coeval.settings import Settings
from coeval_pipelines.streaming.broker import Broker
from tests.support.serving import ASK, Running, serving, tenancy

EXAMPLES = 100
NEEDS_EVENTS = "POST /v1/events/{source}"
"""What is drawn at random is no event."""
WANTED = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


AMOUNTS = st.decimals(-(10**7), 10**7, places=2).map(str) | st.integers(-(10**7), 10**7) | st.text(max_size=3)
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "POST /v1/features": st.builds(
        lambda cards, amount, deadline: {
            "service": "risk",
            "entities": {"card_id": cards, "merchant_id": ["m"] * len(cards)},
            "request": {"payment_amount": [amount] * len(cards)},
            "deadline_ms": deadline,
        },
        st.lists(st.integers(-(2**65), 2**65), max_size=5),
        AMOUNTS,
        st.floats(0.001, 1e300),
    ),
    "POST /get-online-features": st.builds(
        lambda cards, names: {"features": names, "entities": {"card_id": cards}, "full_feature_names": True},
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
        st.lists(st.sampled_from(["card_spend:count_1h", "latest_payment:note", "x"]), min_size=1, max_size=4),
    ),
}
"""Requests of the right form, whose values are often wrong."""


@pytest.fixture(scope="module")
def server(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    own = broker.model_copy(update={"home": tmp_path_factory.mktemp("fuzz")})
    with Broker(own.kafka) as admin:
        if "payments" not in admin.topics(["payments"]):
            admin.create("payments", 2, {})
    credentials = tenancy(own)
    credentials.write(own.tenants_path)
    with serving(own) as found:
        yield found, credentials.keys["bank", "all"]


@pytest.fixture(scope="module")
def operations(server: tuple[Running, str]) -> dict[str, Any]:
    running, _ = server
    document = running.client()("GET", "/openapi.json").json
    _know_the_catalog(document)
    described = schemathesis.openapi.from_dict(document)
    return {found.ok().label: found.ok() for found in described.get_all_operations()}


def _know_the_catalog(document: dict[str, Any]) -> None:
    """Let some of what is sent name what there is: strangers' names alone get no further than the first look."""

    def schema_of(path: str, media_type: str = "application/json") -> dict[str, Any]:
        found: dict[str, Any] = document["paths"][path]["post"]["requestBody"]["content"][media_type]["schema"]
        return found

    columns = {
        "card_id": {"type": "array", "items": {"type": ["integer", "null", "string"]}},
        "merchant_id": {"type": "array", "items": {"type": ["string", "integer"]}},
        "payment_amount": {"type": "array", "items": {"type": ["string", "number", "integer"]}},
    }
    features = {"enum": ["card_spend:count_1h", "latest_payment:note", "against_usual:ratio", "card_spend:nope"]}
    asks = [schema_of("/v1/features"), schema_of("/get-online-features")]
    asks.append(schema_of("/v1/batch")["properties"]["requests"]["items"])
    for ask in asks:
        for name in {"service", "feature_service"} & ask["properties"].keys():
            ask["properties"][name] = {"anyOf": [{"enum": ["risk", "plain", "risk@0123456789"]}, {"type": "string"}]}
        ask["properties"]["features"] = {"type": "array", "items": {"anyOf": [features, {"type": "string"}]}}
        for name in {"entities", "request"} & ask["properties"].keys():
            known = ASK[name] if "request" in ask["properties"] else ASK["entities"] | ASK["request"]
            typed = {key: columns[key] for key in known}
            ask["properties"][name] = {"anyOf": [{"const": known}, {"type": "object", "properties": typed}]}
    for operations in document["paths"].values():
        for operation in operations.values():
            # The credential is ours to send: with a second one drawn at random, nobody gets in.
            operation.pop("security", None)
    for parameter in document["paths"]["/v1/events/{source}"]["post"]["parameters"]:
        parameter["schema"] = {"enum": ["payments", "payments", "nope"]}


@schemathesis.serializer("application/x-ndjson")
def _lines(ctx: Any, value: Any) -> bytes:
    del ctx
    return value.encode(errors="surrogatepass") if isinstance(value, str) else json.dumps(value, default=str).encode()


@pytest.mark.parametrize(
    "operation",
    [
        *("POST /v1/features", "POST /v1/batch", "POST /get-online-features", NEEDS_EVENTS),
        *("GET /v1/services", "GET /v1/manifest", "GET /v1/sla", "GET /health", "GET /ready"),
    ],
)
def test_nothing_that_is_sent_is_the_servers_fault(
    server: tuple[Running, str], operations: dict[str, Any], operation: str
) -> None:
    running, key = server
    checks = [check for check in CHECKS.get_all() if check.__name__ in WANTED]
    assert len(checks) == len(WANTED)

    asked = operations[operation]
    cases = asked.as_strategy()
    if asked.body:
        # What the description forbids, too.
        cases |= asked.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    if operation in RIGHT:
        # Drawn at random, hardly anything is right in all its parts.
        cases |= RIGHT[operation].map(lambda body: asked.Case(body=body, media_type="application/json"))

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(case=cases)
    def fuzz(case: schemathesis.Case) -> None:
        address, headers = f"http://127.0.0.1:{running.port}", {"Authorization": f"Bearer {key}"}
        seen.add(case.call_and_validate(base_url=address, headers=headers, checks=checks).status_code)

    seen: set[int] = set()
    fuzz()
    # Neither all turned away at the door, nor all let through.
    assert operation == NEEDS_EVENTS or 200 in seen
    assert operation.startswith("GET") or 422 in seen


def test_every_operation_is_fuzzed(operations: dict[str, Any]) -> None:
    assert len(operations) == 9
