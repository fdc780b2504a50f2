"""What is there already: keys online, events in the log, beside what was registered and released. It only reads.

It knows Redis, the ingest journal and Parquet footers. What does not answer is unknown, not guessed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource

if TYPE_CHECKING:
    import redis

SCANNED = 50_000
"""Up to so many keys in the store, all of them are counted; beyond, a sample is."""
SAMPLE = 2_000
_WEIGHED = 50
_CONNECT_SECONDS, _ANSWER_SECONDS = 0.3, 2.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A view version in the store: how many keys, give or take `margin` (0: counted), and bytes a key, all included."""

    keys: int
    margin: int
    bytes_per_key: float


@dataclass(frozen=True, slots=True)
class Online:
    """What the store holds, by (view, version); `silent` says why nothing is known, '' where it answers."""

    stored: Mapping[tuple[str, str], Stored] = field(default_factory=dict)
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a catalog is compared with. `released` runs (None before the first deployment), `registered` is applied.

    `events` counts the good events (or rows) by source, where they can be known.
    """

    released: Manifest | None = None
    registered: Manifest | None = None
    online: Online = field(default_factory=Online)
    events: Mapping[str, int] = field(default_factory=dict)

    @property
    def baseline(self) -> Manifest | None:
        """What is compared with: what runs, else what is registered."""
        return self.released or self.registered


def look(settings: Settings, registered: Manifest | None, released: Manifest | None, catalog: Manifest) -> Deployed:
    """Look at everything that is there, for a catalog that may replace it."""
    online = count_keys(settings, catalog.tenant)
    return Deployed(released, registered, online, count_events(settings, catalog))


def count_events(settings: Settings, manifest: Manifest) -> dict[str, int]:
    """The good events in the log of each event source, and the rows of each table of Parquet files."""
    from coeval_pipelines.journal import ingest_journal

    found: dict[str, int] = {}
    for source in manifest.event_sources:
        good = ingest_journal(settings, manifest.tenant, source.name).total().good
        found |= {source.name: good} if good else {}
    for table in manifest.batch_sources:
        rows = _rows(Path(settings.data_path(table.path)), table)
        found |= {} if rows is None else {table.name: rows}
    return found


def _rows(path: Path, source: BatchSource) -> int | None:
    if source.format != "parquet" or not path.exists():
        return None
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import read_metadata

    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    try:
        return sum(int(read_metadata(file).num_rows) for file in files)
    except (OSError, ArrowInvalid):
        return None


def count_keys(settings: Settings, tenant: str) -> Online:
    """How many keys of each view version of a tenant are online, and what they weigh."""
    import redis

    try:
        client = _client(settings)
    except ValueError as error:  # Of the URL: what is wrong with it is said without the password in it.
        return Online(silent=f"the online store's address {settings.redis.shown} cannot be read ({error})")
    try:
        return Online(_stored(client, tenant))
    except redis.RedisError:
        return Online(silent=f"the online store at {settings.redis.shown} does not answer")
    finally:
        client.close()


def _client(settings: Settings) -> redis.Redis:
    import redis

    password = settings.redis.password.get_secret_value() if settings.redis.password else None
    return redis.Redis.from_url(
        settings.redis.url,
        password=password,
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        protocol=2,
    )


def _stored(client: redis.Redis, tenant: str) -> dict[tuple[str, str], Stored]:
    total: Any = client.dbsize()
    if total <= SCANNED:
        # A scan may give a key twice, as Redis moves it meanwhile.
        keys = list(set(client.scan_iter(match=f"{tenant}:{{*", count=5_000)))
        share, drawn = 1.0, len(keys)
    else:
        keys = _drawn(client)
        drawn = len(keys)
        share = total / max(drawn, 1)
    groups: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for key in keys:
        view = _view_of(key, tenant)
        if view:
            groups[view].append(key)
    counts = Counter({view: len(members) for view, members in groups.items()})
    return {
        view: Stored(round(count * share), _margin(count, drawn, share), _weight(client, groups[view]))
        for view, count in sorted(counts.items())
    }


def _drawn(client: redis.Redis) -> list[bytes]:
    pipeline = client.pipeline(transaction=False)
    for _ in range(SAMPLE):
        pipeline.randomkey()
    return [key for key in pipeline.execute() if key]


def _view_of(key: bytes, tenant: str) -> tuple[str, str] | None:
    """The view and version of a data key `tenant:{bucket}:view:version:key`; None for any other key."""
    parts = key.split(b":", 4)
    if len(parts) < 5 or parts[0] != tenant.encode() or not parts[1].startswith(b"{") or parts[2].startswith(b"@"):
        return None
    return parts[2].decode(), parts[3].decode()


def _margin(count: int, drawn: int, share: float) -> int:
    """Half the 95% interval of a share that was estimated from so many draws; 0 where everything was counted."""
    if share == 1.0:
        return 0
    part = count / drawn
    return round(1.96 * sqrt(part * (1 - part) / drawn) * drawn * share)


def _weight(client: redis.Redis, keys: list[bytes]) -> float:
    pipeline = client.pipeline(transaction=False)
    # Every so many-th, so that one bucket does not stand for all.
    for key in keys[:: max(1, len(keys) // _WEIGHED)]:
        pipeline.memory_usage(key)
    weights = [weight for weight in pipeline.execute() if weight]
    return sum(weights) / len(weights) if weights else 0.0
