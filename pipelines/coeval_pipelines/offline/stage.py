"""`python -m coeval_pipelines.offline.stage RUN...`: compute what loads write, in a process of its own."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from coeval.errors import CoevalError, ManifestError
from coeval.logs import configure_logging
from coeval.settings import Settings, load_settings
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import LoadBook
from coeval_pipelines.offline.session import spark_session
from coeval_pipelines.offline.staging import stage


def main() -> None:
    """Exit codes: 0 done, 2 usage, 3 infrastructure."""
    parser = argparse.ArgumentParser(prog="python -m coeval_pipelines.offline.stage", description=__doc__)
    parser.add_argument("runs", type=int, nargs="+", metavar="RUN", help="the number of a load that was planned")
    arguments = parser.parse_args()
    settings = load_settings()
    configure_logging(settings.log_level)
    try:
        stage_runs(settings, arguments.runs)
    except CoevalError as error:
        print(f"coeval: {error.code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def stage_runs(settings: Settings, numbers: list[int]) -> None:
    """Stage loads that were planned, by the manifests that they were planned with.

    Raises:
        UsageError: there is no such load.
        ManifestError: the control plane does not have its manifest.
    """
    with closing(ControlPlane.open(settings)) as control, spark_session(settings) as spark:
        for number in numbers:
            run = LoadBook(control).get(number)
            manifest = control.manifest(run.manifest_hash)
            if manifest is None:
                raise ManifestError(f"The manifest of load {number} is not in the control plane.", "Load anew.")
            stage(spark, settings, manifest, control, run)


if __name__ == "__main__":
    main()
