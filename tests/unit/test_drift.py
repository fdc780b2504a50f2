"""Drift: distances against published values, and what counts as drift. Seeds are fixed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from coeval.errors import CheckFailedError, UsageError
from coeval.settings import Settings, load_settings
from coeval.spec.erasure import Erasure
from coeval.spec.records import ingest
from coeval.spec.time import DAY, HOUR
from coeval_parity.drift import measures
from coeval_parity.drift.bins import number_bins
from coeval_parity.drift.commands import register
from coeval_parity.drift.compare import Sides, compare, dependence
from coeval_parity.drift.features import Feature, encode
from coeval_parity.drift.report import render
from coeval_parity.drift.result import DriftResult, FeatureDrift, from_document
from coeval_parity.drift.rules import Kind, Limits, Rules, read_rules
from coeval_parity.drift.run import Ask, compare_rows, find_drift
from coeval_parity.drift.tables import Rows, Table, open_drift_table
from coeval_parity.drift.windows import earlier_windows, last_window, members
from coeval_parity.quality.suggest import suggest
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.arrow_files import Files
from coeval_pipelines.offline.tables import table_path
from tests.support import catalog
from tests.support.delta_log import write_log
from tests.support.events import records

RULES = Rules()
NONE = (None, None)
MONDAY = 1_772_409_600_000_000
"""2026-03-02T00:00:00Z, a Monday, in microseconds."""


def _floats(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


def test_the_stability_index_is_what_is_computed_by_hand() -> None:
    # (0.3 - 0.25) ln(0.3 / 0.25) + (0.2 - 0.25) ln(0.2 / 0.25) + 0 + 0
    found = measures.psi(_floats(25, 25, 25, 25), _floats(30, 20, 25, 25))
    assert found == pytest.approx(0.05 * math.log(1.2) - 0.05 * math.log(0.8), abs=1e-12)
    assert found == pytest.approx(0.0202733, abs=1e-7)
    assert measures.psi(_floats(3, 7), _floats(30, 70)) == 0


def test_an_empty_bin_counts_as_half_a_row() -> None:
    expected = (0.5 - 0.005) * math.log(0.5 / 0.005) + (0.5 - 1) * math.log(0.5)
    assert measures.psi(_floats(0, 100), _floats(50, 50)) == pytest.approx(expected)


def test_the_other_distances_are_those_that_scipy_publishes() -> None:
    assert measures.jensen_shannon(_floats(1, 0, 0), _floats(0, 1, 0)) == pytest.approx(1.0)
    assert measures.jensen_shannon(_floats(1, 0), _floats(0.5, 0.5)) == pytest.approx(0.5579230452841438)
    assert measures.jensen_shannon(_floats(1, 0, 0), _floats(1, 0, 0)) == 0.0
    assert measures.wasserstein(_floats(0, 1, 3), _floats(5, 6, 8)) == pytest.approx(5 / np.std([0, 1, 3]))
    assert measures.kolmogorov_smirnov(_floats(1, 2, 3, 4), _floats(3, 4, 5, 6)) == pytest.approx(0.5)


def test_the_wasserstein_distance_has_no_unit() -> None:
    random = np.random.default_rng(1)
    baseline, window = random.normal(5, 2, 4000), random.normal(6, 2, 4000)
    same = measures.wasserstein(baseline * 100, window * 100)
    assert measures.wasserstein(baseline, window) == pytest.approx(same)
    assert same == pytest.approx(0.5, abs=0.05)
    assert measures.wasserstein(_floats(4, 4, 4), _floats(6, 6)) == pytest.approx(0.5)


def test_rarefaction_is_hurlberts() -> None:
    # Of 2 rows of 2 values and 2 rows: both are seen with probability 2/3.
    assert measures.distinct_in(_floats(2, 2), 2) == pytest.approx(1 + 2 / 3)
    assert measures.distinct_in(_floats(5, 1, 1), 7) == pytest.approx(3)
    assert measures.distinct_change(_floats(*[1] * 100), _floats(*[1] * 10)) == pytest.approx(0)
    assert measures.distinct_change(_floats(*[1] * 100), _floats(10)) == pytest.approx(0.9)


def test_smirnovs_bound_is_the_textbooks() -> None:
    # 1.358 sqrt((n + m) / (n m)) at 5%, as every table of the two-sample test has it.
    assert measures.kolmogorov_smirnov_noise(100, 100, 0.05) == pytest.approx(1.358 * math.sqrt(0.02), abs=1e-3)


@pytest.mark.parametrize("draw", ["normal", "lognormal", "poisson"])
def test_chance_stays_below_its_bounds(draw: str) -> None:
    random = np.random.default_rng(20261122)
    make: Callable[[int], np.ndarray[tuple[int], np.dtype[np.float64]]] = {
        "normal": lambda n: random.normal(size=n),
        "lognormal": lambda n: random.lognormal(size=n),
        "poisson": lambda n: random.poisson(3, n).astype(np.float64),
    }[draw]
    over = dict.fromkeys(("psi", "ks", "js", "wasserstein"), 0)
    for _ in range(100):
        b, w = make(2000), make(300)
        bins = number_bins(b, 10)
        counts, size = (bins.counts(b), bins.counts(w)), int(np.count_nonzero(bins.counts(b)))
        over["psi"] += measures.psi(*counts) > measures.psi_noise(size, 2000, 300, 0.05)
        over["js"] += measures.jensen_shannon(*counts) > measures.jensen_shannon_noise(size, 2000, 300, 0.05)
        over["ks"] += measures.kolmogorov_smirnov(b, w) > measures.kolmogorov_smirnov_noise(2000, 300, 0.05)
        over["wasserstein"] += measures.wasserstein(b, w) > measures.wasserstein_noise(b, 2000, 300, 0.05)
    assert all(count <= 10 for count in over.values()), over


def test_bins_part_a_value_that_many_rows_share_from_the_rest() -> None:
    values = np.concatenate([np.zeros(600), np.arange(1, 401, dtype=np.float64)])
    bins = number_bins(values, 10)
    assert bins.counts(values).sum() == 1000
    assert bins.counts(values)[0] == 600
    assert number_bins(_floats(7, 7, 7), 10).counts(_floats(6, 7, 8)).tolist() == [1, 1, 1]


def test_columns_become_numbers_ages_and_codes() -> None:
    money = pa.chunked_array([pa.array([None, "1.25"], pa.string()).cast(pa.decimal128(9, 2))])
    assert encode("m", (money, money), NONE, None).baseline[1] == 1.25
    at = np.array([MONDAY, MONDAY + HOUR])
    seen = pa.chunked_array([pa.array([MONDAY - HOUR, None], pa.timestamp("us", tz="UTC"))])
    age = encode("t", (seen, seen), (at, at), None)
    assert age.baseline[0] == 3600
    assert np.isnan(age.baseline[1])
    flags = pa.chunked_array([pa.array([True, False, None])])
    found = encode("b", (flags, flags), NONE, None)
    assert found.kind is Kind.CATEGORY
    assert set(found.labels) == {"true", "false"}
    names = pa.chunked_array([pa.array(np.arange(500))])
    assert encode("card_id", (names, names), NONE, None, is_id=True).kind is Kind.IDENTIFIER
    assert encode("card_id", (names, names), NONE, Kind.NUMBER, is_id=True).kind is Kind.NUMBER


def _sides(rows: int, groups: int = 0, dependent: float = 1.0) -> Sides:
    earlier = np.arange(rows) % groups if groups else np.full(rows, -1)
    return Sides(earlier, dependent, dependent, 10)


def _compared(baseline: object, window: object, sides: Sides | None = None, rules: Rules = RULES) -> FeatureDrift:
    feature = Feature("f", Kind.NUMBER, np.asarray(baseline, np.float64), np.asarray(window, np.float64))
    return compare(feature, sides or _sides(len(feature.baseline)), rules)


def test_what_changed_is_drift_and_what_did_not_is_none() -> None:
    random = np.random.default_rng(7)
    before = random.lognormal(size=5000)
    assert not _compared(before, random.lognormal(size=2000)).drifted
    assert _compared(before, 100 * random.lognormal(size=2000)).drifted
    assert _compared(before, np.full(2000, 1.0)).drifted
    nulls = np.where(random.random(2000) < 0.3, np.nan, random.lognormal(size=2000))
    found = _compared(before, nulls)
    assert [item.name for item in found.measures if item.over] == ["nulls"]
    gone = _compared(before, np.full(2000, np.nan))
    assert gone.drifted
    assert [item.name for item in gone.measures] == ["nulls"]


def test_a_small_window_needs_a_larger_distance() -> None:
    random = np.random.default_rng(3)
    before, shifted = random.normal(size=5000), random.normal(0.35, 1, 5000)
    assert _compared(before, shifted[:2000]).drifted
    assert not any(_compared(before, shifted[at : at + 60]).drifted for at in range(1000, 1300, 60))
    few = _compared(before, shifted[:20])
    assert few.note
    assert not few.drifted


def test_few_rows_of_rare_values_are_held_to_samples_of_their_size() -> None:
    random = np.random.default_rng(20261122)
    # Every week has values that no other has: few rows hold none of most, and much of one.
    weeks = [np.where(random.random(1000) < 0.06, 100 + week, random.integers(0, 5, 1000)) for week in range(8)]
    baseline = np.concatenate(weeks).astype(np.float64)
    sides = replace(_sides(8000), earlier=np.arange(8000) // 1000)
    labels = tuple(map(str, range(200)))
    alarms = dict.fromkeys((True, False), 0)
    for number in range(20):
        own = np.where(random.random(60) < 0.06 + 0.02 * (number % 2), 150, random.integers(0, 5, 60))
        feature = Feature("f", Kind.CATEGORY, baseline, own.astype(np.float64), labels)
        alarms[False] += compare(feature, sides, RULES).drifted
        alarms[True] += compare(replace(feature, window=np.where(own < 3, 150.0, own)), sides, RULES).drifted
    assert alarms == {False: 0, True: 20}


def test_rows_of_one_entity_say_less_than_as_many_of_others() -> None:
    assert dependence(_floats(1, 1, 1)) == 1
    assert dependence(_floats(50, 50)) == 50
    random = np.random.default_rng(4)
    before, shifted = random.normal(size=5000), random.normal(0.5, 1, 600)
    assert _compared(before, shifted).drifted
    assert not _compared(before, shifted, _sides(5000, dependent=20.0)).drifted


def test_what_every_such_weekday_does_is_no_drift() -> None:
    random = np.random.default_rng(5)
    sides = _sides(4000, 8)
    levels = random.permutation(np.linspace(-2, 2, 8))
    swinging = random.normal(size=4000) + levels[sides.earlier]
    usual = _compared(swinging, random.normal(1.8, 1, 500), sides)
    assert not usual.drifted
    assert all(item.usual is not None for item in usual.measures)
    assert _compared(swinging, random.normal(1.8, 1, 500)).drifted
    assert _compared(swinging, random.normal(9, 1, 500), sides).drifted


def test_a_category_that_was_never_there_is_drift() -> None:
    random = np.random.default_rng(6)
    baseline, window = random.integers(0, 60, 5000).astype(np.float64), random.integers(0, 60, 1000).astype(np.float64)
    labels = tuple(map(str, range(100)))
    feature = Feature("f", Kind.CATEGORY, baseline, window, labels)
    assert not compare(feature, _sides(5000), RULES).drifted
    moved = replace(feature, window=np.where(random.random(1000) < 0.3, 99.0, window))
    found = compare(moved, _sides(5000), RULES)
    assert found.drifted
    assert found.bins[-1].label == "never seen before"


def test_windows_are_of_the_same_weekday_and_do_not_overlap() -> None:
    assert last_window(MONDAY + 5 * HOUR, DAY) == (MONDAY - DAY, MONDAY)
    assert last_window(0, DAY, until=MONDAY) == (MONDAY - DAY, MONDAY)
    earlier = earlier_windows((MONDAY, MONDAY + DAY), 3)
    assert earlier == [(MONDAY - 7 * n * DAY, MONDAY - 7 * n * DAY + DAY) for n in (1, 2, 3)]
    fortnight = earlier_windows((MONDAY, MONDAY + 10 * DAY), 2)
    assert fortnight[0][0] == MONDAY - 14 * DAY
    assert members(np.array([MONDAY - 7 * DAY, MONDAY - 6 * DAY, MONDAY]), earlier).tolist() == [0, -1, -1]


def _shop(path: Path, factor: float = 1.0) -> Path:
    """Nine weeks of a shop that sells thrice as much, and dearer, at the weekend; the last day times a factor."""
    random = np.random.default_rng(11)
    days, instants, prices = 63, [], []
    for day in range(days):
        weekend = day % 7 >= 5
        rows = 600 if weekend else 200
        instants.append(MONDAY + day * DAY + np.sort(random.integers(0, DAY, rows)))
        level = (8.0 if weekend else 3.0) * (factor if day == days - 1 else 1.0)
        prices.append(random.gamma(2, level, rows))
    table = {
        "at": pa.array(np.concatenate(instants), pa.timestamp("us", tz="UTC")),
        "shop__price": pa.array(np.concatenate(prices)),
    }
    pq.write_table(pa.table(table), path)
    return path


def test_a_weekend_is_compared_with_weekends(tmp_path: Path) -> None:
    settings, path = Settings(home=tmp_path), str(_shop(tmp_path / "shop.parquet"))
    sunday = Ask(path, until=MONDAY + 63 * DAY)
    assert find_drift(settings, None, sunday, RULES, lambda _: None).passed
    assert find_drift(settings, None, replace(sunday, until=MONDAY + 60 * DAY), RULES, lambda _: None).passed
    dearer = Ask(str(_shop(tmp_path / "dear.parquet", 2.0)), until=MONDAY + 63 * DAY)
    found = find_drift(settings, None, dearer, RULES, lambda _: None)
    assert [item.feature for item in found.drifted] == ["shop__price"]
    assert found.earlier == 8
    # Against all days of a fixed table, its own Sundays say what is usual.
    fixed = Ask(path, against=path, length=DAY, until=MONDAY + 63 * DAY)
    assert find_drift(settings, None, fixed, RULES, lambda _: None).passed
    again = replace(dearer, against=path, length=DAY)
    assert not find_drift(settings, None, again, RULES, lambda _: None).passed


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", None])
def test_instants_of_any_unit_are_what_they_say(tmp_path: Path, unit: str, zone: str | None) -> None:
    path = _shop(tmp_path / "shop.parquet")
    table = pq.read_table(path)
    at = table["at"].cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.timestamp(unit, tz=zone))
    pq.write_table(table.set_column(0, "at", at), path)
    ask = Ask(str(path), until=MONDAY + 63 * DAY)
    found = find_drift(Settings(home=tmp_path), None, ask, RULES, lambda _: None)
    assert found.passed
    assert (found.earlier, found.features[0].rows) == (8, 600)
    assert find_drift(Settings(home=tmp_path), None, Ask(str(path)), RULES, lambda _: None).end == MONDAY + 62 * DAY
    with pytest.raises(UsageError, match="has no rows from 2027"):
        find_drift(Settings(home=tmp_path), None, replace(ask, until=MONDAY + 365 * DAY), RULES, lambda _: None)


def test_rows_count_by_the_column_that_the_rules_name(tmp_path: Path) -> None:
    path = _shop(tmp_path / "shop.parquet")
    table = pq.read_table(path)
    till = pa.array(np.arange(table.num_rows) // 150)
    pq.write_table(table.append_column("till", till), path)
    ask = Ask(str(path), until=MONDAY + 63 * DAY)
    said = [find_drift(Settings(home=tmp_path), None, ask, Rules(per=per), lambda _: None) for per in (None, "till")]
    noise = [{item.name: item.noise for item in found.features[0].measures} for found in said]
    assert noise[1]["ks"] > 5 * noise[0]["ks"]
    with pytest.raises(UsageError, match="has no column shelf"):
        find_drift(Settings(home=tmp_path), None, ask, Rules(per="shelf"), lambda _: None)


def test_private_numbers_are_not_shown() -> None:
    random = np.random.default_rng(9)
    table = Table("t", Files(ds.dataset(pa.table({"v__x": [1.0]}))), "", ("v__x",), private=frozenset({"v__x"}))
    rows = [Rows(pa.table({"v__x": side}), None, 200) for side in (random.normal(size=200), random.normal(size=200))]
    (found,) = compare_rows(table, ["v__x"], rows[0], rows[1], np.full(200, -1), RULES)
    assert found.kind is Kind.NUMBER
    assert [item.label for item in found.bins] == [f"range {number}" for number in range(1, 11)]


def test_the_table_of_what_was_served_is_refused(tmp_path: Path) -> None:
    text = pa.array(["{}"])
    served = pa.table({"at": pa.array([MONDAY]), "entities": text, "features": text, "statuses": text})
    pq.write_table(served, tmp_path / "served.parquet")
    with pytest.raises(UsageError, match="what was served"):
        open_drift_table(Settings(home=tmp_path), None, str(tmp_path / "served.parquet"))


def test_columns_that_cannot_be_compared_are_named() -> None:
    numbers, texts = pa.chunked_array([[1.0, 2.0]]), pa.chunked_array([["1", "two"]])
    lists = pa.chunked_array([[[1], [2]]])
    for sides in ((numbers, texts), (lists, lists)):
        with pytest.raises(UsageError, match="v__x cannot be compared"):
            encode("v__x", sides, NONE, None)
    assert encode("v__x", (texts, numbers), NONE, None).kind is Kind.CATEGORY


def test_a_suggested_suite_holds_of_every_row(tmp_path: Path) -> None:
    # One row in 50,000 that a sample would most likely miss.
    values = pa.array([1.0] * 49_999 + [1e6])
    pq.write_table(pa.table({"v__x": values, "v__y": pa.array(["a"] * 49_999 + ["b"])}), tmp_path / "t.parquet")
    table = open_drift_table(Settings(home=tmp_path), None, str(tmp_path / "t.parquet"))
    rules = suggest(table.rows(["v__x", "v__y"]), ["v__x", "v__y"])
    (between,) = [rule.kwargs for rule in rules if rule.type.endswith("between")]
    (within,) = [rule.kwargs for rule in rules if rule.type.endswith("in_set")]
    assert between["max_value"] >= 1e6
    assert within["value_set"] == ["a", "b"]


def test_events_of_a_log_that_were_erased_are_not_looked_at(tmp_path: Path) -> None:
    settings, manifest = Settings(home=tmp_path), catalog.manifest()
    events = list(ingest(catalog.PAYMENTS, records(20261122, 200, MONDAY, DAY)).good)
    write_log(table_path(settings, manifest, "log", "payments"), catalog.PAYMENTS, events)
    before = open_drift_table(settings, manifest, "log:payments").read(["card_id", "amount"])
    erasure = Erasure("card_id", 1, MONDAY + 30 * DAY)
    ErasureTable(settings, manifest.tenant).record(erasure, MONDAY, lambda: 0)
    after = open_drift_table(settings, manifest, "log:payments").read(["card_id", "amount"])
    assert before.of == len(events)
    assert after.of == sum(event.values["card_id"] != 1 for event in events)
    assert 1 in before.table["card_id"].to_pylist()
    assert 1 not in after.table["card_id"].to_pylist()


def test_rules_are_read_and_the_last_that_fits_wins(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    features = {"shop__*": {"psi": 9, "kind": "number"}, "shop__price": {"psi": 0.5}}
    path.write_text(json.dumps({"limits": {"ks": 0.4}, "features": features, "rhythm": 2}))
    limits, kind = read_rules(path).of("shop__price")
    assert (limits, kind) == (replace(Limits(), ks=0.4, psi=0.5), Kind.NUMBER)
    assert read_rules(None) == Rules()
    path.write_text('{"limits": {"pis": 0.1}}')
    with pytest.raises(UsageError, match="pis"):
        read_rules(path)
    for wrong in ({"alpha": 0}, {"alpha": 1}, {"limits": {"ks": -0.1}}, {"rhythm": -1}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UsageError, match="should be"):
            read_rules(path)
    with pytest.raises(UsageError, match="no drift rules"):
        read_rules(tmp_path / "none.json")


def test_a_result_is_read_as_it_was_written_and_drawn() -> None:
    random = np.random.default_rng(8)
    drift = _compared(random.normal(size=500), random.normal(3, 1, 500))
    result = DriftResult(MONDAY, "", "w", "b", MONDAY, MONDAY + DAY, 4, (drift,), run=3)
    document = json.loads(json.dumps(result.to_document()))
    assert from_document(document) == result
    history = [(number, document) for number in (1, 2)]
    page = render(result, history)
    assert "<svg" in page
    assert "polyline" in page
    assert "http" not in page
    assert "<html" not in render(result, section=True)


def test_the_command_says_what_drifted_and_exits_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEVAL_HOME", str(tmp_path))
    load_settings.cache_clear()
    app = typer.Typer()
    register(app)
    path, until = str(_shop(tmp_path / "shop.parquet", 2.0)), ["--until", "2026-05-04T00:00:00Z"]
    try:
        failed = CliRunner().invoke(app, ["drift", "run", path, *until, "--json"])
        assert isinstance(failed.exception, CheckFailedError)
        assert json.loads(failed.stdout)["drifted"] == ["shop__price"]
        assert "drifted" in (tmp_path / "reports" / "drift.html").read_text()
        shown = CliRunner().invoke(app, ["drift", "show"])
        assert "1 of 1 features drifted" in shown.stdout
        missing = CliRunner().invoke(app, ["drift", "run", str(tmp_path / "none")])
        assert isinstance(missing.exception, UsageError)
    finally:
        load_settings.cache_clear()
