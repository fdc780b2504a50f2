"""The manifest: the one canonical, content-hashed JSON that crosses rooms. Pure; reading it needs no Feast."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import UnionType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from coeval.errors import ManifestError, UnknownFeatureError
from coeval.spec.model import (
    BatchSource,
    DerivedView,
    Entity,
    EventSource,
    FeatureService,
    RowView,
    View,
    WindowedView,
    columns_read,
    with_columns,
)
from coeval.spec.types import DataType

SCHEMA_VERSION = 3
_PRESENTATION = frozenset(
    {"description", "owner", "sla", "version", "pii", "history", "path", "format", "deprecated", "expected"}
    | {"dedup", "expected_rate", "canary"}
)
"""What may change without changing a value: kept out of a view's version. (By rule a duplicate never counts; `dedup`
says who sees to that.)"""


@dataclass(frozen=True)
class Manifest:
    """Everything that engines and readers need to know. Every list is sorted by name.

    `tenant` is the first part of every online key and the namespace of topics and logs.
    """

    project: str
    tenant: str
    entities: tuple[Entity, ...] = ()
    event_sources: tuple[EventSource, ...] = ()
    batch_sources: tuple[BatchSource, ...] = ()
    windowed_views: tuple[WindowedView, ...] = ()
    row_views: tuple[RowView, ...] = ()
    derived_views: tuple[DerivedView, ...] = ()
    services: tuple[FeatureService, ...] = ()

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON: what every artefact carries."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @cached_property
    def views(self) -> dict[str, View]:
        """Stored views (windowed and row) by name."""
        both: tuple[View, ...] = self.windowed_views + self.row_views
        return {view.name: view for view in both}

    def chosen_views(self, names: Collection[str] | None) -> list[View]:
        """The stored views of those names, in their order; all where none is named.

        Raises:
            UnknownFeatureError: there is no such view.
        """
        unknown = sorted(set(names or ()) - self.views.keys())
        if unknown:
            raise UnknownFeatureError(f"There is no view {', '.join(unknown)}.", f"Known: {', '.join(self.views)}.")
        return [self.views[name] for name in names or self.views]

    @cached_property
    def sources(self) -> dict[str, EventSource | BatchSource]:
        """Sources by name."""
        both: tuple[EventSource | BatchSource, ...] = self.event_sources + self.batch_sources
        return {source.name: source for source in both}

    def source_of(self, view: View) -> EventSource | BatchSource:
        """The source of a view, as the view sees it: with the columns that it computes."""
        return with_columns(self.sources[view.source], view)

    def event_source(self, view: View) -> EventSource:
        """The event source of a stream view, as the view sees it.

        Raises:
            ManifestError: the view has a batch source.
        """
        source = self.source_of(view)
        if not isinstance(source, EventSource):
            raise ManifestError(f"View {view.name} reads the batch source {source.name}, not a stream.")
        return source

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII, one schema version. Equal manifests give equal bytes."""
        return canonical_json({"schema": SCHEMA_VERSION, **_plain(self)})

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            ManifestError: not a manifest, or one of another schema version.
        """
        try:
            document = json.loads(text)
            schema = document.pop("schema")
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise ManifestError("This is not a Coeval manifest.", "Compile it again: feast apply") from error
        if schema != SCHEMA_VERSION:
            raise ManifestError(
                f"The manifest has schema version {schema}; this release reads {SCHEMA_VERSION}.",
                "Compile it again with this release: feast apply",
            )
        try:
            return _reader(Manifest)(document)  # type: ignore[no-any-return]
        except (TypeError, ValueError, AttributeError) as error:
            raise ManifestError(f"The manifest is damaged: {error}.", "Compile it again: feast apply") from error


def canonical_json(value: object) -> str:
    """The one JSON text of a value made of dicts, lists, strings, numbers, booleans and None."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def with_version(view: View, source: EventSource | BatchSource) -> View:
    """The view with its version: a hash of what changes its values, and of nothing else."""
    return replace(view, version=view_version(view, source))


def view_version(view: View, source: EventSource | BatchSource) -> str:
    """Eight hex digits of the hash of a view's values: its own definition and what it reads of its source.

    A source's other fields are left out unless they are required, and so reject events: adding an optional column to a
    topic does not restate every view. What files contain is not part of it, nor what entities are called.
    """
    used = columns_read(view)
    document = {"view": _without_presentation(_plain(view)), "source": _without_presentation(_plain(source))}
    document["view"].pop("entities")
    needed = used | {getattr(source, name, "") for name in ("event_id", "event_ts", "available_at")}
    fields = document["source"]["fields"]
    document["source"]["fields"] = [item for item in fields if item["name"] in needed or item.get("nullable") is False]
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:8]


def _without_presentation(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_presentation(item) for key, item in value.items() if key not in _PRESENTATION}
    if isinstance(value, list):
        return [_without_presentation(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, DataType):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # What has its default is left out: a property added by a later release restates nothing that does not use it.
        stated = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: _plain(item) for field, item in stated if item != _default(field)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


_Reader: TypeAlias = Callable[[Any], Any]


@cache
def _reader(hint: Any) -> _Reader:
    """Reads what `_plain` wrote of a value of this type; made once per type, as a manifest holds thousands of each."""
    if hint is DataType:
        return DataType.parse
    if get_origin(hint) is UnionType:
        read = _reader(get_args(hint)[0])
        return lambda value: None if value is None else read(value)
    if get_origin(hint) is tuple:
        read = _reader(get_args(hint)[0])
        return lambda value: tuple([read(item) for item in value])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _object_reader(hint)
    accepted = int | float if hint is float else hint

    def scalar(value: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise ValueError(f"{value!r} is not {hint}")
        return value

    return scalar


def _object_reader(cls: type) -> _Reader:
    hints: dict[str, Any] = {}
    readers: dict[str, _Reader] = {}

    def read(value: Any) -> Any:
        if not hints:  # Made at the first use, as a type may hold itself.
            hints.update(get_type_hints(cls))
            readers.update({name: _reader(hint) for name, hint in hints.items()})
        try:
            # Most of a manifest is text and numbers of just the declared type: no call for those.
            parts = {name: item if type(item) is hints[name] else readers[name](item) for name, item in value.items()}
        except KeyError as error:
            raise ValueError(f"{cls.__name__} has no {error.args[0]}") from error
        return cls(**parts)

    return read
