"""Row expressions: what may be written, what it means, what is said where it means nothing."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from coeval.reference.evaluate import evaluate
from coeval.spec.dialects import LONGEST, render, render_condition
from coeval.spec.engine_sql import DIALECTS
from coeval.spec.expressions import Expression, column, constant, literal, to_text
from coeval.spec.manifest import Manifest
from coeval.spec.model import Field
from coeval.spec.operations import substituted, typed
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, INT64_MAX, INT64_MIN, STRING, TIMESTAMP, DataType, Physical
from coeval.spec.types import micros as micros_of
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.expressions import MOST_NODES, parse_condition, parse_value
from tests.support import catalog
from tests.support.expressions import COLUMNS, Generator, rows

SEED = 20260320
MONEY = DataType.parse("decimal(9,2)")
ROW: dict[str, tuple[DataType, Physical]] = {
    "amount": (MONEY, 1250),  # 12.50
    "refund": (MONEY, None),
    "rate": (DataType.parse("decimal(18,9)"), 1_500_000_000),  # 1.5
    "total": (DataType.parse("decimal(38,2)"), 10**30),
    "points": (INT64, -7),
    "most": (INT64, INT64_MAX),
    "least": (INT64, INT64_MIN),
    "score": (FLOAT64, 0.1),
    "huge": (FLOAT64, 1.5e308),
    "note": (STRING, "Straße 日本 😀"),
    "city": (STRING, "～"),
    "is_fraud": (BOOL, 1),
    "unknown": (BOOL, None),
    "paid_at": (TIMESTAMP, micros_of(datetime(1969, 12, 28, 23, 59, 58, 999_999, tzinfo=UTC))),
    "due": (DATE, date(2024, 2, 29).toordinal() - date(1970, 1, 1).toordinal()),
    "end": (INT64, 3),
}
FIELDS = [Field(name, data_type) for name, (data_type, _) in ROW.items()]
VALUES = {name: value for name, (_, value) in ROW.items()}


def parse(text: str) -> Expression:
    return parse_value("view v, where", text, FIELDS)


MEANINGS: dict[str, tuple[str, Physical]] = {
    "points + 1": ("int64", -6),
    "most + 1": ("int64", None),
    "-least": ("int64", None),
    "ABS(least)": ("int64", None),
    "most * most": ("int64", None),
    "points + amount": ("decimal(18,2)", 550),
    "amount * amount": ("decimal(18,4)", 1_562_500),
    "amount * 1.5": ("decimal(18,3)", 18_750),
    "amount - refund": ("decimal(18,2)", None),
    "most + amount": ("decimal(18,2)", None),
    "amount / 4": ("float64", 3.125),
    "amount / 0": ("float64", None),
    "1 / (1 / 0)": ("float64", None),
    "1 / (huge * 10)": ("float64", None),
    "huge * 10 - huge * 10": ("float64", None),
    "score + 0.2": ("float64", 0.1 + 0.2),
    "-score * 0": ("float64", 0.0),
    "DIV(points, 2)": ("int64", -3),
    "DIV(amount, 0.3)": ("int64", 41),
    "DIV(least, -1)": ("int64", None),
    "DIV(points, 0)": ("int64", None),
    "points % 4": ("int64", -3),
    "MOD(amount, 5)": ("decimal(18,2)", 250),
    "least % -1": ("int64", 0),
    "points % 0": ("int64", None),
    "amount = 12.5": ("bool", 1),
    "points < -6.999": ("bool", 1),
    "total > most": ("bool", 1),
    "refund = NULL": ("bool", None),
    "unknown OR is_fraud": ("bool", 1),
    "unknown AND NOT is_fraud": ("bool", 0),
    "unknown AND is_fraud": ("bool", None),
    "refund IS NULL AND amount IS NOT NULL": ("bool", 1),
    "points IN (1, -7, 2.5)": ("bool", 1),
    "refund NOT IN (1)": ("bool", None),
    "amount BETWEEN 12.50 AND 12.5": ("bool", 1),
    "amount BETWEEN refund AND 1": ("bool", 0),
    "amount NOT BETWEEN refund AND 20": ("bool", None),
    "city < '😀'": ("bool", 1),
    "'a' < 'B'": ("bool", 0),
    "note LIKE '%e 日_ _'": ("bool", 1),
    "note LIKE 'straße%'": ("bool", 0),
    "'a\nb' LIKE 'a_b'": ("bool", 1),
    "CASE WHEN unknown THEN 1 WHEN is_fraud THEN 2.5 END": ("decimal(2,1)", 25),
    "CASE points WHEN 1 THEN 'one' ELSE 'many' END": ("string", "many"),
    "CASE WHEN unknown THEN amount END": ("decimal(9,2)", None),
    "COALESCE(refund, amount, 0)": ("decimal(9,2)", 1250),
    "COALESCE(refund, 0)": ("decimal(9,2)", 0),
    "COALESCE(points, amount)": ("decimal(21,2)", -700),
    "NULLIF(points, -7)": ("int64", None),
    "NULLIF(points, NULL)": ("int64", -7),
    "CAST(rate AS int64)": ("int64", 2),
    "CAST(-rate AS decimal(9,0))": ("decimal(9,0)", -2),
    "CAST(amount AS decimal(3,2))": ("decimal(3,2)", None),
    "CAST(total AS decimal(18,2))": ("decimal(18,2)", None),
    "CAST(amount AS float64)": ("float64", 12.5),
    "CAST(-2.9e0 AS int64)": ("int64", -2),
    "CAST(9.3e18 AS int64)": ("int64", None),
    "CAST(points AS string) || '!'": ("string", "-7!"),
    "CAST(is_fraud AS string)": ("string", "true"),
    "CAST(due AS string)": ("string", "2024-02-29"),
    "CAST(CAST(paid_at AS date) AS string)": ("string", "1969-12-28"),
    "CAST(due AS timestamp) = TIMESTAMP '2024-02-29T01:00:00+01:00'": ("bool", 1),
    "EXTRACT(YEAR FROM due) * 100 + EXTRACT(MONTH FROM due)": ("int64", 202_402),
    "EXTRACT(DOW FROM paid_at)": ("int64", 7),
    "EXTRACT(HOUR FROM paid_at) * 100 + EXTRACT(SECOND FROM paid_at)": ("int64", 2358),
    "LOWER(note)": ("string", "straße 日本 😀"),
    "UPPER(note)": ("string", "STRAßE 日本 😀"),
    "LENGTH(note)": ("int64", 11),
    "SUBSTRING(note, 8, 2)": ("string", "日本"),
    "CONCAT(note, NULL)": ("string", None),
    '"end" + end': ("int64", 6),
}  # fmt: skip


@pytest.mark.parametrize("text", MEANINGS)
def test_an_expression_means(text: str) -> None:
    expression = parse(text)
    found = evaluate(expression, VALUES)
    assert (str(expression.type), found) == MEANINGS[text]
    assert not isinstance(found, float) or math.copysign(1, found) == math.copysign(1, MEANINGS[text][1])  # type: ignore[arg-type]


MISTAKES: dict[str, tuple[str, str]] = {
    "amont > 3": ("there is no column amont", "Did you mean amount?"),
    "payments.amount > 3": ("payments.amount names a table", "Write amount only."),
    "amount >": ("it cannot be read at line 1, column 8, at '>'", "Write one SQL expression"),
    "amount > 3\n  points": ("it cannot be read at line 2, column 3, at 'points'", "Write one SQL expression"),
    "note = 'it's'": ("what begins at line 1, column 13 is not closed", "a quote inside a string is written twice"),
    "": ("the expression is empty", "Write one SQL expression"),
    "points--1": ("it holds a comment", "put a space between the signs"),
    "points; amount": ("it has several statements", "Write one"),
    "SUM(amount) > 3": ("SUM aggregates over events", "aggregate in the view's aggregations"),
    "COUNT(*)": ("COUNT aggregates over events", "aggregate in the view's aggregations"),
    "LAG(amount) OVER (ORDER BY paid_at)": ("it has a window function", "aggregate in the view's aggregations"),
    "points IN (SELECT 1)": ("it has a subquery", "A row expression sees one event"),
    "COALESC(amount, 0)": ("there is no function COALESC", "Did you mean COALESCE?"),
    "TRIM(note)": ("there is no function TRIM", "ABS, CASE, CAST, COALESCE"),
    "ROUND(amount)": ("there is no function ROUND", "CAST(amount AS decimal(18,2)), which rounds half away from zero"),
    "IFNULL(amount, 0)": ("there is no function IFNULL", "Write COALESCE(a, b)."),
    "YEAR(paid_at)": ("there is no function YEAR", "Write EXTRACT(YEAR FROM paid_at)."),
    "NOW() > paid_at": ("NOW is not the same in a replay", "use the columns of the event only"),
    "CURRENT_TIMESTAMP": ("there is no column CURRENT_TIMESTAMP", "use the columns of the event only"),
    "COALESCE(amount)": ("COALESCE takes at least 2 arguments, not 1", "Write COALESCE(a, b)."),
    "amount + note": ("+ takes numbers: amount is decimal(9,2), note is string", "Declare the column as a number"),
    "total + 1": ("+ takes decimals of at most 18 digits", "CAST it to decimal(18,s) first"),
    "rate * rate * rate": ("* takes decimals with at most 18 places together", "fewer decimal places first"),
    "paid_at - 1": ("- takes numbers: paid_at is timestamp", "have no arithmetic"),
    "paid_at + INTERVAL '1' DAY": ("dates and instants have no arithmetic", "EXTRACT"),
    "DIV(score, 2)": ("DIV takes int64 and decimals", "Use / for floats"),
    "paid_at > due": ("> takes arguments of one type", "CAST the timestamp to date"),
    "paid_at > '2026-01-01'": ("> takes arguments of one type", "TIMESTAMP '2026-03-20T10:00:00Z'"),
    "paid_at > TIMESTAMP '2026-01-01'": ("'2026-01-01' is not a timestamp", "TIMESTAMP '2026-03-20T10:00:00Z'"),
    "amount > '5'": ("> takes arguments of one type", "Only a string stands in quotes"),
    "is_fraud < unknown": ("< takes values that have an order", "= and <> only"),
    "is_fraud IS TRUE": ("IS takes NULL only", "Compare with ="),
    "points AND is_fraud": ("AND takes bool: points is int64", "Compare"),
    "points IN (1, NULL)": ("IN takes a list of literals, not NULL", "leave it out"),
    "note LIKE city": ("LIKE takes a literal pattern, not city", "Write note LIKE 'a%'."),
    "note ILIKE 'a'": ("ILIKE is not supported", "LOWER(note) LIKE"),
    "SUBSTRING(note, 0, 2)": ("SUBSTRING takes whole numbers for start (from 1)", "SUBSTRING(note, 1, 3)"),
    "CAST(note AS int64)": ("string cannot be cast to int64", "Declare the column with that type in its source"),
    "CAST(score AS decimal(9,2))": ("float64 cannot be cast to decimal(9,2)", "Engines round it differently"),
    "CAST(paid_at AS string)": ("timestamp cannot be cast to string", "CAST it to date first"),
    "CAST(points AS INT)": ("CAST does not know the type INT", "The types are int64"),
    "EXTRACT(EPOCH FROM paid_at)": ("EXTRACT has no part EPOCH", "YEAR, MONTH, DAY"),
    "EXTRACT(HOUR FROM due)": ("EXTRACT(HOUR) takes a timestamp: due is date", "Declare the column as timestamp"),
    "COALESCE(NULL, NULL)": ("COALESCE has nothing but NULL", "CAST(NULL AS int64)"),
    "NULL": ("it is always NULL, of no type", "CAST(NULL AS int64)"),
    "99999999999999999999": ("'99999999999999999999' is not an int64", "with an exponent"),
    "0.1234567890123456789": ("has more than 18 digits", "with an exponent"),
    "1e999": ("1e999 is beyond float64", "1.7976931348623157e308"),
    "points & 1": ("BITWISEAND is not supported", "Known are"),
    "(" * 300 + "points" + ")" * 300: ("it is nested too deeply", "fewer words"),
    "1 / (" * 40 + "score" + ")" * 40: (f"more than {LONGEST} characters of SQL", "Split it"),
    " AND ".join(["points = 1"] * MOST_NODES): (f"and {MOST_NODES} are allowed", "fewer words"),
}  # fmt: skip


SOUP = """
    amount points note score is_fraud paid_at due total + - * / % ( ) , = <> < >= ! AND OR NOT IS NULL IN BETWEEN LIKE
    CASE WHEN THEN ELSE END CAST( AS int64 decimal(9,2) TRUE 1 2.5 . 1. 1e3 'a' '' || COALESCE( NULLIF( ABS( EXTRACT(
    YEAR FROM SUBSTRING( TIMESTAMP DATE '2026-01-01' INTERVAL [ ] { } : :: ; ? @ # $ ~ ^ & | -> := " ` \\ /* */ --
    OVER SELECT WITH FOR DISTINCT ESCAPE 0x1
"""


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_says_what_and_what_to_write_instead(text: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        parse(text)
    (problem,) = raised.value.problems
    what, fix = MISTAKES[text]
    assert problem.where == "view v, where"
    assert what in problem.what
    assert fix in problem.fix


def test_any_text_is_read_or_refused_with_a_reason() -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    read = 0
    for _ in range(5_000):
        text = " ".join(rng.choices(SOUP.split(), k=rng.randrange(1, 9)))
        try:
            found = parse(text)
        except DefinitionError:
            continue
        read += 1
        assert parse(to_text(found)) == found, text
    assert read > 50


def test_a_condition_is_a_bool() -> None:
    assert parse_condition("view v, where", "amount > 3", FIELDS).type == BOOL
    with pytest.raises(DefinitionError, match=r"it is decimal\(18,2\), not a condition: amount \+ 3"):
        parse_condition("view v, where", "amount + 3", FIELDS)


def test_an_event_whose_condition_is_null_does_not_count_in_any_engine() -> None:
    for dialect in DIALECTS:
        assert render_condition(parse("unknown"), dialect, str) == "((unknown = 1)) IS TRUE"


def test_the_text_of_an_expression_reads_back_as_the_same_tree() -> None:
    print(f"seed {SEED}")
    fields = [Field(name, data_type) for name, data_type in COLUMNS.items()]
    drawn = [item for item in Generator(SEED).expressions(600) if item.size <= MOST_NODES]
    assert [item for item in drawn if parse_value("x", to_text(item), fields) != item] == []


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("not  NOTE is null and(amount)>1.50", "note IS NOT NULL AND amount > 1.50"),
        ("points-(1-2)-3", "points - (1 - 2) - 3"),
        ("(points+1)*2 / .5", "(points + 1) * 2 / 0.5"),
        ("NOT (is_fraud OR unknown) AND points not in (1,2)", "NOT (is_fraud OR unknown) AND points NOT IN (1, 2)"),
        ("- -points", "-(-points)"),
        ("note || concat('it''s', city)", "note || 'it''s' || city"),
        ("score > 100e0", "score > 100.0e0"),
        ("paid_at < timestamp '2026-01-01T01:00:00+01:00'", "paid_at < TIMESTAMP '2026-01-01T00:00:00Z'"),
        ("case points when 1 then 'a' end", "CASE WHEN points = 1 THEN 'a' END"),
        ("points::string", "CAST(points AS string)"),
        ("`end` = 1", '"end" = 1'),
        ("points!=1 or points*-1<=-1", "points <> 1 OR points * -1 <= -1"),
    ],
)
def test_an_expression_has_one_text(written: str, text: str) -> None:
    assert to_text(parse(written.replace("NOTE", "note"))) == text


def test_a_manifest_carries_expressions() -> None:
    manifest = catalog.manifest()
    fields = catalog.PAYMENTS.fields
    condition = parse_condition("x", "amount > 0.5 AND note NOT LIKE 'test%' OR points IS NULL", fields)
    view = replace(manifest.windowed_views[0], where=condition)
    changed = replace(manifest, windowed_views=(view, *manifest.windowed_views[1:]))
    assert Manifest.from_json(changed.to_json()) == changed


def test_what_a_column_computes_can_stand_in_its_place() -> None:
    bonus = {"points": parse("5"), "note": parse("CAST(most AS string)")}
    assert to_text(substituted(parse("COALESCE(refund, points) > 3 AND note = '5'"), bonus)) == (
        "COALESCE(refund, 5) > 3 AND CAST(most AS string) = '5'"
    )
    # As a column it may have 19 digits; as a constant it has one.
    assert [str(item.type) for item in (parse("COALESCE(refund, points)"), parse("COALESCE(refund, 5)"))] == [
        "decimal(21,2)",
        "decimal(9,2)",
    ]
    assert substituted(parse("COALESCE(refund, points)"), bonus) == parse("COALESCE(refund, 5)")


def test_constants_are_converted_when_rendered_not_per_event() -> None:
    assert render(parse("amount > 100"), "spark", str) == "CAST((amount > CAST('10000' AS BIGINT)) AS BIGINT)"


def test_text_does_not_grow_with_the_square_of_a_sum() -> None:
    short, long = (parse(" + ".join(["score"] * count)) for count in (10, 100))
    for dialect in DIALECTS:
        assert len(render(long, dialect, str)) < 12 * len(render(short, dialect, str))


@pytest.mark.parametrize("value", ["it's", "\\", "${env:HOME}", "%", "a\nb", "😀", "'); DROP TABLE x; --"])
def test_a_string_is_one_literal_in_every_dialect(value: str) -> None:
    read = typed("eq", column("note", STRING), literal(STRING, value))
    assert evaluate(read, {"note": value}) == 1
    assert evaluate(parse(to_text(read)), {"note": value}) == 1
    assert "${" not in render(read, "spark", str)


def test_a_value_has_one_literal() -> None:
    assert literal(TIMESTAMP, "2026-01-01T01:00:00+01:00") == literal(TIMESTAMP, "2026-01-01T00:00:00.000Z")
    assert literal(MONEY, "1.5") == literal(MONEY, "1.50") == constant(MONEY, 150)
    assert literal(FLOAT64, "-0.0") == literal(FLOAT64, "0e5")
    with pytest.raises(ValueError, match="years 1 to 9999"):
        literal(TIMESTAMP, "9999-12-31T23:59:59-01:00")


def test_no_row_makes_an_expression_raise() -> None:
    print(f"seed {SEED + 1}")
    over = rows(SEED + 1, 40)
    for item in Generator(SEED + 1).expressions(200):
        for row in over:
            value = evaluate(item, row)
            assert not isinstance(value, float) or math.isfinite(value)
