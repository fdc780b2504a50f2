"""What the tests of the contract share: cases, and one start of each engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from coeval.settings import Settings
from coeval_pipelines.local.artefacts import ensure_jars
from coeval_pipelines.offline.session import spark_session
from tests.support.contract import generate
from tests.support.contract.adapters.flink import Flink, Streamed
from tests.support.contract.cases import Case, read_cases

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CASES = Path(__file__).parent / "cases"


@pytest.fixture(scope="session")
def written() -> list[Case]:
    """The cases that people wrote, with the values that they worked out."""
    return read_cases(CASES)


@pytest.fixture(scope="session")
def cases(written: list[Case]) -> list[Case]:
    """Written and generated cases; COEVAL_CONTRACT_SEED and COEVAL_CONTRACT_CASES give others, and more."""
    return written + generate.cases()


@pytest.fixture
def client(redis_server: Settings) -> Iterator[redis.Redis]:
    """An empty online store."""
    with closing(redis.Redis.from_url(redis_server.redis.url)) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="package")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of the Spark session's home."""
    settings = Settings(home=tmp_path_factory.mktemp("spark"))
    ensure_jars(settings)
    return settings


@pytest.fixture(scope="package")
def spark(spark_home: Settings) -> Iterator[SparkSession]:
    """A local Spark session."""
    with spark_session(spark_home) as session:
        yield session


@pytest.fixture(scope="package")
def streamed(stack: Settings, cases: list[Case]) -> Streamed:
    """All cases through Kafka, Flink, the writer and Redis, once."""
    flink = Flink(stack)
    mine = [case for case in cases if flink.takes(case)]
    return Streamed(stack, flink, mine, flink.answers(mine))
