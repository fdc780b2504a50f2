"""The stream's own SQL with every sink replaced by one that forgets: what Flink alone can do. A child process.

Its argument is the JSON that `coeval_pipelines.streaming.submit` takes, in a file; it prints job ids as that does.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import Run
from coeval_pipelines.streaming import submit
from coeval_pipelines.streaming.sql import SourceJob

_TABLE = re.compile(r"CREATE TEMPORARY TABLE `(?P<name>[^`]+)` .*?\) WITH \((?P<options>.*)\)\s*$", re.DOTALL)


def forgetful(job: SourceJob) -> SourceJob:
    """The same job into nowhere."""
    return replace(job, statements=tuple(_forgetting(item) for item in job.statements))


def _forgetting(statement: str) -> str:
    found = _TABLE.match(statement)
    if not found or found["name"].endswith("@topic"):
        return statement
    return statement[: found.start("options")] + "'connector' = 'blackhole')"


def main() -> int:
    """Submit as the product does, with sinks that forget."""
    real = submit.job_of

    def job_of(settings: Settings, manifest: Manifest, run: Run) -> SourceJob:
        return forgetful(real(settings, manifest, run))

    submit.job_of = job_of
    return submit.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
