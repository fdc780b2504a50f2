"""Claims about what the supervisor calls healthy of a service of ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from coeval.settings import Settings
from coeval_pipelines import heartbeat
from coeval_pipelines.local.artefacts import Jars
from coeval_pipelines.local.components import components, heartbeat_path
from coeval_pipelines.local.health import is_healthy


def test_a_writer_whose_loop_stands_still_is_unhealthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    (writer,) = components(settings, Jars((), (), (), ()), ("writer",))
    path, began = heartbeat_path(settings, "writer"), time.time() - 100
    path.parent.mkdir(parents=True)
    assert is_healthy(settings, writer, time.time())
    assert not is_healthy(settings, writer, began)
    monkeypatch.setenv(heartbeat.VARIABLE, writer.env[heartbeat.VARIABLE])
    heartbeat.beat()
    assert is_healthy(settings, writer, began)
    os.utime(path, (began, began + 30))
    assert not is_healthy(settings, writer, began)


def test_without_a_supervisor_a_loop_beats_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(heartbeat.VARIABLE, raising=False)
    heartbeat.beat()
