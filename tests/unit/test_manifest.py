"""Claims about the manifest: one text per content, whoever writes it; versions move with values, and only so."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coeval.errors import ManifestError
from coeval.spec.expressions import Expression
from coeval.spec.manifest import SCHEMA_VERSION, Manifest, with_version
from coeval.spec.model import (
    SHARES,
    Aggregate,
    BatchSource,
    Computed,
    DerivedView,
    Entity,
    EventSource,
    Expected,
    FeatureRef,
    FeatureService,
    Field,
    RowView,
    ServiceView,
    Sla,
    Tolerance,
    View,
    WindowedView,
)
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import BOOL, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind
from tests.support.catalog import CARD_SPEND, LATEST, PAYMENTS, manifest

ROOT = Path(__file__).parents[2]

names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
lengths = st.integers(1, 400 * DAY)
types = st.sampled_from([*(DataType(kind) for kind in Kind if kind is not Kind.DECIMAL), DataType(Kind.DECIMAL, 9, 2)])
expected = st.builds(Expected, texts, texts, st.lists(texts, max_size=2).map(tuple))
fields = st.builds(Field, names, types, st.booleans(), texts, st.sampled_from(["none", "personal"]), expected)
some_fields = st.lists(fields, max_size=4).map(tuple)
leaves = st.builds(Expression, st.sampled_from(["column", "literal"]), types, st.just(()), texts)
expressions = st.recursive(
    leaves,
    lambda inner: st.builds(
        Expression, st.sampled_from(["add", "case"]), types, st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=8,
)
computed = st.lists(st.builds(Computed, fields, expressions), max_size=2).map(tuple)
tolerances = st.builds(Tolerance, st.sampled_from(sorted(SHARES)), st.floats(0, 1), st.integers(0, 10**12))
slas = st.builds(Sla, lengths, st.integers(0, 1000), st.floats(0, 1), st.lists(tolerances, max_size=2).map(tuple))
some_names = st.lists(names, max_size=3).map(tuple)
said = {"description": texts, "owner": texts, "deprecated": texts}
shared = {"entities": some_names, "key": some_fields, "source": names, "partitions": st.integers(1, 64)}
view_parts = {**shared, "where": st.none() | expressions, "columns": computed, "version": names, "sla": slas, **said}
aggregates = st.builds(Aggregate, names, names, names, lengths, lengths)
windowed_views = st.builds(
    WindowedView, name=names, aggregates=st.lists(aggregates, max_size=3).map(tuple), features=some_fields, **view_parts
)
row_views = st.builds(RowView, name=names, features=some_fields, stream=st.booleans(), ttl=lengths, **view_parts)
derived_views = st.builds(
    DerivedView, names, names, st.lists(st.builds(FeatureRef, names, names), max_size=2).map(tuple), some_fields,
    some_fields, texts, texts,
)  # fmt: skip
taken = st.lists(st.builds(ServiceView, names, names, some_names), max_size=2).map(tuple)
event_sources = st.builds(EventSource, names, names, some_fields, names, names, lengths, lengths, texts, texts, texts)
manifests = st.builds(
    Manifest,
    project=names,
    tenant=names,
    entities=st.lists(st.builds(Entity, names, fields, texts), max_size=2).map(tuple),
    event_sources=st.lists(event_sources, max_size=2).map(tuple),
    batch_sources=st.lists(st.builds(BatchSource, names, texts, names, some_fields, names), max_size=2).map(tuple),
    windowed_views=st.lists(windowed_views, max_size=2).map(tuple),
    row_views=st.lists(row_views, max_size=2).map(tuple),
    derived_views=st.lists(derived_views, max_size=2).map(tuple),
    services=st.lists(st.builds(FeatureService, names, taken, taken, texts, texts, texts), max_size=2).map(tuple),
)


@settings(max_examples=150, deadline=None)
@given(manifests)
def test_a_manifest_is_what_its_json_says(some: Manifest) -> None:
    text = some.to_json()
    assert Manifest.from_json(text) == some
    assert Manifest.from_json(text).to_json() == text
    assert text.isascii()


small = st.builds(Manifest, names, names, st.lists(st.builds(Entity, names, fields, texts), max_size=2).map(tuple))


@settings(max_examples=100, deadline=None)
@given(small, small)
def test_two_manifests_have_one_hash_only_if_they_are_equal(a: Manifest, b: Manifest) -> None:
    assert (a.hash == b.hash) == (a == b)


_HASH = """
from tests.support.catalog import manifest
print(manifest().hash, *(view.version for view in manifest().views.values()))
"""


def test_hash_and_versions_depend_on_no_process_and_no_hash_seed() -> None:
    seen = set()
    for seed in ("0", "1", "4711"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", _HASH], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout)
    here = manifest()
    assert seen == {" ".join([here.hash, *(view.version for view in here.views.values())]) + "\n"}


def test_a_manifest_of_another_schema_version_is_refused_with_both_versions() -> None:
    document = json.loads(manifest().to_json()) | {"schema": SCHEMA_VERSION + 1}
    with pytest.raises(
        ManifestError, match=f"schema version {SCHEMA_VERSION + 1}; this release reads {SCHEMA_VERSION}"
    ):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "17", '{"project": "bank"}', '{"schema": 1}', "not json"],
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda document: document.update(tenants="x"), "Manifest has no tenants"),
        (lambda document: document["windowed_views"][0].update(partitions="8"), "'8' is not <class 'int'>"),
        (lambda document: document["windowed_views"][0].update(partitions=True), "True is not <class 'int'>"),
        (lambda document: document["entities"][0].update(key=7), "'int' object has no attribute 'items'"),
        (lambda document: document["entities"][0]["key"].update(type="int65"), "'int65' is not a valid Kind"),
        (lambda document: document["entities"][0].pop("key"), "missing 1 required positional argument: 'key'"),
    ],
)
def test_a_damaged_manifest_is_refused_and_says_where(edit: Callable[[Any], object], said: str) -> None:
    document = json.loads(manifest().to_json())
    edit(document)
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json(json.dumps(document))
    assert said in caught.value.reason


def test_a_release_that_adds_a_property_restates_no_view_that_does_not_use_it() -> None:
    """What has its default is not written, so a manifest from before the property reads and hashes alike."""
    text = manifest().to_json()
    assert "deprecated" not in text
    assert "expected" not in text
    assert '"where"' not in text


AMOUNT = Expression("column", DataType(Kind.DECIMAL, 9, 2), value="amount")
POINTS = Expression("column", INT64, value="points")
IS_LARGE = Expression("gt", BOOL, (AMOUNT, Expression("literal", DataType(Kind.DECIMAL, 9, 2), value="10.00")))
Edit = Callable[[Any], Any]


def _source(**changes: Any) -> Edit:
    return lambda source: replace(source, **changes)


def _column(name: str, **changes: Any) -> Edit:
    return lambda source: replace(
        source, fields=tuple(replace(item, **changes) if item.name == name else item for item in source.fields)
    )


def _first(part: str, **changes: Any) -> Edit:
    return lambda view: replace(view, **{part: (replace(getattr(view, part)[0], **changes), *getattr(view, part)[1:])})


_WITH_POINTS = replace(LATEST, where=Expression("is_null", BOOL, (POINTS,)), features=LATEST.features[:1])

KEEPS: dict[str, tuple[View, Edit, Edit]] = {
    "description": (CARD_SPEND, lambda view: replace(view, description="Otherwise."), _source()),
    "owner": (CARD_SPEND, lambda view: replace(view, owner="others@bank"), _source()),
    "promises": (CARD_SPEND, lambda view: replace(view, sla=Sla(MINUTE, 5, 0.9, (Tolerance("late", 0.5),))), _source()),
    "deprecation": (LATEST, lambda view: replace(view, deprecated="Use another."), _source()),
    "description of a feature": (CARD_SPEND, _first("features", description="Otherwise."), _source()),
    "pii class of a feature": (CARD_SPEND, _first("features", pii="sensitive"), _source()),
    "expected values of a feature": (LATEST, _first("features", expected=Expected("a", "z")), _source()),
    "pii class of the key": (LATEST, _first("key", pii="personal"), _source()),
    "expected values of a column": (LATEST, _source(), _column("points", expected=Expected("0"))),
    "description of a column": (LATEST, _source(), _column("points", description="Otherwise.")),
    "description of the source": (LATEST, _source(), _source(description="Otherwise.", owner="others@bank")),
    "where the history is": (CARD_SPEND, _source(), _source(history="elsewhere")),
    "a column that is not read": (LATEST, _source(), _column("fee", type=INT64)),
    "one more column": (
        LATEST, _source(), lambda source: replace(source, fields=(*source.fields, Field("more", STRING)))
    ),
    "description of a computed column": (
        with_version(replace(CARD_SPEND, columns=(Computed(Field("twice", INT64), POINTS),)), PAYMENTS),
        lambda view: replace(view, columns=(Computed(Field("twice", INT64, description="!", pii="personal"), POINTS),)),
        _source(),
    ),
}  # fmt: skip
MOVES: dict[str, tuple[View, Edit, Edit]] = {
    "name": (CARD_SPEND, lambda view: replace(view, name="other"), _source()),
    "key order": (LATEST, lambda view: replace(view, key=(*view.key, Field("merchant_id", STRING, False))), _source()),
    "key type": (LATEST, _first("key", type=STRING), _source()),
    "source": (CARD_SPEND, lambda view: replace(view, source="others"), _source()),
    "partitions": (CARD_SPEND, lambda view: replace(view, partitions=16), _source()),
    "condition": (CARD_SPEND, lambda view: replace(view, where=IS_LARGE), _source()),
    "computed column": (LATEST, lambda view: replace(view, columns=(Computed(Field("x", INT64), POINTS),)), _source()),
    "ttl": (LATEST, lambda view: replace(view, ttl=HOUR), _source()),
    "stream": (LATEST, lambda view: replace(view, stream=False), _source()),
    "function": (CARD_SPEND, _first("aggregates", function="max"), _source()),
    "column": (CARD_SPEND, _first("aggregates", column="points"), _source()),
    "window": (CARD_SPEND, _first("aggregates", window=2 * HOUR), _source()),
    "hop": (CARD_SPEND, _first("aggregates", hop=MINUTE), _source()),
    "name of a feature": (CARD_SPEND, _first("aggregates", feature="other"), _source()),
    "type of a feature": (CARD_SPEND, _first("features", type=FLOAT64), _source()),
    "fewer features": (LATEST, lambda view: replace(view, features=view.features[1:]), _source()),
    "topic": (CARD_SPEND, _source(), _source(topic="payments.v2")),
    "event id": (CARD_SPEND, _source(), _source(event_id="note")),
    "event time": (
        CARD_SPEND, _source(),
        lambda source: replace(source, event_ts="at", fields=(*source.fields, Field("at", TIMESTAMP, False))),
    ),
    "lateness": (CARD_SPEND, _source(), _source(allowed_lateness=MINUTE)),
    "future skew": (CARD_SPEND, _source(), _source(max_future_skew=MINUTE)),
    "type of a column that is read": (LATEST, _source(), _column("points", type=STRING)),
    "whether a column that is read may be null": (LATEST, _source(), _column("points", nullable=False)),
    "type of a column that the condition reads": (
        with_version(_WITH_POINTS, PAYMENTS),
        _source(),
        _column("points", type=STRING),
    ),
}  # fmt: skip


def _versions(case: tuple[View, Edit, Edit]) -> tuple[str, str]:
    view, edit_view, edit_source = case
    return view.version, with_version(edit_view(view), edit_source(PAYMENTS)).version


@pytest.mark.parametrize("case", KEEPS.values(), ids=KEEPS.keys())
def test_what_changes_no_value_keeps_the_version(case: tuple[View, Edit, Edit]) -> None:
    before, after = _versions(case)
    assert before == after


@pytest.mark.parametrize("case", MOVES.values(), ids=MOVES.keys())
def test_what_changes_values_makes_a_new_version(case: tuple[View, Edit, Edit]) -> None:
    before, after = _versions(case)
    assert before != after
