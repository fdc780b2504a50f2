"""`python -m coeval_pipelines.offline.load`: load views by batch in a process of its own; prints JSON counts."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from coeval.client import read_manifest
from coeval.errors import CoevalError, UsageError
from coeval.logs import configure_logging
from coeval.settings import Settings, load_settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval_pipelines.control import BatchLoad, ControlPlane
from coeval_pipelines.offline.online_load import load_view
from coeval_pipelines.offline.session import spark_session


def main() -> None:
    """Exit codes: 0 done, 2 usage, 3 infrastructure."""
    parser = argparse.ArgumentParser(prog="python -m coeval_pipelines.offline.load", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="the manifest to load by")
    parser.add_argument("--view", action="append", default=[], help="a view to load (default: every view); repeatable")
    parser.add_argument("--cut", type=int, required=True, help="microseconds UTC that the log has been ingested up to")
    arguments = parser.parse_args()
    settings = load_settings()
    configure_logging(settings.log_level)
    try:
        manifest = read_manifest(arguments.manifest)
        loads = run(settings, manifest, chosen_views(manifest, arguments.view), arguments.cut)
    except CoevalError as error:
        print(f"coeval: {error.code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps({"loads": [asdict(load) for load in loads]}))


def chosen_views(manifest: Manifest, names: list[str]) -> list[View]:
    """The named views, or every view.

    Raises:
        UsageError: there is no view of that name.
    """
    unknown = sorted(set(names) - manifest.views.keys())
    if unknown:
        raise UsageError(f"There is no view {', '.join(unknown)}.", f"Known: {', '.join(manifest.views)}.")
    return [manifest.views[name] for name in names or manifest.views]


def run(settings: Settings, manifest: Manifest, views: list[View], cut: int) -> list[BatchLoad]:
    """Load views at one cut."""
    with closing(ControlPlane.open(settings)) as control, spark_session(settings) as spark:
        return [load_view(spark, settings, manifest, control, view, cut) for view in views]


if __name__ == "__main__":
    main()
