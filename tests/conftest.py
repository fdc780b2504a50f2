"""Fixtures of real components: each starts on free ports in a temporary directory and leaves nothing running."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import prometheus_client  # noqa: F401 - before Feast, whose import has metrics kept for several processes
import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

from coeval.settings import Settings
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.components import ENGINES
from coeval_pipelines.local.prepare import free_settings

# The engines of a test end before Java's optimising compiler would have paid back what it takes: a quarter of the CPU.
# It also shrinks the code cache, which many small queries then fill.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")

# A rule holds or not; how long one example takes says something about the machine alone.
hypothesis.settings.register_profile("coeval", deadline=None)
hypothesis.settings.load_profile("coeval")


_ONE_STREAM = ("test_contract.py", "test_engines.py", "test_mutations.py")
"""They ask one stream, which takes a minute to come up."""


class _Files(LoadFileScheduling):  # type: ignore[misc]
    """A file's tests run in one process, and so do those of the files that share what is expensive."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "stream" if file.rpartition("/")[2] in _ONE_STREAM else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Files:
    """How tests are spread over processes."""
    return _Files(config, log)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that runs in the process of the tests sets its log level for all that follow."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A Redis of our own."""
    settings = free_settings(tmp_path_factory.mktemp("redis"))
    local.up(settings, ("redis",))
    yield settings
    local.down(settings)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A Redis and a Kafka broker of our own."""
    settings = free_settings(tmp_path_factory.mktemp("broker"))
    local.up(settings, ("redis", "broker"))
    yield settings
    local.down(settings)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The engines: Redis, broker and a Flink cluster; tests run writer and jobs themselves."""
    settings = free_settings(tmp_path_factory.mktemp("stack"))
    local.up(settings, ENGINES)
    yield settings
    local.down(settings)
