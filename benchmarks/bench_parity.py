"""Measures parity where it is dearest: a store with 100,000 differing values, and 100,000 responses replayed; and where
nothing differs: five million events (`parity_clean`).

`QUICK=1` takes a tenth. Real Redis and Delta, no Spark; the stream's part is written as a stream would have.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import parity_clean
from benchmarks.report import QUICK, aim, publish
from coeval.settings import Settings
from coeval.spec.records import Event, Ingested
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import Physical
from coeval_parity.replay import Span, run_replay
from coeval_pipelines.local import stack
from coeval_pipelines.local.prepare import free_settings
from tests.support.parity_world import Kept, Q, World, keep_served, new_world, serve

CARDS = 320 if QUICK else 3200
EVENTS = 20
INSTANTS = 30
"""Reads of every card that are replayed."""


def _world(server: Settings, home: Path) -> World:
    world = new_world(server, home, "bench", 1, count=1)
    rng = random.Random(1)  # noqa: S311 - seeded data
    events: list[Event] = []
    for card in range(CARDS):
        for number in range(EVENTS):
            at = Q - (MINUTE if number == 0 else rng.randrange(MINUTE, 30 * DAY))
            late = 30 * HOUR if rng.random() < 0.1 and number else SECOND
            events.append(_event(len(events), card, at, min(late, Q - at - 1), rng))
    events.sort(key=lambda event: event.available_at)
    numbered = tuple(replace(event, offset=offset) for offset, event in enumerate(events))
    world.logged = Ingested(numbered, (), (), 0)
    world.log()
    return world


def _event(number: int, card: int, at: int, delay: int, rng: random.Random) -> Event:
    values: dict[str, Physical] = {
        "event_id": f"e{number}", "paid_at": at, "card_id": card, "merchant_id": f"m{card}",
        "amount": rng.randrange(1, 10**6), "fee": rng.randrange(1, 10**6), "points": rng.randrange(1, 999),
        "note": None,
    }  # fmt: skip
    return Event(f"e{number}", at, at + delay, 0, number, values, at)


def main() -> None:
    """Measure and publish."""
    with tempfile.TemporaryDirectory(prefix="coeval-bench-parity-") as home:
        settings = free_settings(Path(home))
        stack.up(settings, ("redis",))
        try:
            cases, aims = _measure(_world(settings, Path(home) / "world"))
        finally:
            stack.down(settings)
    more, others = parity_clean.measure()
    publish("parity", [*cases, *more], [*aims, *others])


def _measure(world: World) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    # The newest event of every card is lost, and a tenth of the others came late.
    world.fill([event for event in world.events if event.event_ts < Q - MINUTE])
    _say("filled")
    started = time.monotonic()
    state = world.parity()
    seconds = time.monotonic() - started
    differing = state.compared - state.matched
    _say(state.headline)
    kept = Kept()
    everyone: dict[str, list[object]] = {
        "card_id": [*range(CARDS)], "merchant_id": [f"m{card}" for card in range(CARDS)]
    }  # fmt: skip
    for number in range(INSTANTS):
        serve(world, kept, everyone, Q - number * SECOND, ["card_spend__count_24h", "card_spend__sum_amount_7d"])
    keep_served(world, kept)
    started = time.monotonic()
    replayed = run_replay(world.settings, world.manifest, Span(), ingest=False, wanted="local")
    replay_seconds = time.monotonic() - started
    _say(replayed.headline)
    wrong = replayed.compared - replayed.matched
    cases = [
        _case("state, every key differs", state.compared, differing, seconds),
        _case(
            f"replay of {len(kept.rows):,} responses",
            replayed.compared,
            wrong,
            replay_seconds,
        ),
    ]
    scale = 10 if QUICK else 1
    minutes = seconds / max(1, differing) * 100_000 / 60
    aims = [
        aim("minutes to explain 100,000 differing values", round(minutes, 2), 10, at_least=False),
        aim("minutes to replay 100,000 responses", round(replay_seconds * scale / 60, 2), 10, at_least=False),
    ]
    return cases, aims


def _case(name: str, compared: int, differing: int, seconds: float) -> dict[str, object]:
    figures = {"values": compared, "differing": differing, "seconds": round(seconds, 1)}
    return {"case": name, "system": "this process, no Spark", **figures, "differing_per_s": round(differing / seconds)}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
