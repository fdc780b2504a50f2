"""Claims about the plan: what a catalog changes, in words, what that costs, and what to type next."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coeval.online.layout import TILE_HEADER
from coeval.spec.expressions import Expression
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import (
    BatchSource,
    Computed,
    DerivedView,
    Expected,
    FeatureService,
    Field,
    RowView,
    ServiceView,
    Sla,
    View,
    WindowedView,
)
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import BOOL, INT64
from coeval_pipelines.catalog.costs import KEY_BYTES, planned_bytes
from coeval_pipelines.catalog.deployed import Deployed, Online, Stored
from coeval_pipelines.catalog.differences import view_differences
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.plan import Kind, Plan, Step, make_plan
from coeval_pipelines.catalog.plan_text import amount, as_document, lines, weight
from coeval_pipelines.catalog.removal import refusals
from coeval_pipelines.catalog.report import Report
from coeval_pipelines.catalog.summary import Key, detail, objects
from tests.support.catalog import PAYMENTS, manifest

BEFORE = manifest()
POINTS = Expression("column", INT64, value="points")
HAS_POINTS = Expression("not", BOOL, (Expression("is_null", BOOL, (POINTS,)),))
Edit = Callable[[Any], Any]


def edited(name: str, edit: Edit, source: Edit = lambda source: source) -> Manifest:
    """The manifest with one view and its source edited, versions and services as they follow."""
    changed = source(PAYMENTS)

    def one(view: View) -> Any:
        return with_version(edit(view) if view.name == name else view, changed)

    views = [one(view) for view in (*BEFORE.windowed_views, *BEFORE.row_views)]
    by_name = {view.name: view for view in views}
    service = BEFORE.services[0]
    parts = tuple(replace(part, version=by_name[part.view].version) for part in service.views)
    return replace(
        BEFORE,
        event_sources=(changed,),
        windowed_views=tuple(view for view in views if isinstance(view, WindowedView)),
        row_views=tuple(view for view in views if isinstance(view, RowView)),
        services=(replace(service, views=parts),),
    )


def report(new: Manifest, *problems: Problem, defined: frozenset[Key] | None = None) -> Report:
    return Report(new, frozenset(objects(new)) if defined is None else defined, problems)


def without(*names: str) -> frozenset[Key]:
    return frozenset(key for key in objects(BEFORE) if key[1] not in names)


def plan_of(new: Manifest, there: Deployed, *problems: Problem, **more: Any) -> Plan:
    return make_plan(report(new, *problems, **more), there)


def step(plan: Plan, name: str) -> Step:
    return next(item for item in plan.steps if item.name == name)


def test_an_unchanged_catalog_needs_nothing() -> None:
    plan = plan_of(BEFORE, Deployed(released=BEFORE, registered=BEFORE))
    assert {item.kind for item in plan.steps} == {Kind.UNCHANGED}
    assert plan.next == ()
    assert not plan.refused
    assert [text for text, _ in lines(plan)][-1] == "Nothing to do."


def test_a_first_catalog_is_new_throughout_and_ends_with_the_commands_to_type() -> None:
    plan = plan_of(BEFORE, Deployed())
    assert {item.kind for item in plan.steps} == {Kind.NEW}
    assert plan.compared_with == "nothing"
    assert plan.next == (
        "coeval apply",
        "coeval stream deploy",
        "coeval backfill run card_merchant card_spend latest_payment",
        "coeval parity run card_merchant card_spend latest_payment",
    )


def test_what_is_registered_and_not_deployed_need_not_be_applied_again() -> None:
    after = edited("latest_payment", lambda view: replace(view, ttl=HOUR))
    plan = plan_of(after, Deployed(released=BEFORE, registered=after))
    assert plan.compared_with == "deployed"
    assert plan.next[0] == "coeval stream deploy"


def test_a_new_owner_is_a_change_in_place() -> None:
    after = edited("card_spend", lambda view: replace(view, owner="new@bank", deprecated="Use card_spend_2."))
    plan = plan_of(after, Deployed(registered=BEFORE))
    found = step(plan, "card_spend")
    assert (found.kind, found.why) == (Kind.IN_PLACE, ("owner", "deprecated"))
    assert not found.needs_backfill
    assert plan.next == ("coeval apply",)


def _without_last(view: Any) -> Any:
    return replace(view, aggregates=view.aggregates[:-1], features=view.features[:-1])


WORDS: dict[str, tuple[str, Edit, Edit, tuple[str, ...]]] = {
    "a window less": (
        "card_spend", _without_last, lambda source: source,
        ("no sum(points) over 30d by 24h (int64) any more",),
    ),
    "ttl": ("latest_payment", lambda view: replace(view, ttl=DAY), lambda source: source, ("ttl 24h, was 2d",)),
    "condition": (
        "card_spend", lambda view: replace(view, where=HAS_POINTS), lambda source: source,
        ("where points IS NOT NULL, was all events",),
    ),
    "computed column": (
        "latest_payment", lambda view: replace(view, columns=(Computed(Field("same", INT64), POINTS),)),
        lambda source: source, ("new column same: points",),
    ),
    "feature of a row": (
        "latest_payment", lambda view: replace(view, features=view.features[1:]), lambda source: source,
        ("no feature merchant_id any more",),
    ),
    "partitions": (
        "card_merchant", lambda view: replace(view, partitions=16), lambda source: source, ("partitions 16, was 4",),
    ),
    "lateness of the source": (
        "card_merchant", lambda view: view, lambda source: replace(source, allowed_lateness=HOUR),
        ("lateness of payments: 1h, was 10m",),
    ),
    "type of a column": (
        "card_merchant", lambda view: view,
        lambda source: replace(source, fields=tuple(
            replace(item, nullable=False) if item.name == "points" else item for item in source.fields
        )),
        ("column points of payments: int64 required, was int64",),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "source", "words"), WORDS.values(), ids=WORDS.keys())
def test_a_new_version_says_what_made_it(name: str, edit: Edit, source: Edit, words: tuple[str, ...]) -> None:
    after = edited(name, edit, source)
    assert after.views[name].version != BEFORE.views[name].version
    assert view_differences(name, BEFORE, after).values == words


def test_a_service_says_that_it_takes_a_new_version() -> None:
    after = edited("latest_payment", lambda view: replace(view, ttl=DAY))
    versions = (BEFORE.views["latest_payment"].version, after.views["latest_payment"].version)
    plan = plan_of(after, Deployed(registered=BEFORE))
    assert step(plan, "risk").why == ("latest_payment {} -> {}".format(*versions),)


SPEND = BEFORE.views["card_spend"]
ONLINE = Online({("card_spend", SPEND.version): Stored(8_100_000, 90_000, 5_000.0)})


def test_a_new_version_takes_the_keys_of_the_one_before_and_scales_their_bytes() -> None:
    after = edited("card_spend", _without_last)
    there = Deployed(released=BEFORE, registered=BEFORE, online=ONLINE, events={"payments": 41_200_000})
    cost = step(plan_of(after, there), "card_spend").cost
    assert cost is not None
    assert (cost.keys, cost.keys_margin, cost.keys_from) == (8_100_000, 90_000, "as card_spend has now")
    share = planned_bytes(after.views["card_spend"], after) / planned_bytes(SPEND, BEFORE)
    assert cost.bytes_per_key == round(KEY_BYTES + (5_000 - KEY_BYTES) * share)
    assert cost.redis_bytes == 8_100_000 * cost.bytes_per_key
    assert cost.events == 41_200_000
    text = "\n".join(line for line, _ in lines(plan_of(after, there)))
    assert "needs: backfill of 41.2M events -> 8.1M ± 90.0k keys (as card_spend has now), ~" in text


def test_a_view_of_the_same_key_and_source_lends_its_keys_and_no_other_does() -> None:
    after = edited("latest_payment", lambda view: replace(view, ttl=DAY))
    after = replace(after, windowed_views=(*after.windowed_views, replace(SPEND, name="card_risk", version="new")))
    plan = plan_of(after, Deployed(registered=BEFORE, online=ONLINE))
    lent, other = step(plan, "latest_payment").cost, step(plan, "card_merchant").cost
    assert lent is not None
    assert other is not None
    assert (lent.keys, lent.keys_from) == (8_100_000, "as card_spend has now")
    assert (other.keys, other.redis_bytes) == (None, None)
    assert other.keys_from == "no view with this key and source is online"
    with_condition = edited("latest_payment", lambda view: replace(view, where=HAS_POINTS))
    cost = step(plan_of(with_condition, Deployed(registered=BEFORE, online=ONLINE)), "latest_payment").cost
    assert cost is not None
    assert cost.keys_from == "as card_spend has now, or fewer"


def test_what_is_not_known_is_said_once_and_never_guessed() -> None:
    plan = plan_of(BEFORE, Deployed(online=Online(silent="the online store at redis://nowhere does not answer")))
    assert all(item.cost is None or item.cost.keys is None for item in plan.steps)
    text = [line for line, _ in lines(plan)]
    assert text.count("note: keys are not known where the online store at redis://nowhere does not answer") == 1
    assert sum("needs: backfill of a log of unknown length -> keys not known" in line for line in text) == 3


def test_the_tile_plan_is_part_of_the_cost() -> None:
    cost = step(plan_of(BEFORE, Deployed()), "card_spend").cost
    assert cost is not None
    assert [(item.length, item.slots) for item in cost.tiles] == [("24h", 32), ("1h", 170), ("5m", 14)]
    assert cost.planned_bytes == TILE_HEADER.size + sum(item.slots * item.bytes for item in cost.tiles)
    assert cost.partitions == 4


def test_broken_views_are_refused_with_line_and_fix_and_the_others_planned() -> None:
    after = replace(edited("latest_payment", lambda view: replace(view, ttl=DAY)), windowed_views=())
    problem = Problem("view card_spend, field lat", "it has no PII class", "Add one.", "feature_repo/cards.py:41")
    defined = without()
    plan = plan_of(after, Deployed(registered=BEFORE), problem, defined=defined)
    assert plan.refused
    assert step(plan, "card_spend").kind is Kind.REFUSED
    assert step(plan, "latest_payment").kind is Kind.NEW_VERSION
    text = "\n".join(line for line, _ in lines(plan))
    assert "refused: field lat: it has no PII class" in text
    assert "fix: Add one.  feature_repo/cards.py:41" in text
    assert "Nothing can be applied before what is refused is mended. Then: coeval plan" in text


def test_a_problem_of_a_source_is_shown_too() -> None:
    problem = Problem("source payments, column amount", "it has no PII class", "Add one.", "feature_repo/sources.py:7")
    plan = plan_of(BEFORE, Deployed(registered=BEFORE), problem)
    assert plan.refused
    assert any("source payments" in line for line, _ in lines(plan))


def test_a_removed_view_is_refused_unless_it_is_named() -> None:
    after = replace(BEFORE, row_views=(), services=())
    defined = without("latest_payment", "risk")
    gone = [Problem("view latest_payment", "it is registered, and no file defines it any more", "Put it back.")]
    refused = make_plan(report(after, *gone, defined=defined), Deployed(registered=BEFORE))
    assert refused.refused
    assert step(refused, "latest_payment").problems == tuple(gone)
    named = make_plan(report(after, defined=defined), Deployed(registered=BEFORE), ["latest_payment", "risk"])
    assert not named.refused
    assert step(named, "latest_payment").kind is Kind.REMOVED
    assert named.next == ("coeval apply --remove latest_payment --remove risk",)


def test_a_plan_is_json() -> None:
    plan = plan_of(edited("card_spend", _without_last), Deployed(released=BEFORE, registered=BEFORE, online=ONLINE))
    document = json.loads(json.dumps(as_document(plan)))
    (spend,) = [item for item in document["steps"] if item["name"] == "card_spend"]
    assert spend["kind"] == "new version"
    assert spend["cost"]["keys"] == 8_100_000
    assert document["refused"] is False


@pytest.mark.parametrize(("number", "text"), [(718, "718"), (8_100, "8,100"), (41_200_000, "41.2M"), (12_345, "12.3k")])
def test_amounts_read_at_a_glance(number: int, text: str) -> None:
    assert amount(number) == text


def test_weights_read_at_a_glance() -> None:
    assert [weight(size) for size in (800, 1_400_000, 23_000_000_000)] == ["800 B", "1.4 MB", "23.0 GB"]


def _last(new: Manifest) -> str:
    return [text for text, _ in lines(plan_of(new, Deployed(released=BEFORE, registered=BEFORE)))][-1]


GROUND: dict[str, tuple[Edit, str, tuple[str, ...]]] = {
    "history": (
        lambda m: replace(m, event_sources=(replace(PAYMENTS, history="elsewhere"),)), "payments",
        ("history elsewhere, was none",),
    ),
    "a required column": (
        lambda m: replace(m, event_sources=(replace(PAYMENTS, fields=(*PAYMENTS.fields, Field("z", INT64, False))),)),
        "payments", ("new column z: int64 required",),
    ),
    "description of an entity": (
        lambda m: replace(m, entities=(replace(m.entities[0], description="new"), *m.entities[1:])),
        BEFORE.entities[0].name, ("description",),
    ),
    "project": (lambda m: replace(m, project="other"), "other", (f"project other, was {BEFORE.project}",)),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "name", "words"), GROUND.values(), ids=GROUND.keys())
def test_what_changes_the_manifest_alone_is_said_and_applied(edit: Edit, name: str, words: tuple[str, ...]) -> None:
    after = edit(BEFORE)
    there = Deployed(released=BEFORE, registered=BEFORE)
    plan = plan_of(after, there)
    (changed,) = [item for item in plan.steps if item.kind is not Kind.UNCHANGED]
    assert (changed.name, changed.kind, changed.why) == (name, Kind.IN_PLACE, words)
    assert plan.next == ("coeval apply", "coeval stream deploy")
    assert _last(after) == "Next: coeval apply && coeval stream deploy"
    assert plan_of(after, replace(there, registered=after)).next == ("coeval stream deploy",)


def test_a_new_source_and_one_that_goes_are_steps_and_a_broken_one_is_not_gone() -> None:
    stock = BatchSource("stock", "stock", "parquet", (Field("at", INT64),), "at")
    with_stock = replace(BEFORE, batch_sources=(stock,))
    assert step(plan_of(with_stock, Deployed(registered=BEFORE)), "stock").kind is Kind.NEW
    assert step(plan_of(BEFORE, Deployed(registered=with_stock)), "stock").kind is Kind.REMOVED
    broken = plan_of(BEFORE, Deployed(registered=with_stock), Problem("source stock", "it is broken", "Mend it."))
    assert [(item.kind, item.subject) for item in broken.problems] == [("source", "stock")]
    assert "stock" not in {item.name for item in broken.steps}


def test_another_tenant_makes_everything_new_and_says_so_loudly() -> None:
    after = replace(BEFORE, tenant="other")
    plan = plan_of(after, Deployed(released=BEFORE, registered=BEFORE))
    assert {item.kind for item in plan.steps} == {Kind.NEW}
    assert plan.next[:3] == (
        "coeval apply", "coeval stream deploy", "coeval backfill run card_merchant card_spend latest_payment",
    )  # fmt: skip
    (said,) = [style for text, style in lines(plan) if f"tenant other, was {BEFORE.tenant}" in text]
    assert "red" in said
    assert any("EVERYTHING IS NEW" in text for text, _ in lines(plan))


def test_a_service_that_had_the_name_of_a_view_does_not_vanish_behind_it() -> None:
    spend = BEFORE.views["card_spend"]
    twin = FeatureService("card_spend", (ServiceView("card_spend", spend.version, ("count_1h",)),))
    old = replace(BEFORE, services=(*BEFORE.services, twin))
    (refused,) = refusals((old,), frozenset(objects(BEFORE)), ())
    assert refused.where == "service card_spend"
    assert list(refusals((old,), frozenset(objects(BEFORE)), ["card_spend"])) == []
    plan = plan_of(BEFORE, Deployed(registered=old), refused)
    found = {item.object: item for item in plan.steps if item.name == "card_spend"}
    assert (found["view"].kind, found["service"].kind) == (Kind.UNCHANGED, Kind.REMOVED)
    assert found["service"].problems == (refused,)


def test_a_view_that_a_derived_view_replaces_is_a_removal() -> None:
    instead = DerivedView("latest_payment", "bank:f", (), (), ())
    after = replace(BEFORE, row_views=(), derived_views=(*BEFORE.derived_views, instead), services=())
    missed = {item.where for item in refusals((BEFORE,), frozenset(objects(after)), ())}
    assert missed == {"view latest_payment", "service risk"}
    plan = plan_of(after, Deployed(registered=BEFORE))
    found = {item.object: item.kind for item in plan.steps if item.name == "latest_payment"}
    assert found == {"view": Kind.REMOVED, "derived view": Kind.NEW}


def test_what_runs_is_missed_too_when_it_vanishes() -> None:
    registered = replace(BEFORE, row_views=(), services=())
    missed = {item.where for item in refusals((registered, BEFORE), frozenset(objects(registered)), ())}
    assert missed == {"view latest_payment", "service risk"}


def test_a_row_is_costed_with_its_key_and_its_texts_are_not_promised_away() -> None:
    plan = plan_of(BEFORE, Deployed(online=ONLINE, registered=BEFORE))
    cost = step(plan, "latest_payment").cost
    assert cost is not None
    assert cost.texts is True
    assert cost.bytes_per_key == cost.planned_bytes + KEY_BYTES, "a windowed view lends its keys, not their weight"
    text = "\n".join(line for line, _ in lines(plan_of(BEFORE, Deployed())))
    assert f"at most {cost.planned_bytes} B of state and its texts a key" in text
    spend = step(plan, "card_spend").cost
    assert spend is not None
    assert spend.texts is False


def test_show_says_all_that_is_registered_of_a_view() -> None:
    same = Computed(Field("same", INT64, pii="none"), POINTS)
    bounded = lambda view: tuple(replace(item, expected=Expected("0", "9")) for item in view.features)  # noqa: E731
    after = edited(
        "card_spend",
        lambda view: replace(
            view, where=HAS_POINTS, columns=(same,), features=bounded(view), deprecated="Use another.",
            sla=Sla(p99_ms=20, availability=0.999),
        ),
    )  # fmt: skip
    found = detail(after, "card_spend")
    assert found is not None
    assert found["where"] == "points IS NOT NULL"
    assert [(item["name"], item["sql"]) for item in found["columns"]] == [("same", "points")]
    assert (found["p99 ms"], found["availability"], found["tolerated"]) == (20, 0.999, "late 5%")
    assert (found["freshness"], found["partitions"], found["deprecated"]) == ("24h", 4, "Use another.")
    assert {item["expected"] for item in found["features"]} == {"0 to 9"}
