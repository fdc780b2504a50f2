"""The offline engine on a real standalone cluster: a master, a worker and executors in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pyspark
import pytest

from coeval.errors import MissingExtraError
from coeval.reference import value_at
from coeval.settings import Settings, SparkSettings
from coeval.spec.model import FeatureService, ServiceView
from coeval.spec.records import ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_pipelines.offline.session_config import remote_config, session_config
from coeval_pipelines.offline.tables import append, read_files, table_path
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import event_frame, spine_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
_SPARK = Path(pyspark.__file__).parent
_LOCAL = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1", "SPARK_HOME": str(_SPARK)}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _daemon(directory: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK", "SPARK"))}
    command = [str(_SPARK / "bin/spark-class"), f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1", *arguments]
    with (directory / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, env=environ | _LOCAL, stdout=log, stderr=log, cwd=directory)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a master with one worker, which are gone afterwards, executors too."""
    port = _free_port()
    address = f"spark://127.0.0.1:{port}"
    started = [_daemon(tmp_path, "master.Master", "--port", str(port), "--webui-port", str(_free_port()))]
    try:
        worker = ("--cores", "2", "--memory", "1g", "--webui-port", str(_free_port()), "--work-dir", str(tmp_path))
        _await(tmp_path / "master.Master.log", "I have been elected leader")
        started.append(_daemon(tmp_path, "worker.Worker", *worker, address))
        _await(tmp_path / "worker.Worker.log", "Successfully registered")
        yield address
    finally:
        every = [child for one in started for child in (psutil.Process(one.pid), *_children(one.pid))]
        for process in every:
            process.terminate()
        psutil.wait_procs(every, timeout=20)
        for one in started:
            one.wait(20)


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _await(log: Path, text: str) -> None:
    deadline = time.monotonic() + 90
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.1)


def test_a_cluster_builds_a_training_set(cluster: str, spark: SparkSession, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.home.mkdir()
    view = catalog.PAIR
    used = ServiceView(view.name, view.version, ("count_7d",))
    manifest = replace(catalog.manifest(), services=(FeatureService("small", (used,), ()),), derived_views=())
    settings.manifest_path.write_text(manifest.to_json())
    events = list(ingest(catalog.PAYMENTS, records(35, 120, START, 5 * DAY)).good)
    append(event_frame(spark, events), table_path(settings, manifest, "log", "payments"), "test", 1)
    at = START + 5 * DAY
    spine = {"card_id": [0, 1, 2], "merchant_id": ["m-1"] * 3, "event_timestamp": pa.array([at] * 3, pa.int64())}
    environ = os.environ | {
        "COEVAL_HOME": str(settings.home),
        "COEVAL_SPARK__MASTER": cluster,
        "COEVAL_SPARK__DRIVER_HOST": "127.0.0.1",
        "COEVAL_SPARK__DRIVER_MEMORY": "1g",
        "COEVAL_SPARK__SHUFFLE_PARTITIONS": "2",
        "COEVAL_SPARK__CONF": json.dumps(
            {
                "spark.executor.memory": "512m",
                "spark.executor.extraJavaOptions": "-Duser.timezone=UTC -XX:TieredStopAtLevel=1",
            }
        ),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    path = spine_path(tmp_path, pa.table(spine))
    command = ["training-set", "build", "small", "--spine", str(path), "--name", "far", "--engine", "spark", "--json"]
    code = "from coeval.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lineage"]["rows"] == 3
    rows = spark.read.format("delta").load(json.loads(done.stdout)["path"]).toArrow().to_pylist()
    for row in rows:
        expected = value_at(view, catalog.PAYMENTS, events, (row["card_id"], "m-1"), at)
        assert row["card_merchant__count_7d"] == expected["count_7d"].value
    assert "executor" in (tmp_path / "worker.Worker.log").read_text().lower()  # it was not done in the driver


def test_what_each_master_gets(tmp_path: Path) -> None:
    far = Settings(
        home=tmp_path,
        spark=SparkSettings(master="k8s://https://10.0.0.1", ship_jars=False, conf={"spark.sql.ansi.enabled": "maybe"}),
    )
    config = session_config(far)
    assert not {"spark.jars", "spark.driver.host", "spark.local.dir", "spark.driver.extraClassPath"} & config.keys()
    assert config["spark.sql.ansi.enabled"] == "maybe"  # what the user says goes over ours
    near = session_config(Settings(home=tmp_path))
    assert near["spark.driver.host"] == "127.0.0.1"
    assert remote_config(far)["spark.sql.session.timeZone"] == config["spark.sql.session.timeZone"] == "UTC"
    assert not [name for name in remote_config(far) if not name.startswith("spark.sql.")]


def test_files_of_sources_may_be_on_any_storage_that_spark_reads(spark: SparkSession, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for uri in ("s3a://bucket/rows", "abfss://c@account.dfs.core.windows.net/rows", "dbfs:/rows", "/rows"):
        assert settings.data_path(uri) == uri
    assert settings.data_path("rows") == str(tmp_path / "rows")
    spine_path(tmp_path, pa.table({"card_id": pa.array([7], pa.int64())}))
    frame = read_files(spark, settings, "the source", f"file://{tmp_path}/spine.parquet", [catalog.CARD])
    assert [row["card_id"] for row in frame.collect()] == [7]


def test_settings_reach_a_child_process_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, spark=SparkSettings(master="yarn", conf={"spark.a": 'b "c"'}))
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    assert Settings().spark == settings.spark


@pytest.mark.parametrize(
    ("master", "says"), [("databricks", "pip install databricks-connect"), ("sc://127.0.0.1:1", "pyspark\\[connect\\]")]
)
def test_what_calls_a_cluster_over_the_net_is_named_where_it_is_missing(master: str, says: str, tmp_path: Path) -> None:
    script = (
        "from coeval.settings import load_settings; from coeval_pipelines.offline.session import spark_session\n"
        "with spark_session(load_settings()): pass"
    )
    environ = os.environ | {"COEVAL_HOME": str(tmp_path), "COEVAL_SPARK__MASTER": master}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert MissingExtraError.__name__ in done.stderr
    assert says.replace("\\", "") in done.stderr
