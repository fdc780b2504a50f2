"""The online store by name in feature_store.yaml: Feast reads by the provider, and writes nothing. It knows Feast."""

from __future__ import annotations

from typing import Any, NoReturn

from feast.infra.online_stores.online_store import OnlineStore
from feast.repo_config import FeastConfigBaseModel

from coeval.errors import UsageError


class CoevalOnlineStoreConfig(FeastConfigBaseModel):
    """Nothing to configure: the address is in Coeval's own settings."""

    type: str = "coeval_pipelines.catalog.online_store.CoevalOnlineStore"


class CoevalOnlineStore(OnlineStore):
    """What `feast materialize` insists on having a name for; `CoevalProvider` does what is asked of it."""

    def online_write_batch(self, config: Any, table: Any, data: Any, progress: Any) -> NoReturn:
        """Refuse: rows written past the log would be in no training set.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "What is only in the online store would be in no training set.",
            "Produce events to the source's topic, or write the files of a batch source and run feast materialize.",
        )

    def online_read(self, config: Any, table: Any, entity_keys: Any, requested_features: Any = None) -> NoReturn:
        """Refuse: the provider reads.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "Coeval's provider reads by itself.", "Name provider: ...CoevalProvider in feature_store.yaml."
        )

    def update(self, *_: Any, **__: Any) -> None:
        """Nothing to make: `coeval stream deploy` and `coeval backfill` do."""

    def teardown(self, *_: Any, **__: Any) -> None:
        """Nothing to take away; the provider refuses before."""
