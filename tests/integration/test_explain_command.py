"""`coeval explain` over a real Redis and a Delta log: both sides of a key, and where they part."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner, Result

from coeval.errors import CheckFailedError, CoevalError, EntityKeyError, UnknownFeatureError, UsageError
from coeval.online.keys import data_key
from coeval.reference.oracle import key_of, value_at
from coeval.settings import Settings, load_settings
from coeval.spec.types import to_logical
from coeval_parity.commands import register
from coeval_parity.describe import iso
from tests.support.parity_world import Q, World, new_world


@pytest.fixture(scope="module")
def world(redis_server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A sound store, at an instant that is long over: its late events are missing, as they must be."""
    made = new_world(redis_server, tmp_path_factory.mktemp("explain"), "explained", 5)
    made.fill(made.visible)
    (made.settings.home / "manifest.json").write_text(made.manifest.to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COEVAL_HOME", str(made.settings.home))
        patch.setenv("COEVAL_REDIS__URL", made.settings.redis.url)
        load_settings.cache_clear()
        yield made
    load_settings.cache_clear()


def _run(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["explain", *arguments, "--no-ingest"])


def _at(world: World) -> str:
    return iso(world.q).replace(" ", "T")


def test_as_of_an_instant_it_tells_both_sides_and_the_first_event_at_which_they_part(world: World) -> None:
    found = _run("card_spend", "card_id=0", "--at", _at(world), "--json")
    assert found.exit_code == 0, found.exception
    story = json.loads(found.stdout)
    view = world.manifest.views["card_spend"]
    expected = value_at(view, world.source, world.events, (0,), Q)
    differing = [item for item in story["features"] if item["cause"]]
    assert differing
    assert {item["cause"] for item in differing} == {"late"}
    for item in story["features"]:
        field = next(field for field in view.features if field.name == item["feature"])
        wanted = to_logical(field.type, expected[item["feature"]].value)
        assert str(item["expected"]) == str(wanted)
    late = [item["parted"] for item in differing]
    assert all(line["note"] == "late" for line in late)
    mine = [event for event in world.events if key_of(view, event) == (0,)]
    assert len(story["events"]) <= len(mine)
    assert any("late for" in note for event in story["events"] for note in event["notes"])
    assert {"5m", "1h", "24h"} == set(story["events"][0]["tiles"])


def test_now_it_reads_the_store_and_names_what_somebody_wrote_into_it(world: World) -> None:
    name = data_key(world.manifest.tenant, world.manifest.views["latest_payment"], "i0")
    sound = _run("latest_payment", "card_id=0")
    # Everything is older than its ttl by now, on both sides.
    assert (sound.exit_code, sound.exception) == (0, None)
    assert "EXPIRED" in sound.stdout
    before = world.client.get(name)
    world.client.delete(name)
    gone = _run("latest_payment", "card_id=0", "--feature", "amount")
    world.client.set(name, before)  # type: ignore[arg-type]
    assert gone.exit_code == 0, "both sides are null"
    assert "NOT_FOUND" in gone.stdout


def test_a_value_that_nothing_explains_exits_with_1(world: World) -> None:
    view = world.manifest.views["card_spend"]
    name = data_key(world.manifest.tenant, view, "i0")
    ready = list(world.client.scan_iter(match=f"{world.manifest.tenant}:*ready*"))
    kept = {key: world.client.get(key) for key in ready}
    world.client.delete(*ready)
    found = _run("card_spend", "card_id=0", "--feature", "count_1h")
    for key, value in kept.items():
        world.client.set(key, value)  # type: ignore[arg-type]
    assert isinstance(found.exception, CheckFailedError)
    assert "UNAVAILABLE" in found.stdout
    assert world.client.exists(name)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["card_spent", "card_id=1"], UnknownFeatureError, "Did you mean card_spend"),
        (["card_spend", "card=1"], EntityKeyError, "card_id=int64"),
        (["card_spend", "card_id=x"], EntityKeyError, "card_id=int64"),
        (["card_merchant", "card_id=1"], EntityKeyError, "also needs merchant_id"),
        (["card_spend", "card_id=1", "--at", "2026-01-01"], UsageError, "with its zone"),
        (["card_spend", "card_id=1", "--feature", "count_1"], UnknownFeatureError, "Did you mean count_1h"),
    ],
)
def test_near_misses_teach(world: World, arguments: list[str], error: type[CoevalError], said: str) -> None:
    del world
    found = _run(*arguments)
    assert isinstance(found.exception, error)
    assert said in str(found.exception)


def test_a_key_that_nobody_knows_is_equal_on_both_sides(world: World) -> None:
    found = _run("card_spend", "card_id=4711", "--at", _at(world))
    assert found.exit_code == 0
    assert "no event of this key" in found.stdout
