"""The commands that are killed: what each begins with, what may be seen at any moment, and what there is in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from coeval.client import open_redis
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.keys import decode_key
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.offline.tables import table_path
from tests.chaos.offline_world import SERVICE, Items, Store, World, digest

FATES = ("log", "rejects", "duplicates")
SET = "kills-set"
Batches = Mapping[tuple[str, int], list[tuple[int, int]]]
"""By table and batch, the positions (partition, offset) that are in it, in order."""


class Phase(ABC):
    """A command. `learn` is called once, with the home of a run that nobody disturbed; then `half` and `content`."""

    name: ClassVar[str]
    command: tuple[str, ...]

    def __init__(self, world: World) -> None:
        self.world = world

    @abstractmethod
    def home(self) -> Settings:
        """A home, and a store, in which the command may begin."""

    @abstractmethod
    def learn(self, home: Settings) -> None:
        """Remember what an undisturbed run comes to."""

    @abstractmethod
    def half(self, home: Settings) -> Iterator[str]:
        """What is visible and may not be, now that the command was killed somewhere, in words."""

    @abstractmethod
    def content(self, home: Settings) -> str:
        """A hash of all that the command has made."""


class Bases:
    """Homes that several phases begin with, each made once."""

    def __init__(self, world: World) -> None:
        self._world = world

    @cached_property
    def empty(self) -> Settings:
        """The catalog and the files."""
        return self._world.home()

    @cached_property
    def ingested(self) -> Settings:
        """The log too, and a stream that is at rest."""
        home = self._world.home(self.empty)
        self._world.run(home, ("log", "ingest"))
        return self.keep(home)

    def keep(self, home: Settings) -> Settings:
        """Take a home whose log is there already for `ingested`."""
        self._world.deploy(home)
        self.ingested = home
        return home


class Ingest(Phase):
    """History files and a topic, into an empty log."""

    name = "log ingest"
    command = ("log", "ingest")

    def __init__(self, world: World, bases: Bases) -> None:
        super().__init__(world)
        self._bases = bases
        self._whole: Batches = {}

    def home(self) -> Settings:
        return self.world.home(self._bases.empty)

    def learn(self, home: Settings) -> None:
        self._whole = self._batches(home)
        self._bases.keep(home)

    def half(self, home: Settings) -> Iterator[str]:
        book = ingest_journal(home, self.world.manifest.tenant, self.world.source.name)
        found = self._batches(home)
        for (fate, batch), positions in found.items():
            if len(set(positions)) < len(positions):
                yield f"{fate} {batch}: an offset is there twice"
            elif positions != self._whole.get((fate, batch)):
                yield f"{fate} {batch}: {len(positions)} of {len(self._whole.get((fate, batch), ()))} offsets"
        for fate, batch in self._whole.keys() - found.keys():
            if book.report(batch) is not None:
                yield f"{fate} {batch} is said to be done, and not there"
        if {("log", 0), ("log", 1)} & found.keys() == {("log", 1)}:
            yield "the topic is in the log before the history"

    def content(self, home: Settings) -> str:
        rows = [f"{fate} {row}" for fate in FATES for row in _rows(self._path(home, fate))]
        book = ingest_journal(home, self.world.manifest.tenant, self.world.source.name)
        return digest([*rows, book.total().to_dict()])

    def _path(self, home: Settings, fate: str) -> Path:
        return table_path(home, self.world.manifest, fate, self.world.source.name)

    def _batches(self, home: Settings) -> Batches:
        found: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for fate in FATES:
            table = _table(self._path(home, fate))
            if table is not None:
                columns = (table.column(name).to_pylist() for name in ("batch", "partition", "offset"))
                for batch, *position in zip(*columns, strict=True):
                    found[fate, batch].append(tuple(position))
        return {name: sorted(positions) for name, positions in found.items()}


class TrainingSet(Phase):
    """A training set that Spark builds, where an older one of that name is."""

    name = "training-set build"

    def __init__(self, world: World, bases: Bases) -> None:
        super().__init__(world)
        self._bases = bases
        self._old = self._new = ""

    @cached_property
    def _base(self) -> Settings:
        home = self.world.home(self._bases.ingested)
        for number, name in enumerate(("old", "new")):
            pq.write_table(self.world.spine(number), home.home / f"spine-{name}.parquet")
        self.world.run(home, self._build(home, "old"))
        self._old = self.content(home)
        return home

    def _build(self, home: Settings, spine: str) -> tuple[str, ...]:
        path = home.home / f"spine-{spine}.parquet"
        return ("training-set", "build", SERVICE, "--spine", str(path), "--name", SET, "--engine", "spark")

    def home(self) -> Settings:
        home = self.world.home(self._base)
        self.command = self._build(home, "new")
        return home

    def learn(self, home: Settings) -> None:
        self._new = self.content(home)
        assert self._new != self._old

    def half(self, home: Settings) -> Iterator[str]:
        found = self.content(home)
        if found not in (self._old, self._new):
            yield f"the training set is neither the old one nor the new one, but {found[:12]}"

    def content(self, home: Settings) -> str:
        rows = _rows(table_path(home, self.world.manifest, "training_sets", SET))
        assert len(rows) in (0, self.world.sizes.spine), f"{len(rows)} rows"
        return digest(rows)


class FirstFill(Phase):
    """A load of views that nobody can read yet."""

    name = "backfill run"
    command = ("backfill", "run")

    def __init__(self, world: World, bases: Bases, store: Store) -> None:
        super().__init__(world)
        self._bases, self._store = bases, store
        self._whole: dict[tuple[str, str], Items] = {}
        self._cards: list[int] = []

    def home(self) -> Settings:
        self._store.restore({})
        return self.world.home(self._bases.ingested)

    def learn(self, home: Settings) -> None:
        self._whole = self._store.contents()
        (key,) = next(iter(self.world.manifest.views.values())).key
        self._cards = sorted({decode_key((key,), text)[0] for _, text in self._whole})  # type: ignore[misc]
        _, lost = self._store.served(self._cards)
        assert not lost

    def half(self, home: Settings) -> Iterator[str]:
        found, (_, lost) = self._store.contents(), self._store.served(self._cards)
        for view in self.world.manifest.views.values():
            mine = {name: items for name, items in found.items() if name[0] == view.name}
            whole = {name: items for name, items in self._whole.items() if name[0] == view.name}
            with closing(open_redis(home)) as client:
                ready = OnlineWriter(client, self.world.manifest.tenant).is_ready(view)
            if ready == (view.name in lost):
                yield f"{view.name} is {'ready and unavailable' if ready else 'served, but not ready'}"
            if ready and mine != whole:
                yield f"{view.name} is ready and not whole: {len(mine)} keys of {len(whole)}"
            strange = [name for name, items in mine.items() if not items.items() <= whole.get(name, {}).items()]
            if strange:
                yield f"{len(strange)} keys of {view.name} hold what they never will, as {strange[0][1]}"

    def content(self, home: Settings) -> str:
        return digest(self._store.raw().items())


@dataclass(frozen=True, slots=True)
class _Known:
    """What a correction begins with: a home, the store that belongs to it, and what that holds."""

    home: Settings
    dump: Mapping[bytes, tuple[bytes, int]]
    contents: dict[tuple[str, str], Items]


class Correction(FirstFill):
    """A load of views that are served, after late events: what is read is old or new, tile by tile, and never away."""

    name = "backfill run --correct"
    command = ("backfill", "run", "--correct", "--force", "--latency-budget-ms", "20")

    @cached_property
    def _known(self) -> _Known:
        home = super().home()
        self.world.run(home, ("backfill", "run"))
        self.world.produce_late()
        self.world.deploy(home)
        return _Known(home, self._store.dump(), self._store.contents())

    def home(self) -> Settings:
        known = self._known
        self._store.restore(known.dump)
        return self.world.home(known.home)

    def learn(self, home: Settings) -> None:
        super().learn(home)
        assert self._whole != self._known.contents

    def half(self, home: Settings) -> Iterator[str]:
        _, lost = self._store.served(self._cards)
        if lost:
            yield f"{', '.join(sorted(lost))}: unavailable"
        found, old = self._store.contents(), self._known.contents
        gone = [name for name, items in old.items() if items.keys() - found.get(name, {}).keys()]
        if gone:
            yield f"{len(gone)} keys have lost a tile or a row, as {gone[0]}"
        for name, items in found.items():
            known = old.get(name, {}), self._whole.get(name, {})
            if any(value not in (known[0].get(at), known[1].get(at)) for at, value in items.items()):
                yield f"{name} holds what is neither old nor new"

    def content(self, home: Settings) -> str:
        """What is read, and not the bytes: a correction that is begun again has a later cut and another number."""
        return digest(self._store.served(self._cards)[0])


def phases(world: World, store: Store) -> list[Phase]:
    """All of them. The last but one changes the topic, which the last one does not read."""
    bases = Bases(world)
    fills = FirstFill(world, bases, store), Correction(world, bases, store)
    return [Ingest(world, bases), *fills, TrainingSet(world, bases)]


def _table(path: Path) -> pa.Table | None:
    return DeltaTable(str(path)).to_pyarrow_table() if (path / "_delta_log").exists() and _begun(path) else None


def _begun(path: Path) -> bool:
    """Whether a table has a first version: its directory may be there before."""
    return any((path / "_delta_log").glob("*.json"))


def _rows(path: Path) -> list[str]:
    table = _table(path)
    return [] if table is None else [repr(row) for row in table.to_pylist()]
