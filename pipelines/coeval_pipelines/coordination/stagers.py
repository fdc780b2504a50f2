"""Where Spark computes what loads write: in a session that is there, or in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import CANCELLED, LoadBook, LoadRun

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Stager = Callable[[Sequence[LoadRun]], None]
"""Computes what loads write, and keeps it; called once for all loads of a command."""

LOOK_SECONDS = 0.5
"""How often it is looked whether a load was cancelled."""


class CancelledError(EngineError):
    """A load was cancelled."""

    code = "CANCELLED"

    def __init__(self, book: LoadBook, run: LoadRun) -> None:
        last = book.changes(run.run)[-1]
        super().__init__(
            f"The load {run.run} of {run.view} was cancelled by {last.who}.",
            f"Begin anew: coeval backfill run {run.view}",
        )


def check(book: LoadBook, run: LoadRun) -> None:
    """Go on, unless a load was cancelled.

    Raises:
        CancelledError: it was.
    """
    if book.get(run.run).state == CANCELLED:
        raise CancelledError(book, run)


def stage_in_session(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    say: Callable[[str], None] = lambda _: None,
) -> Stager:
    """A stager that uses a Spark session that is there."""
    from coeval_pipelines.offline.staging import stage

    book = LoadBook(control)

    def stage_all(runs: Sequence[LoadRun]) -> None:
        for run in runs:
            if book.get(run.run).is_open:
                say(f"batch: computing {run.view}")
                with cancellable(spark, settings, book, run):
                    stage(spark, settings, manifest, control, run)

    return stage_all


@contextmanager
def cancellable(spark: SparkSession, settings: Settings, book: LoadBook, run: LoadRun) -> Iterator[None]:
    """End the Spark jobs that are begun in the context once the load is cancelled; that is not an error here."""
    from coeval_pipelines.offline.session import spark_errors

    group, over = f"coeval-load-{run.run}", threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if book.get(run.run).state == CANCELLED:
                spark.sparkContext.cancelJobGroup(group)

    watcher = threading.Thread(target=watch, daemon=True)
    spark.sparkContext.setJobGroup(group, f"load {run.run} of {run.view}", interruptOnCancel=True)
    watcher.start()
    try:
        with spark_errors(settings):
            try:
                yield
            finally:
                over.set()
                watcher.join()
                spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    except EngineError:
        if book.get(run.run).state != CANCELLED:
            raise


def stage_in_child(settings: Settings, manifest: Manifest, control: ControlPlane) -> Stager:
    """A stager that runs Spark in a process of its own, so that a long-lived one stays small."""
    book = LoadBook(control)

    def stage_all(runs: Sequence[LoadRun]) -> None:
        if not runs:
            return
        control.save_manifest(manifest, runs[0].beat_at)
        log = settings.home / "local" / "logs" / "load.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        numbers = [str(run.run) for run in runs]
        command = [sys.executable, "-m", "coeval_pipelines.offline.stage", *numbers]
        with log.open("ab") as sink:
            child = subprocess.Popen(command, stdout=sink, stderr=sink)
        try:
            _await(child, book, runs)
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            raise EngineError(f"The batch load failed (exit code {child.returncode}).", f"Read {log}.")

    return stage_all


def _await(child: subprocess.Popen[bytes], book: LoadBook, runs: Sequence[LoadRun]) -> None:
    while True:
        try:
            child.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            for run in runs:
                check(book, run)
        else:
            return
