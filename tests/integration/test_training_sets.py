"""Training sets as a product: both engines alike, labels, profiles, rebuilding, extending, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import typer
from deltalake import write_deltalake
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
from coeval_pipelines.offline.spine import read_spine
from coeval_pipelines.offline.tables import append, table_path
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.build import Wanted, build, extend
from coeval_pipelines.offline.training.diff import difference
from coeval_pipelines.offline.training.engines import chosen
from coeval_pipelines.offline.training.local import LocalEngine
from coeval_pipelines.offline.training.rebuild import compare, rebuild
from coeval_pipelines.offline.training.registry import pins
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


def _home(home: Path, log: Path, made: World) -> Settings:
    """A state directory of its own, on the one log."""
    found = Settings(home=home)
    path = table_path(found, MANIFEST, "log", "payments")
    path.parent.mkdir(parents=True)
    path.symlink_to(log)
    write_limits(found, made.limits)
    found.manifest_path.write_text(MANIFEST.to_json())
    return found


@pytest.fixture
def settings(made: World, tmp_path: Path, log: Path) -> Settings:
    return _home(tmp_path, log, made)


@pytest.fixture(scope="module")
def log(spark: SparkSession, made: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two versions, as an ingest makes it."""
    path = tmp_path_factory.mktemp("training") / "payments"
    half = len(made.payments) // 2
    append(event_frame(spark, made.payments[:half]), path, "test", 1)
    append(event_frame(spark, made.payments[half:]), path, "test", 2)
    return path


@dataclass(frozen=True)
class Pair:
    """The same training set by either engine, with labels, an erasure, and rows whose labels cannot be known yet."""

    settings: Settings
    local: TrainingSet
    spark: TrainingSet


@pytest.fixture(scope="module")
def pair(spark: SparkSession, made: World, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    settings = _home(tmp_path_factory.mktemp("pair"), log, made)
    ErasureTable(settings, MANIFEST.tenant).record(Erasure("card_id", 1, START + HOUR), START, lambda: 0)
    spine = _spine(made)
    young = pa.array([datetime.now(UTC)] * 3, pa.timestamp("us", tz="UTC"))
    late = spine.slice(0, 3).set_column(spine.column_names.index("event_timestamp"), "event_timestamp", young)
    labels = Labels(_labels(made), "1d", "known_at")
    wanted = [Wanted(ASKED, pa.concat_tables([spine, late]), labels, engine=engine) for engine in ENGINES]
    return Pair(settings, *(build(settings, item, item.engine) for item in wanted))


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
            "score": pa.array([(0.5, nan, inf)[row[3] % 3] for row in rows]),
        }
    )


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([("n", "ascending"), ("event_timestamp", "ascending")])


def _same(one: TrainingSet, other: TrainingSet) -> None:
    """Equal rows, content, profile and report."""
    assert _sorted(one.to_arrow()).equals(_sorted(other.to_arrow()))
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


def test_both_engines_give_the_same_rows_content_profile_and_report(pair: Pair) -> None:
    assert (pair.local.engine.name, pair.spark.engine.name) == ENGINES
    _same(pair.local, pair.spark)
    report = pair.local.report
    assert report["future_leaks"] == 0
    assert 0 < report["late_share"]["card_spend__count_1h"] < 0.5
    assert report["availability"]["rows"] == pair.local.rows
    assert report["availability"]["share"]["card_spend__count_7d"] > 0
    parts = [item.lineage["parts"][0] for item in (pair.local, pair.spark)]
    assert parts[0]["sources"] == parts[1]["sources"]
    assert parts[0]["labels"] == parts[1]["labels"]
    assert parts[0]["sources"]["payments"]["version"] == 1


def test_what_is_kept_is_one_commit_that_any_reader_of_delta_reads(spark: SparkSession, pair: Pair) -> None:
    for built in (pair.local, pair.spark):
        (commit,) = spark.sql(f"DESCRIBE HISTORY delta.`{built.path}`").collect()
        document = registry.Document.of(commit["userMetadata"])
        assert document is not None
        assert (document.lineage, document.profile, document.report) == (built.lineage, built.profile, built.report)
        table = spark.read.format("delta").load(str(built.path)).toArrow()
        assert _sorted(table).equals(_sorted(pair.local.to_arrow()))
        assert built.path and not list(built.path.parent.glob("*.json"))


def test_values_are_the_oracles(settings: Settings, made: World) -> None:
    built = build(settings, Wanted(ASKED, spine_table([made])))
    assert differences(built.to_arrow(), [made]) == []
    final = build(settings, Wanted(ASKED, spine_table([made]), knowledge="final"))
    assert final.report["future_leaks"] is None
    # What either says of the other is the same.
    assert final.report["availability"] == built.report["availability"]


def test_a_label_counts_when_it_was_known_in_time_and_a_row_when_its_time_is_over(pair: Pair, made: World) -> None:
    table, built = _labels(made), pair.local
    labelled = built.lineage["parts"][0]["labels"]
    assert built.rows == len(_spine(made))
    assert labelled["left_out"] == 3
    assert built.lineage["columns"]["labels"] == ["fraud", "reason", "score"]
    instants = table.column("known_at").cast(pa.int64()).to_pylist()
    rows = list(zip(instants, *(table.column(n).to_pylist() for n in ("card_id", "fraud", "reason")), strict=True))
    erased = START + HOUR
    found = built.to_arrow().sort_by("n").to_pylist()
    for row in found:
        card, _, q = made.spine[row["n"]]
        known = [item for item in rows if item[1] == card and q < item[0] <= q + DAY]
        known = [item for item in known if card != 1 or item[0] > erased]
        newest = max((item[0] for item in known), default=None)
        expected = {item[2:] for item in known if item[0] == newest} or {(None, None)}
        assert (row["fraud"], row["reason"]) in expected, row["n"]
        assert row["score"] == (0.5 if row["reason"] is not None and row["reason"] % 3 == 0 else None)
    assert labelled["without"]["fraud"] == sum(row["fraud"] is None for row in found) > 0


@pytest.mark.parametrize(("one", "other"), [ENGINES, ENGINES[::-1]])
def test_a_set_is_rebuilt_from_its_lineage_by_the_other_engine_too(pair: Pair, one: str, other: str) -> None:
    found = rebuild(pair.settings, registry.kept_set(pair.settings, MANIFEST.tenant, one), other)
    assert found.same and not found.erased
    assert found.after == pair.local.lineage["content_hash"]
    assert found.engine.engine == other


@pytest.mark.parametrize("engine", ENGINES)
def test_either_engine_finds_the_rows_that_differ(here: Settings, made: World, engine: str) -> None:
    build(here, Wanted(ASKED, _spine(made), engine="local"), "one")
    write_limits(here, [*made.limits, *limit_rows([(0, START - DAY, START - DAY, 7, 0.5, "new")])])
    found = compare(here, registry.kept_set(here, MANIFEST.tenant, "one"), engine)
    assert found.stored == found.before != found.after
    assert found.changed == ("limits",)
    assert found.apart.rows == max(found.apart.features.values()) > 0
    assert set(found.apart.features) == {"card_limit__limit", "card_limit__score", "card_limit__tier"}
    assert all(item.kept is None and item.again in ("7", "0.07", "0.5", "new") for item in found.apart.values)


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


def test_a_set_that_was_extended_is_the_one_that_is_built_at_once(
    spark: SparkSession, settings: Settings, made: World
) -> None:
    spine, labels = _spine(made), Labels(_labels(made), "1d", "known_at")
    whole = build(settings, Wanted(ASKED, spine, labels), "whole")
    for engine in ENGINES:
        build(settings, Wanted(ASKED, spine.slice(0, 50), labels), engine)
        grown = extend(settings, _kept(settings, engine), spine.slice(50), labels, engine)
        _same(whole, grown)
        assert [part["rows"] for part in grown.lineage["parts"]] == [50, len(spine) - 50]
        assert rebuild(settings, _kept(settings, engine), "local").same
    assert pins(settings, MANIFEST, catalog.PAYMENTS) == {1: ["local", "spark", "whole"]}
    with pytest.raises(UsageError, match="has labels with a delay of 1d"):
        extend(settings, _kept(settings, "local"), spine, None, "auto")
    with pytest.raises(UsageError, match="other columns than local"):
        extend(settings, _kept(settings, "local"), spine.drop_columns(["small"]), labels, "auto")


def _kept(settings: Settings, name: str) -> registry.Kept:
    return registry.kept_set(settings, MANIFEST.tenant, name)


def test_parts_pin_the_versions_of_the_log_that_each_was_made_of(
    spark: SparkSession, here: Settings, made: World
) -> None:
    path = _own_log(here)
    build(here, Wanted(ASKED, _spine(made)), "one")
    append(event_frame(spark, made.payments[:0]), path, "test", 3)
    extend(here, _kept(here, "one"), _spine(made).slice(0, 5), None, "auto")
    assert pins(here, MANIFEST, catalog.PAYMENTS) == {1: ["one"], 2: ["one"]}
    assert rebuild(here, _kept(here, "one"), "auto").same
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
    document = _kept(here, "one").document
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
    kept = _kept(settings, "one")
    # The rows are those that the lineage speaks of, whichever of the two it is.
    assert rebuild(settings, kept, "local").same
    if at == "computing":
        assert kept.document.lineage["content_hash"] == before.lineage["content_hash"]
    with _building(settings, path) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert _kept(settings, "one").document.lineage["content_hash"] == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_an_erasure_is_said_and_honoured(spark: SparkSession, settings: Settings, made: World, engine: str) -> None:
    build(settings, Wanted(ASKED, _spine(made).slice(0, 9), engine=engine), "one")
    before = build(settings, Wanted(ASKED, _spine(made), engine=engine), "one")
    ErasureTable(settings, MANIFEST.tenant).record(Erasure("card_id", 0, START + 40 * DAY), START, lambda: 0)
    with pytest.raises(UsageError, match="erased"):
        extend(settings, _kept(settings, "one"), _spine(made), None, "auto")
    found = rebuild(settings, _kept(settings, "one"), engine)
    assert found.erased and found.same
    after = _kept(settings, "one").document.lineage
    assert after["erased"]
    assert after["content_hash"] == found.after != before.lineage["content_hash"]
    assert after["rows"] == before.rows
    assert not rebuild(settings, _kept(settings, "one"), engine).erased


def test_every_form_of_a_spine_is_read_alike_by_either_engine(
    spark: SparkSession, settings: Settings, made: World, tmp_path: Path
) -> None:
    table = spine_table([made])
    path = spine_path(tmp_path, table)
    pacsv.write_csv(table, tmp_path / "spine.csv")
    write_deltalake(str(tmp_path / "spine"), table)
    forms = [table, table.to_pandas(), pl.from_arrow(table), str(path), tmp_path / "spine.csv", tmp_path / "spine"]
    for form in forms:
        found = LocalEngine(settings).read(form, ASKED)
        # Of a CSV file, request inputs are read as they are declared.
        assert found.drop_columns(["payment_amount"]).equals(table.drop_columns(["payment_amount"]))
        assert read_spine(spark, form, ASKED).toArrow().sort_by("n").equals(found.sort_by("n"))
        assert chosen(settings, ASKED, form, "auto").engine == "local"
    query = f"SELECT * FROM parquet.`{path}`"
    for form in (query, spark.createDataFrame(table)):
        assert read_spine(spark, form, ASKED).toArrow().sort_by("n").equals(table.sort_by("n"))
        choice = chosen(settings, ASKED, form, "auto")
        assert choice.engine == "spark"
        assert "Spark" in choice.why
        with pytest.raises(NeedsSparkError):
            chosen(settings, ASKED, form, "local")
    labels = Labels(query, "1d", "known_at")
    assert chosen(settings, ASKED, table, "auto", labels).engine == "spark"


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
            store.get_features(
                "risk", {"card_id": [1], "merchant_id": ["m"]}, request={"payment_amount": [Decimal("1.00")]}
            )


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
    assert rebuild(settings, _kept(settings, "old"), "auto").same


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
