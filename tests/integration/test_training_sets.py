"""Training sets as a product: both engines alike, labels, profiles, rebuilding, extending, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import typer
from typer.testing import CliRunner

from coeval.client import FeatureStore, connect
from coeval.errors import NeedsSparkError, StoreError, UsageError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.time import DAY, HOUR
from coeval.training import Labels, TrainingSet
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.commands import register
from coeval_pipelines.offline.log_files import pins
from coeval_pipelines.offline.tables import append, table_path
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.build import Wanted, build, extend
from coeval_pipelines.offline.training.diff import difference
from coeval_pipelines.offline.training.rebuild import rebuild
from tests.support import catalog
from tests.support.offline import event_frame, limit_rows, spine_path, write_limits
from tests.support.training_worlds import MANIFEST, START, World, differences, spine_table, world

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEED = 20261122
ASKED = Asked.of(MANIFEST, "risk")
ENGINES = ("local", "spark")


@pytest.fixture(scope="module")
def made() -> World:
    print(f"seed {SEED}")
    return world(SEED, events=150, rows=120)


@pytest.fixture
def settings(made: World, tmp_path: Path, log: Path) -> Settings:
    """A state directory of its own, on the one log."""
    found = Settings(home=tmp_path)
    path = table_path(found, MANIFEST, "log", "payments")
    path.parent.mkdir(parents=True)
    path.symlink_to(log)
    write_limits(found, made.limits)
    found.manifest_path.write_text(MANIFEST.to_json())
    return found


@pytest.fixture(scope="module")
def log(spark: SparkSession, made: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two versions, as an ingest makes it."""
    path = tmp_path_factory.mktemp("training") / "payments"
    half = len(made.payments) // 2
    append(event_frame(spark, made.payments[:half]), path, "test", 1)
    append(event_frame(spark, made.payments[half:]), path, "test", 2)
    return path


def _spine(made: World) -> pa.Table:
    table = spine_table([made])
    return table.append_column("small", pa.array([n % 3 for n in range(len(table))], pa.int8())).append_column(
        "day", pa.array([None if n % 7 == 0 else n for n in range(len(table))], pa.date32())
    )


def _labels(made: World) -> pa.Table:
    """Labels of the spine's cards, at and beside the ends of their delays; revisions; a card that nobody asks for."""
    rows = [
        (card, q + shift, number % 2 == 0, number)
        for number, (card, _, q) in enumerate(made.spine)
        for shift in (-1, 0, 1, DAY, DAY + 1)[number % 5 :][:2]
    ]
    return pa.table(
        {
            "card_id": pa.array([row[0] for row in rows], pa.int64()),
            "known_at": pa.array([row[1] for row in rows], pa.timestamp("us", tz="UTC")),
            "fraud": pa.array([row[2] for row in rows]),
            "reason": pa.array([row[3] for row in rows], pa.int16()),
        }
    )


def _same(built: Sequence[TrainingSet]) -> None:
    """Equal rows, content, profile and report."""
    one, other = built
    order = [("n", "ascending"), ("event_timestamp", "ascending")]
    assert one.to_arrow().sort_by(order).equals(other.to_arrow().sort_by(order))
    assert one.lineage["content_hash"] == other.lineage["content_hash"]
    assert one.profile == other.profile
    assert one.report == other.report


def _coeval(*arguments: str, code: int = 0) -> Any:
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, ["training-set", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


@pytest.fixture
def here(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """What commands find in the environment."""
    from coeval.settings import load_settings

    monkeypatch.setenv("COEVAL_HOME", str(settings.home))
    load_settings.cache_clear()
    yield settings
    load_settings.cache_clear()


@pytest.mark.parametrize("knowledge", ["available", "final"])
def test_both_engines_give_the_same_rows_content_profile_and_report(
    spark: SparkSession, settings: Settings, made: World, knowledge: str
) -> None:
    ErasureTable(settings, MANIFEST.tenant).record(Erasure("card_id", 1, START + HOUR), START, lambda: 0)
    labels = Labels(_labels(made), "1d", "known_at")
    wanted = [Wanted(ASKED, _spine(made), labels, knowledge, engine) for engine in ENGINES]
    built = [build(settings, item, item.engine) for item in wanted]
    assert [item.engine.name for item in built] == ["local", "spark"]
    _same(built)
    (report, _) = [item.report for item in built]
    assert report["future_leaks"] == (0 if knowledge == "available" else None)
    assert 0 < report["late_share"]["card_spend__count_1h"] < 0.5
    assert report["availability"]["rows"] == built[0].rows
    assert report["availability"]["share"]["card_spend__count_7d"] > 0
    parts = [item.lineage["parts"][0] for item in built]
    assert parts[0]["sources"] == parts[1]["sources"]
    assert parts[0]["sources"]["payments"]["version"] == 1


def test_what_is_kept_is_one_commit_that_any_reader_of_delta_reads(
    spark: SparkSession, settings: Settings, made: World
) -> None:
    built = build(settings, Wanted(ASKED, spine_table([made]), engine="local"), "one")
    assert built.path
    assert differences(spark.read.format("delta").load(str(built.path)).toArrow(), [made]) == []
    (commit,) = spark.sql(f"DESCRIBE HISTORY delta.`{built.path}`").collect()
    document = registry.Document.of(commit["userMetadata"])
    assert document is not None
    assert document.lineage == built.lineage
    assert document.profile == built.profile
    assert not list(built.path.parent.glob("*.json"))
    again = build(settings, Wanted(ASKED, spine_table([made]), engine="spark"), "one")
    _same([built, again])
    assert registry.kept_set(settings, MANIFEST.tenant, "one").version == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_label_counts_when_it_was_known_in_time_and_a_row_when_its_time_is_over(
    spark: SparkSession, settings: Settings, made: World, engine: str
) -> None:
    spine, table = _spine(made), _labels(made)
    late = pa.table({**{name: spine.column(name) for name in spine.column_names}})
    young = pa.array([datetime.now(UTC)] * 3, pa.timestamp("us", tz="UTC"))
    late = late.slice(0, 3).set_column(late.column_names.index("event_timestamp"), "event_timestamp", young)
    both = pa.concat_tables([spine, late])
    built = build(settings, Wanted(ASKED, both, Labels(table, "1d", "known_at"), engine=engine))
    assert built.rows == len(spine)
    labelled = built.lineage["parts"][0]["labels"]
    assert labelled["left_out"] == 3
    assert built.lineage["columns"]["labels"] == ["fraud", "reason"]
    instants = table.column("known_at").cast(pa.int64()).to_pylist()
    rows = sorted(zip(instants, *(table.column(n).to_pylist() for n in ("card_id", "fraud", "reason")), strict=True))
    found = built.to_arrow().sort_by("n").to_pylist()
    for row in found:
        q = int(row["event_timestamp"].timestamp() * 1e6 + 0.5)
        card, _, q = made.spine[row["n"]]
        known = [(at, reason, fraud) for at, key, fraud, reason in rows if key == card and q < at <= q + DAY]
        newest = max((at for at, _, _ in known), default=None)
        expected = {(fraud, reason) for at, reason, fraud in known if at == newest} or {(None, None)}
        assert (row["fraud"], row["reason"]) in expected, row["n"]
    assert labelled["without"]["fraud"] == sum(row["fraud"] is None for row in found) > 0


@pytest.mark.parametrize(("one", "other"), [ENGINES, ENGINES[::-1]])
def test_a_set_is_rebuilt_from_its_lineage_by_the_other_engine_too(
    spark: SparkSession, settings: Settings, made: World, one: str, other: str
) -> None:
    built = build(settings, Wanted(ASKED, _spine(made), Labels(_labels(made), "1d", "known_at"), engine=one), "one")
    append(event_frame(spark, made.payments[:5]), _own_log(settings), "test", 3)  # what came later is not read
    found = rebuild(settings, registry.kept_set(settings, MANIFEST.tenant, "one"), other)
    assert found.same
    assert found.after == built.lineage["content_hash"]
    assert found.engine.engine == other


def _own_log(settings: Settings) -> Path:
    """The log as a copy that may be written."""
    import shutil

    path = table_path(settings, MANIFEST, "log", "payments")
    shared = path.resolve()
    path.unlink()
    shutil.copytree(shared, path)
    return path


def test_a_rebuild_that_differs_says_what_differs_and_fails(here: Settings, made: World, tmp_path: Path) -> None:
    path = spine_path(tmp_path, _spine(made))
    _coeval("build", "risk", "--spine", str(path), "--name", "one")
    assert "The same" in _coeval("rebuild", "one")
    write_limits(here, [*made.limits, *limit_rows([(0, START - DAY, START - DAY, 7, 0.5, "new")])])
    found = _coeval("rebuild", "one", "--json", code=1)
    assert any("files of limits have changed" in text for text in found["differences"])
    assert not found["same"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_set_that_was_extended_is_the_one_that_is_built_at_once(
    spark: SparkSession, settings: Settings, made: World, engine: str
) -> None:
    spine, table = _spine(made), _labels(made)
    labels = Labels(table, "1d", "known_at")
    whole = build(settings, Wanted(ASKED, spine, labels, engine=engine), "whole")
    build(settings, Wanted(ASKED, spine.slice(0, 50), labels, engine="local"), "grown")
    kept = registry.kept_set(settings, MANIFEST.tenant, "grown")
    grown = extend(settings, kept, spine.slice(50), labels, engine)
    _same([whole, grown])
    assert [part["rows"] for part in grown.lineage["parts"]] == [50, len(spine) - 50]
    assert pins(settings, MANIFEST, catalog.PAYMENTS) == {1: ["grown", "whole"]}
    kept = registry.kept_set(settings, MANIFEST.tenant, "grown")
    assert rebuild(settings, kept, "auto").same
    with pytest.raises(UsageError, match="has labels with a delay of 1d"):
        extend(settings, kept, spine, None, "auto")
    with pytest.raises(UsageError, match="other columns than grown"):
        extend(settings, kept, spine.drop_columns(["small"]), labels, "auto")


def test_parts_pin_the_versions_of_the_log_that_each_was_made_of(
    spark: SparkSession, here: Settings, made: World
) -> None:
    path = _own_log(here)
    build(here, Wanted(ASKED, _spine(made)), "one")
    append(event_frame(spark, made.payments[:0]), path, "test", 3)
    extend(here, registry.kept_set(here, MANIFEST.tenant, "one"), _spine(made).slice(0, 5), None, "auto")
    assert pins(here, MANIFEST, catalog.PAYMENTS) == {1: ["one"], 2: ["one"]}
    assert rebuild(here, registry.kept_set(here, MANIFEST.tenant, "one"), "auto").same
    (listed,) = _coeval("list", "--json")["training_sets"]
    assert (listed["name"], listed["service"], listed["parts"]) == ("one", "risk", 2)
    assert "part 2" in _coeval("show", "one")
    assert _coeval("show", "one", "--json")["lineage"]["rows"] == len(_spine(made)) + 5
    _coeval("remove", "one")
    assert pins(here, MANIFEST, catalog.PAYMENTS) == {}
    assert "No training set" in _coeval("list")
    assert not list((here.delta / MANIFEST.tenant / "training_sets").glob("*one*.removed"))


def test_a_diff_says_what_moved_and_why(here: Settings, made: World) -> None:
    spine = _spine(made)
    amounts = pa.array([1000.0 + n for n in range(len(spine))])
    place = spine.column_names.index("payment_amount")
    build(here, Wanted(ASKED, spine), "one")
    build(here, Wanted(ASKED, spine.set_column(place, "payment_amount", amounts), knowledge="final"), "two")
    build(here, Wanted(ASKED, spine.drop_columns(["day"])), "three")
    found = _coeval("diff", "one", "two", "--json")
    assert found["shifts"][0]["column"] in ("payment_amount", "against_usual__ratio")
    assert found["shifts"][0]["psi"] > 0.25
    assert "knowledge: available -> final" in found["why"]
    assert any(text.startswith("spine: ") for text in found["why"])
    assert "knowledge: available -> final" in _coeval("diff", "one", "two")
    assert "Column - day" in _coeval("diff", "one", "three")
    document = registry.kept_set(here, MANIFEST.tenant, "one").document
    same = difference(document, document)
    assert same.same and not same.why and not same.columns
    assert all(shift.psi == 0 for shift in same.shifts)


def _building(settings: Settings, spine: Path) -> subprocess.Popen[str]:
    code = "from coeval.cli import main; main()"
    command = ["training-set", "build", "risk", "--spine", str(spine), "--name", "one", "--engine", "local"]
    environ = os.environ | {"COEVAL_HOME": str(settings.home)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *command], env=environ, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("at", ["computing", "writing"])
def test_a_build_that_is_killed_leaves_a_whole_set_and_the_next_gives_the_same(
    settings: Settings, made: World, tmp_path: Path, at: str
) -> None:
    before = build(settings, Wanted(ASKED, _spine(made).slice(0, 20)), "one")
    path = spine_path(tmp_path, _spine(made))
    expected = build(settings, Wanted(ASKED, _spine(made))).lineage["content_hash"]
    with _building(settings, path) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith(at):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    kept = registry.kept_set(settings, MANIFEST.tenant, "one")
    # The rows are those that the lineage speaks of, whichever of the two it is.
    assert rebuild(settings, kept, "local").same
    if at == "computing":
        assert kept.document.lineage["content_hash"] == before.lineage["content_hash"]
    with _building(settings, path) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert registry.kept_set(settings, MANIFEST.tenant, "one").document.lineage["content_hash"] == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_an_erasure_is_said_and_honoured(spark: SparkSession, settings: Settings, made: World, engine: str) -> None:
    before = build(settings, Wanted(ASKED, _spine(made), engine=engine), "one")
    kept = registry.kept_set(settings, MANIFEST.tenant, "one")
    ErasureTable(settings, MANIFEST.tenant).record(Erasure("card_id", 0, START + 40 * DAY), START, lambda: 0)
    with pytest.raises(UsageError, match="erased"):
        extend(settings, kept, _spine(made), None, "auto")
    found = rebuild(settings, kept, engine)
    assert found.erased and found.same
    after = registry.kept_set(settings, MANIFEST.tenant, "one").document.lineage
    assert after["erased"]
    assert after["content_hash"] == found.after != before.lineage["content_hash"]
    assert after["rows"] == before.rows
    assert not rebuild(settings, registry.kept_set(settings, MANIFEST.tenant, "one"), engine).erased


def test_every_form_of_a_spine_is_read_by_either_engine(
    spark: SparkSession, settings: Settings, made: World, tmp_path: Path
) -> None:
    table = spine_table([made])
    path = spine_path(tmp_path, table)
    pacsv.write_csv(table, tmp_path / "spine.csv")
    forms = [table, table.to_pandas(), pl.from_arrow(table), str(path), tmp_path / "spine.csv"]
    query = f"SELECT * FROM parquet.`{path}`"
    hashes = {build(settings, Wanted(ASKED, form)).lineage["content_hash"] for form in forms}
    hashes |= {build(settings, Wanted(ASKED, form, engine="spark")).lineage["content_hash"] for form in forms[1:]}
    by_query = build(settings, Wanted(ASKED, query))
    assert {by_query.lineage["content_hash"]} == hashes
    assert by_query.engine.name == "spark"
    assert "Spark" in by_query.engine.why
    assert build(settings, Wanted(ASKED, spark.createDataFrame(table))).engine.name == "spark"
    with pytest.raises(NeedsSparkError):
        build(settings, Wanted(ASKED, query, engine="local"))


def test_a_notebook_needs_no_online_store(settings: Settings, made: World) -> None:
    spine = spine_table([made])
    with connect(settings, online=False) as store:
        kept = store.get_training_set("risk", spine, name="mine")
        pinned = store.get_training_set(f"risk@{MANIFEST.hash[:12]}", spine)
        assert kept.path is not None and pinned.path is None
        assert pinned.to_pandas().shape == (len(spine), len(kept.profile["columns"]))
        assert pinned.lineage["content_hash"] == kept.lineage["content_hash"]
        at = datetime(2026, 3, 25, tzinfo=UTC)
        scored = store.get_batch_features("risk", spine.drop_columns(["event_timestamp"]), at)
        instants = spine.set_column(3, "event_timestamp", pa.array([at] * len(spine), pa.timestamp("us", tz="UTC")))
        names = store.get_training_set("risk", instants).to_arrow().column_names
        assert scored.to_arrow().select(names).equals(store.get_training_set("risk", instants).to_arrow())
        with pytest.raises(UsageError, match="no time zone"):
            store.get_batch_features("risk", spine, datetime(2026, 3, 25))
        with pytest.raises(StoreError, match="without the online store"):
            store.get_features("risk", {"card_id": [1], "merchant_id": ["m"]}, request={"payment_amount": [1.0]})


def test_a_service_is_had_as_an_archived_manifest_defines_it(settings: Settings, made: World) -> None:
    service = MANIFEST.services[0]
    narrow = replace(MANIFEST, services=(replace(service, views=service.views[:1], derived=()),))
    settings.manifests.mkdir()
    (settings.manifests / f"{narrow.hash}.json").write_text(narrow.to_json())
    with connect(settings, online=False) as store:
        found = store.get_training_set(f"risk@{narrow.hash[:10]}", spine_table([made]), name="old")
    assert found.lineage["manifest"] == narrow.hash
    settings.manifests.joinpath(f"{narrow.hash}.json").unlink()
    # A set brings its manifest: it can be built again when nobody else remembers it.
    assert rebuild(settings, registry.kept_set(settings, MANIFEST.tenant, "old"), "auto").same


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"delay": "soon"}, "not a duration"),
        ({"delay": "0d"}, "without a delay"),
        ({"at": "when"}, "the instant when"),
        ({"table": pa.table({"known_at": [1]})}, "keys of the service"),
    ],
)
def test_labels_that_cannot_be_joined_are_refused_with_their_reason(
    settings: Settings, made: World, change: dict[str, Any], says: str
) -> None:
    labels = replace(Labels(_labels(made), "1d", "known_at"), **change)
    with pytest.raises(UsageError, match=says) as raised:
        build(settings, Wanted(ASKED, _spine(made), labels))
    assert raised.value.instruction


def test_a_store_of_one_manifest_says_what_it_lacks(made: World) -> None:
    with pytest.raises(UsageError, match=r"coeval\.connect"):
        FeatureStore(MANIFEST, None).get_training_set("risk", spine_table([made]))
