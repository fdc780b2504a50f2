"""Claims about the merged logs: every line is somebody's, in the order of time, whatever it looks like."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.types import TIMESTAMP, parse_literal
from coeval_pipelines.coordination.logs_view import (
    Entry,
    Wanted,
    check_components,
    follow_logs,
    join,
    parse_line,
    read_logs,
    show,
)

WRITER = (
    '{"view": "card_spend", "partition": 3, "event": "written", "level": "info", "timestamp": "2026-11-21T09:00:02Z"}'
)
FLINK = "2026-11-21 09:00:01,250 WARN  org.apache.flink.runtime.Task                     [] - card_merchant@300 failed"
TRACE = ("java.lang.IllegalStateException: no", "\tat org.example.Main(Main.java:1)")
REDIS = "26063:M 21 Nov 2026 09:00:03.500 # Server initialized"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def logs(tmp_path: Path, utc: None) -> Settings:
    directory = tmp_path / "local" / "logs"
    directory.mkdir(parents=True)
    (directory / "writer.log").write_text(WRITER + "\n")
    (directory / "taskmanager.log").write_text("\n".join(["Starting taskexecutor.", FLINK, *TRACE]) + "\n")
    (directory / "redis.log").write_text(REDIS + "\n")
    return Settings(home=tmp_path)


def _at(text: str) -> int:
    return int(parse_literal(TIMESTAMP, text) or 0)


def test_logs_of_all_components_are_one_by_time(logs: Settings) -> None:
    found = list(read_logs(logs, Wanted()))
    assert [(entry.component, entry.level) for entry in found] == [
        ("taskmanager", ""),
        ("taskmanager", "warning"),
        ("writer", "info"),
        ("redis", "warning"),
    ]
    assert found[1].at == _at("2026-11-21T09:00:01.25Z")
    assert found[1].message == "card_merchant@300 failed\n" + "\n".join(TRACE)
    assert found[2].fields == {"view": "card_spend", "partition": 3}


def test_entries_are_chosen_by_component_view_time_and_text(logs: Settings) -> None:
    def chosen(wanted: Wanted) -> list[str]:
        return [entry.component for entry in read_logs(logs, wanted)]

    assert chosen(Wanted(components=frozenset({"writer", "redis"}))) == ["writer", "redis"]
    assert chosen(Wanted(view="card_spend")) == ["writer"]
    assert chosen(Wanted(view="card_merchant")) == ["taskmanager"]
    assert chosen(Wanted(view="card")) == []
    assert chosen(Wanted(since=_at("2026-11-21T09:00:02Z"))) == ["writer", "redis"]
    assert chosen(Wanted(grep="IllegalState|initialized")) == ["taskmanager", "redis"]


def test_json_is_one_object_a_line_and_loses_no_field(logs: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    show(read_logs(logs, Wanted()), as_json=True)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["component"] for document in documents] == ["taskmanager", "taskmanager", "writer", "redis"]
    assert documents[2]["fields"] == {"view": "card_spend", "partition": 3}


@pytest.mark.parametrize("line", ["{", '{"event": "no time"}', '{"timestamp": 5}', "[main] WARN broker - text", ""])
def test_a_line_without_a_time_belongs_to_the_entry_before_it(line: str) -> None:
    assert parse_line("writer", line) is None
    (entry,) = join("writer", [WRITER, line], 0)
    assert entry.message == f"written\n{line}".rstrip()
    assert list(join("writer", [line], 7)) == ([Entry(7, "writer", "", line)] if line else [])


def test_engines_write_the_time_of_the_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        entry = parse_line("jobmanager", FLINK)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert entry is not None
    assert entry.at == _at("2026-11-21T08:00:01.25Z")


def test_a_followed_log_gives_whole_lines_and_starts_again_where_it_is_replaced(logs: Settings) -> None:
    path = logs.home / "local" / "logs" / "writer.log"
    looks = itertools.count()

    def ended() -> bool:
        match turn := next(looks):
            case 1:
                with path.open("a") as log:
                    log.write(WRITER.replace("written", "second") + "\n" + WRITER[:20])
            case 2:
                with path.open("a") as log:
                    log.write(WRITER[20:].replace("written", "third") + "\n")
            case 3:
                fresh = path.with_suffix(".fresh")
                fresh.write_text(WRITER.replace("written", "new") + "\n")
                fresh.replace(path)
        return turn > 5

    wanted = Wanted(components=frozenset({"writer"}))
    assert [entry.message for entry in follow_logs(logs, wanted, ended)] == ["written", "second", "third", "new"]


def test_a_component_is_every_process_of_its_name(logs: Settings) -> None:
    (logs.home / "local" / "logs" / "taskmanager-2.log").write_text(FLINK + "\n")
    found = [entry.component for entry in read_logs(logs, Wanted(components=frozenset({"taskmanager"})))]
    assert found == ["taskmanager", "taskmanager", "taskmanager-2"]
    assert [entry.component for entry in read_logs(logs, Wanted(frozenset({"taskmanager-2"})))] == ["taskmanager-2"]


def test_a_component_that_there_is_not_is_refused_by_name_and_one_without_a_log_yet_is_not(logs: Settings) -> None:
    check_components(logs, ["writer", "load", "coordinator"])
    assert list(read_logs(logs, Wanted(components=frozenset({"load"})))) == []
    with pytest.raises(UsageError, match=r"No log of writter.\n  -> There are: broker, .*writer\."):
        check_components(logs, ["writter"])
