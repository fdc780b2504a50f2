"""The logs that parity reads: by which definitions, and every record of a topic once."""

from __future__ import annotations

from dataclasses import replace

from coeval_parity.spark_log import ingested_sources
from tests.support import catalog


def test_a_topic_is_ingested_by_the_applied_definition_whatever_the_log_is_read_by() -> None:
    applied = catalog.manifest()
    newer = replace(catalog.PAYMENTS, allowed_lateness=catalog.PAYMENTS.allowed_lateness + 1)
    assert ingested_sources(["payments", "gone"], replace(applied, event_sources=(newer,))) == [newer]
