"""The table of what was served: it forgets erased subjects whole, and reads nothing twice for it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from deltalake import DeltaTable
from pydantic import ValidationError
from typer.testing import CliRunner

from coeval.errors import StoreError
from coeval.settings import RedisSettings, ServerSettings, Settings
from coeval.spec.erasure import Erasure
from coeval.spec.model import Field
from coeval.spec.time import DAY
from coeval.spec.types import DATE
from coeval_parity.commands import register
from coeval_parity.served import _append, _next_offsets, forget, names_erased, responses, served_path
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.erasure import erase
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.schedule.jobs import jobs
from tests.support import catalog

MANIFEST = catalog.manifest()
AT = 1_772_409_600_000_000


def _rows(*cards: int) -> list[dict[str, object]]:
    texts = {
        "service": "s",
        "manifest": MANIFEST.hash,
        "features": '{"card_spend__count_1h": 777123}',
        "statuses": "{}",
    }
    return [
        {"topic": "t.served", "partition": 0, "offset": n, "at": AT, "entities": json.dumps({"card_id": card}), **texts}
        for n, card in enumerate(cards)
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two cards were served, one of them was erased since."""
    made = Settings(home=tmp_path)
    _append(served_path(made, MANIFEST.tenant), _rows(2, 3))
    ErasureTable(made, MANIFEST.tenant).record(Erasure("card_id", 3, AT), AT, lambda: 9)
    return made


def _in_files(settings: Settings) -> int:
    files = served_path(settings, MANIFEST.tenant).glob("*.parquet")
    return sum('"card_id": 3' in text for path in files for text in pq.read_table(path)["entities"].to_pylist())


def test_what_is_forgotten_is_not_read_again(settings: Settings) -> None:
    path = served_path(settings, MANIFEST.tenant)
    assert forget(settings, MANIFEST).erased == 1
    assert _in_files(settings) == 0
    assert [item.entities["card_id"] for item in responses(settings, MANIFEST, None, None)] == [2]
    assert _next_offsets(path, [0, 1]) == {0: 2}


def test_rows_that_are_too_old_are_let_go_and_not_read_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, server=ServerSettings(serving_log_days=30))
    path, now = served_path(settings, MANIFEST.tenant), time.time_ns() // 1000
    old, new = _rows(2, 4)
    _append(path, [{**old, "at": now - 31 * DAY}, {**new, "at": now - 29 * DAY}])
    assert forget(settings, MANIFEST).let_go == 1
    assert [item.entities["card_id"] for item in responses(settings, MANIFEST, None, None)] == [4]
    assert sum(pq.read_table(file).num_rows for file in path.glob("*.parquet")) == 1
    assert _next_offsets(path, [0]) == {0: 2}
    assert forget(settings, MANIFEST).let_go == 0


def test_how_long_rows_stay_cannot_be_before_now() -> None:
    with pytest.raises(ValidationError, match="serving_log_days"):
        ServerSettings(serving_log_days=-30)


def test_what_is_too_old_is_let_go_by_a_job_that_is_there_without_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, server=ServerSettings(serving_log_days=1))
    settings.manifest_path.write_text(MANIFEST.to_json())
    _append(served_path(settings, MANIFEST.tenant), _rows(2))
    app = typer.Typer()
    register(app)
    monkeypatch.setattr("coeval.settings.load_settings", lambda: settings)
    done = CliRunner().invoke(app, [*jobs({})["forget"].command, "--json"])
    assert json.loads(done.stdout) == {"erased": 0, "let_go": 1}


def test_an_erasure_reaches_what_was_served_even_where_the_store_does_not_answer(tmp_path: Path) -> None:
    nowhere = RedisSettings(url=f"unix://{tmp_path}/none.sock")
    settings = Settings(home=tmp_path, redis=nowhere)
    _append(served_path(settings, MANIFEST.tenant), _rows(2, 3))
    with closing(ControlPlane.open(settings)) as control, pytest.raises(StoreError):
        erase(settings, MANIFEST, control, Erasure("card_id", 3, AT), AT)
    assert _in_files(settings) == 0
    assert [item.entities["card_id"] for item in responses(settings, MANIFEST, None, None)] == [2]


def test_a_forgetting_that_was_cut_off_before_the_files_were_gone_is_finished_by_the_next(settings: Settings) -> None:
    DeltaTable(str(served_path(settings, MANIFEST.tenant))).delete('"offset" = 1')
    assert _in_files(settings) == 1
    assert forget(settings, MANIFEST).erased == 0
    assert _in_files(settings) == 0


def test_the_log_of_the_table_says_nothing_of_what_was_served(settings: Settings) -> None:
    forget(settings, MANIFEST)
    log = [path.read_text() for path in (served_path(settings, MANIFEST.tenant) / "_delta_log").glob("*.json")]
    assert not any("777123" in text or '"card_id"' in text for text in log)


def test_an_erased_subject_is_known_by_its_physical_value() -> None:
    day = Field("card_id", DATE, nullable=False)
    entities = tuple(replace(item, key=day) if item.key.name == "card_id" else item for item in MANIFEST.entities)
    dated = replace(MANIFEST, entities=entities)
    assert names_erased(dated, {"card_id": "2026-05-04"}, [Erasure("card_id", 20577, AT)])
    assert not names_erased(dated, {"card_id": "2026-05-05"}, [Erasure("card_id", 20577, AT)])
