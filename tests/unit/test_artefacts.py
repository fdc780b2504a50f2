"""The Java artefacts: pinned completely, fetched once, never used when they are not what was pinned."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from coeval.settings import Settings
from coeval_pipelines import streamjar
from coeval_pipelines.local import artefacts, build
from coeval_pipelines.local.artefacts import ArtefactError, Jars, ensure_jars, pinned, require_java, verify
from coeval_pipelines.streamjar import sources, stream_jar


@pytest.fixture
def cache(tmp_path: Path) -> Settings:
    """A cache of our own, filled from the one that set-up made."""
    mine = Settings(cache=tmp_path)
    for item in pinned():
        target = mine.jars / item.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Settings().jars / item.file, target)
    ensure_jars(Settings())
    shutil.copyfile(stream_jar(Settings()), stream_jar(mine))
    ensure_jars(mine)
    return mine


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Ivy is sent to an empty repository on this disk."""
    repository = tmp_path / "repository"
    settings = tmp_path / "ivysettings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="here"/><resolvers><filesystem name="here">'
        f'<artifact pattern="{repository}/[artifact]-[revision].[ext]"/>'
        "</filesystem></resolvers></ivysettings>"
    )
    monkeypatch.setenv("COEVAL_IVY_SETTINGS", str(settings))
    repository.mkdir()
    return repository


def test_every_jar_is_pinned_by_a_sha256_and_no_file_twice() -> None:
    items = pinned()
    assert {item.group for item in items} == set(Jars.__slots__)
    assert all(re.fullmatch("[0-9a-f]{64}", item.sha256) for item in items)
    assert len({item.file for item in items}) == len(items)


def test_the_broker_has_a_binding_for_its_log() -> None:
    names = {item.name: item.revision for item in pinned() if item.group == "kafka"}
    assert names["slf4j-simple"] == names["slf4j-api"]


def test_a_complete_cache_is_used_without_asking_anyone(cache: Settings, no_network: Path) -> None:
    jars = ensure_jars(cache)
    assert all(jar.exists() for group in (jars.kafka, jars.flink, jars.spark) for jar in group)
    assert verify(cache) == []


def test_a_tampered_jar_is_noticed_and_replaced_by_the_pinned_one(
    cache: Settings, no_network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = ensure_jars(cache).flink[0]
    shutil.copyfile(victim, no_network / victim.name)
    with victim.open("r+b") as handle:
        handle.seek(1000)
        handle.write(b"tampered")
    assert verify(cache) == [f"flink/{victim.name}"]
    assert victim in ensure_jars(cache).flink
    assert f"flink/{victim.name} is not what was pinned" in capsys.readouterr().err
    assert verify(cache) == []


def test_a_tampered_jar_of_the_same_size_and_time_is_found_by_verify(cache: Settings) -> None:
    victim = ensure_jars(cache).flink[0]
    before = victim.stat()
    with victim.open("r+b") as handle:
        handle.seek(1000)
        handle.write(b"tampered")
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert verify(cache) == [f"flink/{victim.name}"]


def test_a_repository_that_offers_another_jar_is_refused(cache: Settings, no_network: Path) -> None:
    victim = ensure_jars(cache).flink[0]
    victim.unlink()
    (no_network / victim.name).write_bytes(b"something else")
    with pytest.raises(ArtefactError, match=r"flink-sql-connector-kafka:\S+ is not the jar that artefacts.lock pins"):
        ensure_jars(cache)
    assert not victim.exists()


def test_a_jar_that_cannot_be_had_is_named_with_the_setting_of_a_mirror(cache: Settings, no_network: Path) -> None:
    ensure_jars(cache).flink[0].unlink()
    with pytest.raises(ArtefactError, match="flink-sql-connector-kafka") as caught:
        ensure_jars(cache)
    assert "COEVAL_IVY_SETTINGS" in caught.value.instruction


@pytest.mark.parametrize(
    ("said", "reason"), [('openjdk version "11.0.2"', "is Java 11"), ('java version "1.8.0_381"', "is Java 8")]
)
def test_an_old_java_is_refused_with_the_command_that_mends_it(
    said: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "bin" / "java"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    command.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ArtefactError, match=reason) as caught:
        require_java()
    assert "apt-get install" in caught.value.instruction


def test_a_proxy_of_the_environment_reaches_java() -> None:
    options = artefacts.proxy_options({"HTTPS_PROXY": "http://proxy.example:3128", "http_proxy": ""})
    assert options == ["-Dhttps.proxyHost=proxy.example", "-Dhttps.proxyPort=3128"]


def test_the_classes_of_the_stream_are_compiled_once(cache: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    jar = stream_jar(cache)
    jar.unlink()
    ensure_jars(cache)
    with zipfile.ZipFile(jar) as content:
        names = set(content.namelist())
    assert {"coeval/flink/EventFunction.class", "META-INF/services/org.apache.flink.table.factories.Factory"} <= names
    assert f"compiling {jar.name}" in capsys.readouterr().err
    written = jar.stat().st_mtime_ns
    ensure_jars(cache)
    assert jar.stat().st_mtime_ns == written


def test_sources_that_do_not_compile_are_refused_in_the_words_of_the_compiler(
    cache: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "coeval/flink/Literal.java"
    broken = {**sources(), name: sources()[name].replace(b"final class Literal {", b"final class Literal { int x = y;")}
    before = stream_jar(cache)
    for module in (streamjar, build):
        monkeypatch.setattr(module, "sources", lambda: broken)
    assert stream_jar(cache) != before
    with pytest.raises(ArtefactError, match="y cannot be resolved"):
        ensure_jars(cache)
    assert not stream_jar(cache).exists()
