"""The Feast provider: Feast keeps the catalog, and Coeval's own engines do the rest. It touches no infrastructure."""

from __future__ import annotations

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
