"""The suite sees a broken rule: the cheap mutations of every engine, each caught by at least one case.

`make mutations` runs all of them and prints which rule is caught in which engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from coeval.settings import Settings
from tests.support.contract.adapters.flink import Streamed
from tests.support.contract.adapters.kernel import Kernel
from tests.support.contract.adapters.online import online_adapters
from tests.support.contract.adapters.small import Small
from tests.support.contract.adapters.spark import Spark
from tests.support.contract.adapters.spark_load import SparkLoad
from tests.support.contract.breaking import caught, caught_by_flink
from tests.support.contract.cases import Case
from tests.support.contract.mutations import (
    KERNEL,
    LOAD,
    LUA,
    MUTATIONS,
    ONLINE,
    SMALL,
    SPARK,
    STREAM,
    Mutation,
    table,
)
from tests.support.contract.patching import changed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def _cheap(mutations: tuple[Mutation, ...]) -> pytest.MarkDecorator:
    chosen = [mutation for mutation in mutations if mutation.cheap]
    return pytest.mark.parametrize("mutation", chosen, ids=lambda mutation: mutation.rule)


@_cheap(ONLINE)
def test_the_online_path_broken(mutation: Mutation, client: redis.Redis, cases: list[Case]) -> None:
    assert caught(mutation, online_adapters(client), cases)


@_cheap(KERNEL)
def test_the_kernel_broken(mutation: Mutation, cases: list[Case]) -> None:
    assert caught(mutation, [Kernel()], cases)


@_cheap(SMALL)
def test_the_offline_path_without_spark_broken(mutation: Mutation, cases: list[Case]) -> None:
    assert caught(mutation, [Small()], cases)


@_cheap(SPARK)
def test_spark_broken(mutation: Mutation, spark: SparkSession, spark_home: Settings, cases: list[Case]) -> None:
    assert caught(mutation, [Spark(spark, spark_home)], cases)


@_cheap(LOAD)
def test_the_batch_load_broken(mutation: Mutation, spark: SparkSession, client: redis.Redis, cases: list[Case]) -> None:
    assert caught(mutation, [SparkLoad(spark, client)], cases)


def test_the_stream_broken(streamed: Streamed) -> None:
    chosen = [mutation for mutation in STREAM if mutation.cheap]
    numbers = caught_by_flink(chosen, streamed.settings, streamed.cases)
    assert all(numbers), table(list(zip(chosen, numbers, strict=True)))


@pytest.mark.parametrize("mutation", [item for item in (*ONLINE, *KERNEL, *SMALL, *SPARK, *LOAD) if item.module != LUA])
def test_a_mutation_finds_the_words_that_it_breaks(mutation: Mutation) -> None:
    with changed(mutation.module, mutation.old, mutation.new):
        pass


def test_every_engine_has_its_rules_broken_and_mended_again() -> None:
    assert len({(mutation.engine, mutation.rule) for mutation in MUTATIONS}) == len(MUTATIONS)
    assert {mutation.engine for mutation in MUTATIONS} == {"online", "kernel", "small", "spark", "spark-load", "flink"}
    from coeval.spec import keys

    with changed("coeval.spec.keys", "% partitions", "% partitions + 1"):
        assert {keys.bucket_of(str(n), 2) for n in range(50)} == {1, 2}
    assert {keys.bucket_of(str(n), 2) for n in range(50)} == {0, 1}
    with pytest.raises(LookupError, match="any more"), changed("coeval.spec.keys", "no such text", ""):
        raise AssertionError
