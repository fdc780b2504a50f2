"""The Feast provider: Feast keeps the catalog, and Coeval's own engines do the rest. It touches no infrastructure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import click
from feast.infra.passthrough_provider import PassthroughProvider

from coeval_pipelines.catalog.registry import declare


class CoevalProvider(PassthroughProvider):
    """Lets `feast apply` end in the registry and the manifest."""

    def update_infra(
        self,
        project: str,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Hand the declared views to the registry store, which commits right after this."""
        declare(tables_to_keep)

    def get_online_features(
        self,
        config: Any,
        features: Any,
        entity_rows: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> Any:
        """The features as the SDK serves them; see `feast_online`.

        Raises:
            CoevalError: as the SDK does.
        """
        # Commands that only keep the catalog need no client of the online store.
        from coeval_pipelines.catalog.feast_online import get_online_features

        return get_online_features(config.repo_path, features, entity_rows, full_feature_names)

    async def get_online_features_async(self, *args: Any, **options: Any) -> Any:
        """The same, awaited, in a thread."""
        return await asyncio.to_thread(self.get_online_features, *args, **options)

    def get_historical_features(
        self,
        config: Any,
        feature_views: Any,
        feature_refs: Any,
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        **options: Any,
    ) -> Any:
        """The features as training sets have them; see `feast_offline`.

        Raises:
            CoevalError: a feature or something of the entities is missing, once the job is asked for its rows at the
                latest.
        """
        from coeval_pipelines.catalog.feast_offline import Retrieved

        return Retrieved(config.repo_path, feature_refs, entity_df, full_feature_names, options)

    @property
    def batch_engine(self) -> Any:
        """What `feast materialize` runs on: our backfill, once for all of its views."""
        from coeval_pipelines.catalog.feast_offline import BackfillEngine

        return BackfillEngine(self.repo_config.repo_path)

    def teardown_infra(self, project: str, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Refuse: what is deployed reads the catalog.

        Raises:
            ClickException: always, before Feast deletes anything.
        """
        raise click.ClickException(
            "feast teardown would take the catalog away from under what is deployed. Nothing was changed.\n"
            "  To start over, stop the stack (coeval down) and remove the state directory."
        )

    def validate_data_source(self, config: Any, data_source: Any) -> None:
        """Accept a source whose files do not exist yet: history may be written after the catalog is applied."""

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        """The columns of the files, for Feast to type a key by; none where the files do not exist yet."""
        try:
            return list(super().get_table_column_names_and_types_from_data_source(config, data_source))
        except OSError:
            return []
