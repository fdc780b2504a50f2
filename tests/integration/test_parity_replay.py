"""Replay parity over a real broker and Redis: what was served then is computed again, exactly once and to the bit."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from coeval.errors import BrokerError, UnknownFeatureError, UsageError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_parity.document import from_document, to_document
from coeval_parity.replay import Span, run_replay
from coeval_parity.result import Cause, ParityResult
from coeval_parity.served import ingest_served, responses
from coeval_pipelines.control.checks import REPLAY, CheckBook
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.intake import ServedLog
from tests.support.parity import adds_up
from tests.support.parity_world import CUT, PATIENT, SINCE, Kept, World, new_world, serve

MERCHANTS = ["m-1", "m|2", 'quo"te, comma', "ümlaut", "m-1", "m-1", "m-1"]
CARDS = [*range(6), 4711]


def _manifest(world: World) -> None:
    """A topic of its own, and a promise that a read after a minute in flight breaks."""
    source = replace(world.source, topic="replayed-payments")
    prompt = replace(PATIENT, freshness=MINUTE)
    rows = tuple(replace(view, sla=prompt) for view in world.manifest.row_views)
    world.manifest = replace(world.manifest, event_sources=(source,), row_views=rows)


@pytest.fixture(scope="module")
def world(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Reads at forty instants while the stream fills the store, which is always a few events behind."""
    made = new_world(broker, tmp_path_factory.mktemp("replay"), "replayed", 7)
    _manifest(made)
    with Broker(broker.kafka) as admin:
        admin.create(made.source.topic, 2, {})
    with pytest.raises(BrokerError, match="Nothing was logged of what is served"):
        ingest_served(made.settings, made.manifest)
    rng, kept = random.Random(3), Kept()
    entities: dict[str, list[object]] = {"card_id": [*CARDS], "merchant_id": [*MERCHANTS]}
    made.fill([event for event in made.events if event.available_at < CUT])
    with made.control() as control:
        for q in sorted(rng.randrange(CUT + HOUR, made.q) for _ in range(40)):
            known = sorted((e for e in made.events if e.available_at < q), key=lambda event: event.available_at)
            behind = known[: len(known) - rng.randrange(3)]
            for view in made.manifest.views.values():
                made.stream(view, view, behind)
            reached = {part: max(e.offset for e in known[:-3] if e.partition == part) + 1 for part in (0, 1)}
            made.certify(control, q - 1, reached)
            serve(made, kept, entities, q)
    sink = ServedLog(made.settings)
    sink.write(kept.rows)
    sink.close()
    return made


def _replay(world: World, span: Span | None = None) -> ParityResult:
    return run_replay(world.settings, world.manifest, span or Span(), wanted="local")


def test_what_was_served_is_taken_from_its_topic_exactly_once(world: World) -> None:
    first = ingest_served(world.settings, world.manifest)
    assert (first.rows, first.unreadable) == (40 * len(CARDS), 0)
    assert ingest_served(world.settings, world.manifest).rows == 0
    assert len(list(responses(world.settings, world.manifest, None, None))) == 40 * len(CARDS)
    assert not list(responses(world.settings, world.manifest, None, SINCE))


def test_every_response_is_equal_or_differs_for_a_proven_cause(world: World) -> None:
    result = _replay(world)
    assert set(result.causes) <= {Cause.LATE, Cause.IN_FLIGHT, Cause.STALE}, result.headline
    assert result.causes[Cause.LATE] > 10
    assert result.causes[Cause.IN_FLIGHT] > 5
    assert result.compared == 40 * len(CARDS) * sum(len(view.features) for view in world.manifest.views.values())
    assert result.compared == result.matched + sum(result.causes.values())
    assert any(item.also for item in result.mismatches), "late and in flight at once"
    served = {response.at for response in responses(world.settings, world.manifest, None, None)}
    for feature in (feature for view in result.views for feature in view.features):
        adds_up(feature)
        assert {hour.start for hour in feature.hours} == {at - at % HOUR for at in served}
    assert {item.at for item in result.mismatches} <= served
    assert result.kind == "replay"
    with world.control() as control:
        kept = CheckBook(control).newest(REPLAY)
    assert sum(run.result["compared"] for run in kept.values()) == result.compared
    assert {name for run in kept.values() for name in run.result} == {
        "keys",
        "compared",
        "matched",
        "causes",
        "seconds",
    }
    assert from_document(to_document(result)).kind == "replay"


def test_a_response_that_was_changed_is_unexplained(world: World) -> None:
    from deltalake import DeltaTable

    from coeval_parity.served import served_path

    table = DeltaTable(str(served_path(world.settings, world.manifest.tenant)))
    version = table.version()
    changed = "replace(features, '\"card_spend__count_30d\": ', '\"card_spend__count_30d\": 9')"
    table.update({"features": changed}, predicate="entities LIKE '%\"card_id\": 0,%'")
    result = _replay(world)
    table.restore(version)
    wrong = {item.feature for item in result.failing() if item.cause is Cause.UNEXPLAINED}
    assert wrong == {"count_30d"}
    assert result.causes[Cause.UNEXPLAINED] == 40


def test_a_span_without_responses_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="No response"):
        _replay(world, Span(until=SINCE - DAY))


def test_a_misspelt_view_is_refused(world: World) -> None:
    with pytest.raises(UnknownFeatureError, match="no view card_spent"):
        run_replay(world.settings, world.manifest, Span(), ["card_spent"], wanted="local")


def test_responses_that_need_events_which_were_let_go_are_left_out_and_counted(world: World) -> None:
    book = ingest_journal(world.settings, world.manifest.tenant, world.source.name)
    book.let_go(CUT - 30 * DAY, 0)
    some = _replay(world)
    book.let_go(world.q, 0)
    with pytest.raises(UsageError, match="need events the log has let go are not compared"):
        _replay(world)
    (book._directory / "begins.json").unlink()
    notes = " ".join(some.notes)
    assert "need events the log has let go" in notes
    assert 0 < some.compared < _replay(world).compared


def test_what_was_served_of_an_erased_subject_is_forgotten(world: World) -> None:
    """The last test: it leaves its mark."""
    before = len(list(responses(world.settings, world.manifest, None, None)))
    ErasureTable(world.settings, world.manifest.tenant).record(Erasure("card_id", 3, world.q), world.q, lambda: 9)
    assert ingest_served(world.settings, world.manifest).erased == 40
    left = list(responses(world.settings, world.manifest, None, None))
    assert len(left) == before - 40
    assert all(item.entities["card_id"] != 3 for item in left)
