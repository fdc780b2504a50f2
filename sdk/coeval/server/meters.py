"""What the server measures of itself, for Prometheus. It knows prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from coeval.sla import BOUNDS, SlaBook

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)


class Meters:
    """The metrics of one server. Routes are templates, tenants and services known ones: labels stay few."""

    def __init__(self, books: Callable[[], Iterable[tuple[str, SlaBook]]]) -> None:
        self.registry = CollectorRegistry()
        shared: Any = {"namespace": "coeval_server", "registry": self.registry}
        self.requests = Counter("requests", "Requests that were answered.", ("tenant", "route", "status"), **shared)
        self.seconds = Histogram(
            "request_seconds", "From the head of a request to the end of its answer.", ("tenant", "route"),
            buckets=_SECONDS, **shared,
        )  # fmt: skip
        self.rows = Histogram("request_rows", "Entities of a request.", ("tenant",), buckets=_ROWS, **shared)
        self.refused = Counter("requests_refused", "Requests refused, by code.", ("tenant", "code"), **shared)
        self.ready = Gauge("tenant_ready", "Whether a tenant could be served.", ("tenant",), **shared)
        self.in_flight = Gauge("requests_in_flight", "Requests that are being answered.", ("tenant",), **shared)
        self.unavailable = Counter(
            "unavailable_values", "Values that were answered with UNAVAILABLE.", ("tenant", "service"), **shared
        )
        self.events = Counter("events_produced", "Events that the broker took.", ("tenant", "source"), **shared)
        self.logged = Counter(
            "serving_log_rows", "Rows for the serving log, by what became of them.", ("outcome",), **shared
        )
        self.registry.register(_Slas(books))

    def serve(self, port: int, host: str) -> None:
        """Answer Prometheus, without credentials.

        Raises:
            OSError: the port is taken.
        """
        start_http_server(port, addr=host, registry=self.registry)


class _Slas(Collector):
    """What services promise and keep, as it is in the books."""

    def __init__(self, books: Callable[[], Iterable[tuple[str, SlaBook]]]) -> None:
        self._books = books

    def describe(self) -> Iterable[Metric]:
        """What there may be."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        labels = ("tenant", "service")
        latency = HistogramMetricFamily("coeval_read_seconds", "Reads of a service.", labels=labels)
        slow = CounterMetricFamily("coeval_read_slow", "Reads slower than promised.", labels=labels)
        failed = CounterMetricFamily(
            "coeval_read_failed", "Reads that failed, or had UNAVAILABLE values.", labels=labels
        )
        promised = GaugeMetricFamily("coeval_promised_p99_seconds", "What the catalog promises.", labels=labels)
        burn = GaugeMetricFamily(
            "coeval_error_budget_burn", "1 uses up the budget exactly.", labels=(*labels, "budget", "window")
        )
        age = GaugeMetricFamily(
            "coeval_served_newest_event_age_seconds",
            "Age of the newest event that was served.",
            labels=(*labels, "view"),
        )
        for tenant, book in self._books():
            for service, total, late, bad, counts, seconds in book.totals():
                passed, buckets = 0, []
                for bound, count in zip(BOUNDS, counts, strict=False):
                    passed += count
                    buckets.append((f"{bound:g}", float(passed)))
                latency.add_metric((tenant, service), [*buckets, ("+Inf", float(total))], seconds)
                slow.add_metric((tenant, service), late)
                failed.add_metric((tenant, service), bad)
            for item in book.report():
                promised.add_metric((tenant, item.service), item.promise.p99_seconds)
                for window, kept in item.kept.items():
                    for name, value in (("latency", kept.latency_burn), ("availability", kept.availability_burn)):
                        if value is not None:
                            burn.add_metric((tenant, item.service, name, window), value)
                for view, seconds_old in item.newest.items():
                    age.add_metric((tenant, item.service, view), seconds_old)
        yield from (latency, slow, failed, promised, burn, age)
