"""One Spark session for every integration test of a run: it takes longer to start than most tests take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from coeval.settings import Settings
from coeval_pipelines.local.artefacts import ensure_jars
from coeval_pipelines.offline.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A local Spark session."""
    settings = Settings(home=tmp_path_factory.mktemp("spark"))
    ensure_jars(settings)
    with spark_session(settings) as session:
        yield session
