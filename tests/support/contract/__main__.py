"""Runs every mutation and prints which rule is caught in which engine, by how many cases. Exit code 1: one was not."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import redis

from coeval.settings import Settings
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.components import ENGINES
from coeval_pipelines.local.prepare import free_settings
from coeval_pipelines.offline.session import spark_session
from tests.support.contract import generate
from tests.support.contract.adapters.flink import Flink, deliver
from tests.support.contract.adapters.kernel import Kernel
from tests.support.contract.adapters.online import online_adapters
from tests.support.contract.adapters.small import Small
from tests.support.contract.adapters.spark import Spark
from tests.support.contract.adapters.spark_load import SparkLoad
from tests.support.contract.breaking import caught, caught_by_flink
from tests.support.contract.cases import Case, read_cases
from tests.support.contract.mutations import KERNEL, LOAD, ONLINE, SMALL, SPARK, STREAM, Mutation, table

CASES = Path(__file__).parents[2] / "contract" / "cases"
Caught = tuple[Mutation, int]


def main() -> int:
    """Start a stack of its own, break every rule, print the table."""
    cases = read_cases(CASES) + generate.cases()
    print(f"seed {generate.SEED}, {len(cases)} cases", file=sys.stderr)
    with tempfile.TemporaryDirectory() as home:
        settings = free_settings(Path(home))
        local.up(settings, ENGINES)
        try:
            found = list(_all(settings, cases))
        finally:
            local.down(settings)
    print(table(found))
    missed = [f"{mutation.engine}: {mutation.rule}" for mutation, number in found if not number]
    print(
        f"{len(found)} mutations, {len(found) - len(missed)} caught"
        + "".join(f"\nNOT CAUGHT {name}" for name in missed)
    )
    return 1 if missed else 0


def _all(settings: Settings, cases: list[Case]) -> Iterator[Caught]:
    with closing(redis.Redis.from_url(settings.redis.url)) as client:
        for mutation in ONLINE:
            yield _said(mutation, caught(mutation, online_adapters(client), cases))
        for mutation in KERNEL:
            yield _said(mutation, caught(mutation, [Kernel()], cases))
        for mutation in SMALL:
            yield _said(mutation, caught(mutation, [Small()], cases))
        with spark_session(settings) as spark:
            for mutation in SPARK:
                yield _said(mutation, caught(mutation, [Spark(spark, settings)], cases))
            for mutation in LOAD:
                yield _said(mutation, caught(mutation, [SparkLoad(spark, client)], cases))
        client.flushall()
    streamed = [case for case in cases if Flink(settings).takes(case)]
    deliver(settings, streamed)
    for mutation, number in zip(STREAM, caught_by_flink(STREAM, settings, streamed), strict=True):
        yield _said(mutation, number)


def _said(mutation: Mutation, number: int) -> Caught:
    print(f"{mutation.engine}: {mutation.rule}: caught by {number} cases", file=sys.stderr)
    return mutation, number


if __name__ == "__main__":
    sys.exit(main())
