"""The definitions that a manifest holds: entities, sources, views, derived features, services. Pure frozen values.

Durations are microseconds. Field order is meaning: it is the order of keys, of stored values and of features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from coeval.spec.expressions import Expression
from coeval.spec.time import DAY, MINUTE, duration
from coeval.spec.types import DataType

EVENT_COLUMNS = ("event_id", "event_ts", "available_at", "partition", "offset")
"""The envelope of every event, in every engine."""
RESERVED = frozenset({*EVENT_COLUMNS, "topic", "declared_ts", "batch"})
"""The columns that an event log keeps beside the payload: no other column may be called so."""
KEY, HEADER = "key", "header:"
"""Origins of a column beside the JSON: the record's key, and what a header's name follows."""


PII_CLASSES = ("none", "pseudonymous", "personal", "sensitive")
"""Of a field, each stricter than the one before: about nobody; about a person known by a key only; describing a person;
a special category."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a column should hold, for data quality: bounds as literals of its type (empty: none), values allowed."""

    low: str = ""
    high: str = ""
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A named, typed column. `nullable=False`: an event without it is rejected."""

    name: str
    type: DataType
    nullable: bool = True
    description: str = ""
    pii: str = "none"
    expected: Expected = field(default_factory=Expected)
    origin: str = ""
    """Where an event source's column stands in a record: empty, in the JSON property of its name; `key`, the record's
    key; `header:NAME`, the last header of that name. Key and headers are UTF-8 text."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A column that a view computes of each event before it looks at it."""

    field: Field
    expression: Expression


@dataclass(frozen=True, slots=True)
class Entity:
    """What features are about; its join key is a column of sources and spines."""

    name: str
    key: Field
    description: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """A column and a literal of its type."""

    column: str
    literal: str


@dataclass(frozen=True, slots=True)
class EventSource:
    """A Kafka topic of JSON events and the Delta event log that it is kept in.

    `event_id` and `event_ts` name the fields that hold the identity and the declared time of an event.
    """

    name: str
    topic: str
    fields: tuple[Field, ...]
    event_id: str
    event_ts: str
    max_future_skew: int = 5 * MINUTE
    allowed_lateness: int = 10 * MINUTE
    history: str = ""
    """Path of the Parquet files that hold what happened before the topic began; typed columns named as the fields."""
    description: str = ""
    owner: str = ""
    dedup: bool = True
    """Whether the stream looks for duplicates. Without, producers must be idempotent; the log looks for them anyway."""
    expected_rate: float | None = None
    """Events a second, on average, that its owner expects; None: not said."""
    canary: tuple[Constant, ...] = ()
    """What a synthetic event says that is sent to measure freshness; empty: none is sent. Its key must be nobody's."""

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            KeyError: there is none.
        """
        return _named(self.fields, name)


@dataclass(frozen=True, slots=True)
class BatchSource:
    """A table of rows with their own time. Without `available_at`, a row was available when it happened."""

    name: str
    path: str
    format: str
    fields: tuple[Field, ...]
    event_ts: str
    available_at: str = ""
    description: str = ""
    owner: str = ""

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            KeyError: there is none.
        """
        return _named(self.fields, name)


SHARES = {"late": 0.05, "in_flight": 1.0, "erased": 1.0}
"""The causes for which a served value may differ from training in a sound system, and the share of values that may
where a view says nothing."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The share of a view's values that may differ for a cause; `window` (microseconds) narrows it to one window's."""

    cause: str
    share: float
    window: int = 0


@dataclass(frozen=True, slots=True)
class Sla:
    """What a view promises: the age of its newest processed event, the read latency, the share of time it answers."""

    freshness: int = DAY
    p99_ms: int = 0
    availability: float = 0.0
    tolerated: tuple[Tolerance, ...] = ()
    """How many values may differ from training, by cause; of causes that are not named, `SHARES`."""

    def budget(self, cause: str, window: int = 0) -> Tolerance:
        """What a cause is held to in a window's values: what is said of the window, else of the cause, else `SHARES`.

        Raises:
            KeyError: no value may differ for this cause.
        """
        said = {item.window: item for item in self.tolerated if item.cause == cause}
        return said.get(window) or said.get(0) or Tolerance(cause, SHARES[cause])

    @property
    def late_share(self) -> float:
        """The greatest share of values of any window that may differ because an event came after its tile was final."""
        return max(self.budget("late", item.window).share for item in (*self.tolerated, self.budget("late")))


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One windowed feature. `column` is empty for a count of events."""

    feature: str
    function: str
    column: str
    window: int
    hop: int

    @property
    def label(self) -> str:
        """How a person would write it: sum(amount) over 24h by 1h."""
        return f"{self.function}({self.column or '*'}) over {duration(self.window)} by {duration(self.hop)}"


@dataclass(frozen=True, slots=True)
class WindowedView:
    """Aggregates of an event source's events per key, over sliding windows."""

    name: str
    entities: tuple[str, ...]
    key: tuple[Field, ...]
    source: str
    aggregates: tuple[Aggregate, ...]
    features: tuple[Field, ...]
    """One field per aggregate, in the same order, with the type of its result."""
    partitions: int = 8
    """Partitions of the changelog topic, and so buckets of the online store. Fixed for a version."""
    where: Expression | None = None
    """Which events the view sees; None: all. Null counts as false."""
    columns: tuple[Computed, ...] = ()
    version: str = ""
    description: str = ""
    owner: str = ""
    deprecated: str = ""
    """Why it should not be used any more, and what to use instead; empty: it is current."""
    sla: Sla = field(default_factory=Sla)

    @property
    def longest_window(self) -> int:
        """Microseconds of the longest window."""
        return max(aggregate.window for aggregate in self.aggregates)

    @property
    def reach(self) -> int:
        """Microseconds for which an event may be seen, at most: the longest window, and the tile that it begins in."""
        return max(aggregate.window + aggregate.hop for aggregate in self.aggregates)


@dataclass(frozen=True, slots=True)
class RowView:
    """The latest row of a key. `stream` tells whether its source is an EventSource (strict visibility) or not.

    `ttl` 0 means that rows never expire.
    """

    name: str
    entities: tuple[str, ...]
    key: tuple[Field, ...]
    source: str
    features: tuple[Field, ...]
    stream: bool
    ttl: int = 0
    partitions: int = 8
    where: Expression | None = None
    columns: tuple[Computed, ...] = ()
    version: str = ""
    description: str = ""
    owner: str = ""
    deprecated: str = ""
    """Why it should not be used any more, and what to use instead; empty: it is current."""
    sla: Sla = field(default_factory=Sla)


View: TypeAlias = WindowedView | RowView


def budgets(view: View, feature: str) -> tuple[Tolerance, ...]:
    """What a feature of a view is held to, by cause; features of one window, or of one view, share a budget."""
    aggregates = view.aggregates if isinstance(view, WindowedView) else ()
    window = next((item.window for item in aggregates if item.feature == feature), 0)
    return tuple(view.sla.budget(cause, window) for cause in SHARES)


def budgets_text(view: View) -> str:
    """All that a view's features are held to, as one text: equal where it is the same."""
    return tolerances_text(item for field in view.features for item in budgets(view, field.name))


def tolerances_text(tolerances: Iterable[Tolerance]) -> str:
    """Some tolerances as one text, whatever their order."""
    return ", ".join(sorted({f"{item.cause} {item.window}={item.share!r}" for item in tolerances}))


def columns_read(view: View) -> frozenset[str]:
    """The columns of its source that a view reads, its keys included."""
    computed = {item.field.name for item in view.columns}
    used = (
        {item.column for item in view.aggregates}
        if isinstance(view, WindowedView)
        else {item.name for item in view.features}
    )
    expressions = [item.expression for item in view.columns] + ([view.where] if view.where else [])
    read = used.union({item.name for item in view.key}, *(item.columns for item in expressions))
    return frozenset(read - computed - {""})


@dataclass(frozen=True, slots=True)
class FeatureRef:
    """A feature of a view."""

    view: str
    feature: str

    @property
    def full_name(self) -> str:
        """The name of its column in a result: view__feature."""
        return f"{self.view}__{self.feature}"


@dataclass(frozen=True, slots=True)
class DerivedView:
    """Features computed on demand by a pure, vectorised function, named by its import path `package.module:name`."""

    name: str
    function: str
    inputs: tuple[FeatureRef, ...]
    request: tuple[Field, ...]
    features: tuple[Field, ...]
    description: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """What a service takes of a view: its version is named, so that switching a view cannot change a model's input."""

    view: str
    version: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureService:
    """The features that one model reads. `derived` entries have an empty version."""

    name: str
    views: tuple[ServiceView, ...]
    derived: tuple[ServiceView, ...] = ()
    description: str = ""
    owner: str = ""
    deprecated: str = ""


_Source = TypeVar("_Source", bound=EventSource | BatchSource)


def with_columns(source: _Source, view: View) -> _Source:
    """The source as a view sees it: with the columns that the view computes. Saying it twice changes nothing."""
    known = {field.name for field in source.fields}
    computed = tuple(item.field for item in view.columns if item.field.name not in known)
    return replace(source, fields=source.fields + computed) if computed else source


def _named(fields: tuple[Field, ...], name: str) -> Field:
    for candidate in fields:
        if candidate.name == name:
            return candidate
    raise KeyError(name)
