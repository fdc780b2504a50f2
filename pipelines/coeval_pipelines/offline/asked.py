"""What a feature service asks of the offline side: its views, its columns in their order, its sources. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coeval.errors import UnknownFeatureError
from coeval.service import Services
from coeval.spec.manifest import Manifest
from coeval.spec.model import DerivedView, FeatureService, Field, View


@dataclass(frozen=True, slots=True)
class Asked:
    """A service of a manifest, with the derived views that it uses."""

    manifest: Manifest
    service: FeatureService
    derived: tuple[DerivedView, ...]

    @staticmethod
    def of(manifest: Manifest, name: str) -> Asked:
        """The service of that name.

        Raises:
            UnknownFeatureError: there is none.
        """
        for service in manifest.services:
            if service.name == name:
                return Asked._of(manifest, service)
        known = ", ".join(item.name for item in manifest.services)
        raise UnknownFeatureError(f"There is no feature service {name!r}.", f"Known: {known or 'none'}.")

    @staticmethod
    def of_features(manifest: Manifest, names: Sequence[str]) -> Asked:
        """Features by name, `view__feature` or `view:feature`, as a service without a name of its own.

        Raises:
            UnknownFeatureError: there is none of a name; near names are given.
        """
        return Asked._of(manifest, Services(manifest).plan(list(names)).service)

    @staticmethod
    def _of(manifest: Manifest, service: FeatureService) -> Asked:
        used = {item.view for item in service.derived}
        return Asked(manifest, service, tuple(item for item in manifest.derived_views if item.name in used))

    @property
    def views(self) -> list[View]:
        """The stored views that are read, each once."""
        used = [item.view for item in self.service.views] + [ref.view for view in self.derived for ref in view.inputs]
        return [self.manifest.views[name] for name in dict.fromkeys(used)]

    @property
    def request(self) -> list[Field]:
        """The request-time inputs of the derived views, which a spine has as columns."""
        return [field for view in self.derived for field in view.request]

    @property
    def outputs(self) -> list[str]:
        """The columns view__feature that are asked for, in the service's order."""
        parts = (*self.service.views, *self.service.derived)
        return [f"{used.view}__{name}" for used in parts for name in used.features]

    @property
    def stored(self) -> list[str]:
        """The columns of stored features that are computed: the service's own, and the inputs of its derived ones."""
        own = [f"{used.view}__{name}" for used in self.service.views for name in used.features]
        return list(dict.fromkeys([*own, *(ref.full_name for view in self.derived for ref in view.inputs)]))

    @property
    def sources(self) -> list[str]:
        """The names of the sources that are read."""
        return sorted({view.source for view in self.views})


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is read: versions of the logs by source (None: no log yet, or a batch source), and of the erasures."""

    logs: dict[str, int | None]
    erasures: int
