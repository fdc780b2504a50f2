"""How the features of a service are had: what is read, what is derived, in which order. It knows the manifest. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.derived import run_derived
from coeval.entities import Columns
from coeval.errors import RequestError, UnknownFeatureError
from coeval.online.merge import unavailable
from coeval.online.plan import ReadPlanner
from coeval.online.reader import StoredFeatures
from coeval.online.result import Block, Column, FeatureResult, MadeBlock, Part, Status
from coeval.sla import Promise, promise
from coeval.spec.manifest import Manifest
from coeval.spec.model import DerivedView, FeatureService, Field, ServiceView
from coeval.spec.types import Kind, to_physical

Request = Mapping[str, Sequence[Any]]
Inputs = Mapping[str, NDArray[Any]]
_MOST_PLANS = 1_000
Asked = str | Sequence[str]
"""A service by name, or features by name: `view__feature` or `view:feature`."""


class Services:
    """The services of one manifest, each planned once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._services = {service.name: service for service in manifest.services}
        self._plans: dict[str | tuple[str, ...], ServicePlan] = {}

    def plan(self, asked: Asked) -> ServicePlan:
        """The plan of a service, or of a list of features.

        Raises:
            UnknownFeatureError: there is none of that name; near names are given.
        """
        name = asked if isinstance(asked, str) else tuple(asked)
        found = self._plans.get(name)
        if found is None:
            if len(self._plans) >= _MOST_PLANS:
                # Lists of features may differ without end; what is forgotten is planned again.
                self._plans.clear()
            found = ServicePlan(self.manifest, self.service(name)) if isinstance(name, str) else self._of_features(name)
            self._plans[name] = found
        return found

    def service(self, name: str) -> FeatureService:
        """The service of that name.

        Raises:
            UnknownFeatureError: there is none; near names are given.
        """
        if name in self._services:
            return self._services[name]
        raise _unknown("feature service", name, self._services)

    def _of_features(self, names: Sequence[str]) -> ServicePlan:
        manifest = self.manifest
        views = {view.name: (view.version, view.features) for view in manifest.views.values()}
        derived = {view.name: ("", view.features) for view in manifest.derived_views}
        both = views | derived
        known = {f"{view}__{field.name}": (view, field.name) for view, (_, fields) in both.items() for field in fields}
        order: list[tuple[str, str]] = []
        for name in dict.fromkeys(item.replace(":", "__", 1) for item in names):
            if name not in known:
                raise _unknown("feature", name, known)
            order.append(known[name])
        chosen: dict[str, list[str]] = {}
        for view, feature in order:
            chosen.setdefault(view, []).append(feature)
        taken = [ServiceView(view, both[view][0], tuple(features)) for view, features in chosen.items()]
        service = FeatureService(
            ", ".join(names),
            tuple(item for item in taken if item.view in views),
            tuple(item for item in taken if item.view in derived),
        )
        return ServicePlan(manifest, service, order)


def _unknown(kind: str, name: str, known: Iterable[str]) -> UnknownFeatureError:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3)
    return UnknownFeatureError(
        f"There is no {kind} {name!r}.",
        f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(names[:20]) or 'none'}.",
    )


class ServicePlan:
    """What a service needs, worked out once, and what becomes of it per request."""

    def __init__(self, manifest: Manifest, service: FeatureService, order: Sequence[tuple[str, str]] = ()) -> None:
        self.service = service
        self.label = "(features)" if order else service.name
        """The name under which it is counted: lists of features are counted together."""
        both = (*service.views, *service.derived)
        runs = _runs(order) if order else [(item.view, item.features) for item in both]
        fields = {view.name: view.features for view in (*manifest.views.values(), *manifest.derived_views)}
        numbers = {
            view: {field.name for field in features if field.type.kind is not Kind.STRING}
            for view, features in fields.items()
        }
        self._order = [(view, names, tuple(name for name in names if name in numbers[view])) for view, names in runs]
        self.manifest_hash = manifest.hash
        self._derived = {view.name: view for view in manifest.derived_views}
        self.views = self._needed(manifest)
        self.planner = ReadPlanner(manifest, self.views)
        self.promise = Promise() if order else promise(manifest, self.views)
        self.tenant = manifest.tenant
        self.keys = {field.name: field for item in self.views for field in manifest.views[item.view].key}
        """The entity keys that it takes, by name."""
        known = {view: {field.name: field for field in found} for view, found in fields.items()}
        self.fields = {f"{view}__{name}": known[view][name] for view, names in runs for name in names}
        """The features that it gives, by name."""
        self.personal = {name: field.pii for name, field in self.fields.items() if field.pii != "none"}
        """Those of them that take a grant, with their class."""
        self._request = {
            field.name: (field, item.view) for item in service.derived for field in self._derived[item.view].request
        }

    def _needed(self, manifest: Manifest) -> tuple[ServiceView, ...]:
        """The service's views, widened by the inputs of its derived features."""
        needed = {item.view: (item.version, list(item.features)) for item in self.service.views}
        for derived in self.service.derived:
            for ref in self._derived[derived.view].inputs:
                _, features = needed.setdefault(ref.view, (manifest.views[ref.view].version, []))
                if ref.feature not in features:
                    features.append(ref.feature)
        return tuple(ServiceView(view, version, tuple(features)) for view, (version, features) in needed.items())

    @property
    def requested(self) -> dict[str, Field]:
        """The request-time inputs that it takes, by name."""
        return {name: field for name, (field, _) in self._request.items()}

    def inputs(self, request: Request, rows: int) -> Inputs:
        """The request-time inputs of derived features, as arrays.

        Raises:
            RequestError: one is missing, unknown, of the wrong type or length.
        """
        unknown = sorted(request.keys() - self._request.keys())
        if unknown:
            raise RequestError(
                f"{self.service.name} takes no request input {', '.join(unknown)}.",
                f"It takes: {', '.join(self._request) or 'none'}.",
            )
        return {
            name: _request_column(field, view, request.get(name), rows) for name, (field, view) in self._request.items()
        }

    def result(self, stored: StoredFeatures, entities: Columns, inputs: Inputs) -> FeatureResult:
        """The features of the service, of what was stored and asked."""
        blocks: dict[str, Block] = dict(stored.blocks)
        for item in self.service.derived:
            blocks[item.view] = _derive(self._derived[item.view], item.features, stored, inputs)
        parts = [Part(view, blocks[view], names, numeric) for view, names, numeric in self._order]
        return FeatureResult(parts, entities, stored.at, self.manifest_hash)


def _runs(order: Iterable[tuple[str, str]]) -> list[tuple[str, Sequence[str]]]:
    """Features of one view that follow each other, together."""
    return [(view, tuple(name for _, name in run)) for view, run in groupby(order, key=lambda item: item[0])]


def _request_column(field: Field, view: str, values: Sequence[Any] | None, rows: int) -> NDArray[Any]:
    where = f"the request input {field.name} ({field.type}) of {view}"
    if values is None:
        raise RequestError(f"Missing is {where}.", f"Pass request={{'{field.name}': [...]}} with one value per entity.")
    if len(values) != rows:
        raise RequestError(f"There are {len(values)} values of {where} for {rows} entities.", "Give one per entity.")
    try:
        physical = [to_physical(field.type, value) for value in values]
    except ValueError as error:
        raise RequestError(f"{where[0].upper()}{where[1:]}: {error}.", f"Give values of {field.type}.") from error
    if field.type.kind is Kind.STRING:
        return np.array(physical, dtype=object)
    return np.array([np.nan if value is None else float(value) / 10**field.type.scale for value in physical])


def _derive(view: DerivedView, features: Iterable[str], stored: StoredFeatures, request: Inputs) -> MadeBlock:
    inputs = {ref: stored.blocks[ref.view].column(ref.feature) for ref in view.inputs}
    rows = max((len(column.status) for column in inputs.values()), default=len(next(iter(request.values()), ())))
    fields = {field.name: field for field in view.features}
    blocked = np.zeros(rows, dtype=bool)
    for column in inputs.values():
        blocked |= column.status == Status.UNAVAILABLE
    times = np.zeros(0, dtype=np.int64)
    if rows and bool(blocked.all()):
        return MadeBlock({name: unavailable(fields[name], rows) for name in features}, times)
    columns = {ref.full_name: _plain(column) for ref, column in inputs.items()}
    outputs = run_derived(view, {**columns, **request})
    return MadeBlock({name: _derived_column(fields[name], outputs[name], blocked) for name in features}, times)


def _plain(column: Column) -> NDArray[Any]:
    if column.type.kind is Kind.STRING:
        return np.array(column.logical(), dtype=object)
    return column.numeric()


def _derived_column(field: Field, values: NDArray[Any], blocked: NDArray[np.bool_]) -> Column:
    if field.type.kind is Kind.STRING:
        null = np.array([value is None for value in values], dtype=bool)
    else:
        null = np.isnan(values)
    null |= blocked
    status = np.where(blocked, Status.UNAVAILABLE, np.where(null, Status.NULL, Status.PRESENT)).astype(np.int8)
    return Column(field.type, values, null, status)
