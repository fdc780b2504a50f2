"""A state parity run: read the store, ingest the log, recompute, compare, look again at what differs, explain it.

It knows Redis and the control plane through the modules beside it. A difference seen once may only be the
instant between two reads, so every key that differs is read again with all the evidence, and judged by that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.client import open_redis
from coeval.errors import StoreError
from coeval.online.reader import wall_clock
from coeval.serving_log import sampled
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval_parity.document import to_document
from coeval_parity.engines import engine
from coeval_parity.expected import Log
from coeval_parity.judge import MAX_JUDGED, Judged, judge, other_definitions
from coeval_parity.online_state import Chosen, Clock, Look, look
from coeval_parity.report import publish_report
from coeval_parity.result import SAMPLE, ParityResult, worst_first
from coeval_parity.screen import Screened, screen
from coeval_parity.tally import tally
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.parity import ParityBook
from coeval_pipelines.offline.choice import AUTO

if TYPE_CHECKING:
    import redis
    from pyspark.sql import SparkSession

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """Which keys are compared: a share of them, by a hash of the key and the seed; the same in every run."""

    share: float = 1.0
    seed: int = 0

    @property
    def chosen(self) -> Chosen:
        """Whether a key is in the sample."""
        return lambda key: self.share >= 1 or sampled(f"{self.seed}:{key}", self.share)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the result says of it."""
        return (f"{SAMPLE} of {self.share:.4g} of the keys, seed {self.seed}",) if self.share < 1 else ()


@dataclass(frozen=True, slots=True)
class _Run:
    """What every step of a run needs."""

    settings: Settings
    manifest: Manifest
    client: redis.Redis
    control: ControlPlane
    clock: Clock
    say: Progress
    sample: Sample


def run_parity(
    settings: Settings,
    manifest: Manifest,
    spark: SparkSession | None = None,
    q: int | None = None,
    views: Sequence[str] | None = None,
    on_progress: Progress | None = None,
    *,
    ingest: bool = True,
    html: Path | None = None,
    wanted: str = AUTO,
    sample: Sample | None = None,
) -> ParityResult:
    """Compare every stored value of some views (default: all) with the log; record the result and write its page.

    `q` (microseconds UTC) fixes the instant instead of the clock; the store must hold nothing that came after it.
    `ingest=False` takes the log as it stands; it must hold everything that the store does. `html` is where the page
    goes (default: reports/parity-RUN.html under the home, and parity.html beside it). `wanted` is the engine: auto,
    local or spark, whose `spark` session may be given. `sample` are the keys to compare (default: all).

    Raises:
        UnknownFeatureError: there is no such view.
        StoreError, BrokerError, EngineError: a component is missing or fails.
    """
    import redis

    chosen = manifest.chosen_views(views)
    clock = wall_clock if q is None else lambda: q
    with closing(ControlPlane.open(settings)) as control, closing(open_redis(settings)) as client:
        say = on_progress or (lambda message: None)
        run = _Run(settings, manifest, client, control, clock, say, sample or Sample())
        try:
            result = _compare(run, chosen, spark, wanted, ingest=ingest)
        except redis.RedisError as error:
            raise StoreError(f"The online store does not answer: {error}.", "See coeval status.") from error
        result = replace(result, report=str(html or ""))
        checks = result.checks(run.sample.share, run.sample.seed)
        number = ParityBook(control).record(result.at, manifest.hash, result.passed, to_document(result), checks)
        result = replace(result, run=number)
        path = publish_report(control, result, settings.home / "reports", html)
        return replace(result, report=str(path))


def _compare(
    run: _Run, chosen: Sequence[View], spark: SparkSession | None, wanted: str, *, ingest: bool
) -> ParityResult:
    started = time.monotonic()
    settings, manifest = run.settings, run.manifest
    looks = [_first_look(run, view) for view in chosen]
    rows = sum(len(item.served.keys) for item in looks)
    with engine(settings, manifest, chosen, rows, wanted, spark, run.say) as open_log:
        log = open_log(ingest)
        screened = [_screen(run, log, item) for item in looks]
        seconds = [_second_look(run, item) for item in screened]
        again = open_log(True) if ingest and any(seconds) else log
        judged = [_judge(run, (log, again), *pair) for pair in zip(screened, seconds, strict=True)]
        return _result(run, screened, seconds, judged, time.monotonic() - started)


def _first_look(run: _Run, view: View) -> Look:
    found = look(run.client, run.manifest, view, run.control, run.clock, chosen=run.sample.chosen)
    run.say(f"{view.name}: {len(found.served.keys):,} keys read from the store")
    return found


def _screen(run: _Run, log: Log, first: Look) -> Screened:
    found = screen(log, first, run.clock, run.sample.chosen)
    different = len(found.differing())
    run.say(f"{first.view.name}: {len(found.served.keys):,} keys compared, {different:,} differ at first sight")
    return found


def _second_look(run: _Run, screened: Screened) -> Look | None:
    keys = screened.differing()[:MAX_JUDGED]
    if not keys or not screened.served.ready:
        return None
    return look(run.client, run.manifest, screened.look.view, run.control, run.clock, keys, keep=True)


def _judge(run: _Run, logs: tuple[Log, Log], screened: Screened, second: Look | None) -> Judged:
    view = screened.look.view
    if second is not None:
        run.say(f"{view.name}: explaining {len(second.served.keys):,} keys")
    return judge(*logs, screened, second, other_definitions(run.manifest, run.control, view))


def _result(
    run: _Run,
    screened: Sequence[Screened],
    seconds: Sequence[Look | None],
    judged: Sequence[Judged],
    elapsed: float,
) -> ParityResult:
    deliveries = [(second or item.look).delivery for item, second in zip(screened, seconds, strict=True)]
    views = tuple(tally(*parts) for parts in zip(screened, judged, deliveries, strict=True))
    settled = sum(sum(item.settled.values()) for item in judged)
    notes = (f"{settled} values differed at first sight and were equal when read again",) if settled else ()
    return ParityResult(
        at=run.clock(),
        manifest_hash=run.manifest.hash,
        views=views,
        mismatches=tuple(sorted((entry for item in judged for entry in item.kept), key=worst_first)),
        omitted=sum(item.omitted for item in judged),
        seconds=elapsed,
        notes=(*run.sample.notes, *notes),
    )
