"""Feast's `get_historical_features` and `feast materialize` on Coeval's engines, found by entry point. It knows Feast.

Feast brings the names and the rows, and gets an Arrow table. Derived features are computed by the engine, with the
function that also serves them; Feast never runs one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pyarrow as pa
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus, MaterializationTask
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from coeval.engines import engine
from coeval.errors import CoevalError, RequestError, UsageError
from coeval_pipelines.catalog.baseline import settings_of

_TIMESTAMP = "event_timestamp"
_EXTRAS = "offline,streaming"


class MaterializeError(UsageError, click.ClickException):
    """Why nothing, or not everything, was materialized; the feast CLI prints it without a traceback."""

    def format_message(self) -> str:
        """The text that the feast CLI prints after `Error: `."""
        return str(self)


class Retrieved(RetrievalJob):
    """Historical features that are computed when they are asked for, once."""

    def __init__(
        self,
        repository: Path,
        references: Sequence[str],
        entities: pd.DataFrame | str | None,
        full_feature_names: bool,
        options: Mapping[str, Any],
    ) -> None:
        """Check what can be checked without reading anything.

        Raises:
            UsageError: there are no entities.
            RequestError: without full names, two features are called the same.
        """
        if entities is None:
            raise UsageError(
                "Features of a range of time, without entities, are not to be had.",
                f"Give an entity_df with the keys and {_TIMESTAMP}; start_date and end_date are not needed then.",
            )
        # filter_by_created_timestamp asks for what always holds here: nothing is seen before it was available.
        unknown = sorted({*options} - {"filter_by_created_timestamp"})
        if unknown:
            raise UsageError(f"get_historical_features takes no {', '.join(unknown)} here.", "Leave it out.")
        self._repository = repository
        self._entities = entities
        self._full_names = full_feature_names
        self._columns = _columns(references, full_feature_names, entities)
        self._found: pa.Table | None = None

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called view__feature."""
        return self._full_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None that Feast would have to compute."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        """The references of the features, and the columns of the entities where they are known."""
        known = [] if isinstance(self._entities, str) else [str(name) for name in self._entities.columns]
        return RetrievalMetadata(list(self._columns), [name for name in known if name != _TIMESTAMP])

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        if self._found is None:
            spine, instant = _spine(self._entities)
            table = engine("historical", _EXTRAS)(settings_of(self._repository), list(self._columns), spine)
            names = {reference.replace(":", "__", 1): column for reference, column in self._columns.items()}
            self._found = table.rename_columns([{_TIMESTAMP: instant, **names}.get(n, n) for n in table.column_names])
        return self._found

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Refuse: a saved dataset would not say what it was made of.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "A saved dataset of Feast does not say what it was made of.", "Keep it: coeval training-set build"
        )


def _columns(references: Sequence[str], full_names: bool, entities: pd.DataFrame | str) -> dict[str, str]:
    """By reference of a feature, what it is called in the result."""
    chosen = dict.fromkeys(references)
    named = {name: name.replace(":", "__", 1) if full_names else name.partition(":")[2] for name in chosen}
    there = [] if isinstance(entities, str) else [str(name) for name in entities.columns]
    twice = sorted(name for name, count in Counter([*there, *named.values()]).items() if count > 1)
    if twice:
        raise RequestError(f"Several columns are called {twice[0]}.", "Ask with full_feature_names=True.")
    return named


def _spine(entities: pd.DataFrame | str) -> tuple[Any, str]:
    """The entities with their instant under our name, and Feast's name of it: any, where it is the only time."""
    if isinstance(entities, str):
        return entities, _TIMESTAMP
    instant = infer_event_timestamp_from_entity_df(dict(entities.dtypes))
    return entities.rename(columns={instant: _TIMESTAMP}), instant


class BackfillEngine:
    """Feast's batch engine: every view of a `feast materialize` in one backfill, up to now.

    What the online store holds of a view has one state, that of now: START and END do not bound it.
    """

    supports_batch = True

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    def materialize(
        self, registry: Any, tasks: MaterializationTask | Sequence[MaterializationTask], **_: Any
    ) -> list[MaterializationJob]:
        """Ingest what is new, load every view by batch, and give a finished job for each.

        Raises:
            MaterializeError: a view is not deployed or cannot be filled yet, or a component does not answer.
        """
        tasks = [tasks] if isinstance(tasks, MaterializationTask) else list(tasks)
        names = [task.feature_view.name for task in tasks]
        try:
            written = engine("backfill", _EXTRAS)(settings_of(self._repository), names, say=click.echo)
        except CoevalError as error:
            raise MaterializeError(error.reason, error.instruction) from error
        for name in names:
            click.echo(f"{name}: {written.get(name, 0):,} written; the online store is as of now.")
        return [_Finished(task) for task in tasks]


class _Finished(MaterializationJob):
    def __init__(self, task: MaterializationTask) -> None:
        self.task = task

    def status(self) -> MaterializationJobStatus:
        return MaterializationJobStatus.SUCCEEDED

    def error(self) -> BaseException | None:
        return None

    def should_be_retried(self) -> bool:
        return False

    def job_id(self) -> str:
        return f"backfill of {self.task.feature_view.name}"

    def url(self) -> str | None:
        return None
