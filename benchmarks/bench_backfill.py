"""A million keys of a windowed view are loaded by batch while the stream runs and readers are served; then parity.

The log is written directly, as an ingest would have left it. Writes benchmarks/results/backfill.json. QUICK=1 loads
20,000 keys.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import rig
from benchmarks.backfill_readers import MERCHANTS, SERVICE, figures, reads
from benchmarks.bench_freshness import faultless, soon
from benchmarks.payments_log import Payments, write_payments
from benchmarks.report import QUICK, Figures, aim, publish
from coeval.settings import Settings
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import FeatureService, ServiceView, WindowedView
from coeval.spec.time import DAY, HOUR
from coeval_pipelines.control.loads import OPEN, READY, Change, LoadBook, LoadRun
from tests.support.payments import catalog
from tests.support.payments.produce import Sender
from tests.support.payments.shape import HOT_CARD

SEED = 20261122
KEYS = 20_000 if QUICK else 1_000_000
EVENTS = KEYS + KEYS // 4
DAYS = 7
STREAM_RATE, READ_RATE = 100, 25
"""Events a second that the stream takes meanwhile, and reads a second of ten rows each."""
WARM_SECONDS, CALM_SECONDS = 5, 10 if QUICK else 30
BUDGET_MS = 5
BUDGET_SECONDS = 5 if QUICK else 60
"""How long is written within the budget; the rest of that load is then written as fast as it goes."""
VIEW, SERVED = "card_spend", "merchant_spend"
_COEVAL = str(Path(sys.executable).with_name("coeval"))
_DEADLINE_SECONDS, _READER_SECONDS = 3600.0, 120.0


def manifest() -> Manifest:
    """Two views over the payments: a million cards, which are loaded, and a thousand merchants, which are read."""
    made = catalog.manifest((VIEW, SERVED), tenant="backfill", topic_prefix="backfill.")
    (source,) = made.event_sources
    spend, served = (made.views[name] for name in (VIEW, SERVED))
    assert isinstance(spend, WindowedView)
    assert isinstance(served, WindowedView)
    kept = tuple(item for item in spend.aggregates if item.window >= DAY and item.function in ("count", "sum", "mean"))
    names = {item.feature for item in kept}
    fields = tuple(item for item in spend.features if item.name in names)
    spend = with_version(replace(spend, aggregates=kept, features=fields), source)  # type: ignore[assignment]
    service = FeatureService(SERVICE, (ServiceView(SERVED, served.version, tuple(f.name for f in served.features)),))
    return replace(made, windowed_views=(spend, served), services=(service,))


def write_log(settings: Settings, made: Manifest, since: int) -> None:
    """The log of a week of payments before `since`, one of every card and a quarter more, all on time."""
    rng, count = np.random.default_rng(SEED), EVENTS
    at = np.sort(since - rng.integers(1, DAYS * DAY, count))
    card = HOT_CARD + np.concatenate([rng.permutation(KEYS), rng.integers(0, KEYS, count - KEYS)])
    merchant = rng.integers(0, MERCHANTS, count)
    write_payments(settings, made, rng, Payments(at, at, card, merchant, np.zeros_like(card)))


@dataclass(frozen=True, slots=True)
class Beside:
    """What goes on beside the loads: where the reader writes what it sees, and the case."""

    case: rig.Case
    out: Path

    def coeval(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command of ours."""
        home = self.case.settings.home
        with (home / "commands.log").open("a") as log:
            return subprocess.Popen(
                [_COEVAL, *arguments], env=rig.environment(self.case.settings), stdout=subprocess.PIPE, stderr=log,
                text=True,
            )  # fmt: skip

    def finished(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run one to its end; what it prints."""
        process = self.coeval(*arguments)
        output, _ = process.communicate(timeout=_DEADLINE_SECONDS)
        if process.returncode not in codes:
            raise SystemExit(f"{arguments}: {(self.case.settings.home / 'commands.log').read_text()[-3000:]}")
        return output

    def read_between(self, begin: int, end: int) -> Figures:
        """What the reader saw between two instants (microseconds UTC), once it is past them."""
        until = time.monotonic() + _READER_SECONDS
        while not any(item.due >= end for item in reads(self.out)):
            assert time.monotonic() < until, "the reader has stopped"
            time.sleep(0.5)
        found = figures(reads(self.out), begin, end)
        _say(f"reads: {found}")
        return found


def main() -> None:
    """Measure everything, write the result, print the table."""
    made, since = manifest(), (rig.now() - HOUR) // DAY * DAY
    with rig.bench_stack(worker_memory="2g") as stack, rig.case(_smaller(stack), made) as case:
        (case.settings.home / "manifest.json").write_text(made.to_json())
        write_log(case.settings, made, since)
        _say(f"a log of {EVENTS:,} events is written")
        case.deploy(since)
        with rig.Usage(case.stack, writer=case.writer.pid) as usage:
            with streaming(case) as sent:
                cases = _measure(case)
            _say(f"the stream has taken {sent[0]:,} events meanwhile")
            cases.append(_parity(case))
        size, _ = rig.redis_bytes(case.settings)
        cases.append({"case": "memory", "system": "peak, MB", **usage.peak_mb, "redis_data": size >> 20})
    publish("backfill", cases, _aims(cases), settings=_about(sent[0]))


def _smaller(stack: Settings) -> Settings:
    """Spark beside everything else, on a machine that is not its own."""
    return stack.model_copy(update={"spark": stack.spark.model_copy(update={"driver_memory": "2g"})})


@contextmanager
def streaming(case: rig.Case) -> Iterator[list[int]]:
    """New payments come all the while; gives how many, once it is over, and waits until all of them are online."""
    sent, stop = [0], threading.Event()
    spec = faultless(SEED + 1, STREAM_RATE, _DEADLINE_SECONDS, soon(), cards=KEYS, merchants=MERCHANTS, hot_share=0.0)
    with Sender(case.settings, case.manifest, paced=True) as sender:
        sending = threading.Thread(target=sender.send, args=(spec,), kwargs={"stop": stop})
        sending.start()
        try:
            yield sent
        finally:
            stop.set()
            sending.join()
        sent[0] = sender.finish()
    rig.await_covered(case)


@contextmanager
def reading(beside: Beside) -> Iterator[None]:
    """A process that reads the served view all the while."""
    settings = beside.case.settings
    command = [sys.executable, "-m", "benchmarks.backfill_readers", str(settings.manifest_path), str(beside.out)]
    with subprocess.Popen([*command, str(READ_RATE)], env=rig.environment(settings)) as reader:
        try:
            yield
            assert reader.poll() is None, "the reader has ended"
        finally:
            reader.kill()


def _measure(case: rig.Case) -> list[Figures]:
    beside = Beside(case, case.settings.home / "reads.txt")
    beside.finished("backfill", "run", SERVED)
    _say("the view that is read is ready")
    with reading(beside):
        cases = [_calm(beside, "nothing is loaded")]
        cases += _fill(beside)
        cases += _correct(beside)
        cases.append(_calm(beside, "nothing is loaded, after"))
    return cases


def _calm(beside: Beside, name: str) -> Figures:
    time.sleep(WARM_SECONDS)
    begin = rig.now()
    time.sleep(CALM_SECONDS)
    return {"case": name, "system": "reads", **beside.read_between(begin, rig.now())}


def _fill(beside: Beside) -> list[Figures]:
    """The first load, as fast as it goes."""
    began = time.monotonic()
    beside.finished("backfill", "run", VIEW, "--latency-budget-ms", "0")
    total = time.monotonic() - began
    run, changes = _newest(beside.case)
    rows = run.rows or 0
    computing, writing, written = (_at(changes, word) for word in ("computing", "writing", "all that batch has"))
    seconds = (written - writing) / 1e6
    _say(f"{rows:,} rows of {KEYS:,} keys written in {seconds:.0f} s, {total:.0f} s in all")
    return [
        {"case": "computing", "system": "as fast as it goes", "seconds": round((writing - computing) / 1e6, 1),
         **beside.read_between(computing, writing)},
        {"case": "writing", "system": "as fast as it goes", "keys": KEYS, "rows": rows, "seconds": round(seconds, 1),
         "keys_per_s": round(KEYS / seconds), "rows_per_s": round(rows / seconds),
         **beside.read_between(writing, written)},
        {"case": "the whole command", "system": "as fast as it goes", "seconds": round(total, 1),
         "keys_per_s": round(KEYS / total)},
    ]  # fmt: skip


def _correct(beside: Beside) -> list[Figures]:
    """A correction, within the budget for a while; then it is interrupted, and gone on with as fast as it goes."""
    command = ("backfill", "run", VIEW, "--correct", "--force", "--latency-budget-ms", str(BUDGET_MS))
    process = beside.coeval(*command)
    _await_writing(beside.case, process)
    begin = rig.now()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=BUDGET_SECONDS)
    end, (run, _) = rig.now(), _newest(beside.case)
    # A small load is over by now.
    process.terminate()
    process.communicate()
    seconds = (min(end, run.beat_at) - begin) / 1e6
    _say(f"{run.done:,} of {run.rows:,} rows within {BUDGET_MS} ms, in {seconds:.0f} s")
    found: list[Figures] = [
        {"case": "writing", "system": f"reads within {BUDGET_MS} ms", "rows": run.done, "seconds": round(seconds, 1),
         "rows_per_s": round(run.done / seconds), **beside.read_between(begin, end)}
    ]  # fmt: skip
    began = rig.now()
    if run.is_open:
        beside.finished("backfill", "resume", str(run.run), "--latency-budget-ms", "0")
        seconds = (rig.now() - began) / 1e6
        found.append(
            {"case": "the rest, resumed", "system": "as fast as it goes", "rows": (run.rows or 0) - run.done,
             "seconds": round(seconds, 1), **beside.read_between(began, rig.now())}
        )  # fmt: skip
    return found


def _newest(case: rig.Case) -> tuple[LoadRun, tuple[Change, ...]]:
    """The newest load of the million keys, and the changes of its state."""
    book = LoadBook(case.control)
    run = book.of(VIEW, case.manifest.views[VIEW].version, (READY, *OPEN))[0]
    return run, book.changes(run.run)


def _at(changes: Sequence[Change], why: str) -> int:
    """When a load's state was changed for a reason that begins so (microseconds UTC)."""
    return next(change.at for change in changes if change.why.startswith(why))


def _await_writing(case: rig.Case, process: subprocess.Popen[str]) -> None:
    while not any(change.why.startswith("writing") for change in _newest(case)[1]) or not _newest(case)[0].is_open:
        assert process.poll() is None, "the correction has ended before it wrote"
        time.sleep(0.1)


def _parity(case: rig.Case) -> Figures:
    """Every value of both views against the log."""
    beside, began = Beside(case, Path()), time.monotonic()
    found = json.loads(beside.finished("parity", "run", "--json", codes=(0, 1)))
    causes = {name: count for name, count in found["causes"].items() if count}
    return {
        "case": "parity", "system": "all views", "keys": found["keys"], "compared": found["compared"],
        "differences": found["compared"] - found["matched"], "unexplained": found["causes"]["unexplained"],
        "causes": causes, "passed": found["passed"], "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _aims(cases: Sequence[Figures]) -> list[Figures]:
    known = {(case["case"], case["system"]): case for case in cases}
    parity, calm = known["parity", "all views"], known["nothing is loaded", "reads"]
    slow = known["writing", f"reads within {BUDGET_MS} ms"]
    lost = sum(case.get("unavailable", 0) for case in cases)
    return [
        aim("values that differ from the log", float(parity["differences"]), 0, at_least=False),
        aim("reads that lacked a value", float(lost), 0, at_least=False),
        aim("keys a second, as fast as it goes", known["writing", "as fast as it goes"]["keys_per_s"], 10_000, True),
        aim(
            "p99 of reads with the budget over that of a store at rest", _over(slow["p99_ms"], calm["p99_ms"]), 2, False
        ),
    ]


def _over(one: float | None, other: float | None) -> float | None:
    return round(one / other, 2) if one and other else None


def _about(sent: int) -> Figures:
    return {
        "keys": KEYS, "events_in_the_log": EVENTS, "events_meanwhile": sent, "stream_events_per_s": STREAM_RATE,
        "reads_per_s": READ_RATE, "budget_ms": BUDGET_MS,
        "note": "the two processors were shared with other work all the while; see load_average_15m",
    }  # fmt: skip


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
