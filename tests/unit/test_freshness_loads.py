"""Since when a view of files is to be loaded again: by what runs kept of it, as files do not say it themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import Sla
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval_parity.freshness.loads import look_at_load
from coeval_parity.freshness.result import LoadFreshness, State, ViewFreshness, from_document
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import LoadBook
from coeval_pipelines.offline.staging import pin
from tests.support import offline
from tests.support.loads import begin_load

MANIFEST = offline.manifest()
VIEW = replace(MANIFEST.views["card_limit"], sla=Sla(freshness=HOUR))
LOADED = 1_795_000_000_000_000
ROWS = offline.limit_rows([(1, LOADED - DAY, LOADED - DAY, 7, 0.5, "gold")])


@dataclass
class Files:
    """A view of files that was loaded, and what the run before found of it."""

    settings: Settings
    control: ControlPlane
    manifest: Manifest = MANIFEST
    before: ViewFreshness | None = None
    notes: tuple[str, ...] = ()

    def deliver(self, rows: int, at: int) -> None:
        """Put other files there, which say that they were changed `at`."""
        offline.write_limits(self.settings, ROWS * rows)
        os.utime(self.settings.home / offline.LIMITS.path, ns=(at * 1000, at * 1000))

    def load(self, at: int, turns_at: int | None = None) -> None:
        run = begin_load(self.control, VIEW.name, VIEW.version, at)
        LoadBook(self.control).pin(run, replace(pin(self.settings, self.manifest, VIEW, at), turns_at=turns_at))
        self.control.finish_load(run, 1, at)

    def look(self, at: int) -> LoadFreshness:
        """A run, which keeps what it found."""
        load, self.notes = look_at_load(self.settings, self.control, self.manifest, VIEW, self.before, at)
        found = ViewFreshness("bank", VIEW.name, VIEW.version, "limits", at, 3600.0, True, load=load)
        self.before = from_document(found.to_document())
        return load


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    settings = Settings(home=tmp_path)
    with closing(ControlPlane.open(settings)) as control:
        found = Files(settings, control)
        found.deliver(1, LOADED - HOUR)
        found.load(LOADED)
        yield found


def test_files_that_go_on_changing_do_not_begin_the_wait_anew(files: Files) -> None:
    assert files.look(LOADED + MINUTE).state is State.CURRENT
    for number in range(1, 10):
        at = LOADED + number * 10 * MINUTE
        files.deliver(number + 1, at)
        found = files.look(at + SECOND)
        assert found.waiting == pytest.approx((number - 1) * 600 + 1)
        assert found.state is (State.STALE if found.waiting > 3600 else State.BEHIND)
    files.load(LOADED + 2 * HOUR)
    assert files.look(LOADED + 2 * HOUR).due == ""
    files.deliver(99, LOADED + 3 * HOUR)
    assert files.look(LOADED + 3 * HOUR + SECOND).waiting == 1.0


def test_files_that_come_with_an_old_time_are_due_since_they_were_seen(files: Files) -> None:
    files.deliver(2, LOADED - 9 * DAY)
    now = LOADED + 5 * HOUR
    assert (files.look(now).state, files.look(now + MINUTE).waiting) == (State.BEHIND, 60.0)
    files.load(now)
    assert files.look(now + HOUR).due == ""
    files.deliver(3, now + MINUTE)  # after the load, yet before a look that saw the others
    assert (files.look(now + 2 * HOUR).due, files.look(now + 2 * HOUR).waiting) == ("the files changed", 0.0)


def test_a_row_that_became_visible_is_due_since_then(files: Files) -> None:
    files.load(LOADED, turns_at=LOADED + MINUTE)
    found = files.look(LOADED + 10 * MINUTE)
    assert (found.due, found.waiting) == ("rows became visible", 540.0)


def test_of_files_that_are_elsewhere_it_is_only_said_that_nothing_is_known(files: Files) -> None:
    elsewhere = replace(offline.LIMITS, path="s3a://bucket/limits")
    files.manifest = replace(MANIFEST, batch_sources=(elsewhere,))
    files.load(LOADED)
    found = files.look(LOADED + 30 * DAY)
    assert (found.state, found.due, found.waiting) == (State.IDLE, "", 0.0)
    assert files.notes == ("its files are not on this machine: whether they changed is not known",)
    files.load(LOADED + 31 * DAY, turns_at=LOADED + 32 * DAY)
    assert files.look(LOADED + 33 * DAY).state is State.STALE


def test_a_file_that_goes_away_while_it_is_looked_at_is_a_change(files: Files) -> None:
    path = files.settings.home / offline.LIMITS.path
    path.unlink()
    path.mkdir()
    (path / "gone.parquet").symlink_to(path / "nothing")
    files.look(LOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "is_file", lambda self: self.suffix == ".parquet" and self != path)
        found = files.look(LOADED + MINUTE)
    assert found.due == "the files changed"
