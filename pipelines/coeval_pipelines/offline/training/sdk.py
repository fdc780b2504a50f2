"""What the SDK calls, by the entry points `training_set` and `batch_features`."""

from __future__ import annotations

import time
from datetime import datetime

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.types import micros
from coeval.training import Labels, TrainingSet
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.training.build import Wanted, build


def training_set(
    settings: Settings,
    manifest: Manifest,
    service: str,
    spine: object,
    *,
    labels: Labels | None,
    knowledge: str,
    name: str | None,
    engine: str,
) -> TrainingSet:
    """See `coeval.FeatureStore.get_training_set`."""
    return build(settings, Wanted(Asked.of(manifest, service), spine, labels, knowledge, engine), name)


def batch_features(
    settings: Settings, manifest: Manifest, service: str, entities: object, *, at: datetime | None, engine: str
) -> TrainingSet:
    """See `coeval.FeatureStore.get_batch_features`.

    Raises:
        UsageError: `at` has no time zone.
    """
    if at is not None and at.tzinfo is None:
        raise UsageError("`at` has no time zone.", "Give a datetime with one, e.g. datetime.now(UTC).")
    now = time.time_ns() // 1000 if at is None else micros(at)
    return build(settings, Wanted(Asked.of(manifest, service), entities, engine=engine, at=now))
