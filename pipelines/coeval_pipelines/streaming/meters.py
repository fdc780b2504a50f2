"""What the online writer measures of itself, for Prometheus. It knows prometheus-client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_VIEW = ("tenant", "view", "version")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_SIZES = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000)
_Labels = TypeVar("_Labels", bound=tuple[str, ...])


class Meters:
    """The metrics of one writer. A view is named by its tenant, name and version."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        shared: Any = {"namespace": "coeval_writer", "registry": self.registry}
        self.messages = Counter("messages", "Changelog messages that were read.", _VIEW, **shared)
        self.written = Counter("updates_written", "Tiles and rows that the store took.", _VIEW, **shared)
        self.refused = Counter("updates_refused", "Tiles and rows that found an equal or newer state.", _VIEW, **shared)
        self.calls = Counter("calls", "Calls of the guarded write; each is one bucket's.", _VIEW, **shared)
        self.fenced = Counter("fenced", "Calls whose offset was not the expected one.", _VIEW, **shared)
        self.reread = Counter("seeks", "Times that a partition was read from where the store is.", _VIEW, **shared)
        self.freshness = Histogram(
            "freshness_seconds", "From the newest event of a written range being available to its being readable.",
            _VIEW, buckets=_SECONDS, **shared,
        )  # fmt: skip
        self.write_seconds = Histogram(
            "write_seconds", "One round trip of calls to the store.", buckets=_SECONDS, **shared
        )
        self.poll_messages = Histogram(
            "poll_messages", "Messages of a poll that was not empty.", buckets=_SIZES, **shared
        )
        self._lag = Gauge(
            "lag_messages", "Changelog messages that the store does not cover yet, of partitions that are read here.",
            (*_VIEW, "partition"), **shared,
        )  # fmt: skip
        self._held = Gauge(
            "held_partitions", "Partitions that are not read on: their next message cannot be read.", _VIEW, **shared
        )
        self._lags: set[tuple[str, str, str, str]] = set()
        self._holds: set[tuple[str, str, str]] = set()

    def serve(self, port: int) -> None:
        """Answer Prometheus on a port.

        Raises:
            OSError: the port is taken.
        """
        start_http_server(port, registry=self.registry)

    def lag(self, found: Mapping[tuple[str, str, str, str], int]) -> None:
        """The lag by tenant, view, version and partition; partitions that are not read here any more are not shown."""
        self._lags = _show(self._lag, self._lags, found)

    def held(self, found: Mapping[tuple[str, str, str], int]) -> None:
        """The partitions that are held, by tenant, view and version."""
        self._holds = _show(self._held, self._holds, found)


def _show(gauge: Gauge, shown: Iterable[tuple[str, ...]], found: Mapping[_Labels, int]) -> set[_Labels]:
    """Have a gauge say what was found, by its labels, and nothing else; gives what it shows now."""
    for labels in set(shown) - found.keys():
        gauge.remove(*labels)
    for labels, value in found.items():
        gauge.labels(*labels).set(value)
    return set(found)
