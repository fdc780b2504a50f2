"""A Spark session leaves nothing behind: no process, no file in the current directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval_pipelines.local.artefacts import ensure_jars
from coeval_pipelines.offline.session_config import session_config

SCRIPT = """
import json, psutil
from coeval.settings import load_settings
from coeval_pipelines.offline.session import spark_session
with spark_session(load_settings()) as outer, spark_session(load_settings()) as inner:
    rows = inner.range(3).count()
    born = {child.pid: child.create_time() for child in psutil.Process().children(recursive=True)}
    print(json.dumps({"same": outer is inner, "rows": rows, "born": born}))
left = [child.name() for child in psutil.Process().children(recursive=True)]
print(json.dumps(left))
"""


def test_a_session_leaves_no_process_and_no_files(tmp_path: Path) -> None:
    ensure_jars(Settings())
    (tmp_path / "cwd").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path / "cwd", env=os.environ | {"COEVAL_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    during, after = (json.loads(line) for line in done.stdout.splitlines())
    assert (during["same"], during["rows"]) == (True, 3)
    assert during["born"]
    assert [pid for pid, at in during["born"].items() if _runs(int(pid), at)] == []
    assert after == []
    assert list((tmp_path / "cwd").iterdir()) == []
    assert done.stderr == ""


def _runs(pid: int, born: float) -> bool:
    """Whether that very process runs: numbers are used again, and a zombie runs no more."""
    try:
        process = psutil.Process(pid)
        return process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_missing_jars_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Java artefacts of Spark are not in"):
        session_config(Settings(home=tmp_path, cache=tmp_path / "nowhere"))
