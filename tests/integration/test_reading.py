"""Claims about reading from stores that are away, slow, wiped or a Cluster, by threads, forks and coroutines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from coeval import aio
from coeval.client import FeatureStore, connect, open_redis
from coeval.errors import ManifestError, StoreError, UnknownFeatureError
from coeval.manifests import Manifests
from coeval.online.cache import ReadCache
from coeval.online.result import FeatureResult, Status
from coeval.online.rows import RowColumns, encode_rows
from coeval.online.store import async_client
from coeval.online.writer import OnlineWriter
from coeval.settings import RedisSettings, Settings
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import FeatureService, RowView, ServiceView
from coeval_pipelines.local.prepare import free_port
from tests.support import catalog
from tests.support.online import write
from tests.support.redis_nodes import SLOTS, Node, join, nodes, pointed_at

CARDS = 200
VIEW = replace(catalog.LATEST, ttl=0)
assert isinstance(VIEW, RowView)
SERVICE = ServiceView(VIEW.name, VIEW.version, ("points",))
MANIFEST = Manifest("bank", "bank", event_sources=(catalog.PAYMENTS,), row_views=(VIEW,),
                    services=(FeatureService("points", (SERVICE,)),))  # fmt: skip
ALL = {"card_id": list(range(CARDS))}
POINTS = [float(card * 3) for card in range(CARDS)]


def fill(settings: Settings) -> None:
    """A row per card, whose points are three times its number."""
    keys = [encode_key(VIEW.key, (card,)) for card in range(CARDS)]
    numbers = np.arange(CARDS, dtype=np.int64)
    nothing = [None] * CARDS
    values = {"merchant_id": nothing, "amount": nothing, "note": nothing, "points": (numbers * 3).tolist()}
    rows = RowColumns(keys, numbers + 1, numbers + 1, numbers * 0, numbers, values)
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, MANIFEST.tenant)
        write(writer, VIEW, encode_rows(VIEW, rows))
        assert writer.mark_ready(VIEW, writer.incarnation(VIEW), "test")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with nodes(tmp_path, 1) as (found,):
        fill(pointed_at(Settings(), found))
        yield found


@contextmanager
def serving(node: Node, seconds: float = 2.0) -> Iterator[FeatureStore]:
    """A store over a server whose answers are waited for at most so long."""
    settings = pointed_at(Settings(), node)
    settings.redis.timeout_seconds = seconds
    with FeatureStore(MANIFEST, open_redis(settings)) as found:
        yield found


def points(result: FeatureResult) -> list[float]:
    """The served values; UNAVAILABLE ones are none."""
    return result.to_numpy()[:, 0].tolist()


@contextmanager
def paused(node: Node) -> Iterator[None]:
    """A server that is there and does not answer."""
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.process.send_signal(signal.SIGCONT)


def test_many_threads_read_at_a_time_and_none_gets_the_answer_of_another(node: Node) -> None:
    wrong: list[object] = []
    with serving(node) as store:

        def read(first: int) -> None:
            for card in range(first, CARDS, 8):
                found = points(store.get_features("points", {"card_id": [card, card]}))
                if found != [card * 3.0, card * 3.0]:
                    wrong.append((card, found))

        threads = [threading.Thread(target=read, args=[first]) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_forked_worker_reads_over_a_connection_of_its_own(node: Node) -> None:
    with serving(node) as store:
        assert points(store.get_features("points", ALL)) == POINTS
        heard, said = os.pipe()
        child = os.fork()
        if child == 0:
            found = [points(store.get_features("points", {"card_id": [card]})) for card in range(50)]
            os.write(said, json.dumps(found).encode())
            os._exit(0)
        parent = [points(store.get_features("points", {"card_id": [card]})) for card in range(50, 100)]
        os.waitpid(child, 0)
        assert parent == [[card * 3.0] for card in range(50, 100)]
        assert json.loads(os.read(heard, 1 << 16)) == [[card * 3.0] for card in range(50)]


def test_what_is_not_read_by_the_deadline_is_unavailable(node: Node) -> None:
    with serving(node) as store:
        assert points(store.get_features("points", ALL, deadline=1.0)) == POINTS
        with paused(node):
            began = time.monotonic()
            late = store.get_features("points", ALL, deadline=0.05)
            assert time.monotonic() - began < 0.5
        assert set(late.status["latest_payment__points"]) == {Status.UNAVAILABLE}
        assert np.isnan(late.to_numpy()).all()
        # What was asked then is not taken for the answer to what is asked now.
        assert points(store.get_features("points", {"card_id": [7]})) == [21.0]
        assert set(store.get_features("points", ALL, deadline=0.0).codes.ravel()) == {Status.UNAVAILABLE}


def test_a_store_that_is_away_is_an_error_or_unavailable_and_never_a_zero(node: Node) -> None:
    with serving(node, 0.3) as store:
        node.kill()
        with pytest.raises(StoreError, match="does not answer"):
            store.get_features("points", ALL)
        gone = store.get_features("points", ALL, deadline=0.2)
        assert set(gone.codes.ravel()) == {Status.UNAVAILABLE}
        node.start()
        # It came back empty: nothing says that the view is ready.
        assert set(store.get_features("points", ALL).codes.ravel()) == {Status.UNAVAILABLE}
        fill(pointed_at(Settings(), node))
        assert points(store.get_features("points", ALL)) == POINTS


def test_a_store_that_does_not_answer_is_an_error_within_its_time(node: Node) -> None:
    with serving(node, 0.2) as store:
        store.get_features("points", ALL)
        with paused(node):
            began = time.monotonic()
            with pytest.raises(StoreError, match="does not answer"):
                store.get_features("points", ALL)
            assert time.monotonic() - began < 1.0
        assert points(store.get_features("points", ALL)) == POINTS


def test_connections_that_a_server_closed_are_opened_again(node: Node) -> None:
    with serving(node) as store:
        for _ in range(3):
            assert points(store.get_features("points", ALL)) == POINTS
            node.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_with_a_cache_values_are_as_old_as_was_agreed_and_no_older(node: Node) -> None:
    settings, now = pointed_at(Settings(), node), [0.0]
    with FeatureStore(MANIFEST, open_redis(settings), cache=ReadCache(1.0, clock=lambda: now[0])) as store:
        assert points(store.get_features("points", ALL)) == POINTS
        node.call("FLUSHALL")
        assert points(store.get_features("points", ALL)) == POINTS
        now[0] = 1.0
        assert set(store.get_features("points", ALL).codes.ravel()) == {Status.UNAVAILABLE}


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[list[Node]]:
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with nodes(tmp_path, 3, *options) as found:
        join(found)
        fill(pointed_at(Settings(), found[0], cluster=True))
        yield found


def test_of_a_cluster_what_one_node_holds_is_missing_and_all_else_is_there(masters: list[Node]) -> None:
    settings = pointed_at(Settings(), masters[0], cluster=True)
    with FeatureStore(MANIFEST, open_redis(settings)) as store:
        assert points(store.get_features("points", ALL)) == POINTS
        assert points(store.get_features("points", ALL, deadline=1.0)) == POINTS
        with paused(masters[2]):
            codes = store.get_features("points", ALL, deadline=0.2).codes[:, 0]
        assert set(codes) == {Status.UNAVAILABLE, Status.PRESENT}
        assert points(store.get_features("points", ALL)) == POINTS


def test_coroutines_share_a_connection_and_each_gets_its_answer(node: Node) -> None:
    async def read() -> None:
        settings = pointed_at(Settings(), node)
        async with aio.AsyncFeatureStore(MANIFEST, async_client(settings.redis)) as store:
            asked = [store.get_features("points", {"card_id": [card]}) for card in range(CARDS)]
            assert [points(found)[0] for found in await asyncio.gather(*asked)] == POINTS
            assert len(node.call("CLIENT", "LIST", "TYPE", "normal").splitlines()) == 2

    asyncio.run(read())


def test_a_coroutine_that_gives_up_leaves_the_others_their_answers(node: Node) -> None:
    async def read() -> None:
        settings = pointed_at(Settings(), node)
        async with aio.AsyncFeatureStore(MANIFEST, async_client(settings.redis)) as store:
            await store.get_features("points", ALL)
            with paused(node):
                patient = asyncio.create_task(store.get_features("points", {"card_id": [5]}))
                await asyncio.sleep(0)
                hurried = await store.get_features("points", ALL, deadline=0.05)
                cancelled = asyncio.create_task(store.get_features("points", {"card_id": [6]}))
                await asyncio.sleep(0)
                cancelled.cancel()
            assert set(hurried.codes.ravel()) == {Status.UNAVAILABLE}
            assert points(await patient) == [15.0]
            assert points(await store.get_features("points", ALL)) == POINTS

    asyncio.run(read())


def test_coroutines_get_an_error_or_unavailable_while_the_store_is_away(node: Node) -> None:
    async def read() -> None:
        settings = pointed_at(Settings(), node)
        async with aio.AsyncFeatureStore(MANIFEST, async_client(settings.redis), timeout=0.5) as store:
            await store.get_features("points", ALL)
            with paused(node), pytest.raises(StoreError, match="no answer within"):
                await store.get_features("points", ALL)
            assert points(await store.get_features("points", ALL)) == POINTS
            node.kill()
            with pytest.raises(StoreError, match="does not answer"):
                await store.get_features("points", ALL)
            gone = await store.get_features("points", ALL, deadline=0.2)
            assert set(gone.codes.ravel()) == {Status.UNAVAILABLE}
            node.start()
            fill(settings)
            assert points(await store.get_features("points", ALL)) == POINTS

    asyncio.run(read())


def test_coroutines_read_a_cluster(masters: list[Node]) -> None:
    async def read() -> None:
        settings = pointed_at(Settings(), masters[0], cluster=True)
        async with aio.AsyncFeatureStore(MANIFEST, async_client(settings.redis)) as store:
            assert points(await store.get_features("points", ALL)) == POINTS
            with paused(masters[2]):
                codes = (await store.get_features("points", ALL, deadline=0.2)).codes[:, 0]
            assert set(codes) == {Status.UNAVAILABLE, Status.PRESENT}
            assert points(await store.get_features("points", ALL)) == POINTS

    asyncio.run(read())


def test_a_reader_follows_what_is_released_and_a_pinned_one_stays(node: Node, tmp_path: Path) -> None:
    settings = pointed_at(Settings(home=tmp_path / "home"), node)
    settings.manifests.mkdir(parents=True)
    now = [0.0]

    def release(manifest: Manifest) -> None:
        for path in (settings.manifests / f"{manifest.hash}.json", settings.released_path):
            path.write_text(manifest.to_json())

    release(MANIFEST)
    with FeatureStore(Manifests(settings, lambda: now[0]), open_redis(settings)) as store:
        assert store.manifest.hash == MANIFEST.hash
        both = ServiceView(VIEW.name, VIEW.version, ("points", "note"))
        later = replace(MANIFEST, services=(FeatureService("points", (both,)),))
        release(later)
        now[0] = 2.0
        assert store.get_features("points", ALL).names == ("latest_payment__points", "latest_payment__note")
        pinned = store.get_features(f"points@{MANIFEST.hash[:12]}", ALL)
        assert (pinned.names, pinned.manifest_hash) == (("latest_payment__points",), MANIFEST.hash)
        assert store.get_features(f"points@{later.hash}", ALL).manifest_hash == later.hash
        for unknown in ("0" * 12, MANIFEST.hash[:4], "../../etc", ""):
            with pytest.raises(ManifestError, match=later.hash[:12]):
                store.get_features(f"points@{unknown}", ALL)
        # A file that somebody is still writing, or has spoilt, changes nothing.
        settings.released_path.write_text("{")
        now[0] = 4.0
        assert store.manifest.hash == later.hash


def test_features_may_be_asked_for_by_name_in_the_order_that_is_wanted(node: Node) -> None:
    with serving(node) as store:
        found = store.get_features(["latest_payment:points", "latest_payment__note", "latest_payment:points"], ALL)
        assert found.names == ("latest_payment__points", "latest_payment__note")
        with pytest.raises(UnknownFeatureError, match="latest_payment__points"):
            store.get_features(["latest_payment__point"], ALL)


def test_results_convert_to_every_form(node: Node) -> None:
    with serving(node) as store:
        found = store.get_features("points", {"card_id": [1, 999]})
    expected = {"card_id": [1, 999], "latest_payment__points": [3, None]}
    assert found.to_dict() == expected
    assert found.to_arrow().to_pydict() == expected
    assert found.to_polars().to_dict(as_series=False) == expected
    assert found.to_pandas()["latest_payment__points"].tolist()[0] == 3
    assert found.status == {"latest_payment__points": [Status.PRESENT, Status.NOT_FOUND]}
    assert "2 entities" in repr(found)


def test_connecting_follows_the_settings(node: Node, tmp_path: Path) -> None:
    settings = pointed_at(Settings(home=tmp_path / "home"), node)
    settings.home.mkdir()
    with pytest.raises(ManifestError, match="No manifest"):
        connect(settings)
    settings.manifest_path.write_text(MANIFEST.to_json())
    with connect(settings, cache_seconds=5) as store:
        assert points(store.get_features("points", ALL)) == POINTS

    async def read() -> list[float]:
        async with await aio.connect(settings) as awaited:
            return points(await awaited.get_features("points", ALL))

    assert asyncio.run(read()) == POINTS


def _read_once(settings: Settings) -> None:
    """Both clients read what is there."""
    with FeatureStore(MANIFEST, open_redis(settings)) as store:
        assert points(store.get_features("points", ALL)) == POINTS

    async def read() -> list[float]:
        async with aio.AsyncFeatureStore(MANIFEST, async_client(settings.redis)) as store:
            return points(await store.get_features("points", ALL))

    assert asyncio.run(read()) == POINTS


def test_a_store_may_be_reached_by_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with nodes(tmp_path, 1, "--unixsocket", str(path)) as (node,):
        fill(pointed_at(Settings(), node))
        _read_once(Settings(redis=RedisSettings(url=f"unix://{path}?db=0")))


def test_a_user_of_the_store_needs_the_right_password(node: Node) -> None:
    node.call("ACL", "SETUSER", "reader", "on", ">secret", "~bank:*", "+@read", "+info", "+@connection")
    url = RedisSettings(url=node.url, username="reader", password=SecretStr("secret"))
    _read_once(Settings(redis=url))
    with pytest.raises(StoreError, match="invalid username-password"):
        open_redis(Settings(redis=url.model_copy(update={"password": SecretStr("wrong")})))


def test_sentinels_say_where_the_primary_is(node: Node, tmp_path: Path) -> None:
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {node.port} 1\n")
    (tmp_path / "sentinel").mkdir()
    watcher = Node((node.command[0], str(config), "--sentinel", "--dir", str(tmp_path / "sentinel")), free_port())
    watcher.start()
    try:
        url = f"redis://127.0.0.1:{free_port()},127.0.0.1:{watcher.port}/0"
        for address in (watcher.url, url):
            _read_once(Settings(redis=RedisSettings(url=address, sentinel="main")))
        with pytest.raises(StoreError, match=r"does not answer.*another"):
            open_redis(Settings(redis=RedisSettings(url=watcher.url, sentinel="another")))
    finally:
        watcher.kill()


def test_a_node_that_fails_leaves_no_answer_of_another_behind(masters: list[Node]) -> None:
    settings = pointed_at(Settings(), masters[0], cluster=True)
    settings.redis.timeout_seconds = 0.3
    halves = {"card_id": ALL["card_id"][:100]}, {"card_id": ALL["card_id"][100:]}
    with FeatureStore(MANIFEST, open_redis(settings)) as store:
        for silent in masters:
            with paused(silent), pytest.raises(StoreError):
                store.get_features("points", halves[0])
            assert points(store.get_features("points", halves[1])) == POINTS[100:]


def test_slots_that_nobody_has_are_unavailable_or_an_error(masters: list[Node]) -> None:
    settings = pointed_at(Settings(), masters[0], cluster=True)

    async def read() -> None:
        async with aio.AsyncFeatureStore(MANIFEST, async_client(settings.redis)) as awaited:
            gone = await awaited.get_features("points", ALL, deadline=1.0)
            assert set(gone.codes.ravel()) == {Status.UNAVAILABLE}
            with pytest.raises(StoreError, match="does not answer"):
                await awaited.get_features("points", ALL)

    for node in masters:
        node.call("CLUSTER", "DELSLOTS", *range(2 * SLOTS // 3, SLOTS))
    with FeatureStore(MANIFEST, open_redis(settings)) as store:
        gone = store.get_features("points", ALL, deadline=1.0)
        assert set(gone.codes.ravel()) == {Status.UNAVAILABLE}
        with pytest.raises(StoreError, match="does not answer"):
            store.get_features("points", ALL)
    asyncio.run(read())
