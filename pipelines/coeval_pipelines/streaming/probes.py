"""Where canaries show up: the views that one reaches, its key there, what became of the newest. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from coeval.aggregations.tiles import tile_plan
from coeval.online import keys
from coeval.online.layout import decode_tiles
from coeval.online.rows import decode_row
from coeval.reference.oracle import key_of, seen_by
from coeval.spec.canary import canary_record
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, View
from coeval.spec.records import Event, parse_record
from coeval_pipelines.streaming.freshness import Freshness
from coeval_pipelines.streaming.names import job_prefix, stream_views

NEWEST = 30
"""How many of the newest canaries of a view its p50 and its slowest are of: at one in 10 s, those of 5 minutes."""
REMEMBERED = 1000
"""How many of the newest its p99 is of: at one in 10 s, those of almost three hours."""
MOST_WAITING = 1000
"""How many canaries of a view may be under way; of more, the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A view that canaries of its source reach, and the Redis key at which they do. `source` is as the view sees it."""

    tenant: str
    view: View
    source: EventSource
    key: str
    job: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its metrics."""
        return {"tenant": self.tenant, "source": self.source.name, "view": self.view.name}

    def reached(self, blob: bytes | None) -> int:
        """When the newest event was available that the stored state holds (microseconds UTC); 0 where there is none."""
        if blob is None:
            return 0
        if isinstance(self.view, RowView):
            return decode_row(self.view.features, blob)[0][1]
        return int(decode_tiles(tile_plan(self.view, self.source), [blob]).last_available_at[0])


def probes(manifest: Manifest, source: EventSource, at: int) -> tuple[Probe, ...]:
    """The views that a source's canary of an instant reaches; not those whose condition leaves it out."""
    event = parse_record(source, canary_record(source, at))
    return tuple(_probes(manifest, source, event)) if isinstance(event, Event) else ()


def _probes(manifest: Manifest, source: EventSource, event: Event) -> Iterator[Probe]:
    for view in stream_views(manifest, source.name):
        for seen in seen_by(view, [event]):
            key = keys.data_key(manifest.tenant, view, encode_key(view.key, key_of(view, seen)))
            job = job_prefix(manifest, source.name).removesuffix("-")
            yield Probe(manifest.tenant, view, manifest.event_source(view), key, job)


@dataclass(frozen=True, slots=True)
class Sent:
    """A canary under way: when it was available (microseconds UTC), and when its producing began, on the steady clock
    (seconds)."""

    available_at: int
    began: float


@dataclass(slots=True)
class Watch:
    """The canaries of one view: those under way, oldest first, and what became of the newest. Not thread-safe."""

    probe: Probe
    waiting: deque[Sent] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))
    remembered: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    missed: int = 0
    overdue: float = 0.0
    """The beginning of the newest canary that was found not to be seen in time."""
    slow: bool = False
    """Whether it was said that they are not seen in time."""

    def look(self, reached: int, now: float) -> list[float]:
        """Take what has arrived out of `waiting`; gives the seconds that each took."""
        found: list[float] = []
        while self.waiting and self.waiting[0].available_at <= reached:
            found.append(now - self.waiting.popleft().began)
        self.samples.extend(found)
        self.remembered.extend(found)
        return found

    def late(self, now: float) -> int:
        """How many of those under way have just outlived the view's promised freshness."""
        limit = now - self.probe.view.sla.freshness / 1e6
        found = [sent.began for sent in self.waiting if self.overdue < sent.began <= limit]
        self.overdue = max(found, default=self.overdue)
        self.missed += len(found)
        return len(found)

    def age(self, now: float) -> float:
        """For how many seconds the oldest one is under way; 0 where none is."""
        return max(0.0, now - self.waiting[0].began) if self.waiting else 0.0

    def freshness(self, now: float, at: int) -> Freshness:
        """What is known of the view."""
        view = self.probe.view
        return Freshness(
            view=view.name,
            version=view.version,
            p50=quantile(self.samples, 0.5),
            slowest=max(self.samples, default=None),
            p99=quantile(self.remembered, 0.99),
            last=self.samples[-1] if self.samples else None,
            samples=len(self.remembered),
            waiting=self.age(now),
            missed=self.missed,
            at=at,
        )


def quantile(samples: Iterable[float], share: float) -> float | None:
    """The least sample that at least that share of them does not exceed; None of nothing."""
    ranked = sorted(samples)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else None
