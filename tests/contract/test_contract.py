"""Every engine answers every case as the contract says. The smallest difference is shown as data.

A case is a key, an instant and raw events. Written ones are in `cases/`, with the values that a person worked out; the
others are generated from a seed. To add an engine, add an adapter to `tests/support/contract/adapters` and a test here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import redis

from coeval.settings import Settings
from tests.support.contract import catalog, generate
from tests.support.contract.adapters import Adapter
from tests.support.contract.adapters.flink import Streamed
from tests.support.contract.adapters.kernel import Kernel
from tests.support.contract.adapters.online import Masked, Online
from tests.support.contract.adapters.reference import Reference
from tests.support.contract.adapters.small import Small
from tests.support.contract.adapters.spark import Spark
from tests.support.contract.adapters.spark_load import SparkLoad
from tests.support.contract.cases import Case
from tests.support.contract.compare import Answers, differences, report, truth

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_the_oracle_gives_the_values_that_people_worked_out(written: list[Case]) -> None:
    assert len(written) > 100
    assert len({case.name for case in written}) == len(written)
    assert {case.view for case in written} >= {"spans", "slides", "by_pair", "by_kinds", "by_text", "latest", "fact"}
    for case in written:
        assert case.expect, case.name
        assert case.why, case.name
        found = truth(case)
        assert {name: found[name][0] for name in case.expect} == dict(case.expect), (case.name, case.why)
        assert {name: found[name][1] for name in case.status} == dict(case.status), (case.name, case.why)


def test_generated_cases_are_many_different_and_the_same_again() -> None:
    found = generate.cases(600)
    assert found != generate.cases(600, seed=generate.SEED + 1)
    assert [(c.key, c.q, c.events) for c in found] == [(c.key, c.q, c.events) for c in generate.cases(600)]
    statuses = {status for case in found for _, status in truth(case).values()}
    assert statuses == {"PRESENT", "NULL", "EXPIRED", "OVERFLOW", "NOT_FOUND"}
    assert {case.view for case in found} == catalog.VIEWS.keys()


def test_the_reference(cases: list[Case]) -> None:
    _check(Reference(), cases)


def test_the_kernel(cases: list[Case]) -> None:
    _check(Kernel(), cases)


def test_the_online_path(cases: list[Case], client: redis.Redis) -> None:
    _check(Online(client), cases)


def test_the_online_path_after_batch_corrections(cases: list[Case], client: redis.Redis) -> None:
    _check(Online(client, corrected=True), cases)


def test_a_reader_beside_floors_alone(cases: list[Case], client: redis.Redis) -> None:
    adapter = Masked(client)
    mine = [case for case in cases if adapter.takes(case)]
    assert len(mine) > 50
    wrong = differences(mine, adapter.answers(mine), adapter.counts)
    assert not wrong, report(adapter.name, wrong, len(mine))


def test_spark(cases: list[Case], spark: SparkSession, spark_home: Settings) -> None:
    _check(Spark(spark, spark_home), cases)


def test_the_offline_path_without_spark(cases: list[Case]) -> None:
    _check(Small(), cases)


def test_the_batch_load(cases: list[Case], spark: SparkSession, client: redis.Redis) -> None:
    _check(SparkLoad(spark, client), cases)


def test_flink(streamed: Streamed) -> None:
    _judge(streamed.adapter, streamed.cases, streamed.answers)


def _check(adapter: Adapter, cases: Sequence[Case]) -> None:
    mine = [case for case in cases if adapter.takes(case)]
    _judge(adapter, mine, adapter.answers(mine))


def _judge(adapter: Adapter, mine: Sequence[Case], answers: Sequence[Answers]) -> None:
    generated = sum(not case.expect for case in mine)
    print(f"seed {generate.SEED}: {generated} generated and {len(mine) - generated} written cases for {adapter.name}")
    assert generated >= min(1000, generate.COUNT // 2)
    wrong = differences(mine, answers, adapter.counts)
    assert not wrong, report(adapter.name, wrong, len(mine))
