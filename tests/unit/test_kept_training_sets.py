"""Training sets that are kept, by this process: who writes at once, what is left unfinished, and parts of no rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from coeval.errors import UsageError
from coeval.files import place, remove_tree, write_whole
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.time import DAY, HOUR
from coeval.training import Labels, TrainingSet
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.scratch import scratch_name, sweep
from coeval_pipelines.offline.tables import table_path
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.build import Wanted, build, extend
from coeval_pipelines.offline.training.local import LocalEngine
from coeval_pipelines.offline.training.rebuild import rebuild
from coeval_pipelines.offline.training.summary import Summary
from tests.support import catalog
from tests.support.delta_log import write_log
from tests.support.offline import write_limits
from tests.support.training_worlds import MANIFEST, START, World, spine_table, world

SEED = 20261122
ASKED = Asked.of(MANIFEST, "risk")
TENANT = MANIFEST.tenant
INSTANT = pa.timestamp("us", tz="UTC")


@pytest.fixture(scope="module")
def made() -> World:
    return world(SEED, events=60, rows=20)


@pytest.fixture(params=["disk", "uri"])
def settings(request: pytest.FixtureRequest, made: World, tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path, tables=f"file://{tmp_path}/tables" if request.param == "uri" else "")
    write_log(table_path(found, MANIFEST, "log", "payments"), catalog.PAYMENTS, made.payments)
    write_limits(found, made.limits)
    return found


@pytest.fixture
def spine(made: World) -> pa.Table:
    return spine_table([made])


def _built(settings: Settings, spine: object, name: str | None = "one", labels: Labels | None = None) -> TrainingSet:
    return build(settings, Wanted(ASKED, spine, labels, engine="local"), name)


def _kept(settings: Settings, name: str = "one") -> registry.Kept:
    return registry.kept_set(settings, TENANT, name)


def _erase(settings: Settings) -> None:
    ErasureTable(settings, TENANT).record(Erasure("card_id", 1, START + HOUR), START, lambda: 0)


def _meanwhile(moment: str, do: Callable[[], object]) -> Callable[[str], None]:
    """Does something, once, when progress of this kind is said."""
    done = []

    def say(text: str) -> None:
        if text.startswith(moment) and not done:
            done.append(do())

    return say


def test_a_rebuild_after_an_erasure_builds_upon_what_is_there_when_it_begins(
    settings: Settings, spine: pa.Table
) -> None:
    _built(settings, spine.slice(0, 5))
    old = _kept(settings)
    _built(settings, spine)
    _erase(settings)
    assert rebuild(settings, old, "local").erased
    assert _kept(settings).document.lineage["rows"] == len(spine)


def test_nobody_writes_while_what_an_erasure_left_is_built(settings: Settings, spine: pa.Table) -> None:
    _built(settings, spine)
    _erase(settings)
    with ThreadPoolExecutor() as pool:
        others = []
        twice = pa.concat_tables([spine, spine])
        say = _meanwhile("profiling", lambda: others.append(pool.submit(_built, settings, twice)))
        rebuild(settings, _kept(settings), "local", say)
        (other,) = others
        assert other.result(timeout=60).rows == 2 * len(spine)
    assert _kept(settings).document.lineage["rows"] == 2 * len(spine)


def test_a_set_is_not_removed_while_it_is_extended(settings: Settings, spine: pa.Table) -> None:
    _built(settings, spine)
    with ThreadPoolExecutor() as pool:
        others = []
        say = _meanwhile("profiling", lambda: others.append(pool.submit(registry.remove, settings, TENANT, "one")))
        assert extend(settings, _kept(settings), spine, None, "local", say).rows == 2 * len(spine)
        others[0].result(timeout=60)
    assert registry.find(settings, TENANT, "one") is None


@pytest.mark.parametrize("moment", ["sizing", "profiling what was there"])
def test_a_table_that_something_else_wrote_to_is_not_extended(settings: Settings, spine: pa.Table, moment: str) -> None:
    table = _built(settings, spine)
    kept = _kept(settings)

    def change() -> None:
        write_deltalake(str(kept.path), table.to_arrow().slice(0, 1), mode="append")

    if moment == "sizing":
        change()
    with pytest.raises(UsageError, match="changed by something else"):
        extend(settings, kept, spine, None, "local", _meanwhile(moment, change))
    assert DeltaTable(str(kept.path)).version() == 1


def test_what_a_killed_build_or_removal_left_is_listed_and_removed(settings: Settings, spine: pa.Table) -> None:
    home = registry.directory(settings, TENANT)
    _built(settings, spine, "whole")
    named = {"first": "first", "second": "second" if settings.tables else ".second.removed"}
    for name in named.values():
        (home / name).mkdir()
        (home / name / "part-0.parquet").touch()
    assert registry.unfinished(settings, TENANT) == [*named]
    for name in (*named, "whole"):
        registry.remove(settings, TENANT, name)
    assert [path.name for path in home.glob("*/")] == []
    with pytest.raises(UsageError, match="no training set 'first'"):
        registry.remove(settings, TENANT, "first")


def _labels() -> Labels:
    table = {"card_id": [0, 1], "at": pa.array([START, START + DAY], INSTANT), "fraud": [True, False]}
    return Labels(pa.table(table), "1d", "at")


def _young(spine: pa.Table) -> pa.Table:
    """The rows at an instant whose labels cannot be known yet."""
    now = pa.array([time.time_ns() // 1000] * len(spine), INSTANT)
    return spine.set_column(spine.column_names.index("event_timestamp"), "event_timestamp", now)


def test_a_set_is_not_extended_by_no_rows(settings: Settings, spine: pa.Table) -> None:
    _built(settings, spine, "one", _labels())
    for rows in (spine.slice(0, 0), _young(spine)):
        with pytest.raises(UsageError, match="No new rows"):
            extend(settings, _kept(settings), rows, _labels(), "local")
    assert rebuild(settings, _kept(settings), "local").same


def test_a_set_of_no_rows_is_built_extended_and_rebuilt(settings: Settings, spine: pa.Table) -> None:
    whole = _built(settings, spine)
    empty = _built(settings, spine.slice(0, 0))
    assert empty.to_arrow().schema.equals(whole.to_arrow().schema)
    assert rebuild(settings, _kept(settings), "local").same
    grown = extend(settings, _kept(settings), spine, None, "local")
    assert grown.lineage["content_hash"] == whole.lineage["content_hash"]
    assert rebuild(settings, _kept(settings), "local").same


def test_a_profile_tells_no_personal_value(settings: Settings, spine: pa.Table) -> None:
    (service,) = MANIFEST.services
    told = _built(settings, spine, None).profile["columns"]
    derived = [
        replace(view, request=tuple(replace(field, pii="sensitive") for field in view.request))
        for view in MANIFEST.derived_views
    ]
    asked = Asked.of(replace(MANIFEST, derived_views=tuple(derived)), service.name)
    hidden = build(settings, Wanted(asked, spine, engine="local")).profile["columns"]
    assert told["payment_amount"]["max"] is not None
    for name in ("payment_amount", "card_id"):
        assert hidden[name]["max"] is None and not hidden[name]["quantiles"] and not hidden[name]["histogram"]


def test_a_label_that_is_no_number_is_null_and_takes_no_other_along(settings: Settings, spine: pa.Table) -> None:
    rows = spine.slice(0, 3)
    cards = pa.array(range(3))
    rows = rows.set_column(rows.column_names.index("card_id"), "card_id", cards)
    rows = rows.set_column(
        rows.column_names.index("event_timestamp"), "event_timestamp", pa.array([START] * 3, INSTANT)
    )
    scores = pa.array([float("nan"), 0.5, float("-inf")])
    at = pa.array([START + HOUR] * 3, INSTANT)
    table = pa.table({"card_id": cards, "at": at, "fraud": [1, 2, 3], "score": scores, "small": scores.cast("float")})
    found = _built(settings, rows, None, Labels(table, "1d", "at")).to_arrow()
    assert found.column("fraud").to_pylist() == [1, 2, 3]
    assert found.column("score").to_pylist() == found.column("small").to_pylist() == [None, 0.5, None]


def test_a_set_is_rebuilt_from_versions_of_which_nothing_was_let_go(settings: Settings, spine: pa.Table) -> None:
    _built(settings, spine)
    log = ingest_journal(settings, TENANT, "payments")
    log.let_go(START + DAY, 0)
    assert (log.begins(0), log.begins(1), log.begins()) == (None, START + DAY, START + DAY)
    assert rebuild(settings, _kept(settings), "local").same
    write_log(table_path(settings, MANIFEST, "log", "payments"), catalog.PAYMENTS, [])
    with pytest.raises(UsageError, match="earlier events were let go"):
        _built(settings, spine)


KINDS = {
    "nulls": pa.nulls,
    "uint64": lambda n: pa.array([2**63 + 5] * n, pa.uint64()),
    "list": lambda n: pa.array([[1, 2]] * n),
    "large list": lambda n: pa.array([["a", None]] * n, pa.large_list(pa.large_string())),
    "fixed list": lambda n: pa.array([[1, 2]] * n, pa.list_(pa.uint64(), 2)),
    "struct": lambda n: pa.array([{"a": "b"}] * n, pa.struct([("a", pa.large_string())])),
    "map": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.large_string(), pa.uint32())),
    "nanoseconds": lambda n: pa.array([[1]] * n, pa.list_(pa.timestamp("ns", tz="Asia/Tokyo"))),
    "dictionary": lambda n: pa.array(["a"] * n).dictionary_encode(),
}


def test_columns_of_a_spine_are_hashed_as_they_are_stored(settings: Settings, spine: pa.Table) -> None:
    for name, make in KINDS.items():
        spine = spine.append_column(name, make(len(spine)))
    whole = _built(settings, spine, "whole")
    assert rebuild(settings, _kept(settings, "whole"), "local").differences == ()
    _built(settings, spine.slice(0, 10))
    grown = extend(settings, _kept(settings), spine.slice(10), None, "local")
    assert grown.lineage["content_hash"] == whole.lineage["content_hash"]
    assert rebuild(settings, _kept(settings), "local").differences == ()
    table = LocalEngine(settings).stored(_kept(settings, "whole").path, 0)
    assert Summary.of(table.schema, table.to_batches()).hash == whole.lineage["content_hash"]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([None], pa.time64("us")), "The column x is a time64"),
        (pa.array([None], pa.duration("us")), "The column x is a duration"),
        (pa.array([None], pa.float16()), "The column x is a halffloat"),
        (pa.array([None], pa.decimal256(50, 2)), "The column x is a decimal256"),
        (pa.array([None], pa.binary(4)), "The column x is a fixed_size_binary"),
        (pa.array([None], pa.list_(pa.time32("s"))), "The column x is a list"),
    ],
)
def test_a_column_that_no_table_can_keep_is_refused(
    settings: Settings, spine: pa.Table, column: pa.Array, says: str
) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        _built(settings, spine.slice(0, 1).append_column("x", column))
    assert raised.value.instruction


def test_a_bad_frame_is_refused_with_its_reason(settings: Settings, spine: pa.Table) -> None:
    frame = spine.to_pandas()
    twice = pd.concat([frame, frame[["n"]]], axis=1)
    bad = [
        (spine.append_column("N", spine.column("n")), "Several columns are named n"),
        (spine.append_column("to", pa.array([2**60] * len(spine), INSTANT)), "The column to has times that are not"),
        (
            spine.append_column("to", pa.array([2**30] * len(spine), pa.date32())),
            "The column to has times that are not",
        ),
        (twice, "Several columns are named n"),
        (frame.assign(mixed=[1, "a"] * (len(frame) // 2)), "values of several types"),
        (spine.append_column("CARD_SPEND__count_1h", spine.column("n")), "already has columns"),
        (
            spine.drop_columns(["event_timestamp"]).append_column("event_timestamp", pa.array([2**60] * len(spine))),
            "not in the years 1 to 9999",
        ),
    ]
    for form, says in bad:
        with pytest.raises(UsageError, match=says):
            _built(settings, form)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"at": pa.array([START])}, "The labels' at is a bigint"),
        ({"at": pa.array([START], pa.timestamp("us"))}, "The labels' at is a timestamp_ntz"),
        ({"card_id": pa.array(["0"])}, "The labels' card_id is a string; this key is a int64"),
        ({"N": pa.array([1])}, "already has columns named N"),
    ],
)
def test_bad_labels_are_refused_by_their_own_names(
    settings: Settings, spine: pa.Table, change: dict[str, pa.Array], says: str
) -> None:
    columns = {"card_id": pa.array([0]), "at": pa.array([START], INSTANT), "fraud": pa.array([1])} | change
    with pytest.raises(UsageError, match=says):
        _built(settings, spine, None, Labels(pa.table(columns), "1d", "at"))


def test_one_instant_has_no_report(settings: Settings, spine: pa.Table) -> None:
    wanted = Wanted(ASKED, spine.drop_columns(["event_timestamp"]), engine="local", at=START + DAY)
    assert build(settings, wanted).report == {}


def _assert_only_the_newest_version_is_told(path: Path, version: int) -> None:
    table = DeltaTable(str(path))
    assert table.version() == version
    numbered = [item.name.lstrip(".").partition(".")[0] for item in (path / "_delta_log").iterdir()]
    assert {int(number) for number in numbered if number.isdigit()} == {version}
    assert {Path(item).name for item in table.file_uris()} == {item.name for item in path.glob("*.parquet")}


def test_what_an_erasure_was_cut_off_from_forgetting_is_forgotten_by_the_next(
    settings: Settings, spine: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _built(settings, spine).path
    assert path is not None
    old = {item.name for item in path.glob("*.parquet")}
    _erase(settings)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "purge", _killed)
        with pytest.raises(KeyboardInterrupt):
            _built(settings, spine)
    assert old < {item.name for item in path.glob("*.parquet")}
    assert registry.unforgotten(settings, TENANT) == ["one"]
    extend(settings, _kept(settings), spine.slice(0, 5), None, "local")
    assert not old & {item.name for item in path.glob("*.parquet")}
    assert [item.stem for item in sorted((path / "_delta_log").glob("0*.json"))] == [f"{at:020d}" for at in (1, 2)]
    assert DeltaTable(str(path), version=1).version() == 1
    assert rebuild(settings, _kept(settings), "local").same
    assert registry.unforgotten(settings, TENANT) == []


def _killed(*_: object) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["rebuild", "build"])
def test_after_an_erasure_nothing_stays_of_the_set_that_was(settings: Settings, spine: pa.Table, how: str) -> None:
    path = _built(settings, spine, "one", _labels()).path
    assert path is not None
    extend(settings, _kept(settings), pa.concat_tables([spine.slice(0, 5), _young(spine)]), _labels(), "local")
    before = {item.name for item in path.rglob("*.parquet")}
    _erase(settings)
    if how == "rebuild":
        rebuild(settings, _kept(settings), "local")
    else:
        _built(settings, spine, "one", _labels())
    assert not before & {item.name for item in path.rglob("*.parquet")}
    _assert_only_the_newest_version_is_told(path, _kept(settings).version)
    (part,) = _kept(settings).document.lineage["parts"]
    assert {item.name for item in path.parent.iterdir()} == {"one"}
    if how == "rebuild":
        found = LocalEngine(settings).stored(path, _kept(settings).version).column("fraud").null_count
        assert (part["labels"]["left_out"], part["labels"]["without"]) == (len(spine), {"fraud": found})


def test_files_of_object_storage_are_written_whole_and_removed() -> None:
    root = place(f"memory://coeval-{time.time_ns()}")
    write_whole(root / "a" / "whole", "text")
    assert (root / "a" / "whole").read_text() == "text"
    old, new = root / "scratch" / "1-old", root / "scratch" / scratch_name()
    for path in (old, new):
        (path / "part-0.parquet").write_bytes(b"")
    sweep(root / "scratch")
    assert [path.exists() for path in (old, new)] == [False, True]
    remove_tree(root / "a")
    remove_tree(root / "a")
    assert not (root / "a").exists()
