"""Training sets built again: the same, or different for a reason that is recorded, or not; and what is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import typer
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from coeval.errors import CheckFailedError, UsageError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.time import DAY, HOUR
from coeval_parity.commands import register
from coeval_parity.rebuild.result import Outcome, SetRebuild, suspected
from coeval_parity.rebuild.run import run_rebuild
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import REBUILD, CheckBook
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.tables import table_path
from coeval_pipelines.offline.training import registry
from coeval_pipelines.offline.training.build import Wanted, build, extend
from coeval_pipelines.offline.training.lineage import versions_now
from coeval_pipelines.offline.training.rebuild import compare
from coeval_pipelines.quarantine import Broken, Quarantine, Verdict
from tests.support import catalog
from tests.support.delta_log import write_log
from tests.support.offline import LIMITS, limit_rows, write_limits
from tests.support.training_worlds import MANIFEST, START, World, spine_table, world

ASKED = Asked.of(MANIFEST, "risk")
TENANT = MANIFEST.tenant
NOBODY = 77
"""A card that never pays."""


@pytest.fixture(scope="module")
def made() -> World:
    return world(20261122, events=60, rows=20)


@pytest.fixture
def settings(made: World, tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path)
    write_log(_log(found), catalog.PAYMENTS, made.payments)
    write_limits(found, made.limits)
    found.manifest_path.write_text(MANIFEST.to_json())
    build(found, Wanted(ASKED, spine_table([made]), engine="local"), "one")
    return found


def _log(settings: Settings) -> Path:
    return table_path(settings, MANIFEST, "log", "payments")


def _kept(settings: Settings) -> registry.Kept:
    return registry.kept_set(settings, TENANT, "one")


def _files(settings: Settings) -> dict[str, int]:
    home = registry.directory(settings, TENANT)
    return {str(path): path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}


def _only(settings: Settings) -> SetRebuild:
    (found,) = run_rebuild(settings, engine="local").sets
    return found


def _other_payments(settings: Settings, made: World) -> None:
    """Put a log of the same version in the place of the one that the set was made of."""
    shutil.rmtree(_log(settings))
    write_log(_log(settings), catalog.PAYMENTS, made.payments[1:])


def _other_limits(settings: Settings, made: World) -> None:
    later = limit_rows([(card, START - DAY, START - DAY, 7, 0.5, "new") for card in range(4)])
    write_limits(settings, [*made.limits, *later])


def _other_rows(settings: Settings, made: World) -> None:
    """Write to the table of the set, as anything that speaks Delta may."""
    path = _kept(settings).path
    table = DeltaTable(str(path)).to_pyarrow_table()
    name = "card_spend__count_1h"
    place = table.column_names.index(name)
    changed = table.set_column(place, name, pc.add(table.column(name), 1).cast(table.schema.field(place).type))
    write_deltalake(str(path), changed, mode="overwrite")


def _erase(settings: Settings, made: World) -> None:
    ErasureTable(settings, TENANT).record(Erasure("card_id", 1, START + HOUR), START, lambda: 0)


def _let_go(settings: Settings, made: World) -> None:
    ingest_journal(settings, TENANT, "payments").let_go(START + 100 * DAY, -1)


def _take_log(settings: Settings, made: World) -> None:
    for path in _log(settings).glob("*.parquet"):
        path.unlink()


def _erased_before(settings: Settings, made: World) -> None:
    """Build a set of a log that holds bytes of what was erased, and take those."""
    _erase(settings, made)
    build(settings, Wanted(ASKED, spine_table([made]), engine="local"), "one")
    _take_log(settings, made)


def _take_limits(settings: Settings, made: World) -> None:
    (settings.home / LIMITS.path).unlink()


def _quarantine(settings: Settings, made: World) -> None:
    """Quarantine a batch that came after the set was built."""
    verdict = Verdict("payments", 99, 1, START, 5, (Broken("expect_a", "amount", 3),))
    Quarantine(settings, TENANT, "payments").record(verdict)


def _damage(settings: Settings, made: World) -> None:
    for path in _log(settings).glob("*.parquet"):
        path.write_bytes(b"PAR1" + bytes(100))


def test_a_set_that_is_the_same_passes_and_nothing_is_left_behind(settings: Settings, made: World) -> None:
    before = _files(settings)
    extend(settings, _kept(settings), spine_table([made]).slice(0, 3), None, "local")
    assert _files(settings) != before
    before = _files(settings)
    said: list[str] = []
    result = run_rebuild(settings, ["one"], "local", said.append)
    (found,) = result.sets
    assert (found.outcome, found.after, found.apart) == (Outcome.SAME, found.before, 0)
    assert result.passed and result.headline == "1 training sets: 1 same"
    assert any(text.startswith("one (1 of 1): part 2 of 2") for text in said)
    assert _files(settings) == before


@pytest.mark.parametrize(
    ("change", "outcome", "why"),
    [
        (_other_limits, Outcome.EXPLAINED, "the files of limits have changed"),
        (_erase, Outcome.IMPOSSIBLE, "something that it may hold was erased since it was built"),
        (_erased_before, Outcome.IMPOSSIBLE, "version 0 of the log of payments is not there any more"),
        (_let_go, Outcome.IMPOSSIBLE, "The log of payments begins at "),
        (
            _take_log,
            Outcome.UNCHECKED,
            "version 0 of the log of payments is not there any more, and no erasure took it",
        ),
        (_take_limits, Outcome.UNCHECKED, "The files of limits"),
        (_quarantine, Outcome.UNCHECKED, "Batch 99 of payments is quarantined"),
        (_damage, Outcome.UNCHECKED, "Of one, or of what it was made of, something cannot be read: "),
        (_other_rows, Outcome.ALTERED, "the table does not hold the rows that were built"),
        (_other_payments, Outcome.UNEXPLAINED, "content "),
    ],
)
def test_a_set_that_is_not_the_same_is_called_by_what_is_known_of_it(
    settings: Settings, made: World, change: Callable[[Settings, World], None], outcome: Outcome, why: str
) -> None:
    change(settings, made)
    before = _files(settings)
    found = _only(settings)
    assert found.outcome is outcome
    assert found.passed == (outcome in (Outcome.EXPLAINED, Outcome.IMPOSSIBLE))
    assert any(text.startswith(why) for text in found.why), found.why
    assert _files(settings) == before


@pytest.mark.parametrize("also", [_erase, _let_go, _take_log, _take_limits, _quarantine])
def test_a_table_that_was_written_to_is_altered_whatever_else_stands_in_the_way(
    settings: Settings, made: World, also: Callable[[Settings, World], None]
) -> None:
    _other_rows(settings, made)
    also(settings, made)
    found = _only(settings)
    assert (found.outcome, found.passed, len(found.why)) == (Outcome.ALTERED, False, 2)


def test_a_set_that_cannot_be_looked_at_fails_and_keeps_nobody_from_the_others(settings: Settings, made: World) -> None:
    build(settings, Wanted(ASKED, spine_table([made]), engine="local"), "two")
    for path in _kept(settings).path.glob("*.parquet"):
        path.unlink()
    one, two = run_rebuild(settings, engine="local").sets
    assert (one.outcome, one.passed) == (Outcome.UNCHECKED, False)
    assert (two.outcome, two.passed) == (Outcome.SAME, True)
    with closing(ControlPlane.open(settings)) as control:
        newest = CheckBook(control).newest(REBUILD)
    assert {name: run.passed for name, run in newest.items()} == {"training:one": False, "training:two": True}


def test_what_differs_is_said_by_feature_and_by_row(settings: Settings, made: World) -> None:
    _other_rows(settings, made)
    found = _only(settings)
    assert found.features == {"card_spend__count_1h": len(made.spine)}
    assert found.apart == len(made.spine)
    first = found.values[0]
    assert first.key.keys() == {"card_id", "merchant_id", "event_timestamp"}
    assert int(str(first.kept)) == int(str(first.again)) + 1


def test_files_that_changed_explain_no_feature_that_is_not_read_from_them(settings: Settings, made: World) -> None:
    _other_limits(settings, made)
    assert all(name.startswith(("card_limit", "risk")) for name in _only(settings).features)
    _other_payments(settings, made)
    assert _only(settings).outcome is Outcome.UNEXPLAINED


def test_every_row_that_differs_is_looked_at_before_it_is_called_explained(settings: Settings, made: World) -> None:
    mine = spine_table([made])
    place = mine.column_names.index("card_id")
    others = mine.set_column(place, "card_id", pa.repeat(pa.scalar(NOBODY), len(mine)))
    times = 11_000 // len(mine)
    build(settings, Wanted(ASKED, pa.concat_tables([*[others] * times, mine]), engine="local"), "one")
    write_limits(settings, [*made.limits, *limit_rows([(NOBODY, START - DAY, START - DAY, 7, 0.5, "new")])])
    explained = _only(settings)
    assert (explained.outcome, explained.apart) == (Outcome.EXPLAINED, times * len(mine))
    shutil.rmtree(_log(settings))
    write_log(_log(settings), catalog.PAYMENTS, made.payments[:0])
    found = _only(settings)
    assert found.outcome is Outcome.UNEXPLAINED
    assert 0 < found.features["card_spend__count_1h"] <= len(mine)


def test_a_verdict_is_kept_without_a_value_and_as_long_as_its_set_is_there(settings: Settings, made: World) -> None:
    _other_rows(settings, made)
    assert _only(settings).values
    with closing(ControlPlane.open(settings)) as control:
        book = CheckBook(control)
        ((subject, newest),) = book.newest(REBUILD).items()
        assert (subject, newest.passed, newest.result["outcome"]) == ("training:one", False, "altered")
        assert "values" not in newest.result
        registry.remove(settings, TENANT, "one")
        assert run_rebuild(settings).passed
        assert book.newest(REBUILD) == {}


def test_another_release_or_engine_is_a_suspect_and_no_excuse(settings: Settings, made: World) -> None:
    _other_payments(settings, made)
    kept = _kept(settings)
    lineage: Any = json.loads(json.dumps(kept.document.lineage))
    lineage["parts"][0]["versions"]["numpy"] = "1.0.0"
    lineage["parts"][0]["engine"]["name"] = "spark"
    found = suspected(compare(settings, kept, "local"), ASKED, lineage, versions_now())
    assert [text.split(",")[-1] for text in found] == [" was 1.0.0", " now by local"]


def test_the_command_prints_what_it_found_and_its_exit_code_is_the_result(
    settings: Settings, made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coeval.settings.load_settings", lambda: settings)
    app = typer.Typer()
    register(app)

    def coeval(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["parity", "rebuild", *arguments])

    fine = coeval("one", "--engine", "local", "--json")
    assert (fine.exit_code, json.loads(fine.stdout)["sets"][0]["outcome"]) == (0, "same")
    _other_payments(settings, made)
    failed = coeval("--engine", "local")
    assert isinstance(failed.exception, CheckFailedError)
    assert "one is unexplained" in str(failed.exception)
    assert "rows differ" in failed.stdout
    assert "card_id=" not in failed.stdout
    assert "card_id=" in coeval("--engine", "local", "--values").stdout
    assert isinstance(coeval("two").exception, UsageError)
    assert isinstance(coeval("--engine", "pandas").exception, UsageError)
