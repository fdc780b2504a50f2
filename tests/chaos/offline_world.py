"""What offline kills begin with: payments in files and on a topic, homes that know them, a store and its contents."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coeval.client import FeatureStore, open_redis
from coeval.online.keys import data_key
from coeval.online.result import Status
from coeval.online.rows import decode_row
from coeval.online.store import fetch
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View, WindowedView
from coeval.spec.records import Record, ingest
from coeval.spec.time import DAY, HOUR
from coeval_parity.online_state import stored_keys, stored_state
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.coordination.runs import now
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.streaming.broker import Broker, ensure_topics
from coeval_pipelines.streaming.names import changelog_topic
from tests.support.offline import produce
from tests.support.payments import catalog
from tests.support.payments.generator import add_records, generate
from tests.support.payments.shape import HOT_CARD, Spec

SERVICE, HISTORY = "risk", "history"
_DAYS = 8
_CHUNK = 1_000

Dump = Mapping[bytes, tuple[bytes, int]]
"""All of a store: each key's serialised value, and its time to live in milliseconds (0: none)."""
Items = dict[Any, Any]
"""What one key holds, without the number of the load that wrote it: by (hop, tile) the events and states of a tile, or
the row."""


class Run(Protocol):
    """Runs a `coeval` command to its end in a home; raises where it fails."""

    def __call__(self, settings: Settings, command: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many payments are in the history files, on the topic, and come late; rows of a spine; cards at most."""

    history: int
    topic: int
    late: int
    spine: int
    cards: int


class World:
    """Payments until yesterday morning. The stream owns what happens after it, and has nothing to do.

    That it is at rest is written down as its certificate, so that loads need not wait for a job that is not there.
    """

    def __init__(self, settings: Settings, directory: Path, sizes: Sizes, seed: int, run: Run) -> None:
        self.run, self.sizes, self.seed = run, sizes, seed
        self._settings, self._directory, self._homes = settings, directory, 0
        # An hour after midnight, so that yesterday's tiles are final however late they may be.
        self.since = (now() - HOUR) // DAY * DAY - DAY
        self.read_at = now() + 3 * HOUR
        """The instant for which values are read: the same for all loads, and later than any."""
        made = catalog.manifest(("card_spend", "latest_payment"), tenant="kills", topic_prefix="kills.", partitions=4)
        self.source = replace(made.event_sources[0], history=HISTORY)
        self.manifest: Manifest = replace(made, event_sources=(self.source,))
        ensure_topics(settings, self.manifest)
        history = list(self._records(0, sizes.history))
        good = ingest(self.source, history).good
        self._history = pa.table(
            {
                field.name: logical_array(
                    field.type,
                    [event.event_id for event in good]
                    if field.name == self.source.event_id
                    else [event.values[field.name] for event in good],
                )
                for field in self.source.fields
            }
        )
        self._produce(self._records(sizes.history, sizes.topic))

    def home(self, like: Settings | None = None) -> Settings:
        """A new home: one that knows nothing but the catalog and the files, or is a copy of another one."""
        self._homes += 1
        home = self._directory / f"home-{self._homes}"
        if like is not None:
            shutil.copytree(like.home, home)
        else:
            (home / HISTORY).mkdir(parents=True)
            pq.write_table(self._history, home / HISTORY / "part-0.parquet")
            (home / "manifest.json").write_text(self.manifest.to_json())
        return self._settings.model_copy(update={"home": home})

    def deploy(self, settings: Settings) -> None:
        """Write down that the stream runs, and has processed all that is on the topic."""
        views = self.manifest.views.values()
        with Broker(self._settings.kafka) as broker:
            ends = broker.ends({self.source.topic: self._settings.kafka.partitions})[self.source.topic]
        changelogs = {changelog_topic(self.manifest, view): dict.fromkeys(range(view.partitions), 0) for view in views}
        with closing(ControlPlane.open(settings)) as control:
            control.save_manifest(self.manifest, now())
            control.release(self.manifest.hash, now())
            for view in views:
                control.deploy(view.name, view.version, self.manifest.hash, self.since, now())
            control.record_certificate(Certificate(self.source.name, 1, ends, changelogs, now()))

    def produce_late(self) -> None:
        """Let more payments come, almost all of them too late for their day's tile."""
        first = self.sizes.history + self.sizes.topic
        self._produce(self._records(first, self.sizes.late, late_share=0.97, start=self.since + HOUR, span=HOUR))

    def spine(self, number: int) -> pa.Table:
        """Cards and instants of the last week."""
        rng, rows = np.random.default_rng((self.seed, number)), self.sizes.spine
        at = self.since - rng.integers(0, 7 * DAY, rows)
        cards = HOT_CARD + rng.integers(0, self.sizes.cards, rows)
        instants = pa.array(at, pa.timestamp("us", tz="UTC"))
        return pa.table({"card_id": cards, "event_timestamp": instants, "n": np.arange(rows)})

    def _records(
        self, first: int, count: int, late_share: float = 0.02, start: int | None = None, span: int = _DAYS * DAY
    ) -> list[Record]:
        """Payments of these numbers; by default they are spread over the days before `since`."""
        events = self.sizes.history + self.sizes.topic if start is None else count
        rate = events / span * 1e6
        begin = self.since - span if start is None else start - round(first / rate * 1e6)
        spec = Spec(
            self.seed, first + count, begin, rate, cards=self.sizes.cards, hot_share=0.1, refund_share=0.0,
            score_share=0.0, late_share=late_share,
        )  # fmt: skip
        found: dict[str, list[Record]] = {source.name: [] for source in catalog.SOURCES}
        ends: dict[tuple[str, int], int] = {}
        for batch in generate(spec, first):
            add_records(batch, found, ends)
        return found[self.source.name]

    def _produce(self, records: Sequence[Record]) -> None:
        produce(self._settings.kafka.bootstrap, self.source.topic, records)


class Store:
    """The online store of a world, as readers see it and byte by byte."""

    def __init__(self, settings: Settings, world: World) -> None:
        self._client = open_redis(settings)
        self._manifest, self._at = world.manifest, world.read_at

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def dump(self) -> Dump:
        """Everything."""
        found: dict[bytes, tuple[bytes, int]] = {}
        for names in _chunks(list(self._client.scan_iter(count=_CHUNK))):
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.dump(name)
                pipe.pttl(name)
            values = pipe.execute()
            found |= {name: (values[2 * at], max(0, values[2 * at + 1])) for at, name in enumerate(names)}
        return found

    def restore(self, dump: Dump) -> None:
        """Make the store what it was."""
        self._client.flushall()
        for names in _chunks(list(dump)):
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                value, left = dump[name]
                pipe.restore(name, left, value)
            pipe.execute()

    def raw(self) -> dict[str, bytes]:
        """Every value byte by byte, but what is said about the values."""
        names = [name for name in self._client.scan_iter(count=_CHUNK) if b":@" not in name]
        found: dict[str, bytes] = {}
        for some in _chunks(names):
            values = zip(some, self._client.mget(some), strict=True)
            found |= {name.decode(): value for name, value in values if value is not None}
        return found

    def contents(self) -> dict[tuple[str, str], Items]:
        """By view and key, what is stored."""
        found: dict[tuple[str, str], Items] = {}
        for view in self._manifest.views.values():
            for keys in _chunks(stored_keys(self._client, self._manifest, view)):
                blobs = fetch(self._client, [self._name(view, key) for key in keys])
                found |= {
                    (view.name, key): self._items(view, blob)
                    for key, blob in zip(keys, blobs, strict=True)
                    if blob is not None
                }
        return found

    def _items(self, view: View, blob: bytes) -> Items:
        if not isinstance(view, WindowedView):
            return {"row": repr(decode_row(view.features, blob))}
        tiles = stored_state(self._manifest, view, blob).tiles
        return {
            (hop, tile): (slot.events, tuple(slot.states.items())) for hop, ring in tiles.items()
            for tile, slot in ring.items()
        }  # fmt: skip

    def _name(self, view: View, key: str) -> str:
        return data_key(self._manifest.tenant, view, key)

    def served(self, cards: Sequence[int]) -> tuple[list[str], set[str]]:
        """What a reader is told of some cards, one text for each, and which views are unavailable, if only in part."""
        store = FeatureStore(self._manifest, self._client, clock=lambda: self._at)
        lines: list[str] = []
        lost: set[str] = set()
        for some in _chunks(cards):
            found = store.get_features(SERVICE, {"card_id": some})
            away = (found.codes == Status.UNAVAILABLE).any(axis=0)
            lost |= {name.partition("__")[0] for name, gone in zip(found.names, away, strict=True) if gone}
            values = found.to_dict()
            columns = [*values.values(), *found.codes.T.tolist()]
            lines += [repr((card, *row)) for card, *row in zip(some, *columns, strict=True)]
        return lines, lost


def digest(lines: Iterable[object]) -> str:
    """A hash of texts, whatever their order."""
    return hashlib.sha256("\n".join(sorted(map(str, lines))).encode()).hexdigest()


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
