"""Generated row expressions and rows for them: seeded, every operation, with nulls and the extremes of every type."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from coeval.spec.dialects import LONGEST, render
from coeval.spec.expressions import Expression, column, constant, literal, null
from coeval.spec.operations import cast, typed
from coeval.spec.signatures import PARTS, ExpressionError
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind, Physical

COLUMNS: dict[str, DataType] = {
    "i": INT64, "j": INT64, "m": DataType.parse("decimal(9,2)"), "n": DataType.parse("decimal(18,4)"),
    "o": DataType.parse("decimal(18,18)"), "v": DataType.parse("decimal(30,0)"), "w": DataType.parse("decimal(38,3)"),
    "f": FLOAT64, "g": FLOAT64, "s": STRING, "t": STRING, "b": BOOL, "c": BOOL,
    "x": TIMESTAMP, "y": TIMESTAMP, "d": DATE, "e": DATE,
}  # fmt: skip

_INTS = (0, 1, -1, 2, 3, 7, -7, 10, 100, 2**31, -(2**31), 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 10**18, 3037000500)
_FLOATS = (
    0.0, 1.0, -1.0, 0.1, 0.5, -0.5, 1.5, 2.5, 1e15, 1e16 + 2, 1.79e308, -1.79e308, 1.7976931348623157e308, 5e-324,
    -5e-324, 2.2250738585072014e-308, 1e-160, 1e160, 9.223372036854775e18, 9.223372036854775807e18,
    -9.223372036854775808e18, -9.3e18, 3.141592653589793, 1e22, 123456789.125,
)  # fmt: skip
_TEXTS = (
    "", "a", "A", "b", "ab", "AB", "aB", "z", "Z", "a%", "a_b", "%", "_", "\\", "a\\%b", "'", "it's", "$", "${x}",
    "a\nb", "\n", "\r\n", "\u2028", "\t", " ", "a ", " a", "0", "10", "9", "-1", "true", "null", "NULL", "ä", "Ä", "ß",
    "ﬁ", "İ", "ı", "é", "e\u0301", "～", "😀", "a😀b", "\ue000", "\uffff", "日本語", "\x01", "[a-z]", "^$.*+?(){}|",
    "!#", "q" * 40, "\x00", "a\x00b",
)  # fmt: skip
_LAST_INSTANT = 253_402_300_799_999_999
_FIRST_INSTANT = -62_135_596_800_000_000
_INSTANTS = (
    0, 1, -1, 999_999, -999_999, 1_000_000, 59_999_999, 3_599_999_999, 3_600_000_000, 86_399_999_999, 86_400_000_000,
    -86_400_000_000, -86_400_000_001, _FIRST_INSTANT, _FIRST_INSTANT - 86_399_000_000, _LAST_INSTANT,
    _LAST_INSTANT + 86_399_000_000, 951_782_400_000_000, 951_868_799_999_999, 1_774_746_000_000_000,
    -2_208_988_800_000_001, 4_102_444_800_000_000, 1_709_164_800_000_000,
)  # fmt: skip
_DAYS = (0, 1, -1, -719_162, 2_932_896, 11_016, 11_017, 19_782, -25_567, -25_568, 47_482, -141_428, -141_427, -135_080)


def rows(seed: int, count: int) -> list[dict[str, Physical]]:
    """Rows of physical values: the first are all nulls, then extremes and ordinary values at random."""
    rng = random.Random(seed)
    drawn = [{name: _value(rng, data_type) for name, data_type in COLUMNS.items()} for _ in range(count - 1)]
    return [dict.fromkeys(COLUMNS), *drawn]


def _value(rng: random.Random, data_type: DataType) -> Physical:
    if rng.random() < 0.1:
        return None
    extreme = rng.random() < 0.5
    match data_type.kind:
        case Kind.INT64:
            return rng.choice(_INTS) if extreme else rng.randrange(-1000, 1000)
        case Kind.DECIMAL:
            greatest = 10**data_type.precision - 1
            ends = (0, 1, -1, 5, -5, 15, 50, -50, 150, greatest, -greatest, greatest // 2, 10**data_type.scale)
            return (
                min(rng.choice(ends), greatest)
                if extreme
                else rng.randrange(-min(greatest, 10**6), min(greatest, 10**6))
            )
        case Kind.FLOAT64:
            return rng.choice(_FLOATS) if extreme else rng.uniform(-1000, 1000)
        case Kind.STRING:
            return rng.choice(_TEXTS)
        case Kind.BOOL:
            return rng.randrange(2)
        case Kind.TIMESTAMP:
            return rng.choice(_INSTANTS) if extreme else rng.randrange(_FIRST_INSTANT, _LAST_INSTANT)
        case Kind.DATE:
            return rng.choice(_DAYS) if extreme else rng.randrange(-719_162, 2_932_897)


CASTS = frozenset(
    f"cast {source} {target}"
    for source, targets in {
        "int64": "int64 decimal float64 string", "decimal": "int64 decimal float64", "float64": "int64",
        "bool": "int64 string", "timestamp": "date", "date": "timestamp string",
    }.items()
    for target in targets.split()
)  # fmt: skip
"""Every conversion, as `operations` names it."""

_WHOLE = ("add", "sub", "mul", "mod", "idiv")


class Generator:
    """Draws well-typed expressions; the deeper, the likelier a column or a literal."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def expressions(self, count: int) -> list[Expression]:
        """Distinct expressions that every dialect can render, over all kinds of type in turn."""
        found: dict[Expression, None] = {}
        makers = (self.integer, self.decimal, self.real, self.boolean, self.text, self.instant, self.day, self.exact)
        while len(found) < count:
            try:
                drawn = makers[len(found) % len(makers)](self.rng.choice((1, 2, 2, 3, 4)))
                texts = [render(drawn, dialect, str) for dialect in ("flink", "spark", "duckdb")]
            except ExpressionError:
                continue
            if drawn.args and max(map(len, texts)) < LONGEST // 8:
                found[drawn] = None
        return list(found)

    def leaf(self, kind: Kind) -> Expression:
        """A column, a literal or, now and then, NULL."""
        named = [column(name, data_type) for name, data_type in COLUMNS.items() if data_type.kind is kind]
        draw = self.rng.random()
        chosen = self.rng.choice(named)
        if draw < 0.7:
            return chosen
        if draw < 0.75:
            return null(chosen.type)
        try:
            return self._decimal() if kind is Kind.DECIMAL else constant(chosen.type, self._drawn(chosen.type))
        except ValueError:
            return chosen

    def _drawn(self, data_type: DataType) -> Physical:
        value = None
        # SQL text cannot carry the character of code 0.
        while value is None or (isinstance(value, str) and "\0" in value):
            value = _value(self.rng, data_type)
        return value

    def _decimal(self) -> Expression:
        """A decimal as it would be written: no wider than its digits."""
        scale = self.rng.choice((1, 2, 3, 6))
        value = self._drawn(DataType(Kind.DECIMAL, 9, scale))
        assert isinstance(value, int)
        return constant(DataType(Kind.DECIMAL, max(len(str(abs(value))), scale), scale), value)

    def pick(self, kind: Kind, depth: int, *choices: Callable[[], Expression]) -> Expression:
        """A leaf, a form that any type has, or one of the choices."""
        if depth <= 0:
            return self.leaf(kind)
        makers = {
            Kind.INT64: self.integer, Kind.DECIMAL: self.decimal, Kind.FLOAT64: self.real, Kind.BOOL: self.boolean,
            Kind.STRING: self.text, Kind.TIMESTAMP: self.instant, Kind.DATE: self.day,
        }  # fmt: skip
        own = makers[kind]
        shared = (
            lambda: typed("case", self.boolean(depth - 1), own(depth - 1), own(depth - 1)),
            lambda: typed(
                "case", self.boolean(depth - 1), own(depth - 1), self.boolean(depth - 2), own(0), null(own(0).type)
            ),
            lambda: typed("coalesce", own(depth - 1), own(depth - 1)),
            lambda: typed("nullif", own(depth - 1), own(depth - 1)),
        )
        return self.rng.choice([*choices, *choices, *shared])()

    def exact(self, depth: int) -> Expression:
        """int64 or decimal."""
        return self.rng.choice((self.integer, self.decimal))(depth)

    def number(self, depth: int) -> Expression:
        """Any number."""
        return self.rng.choice((self.integer, self.decimal, self.real))(depth)

    def integer(self, depth: int) -> Expression:
        """An int64."""
        return self.pick(
            Kind.INT64, depth,
            *[lambda op=op: typed(op, self.integer(depth - 1), self.integer(depth - 1)) for op in _WHOLE],
            lambda: typed("idiv", self.exact(depth - 1), self.exact(depth - 1)),
            *[lambda op=op: typed(op, self.integer(depth - 1)) for op in ("neg", "abs")],
            lambda: typed("length", self.text(depth - 1)),
            *[lambda: typed(self.rng.choice(PARTS), self.instant(depth - 1))] * 2,
            lambda: typed(self.rng.choice(PARTS[:4]), self.day(depth - 1)),
            lambda: cast(self.number(depth - 1), INT64),
            lambda: cast(self.boolean(depth - 1), INT64),
        )  # fmt: skip

    def decimal(self, depth: int) -> Expression:
        """A decimal of some precision and scale."""
        digits = self.rng.choice((1, 4, 9, 18, 18, 30, 38))
        target = DataType(Kind.DECIMAL, digits, self.rng.randrange(min(digits, 18) + 1))
        return self.pick(
            Kind.DECIMAL, depth,
            *[lambda op=op: typed(op, self.exact(depth - 1), self.decimal(depth - 1)) for op in ("add", "mul", "mod")],
            *[lambda op=op: typed(op, self.decimal(depth - 1), self.exact(depth - 1)) for op in ("sub", "mul", "mod")],
            *[lambda op=op: typed(op, self.decimal(depth - 1)) for op in ("neg", "abs")],
            *[lambda: cast(self.exact(depth - 1), target)] * 3,
        )  # fmt: skip

    def real(self, depth: int) -> Expression:
        """A float64."""
        return self.pick(
            Kind.FLOAT64, depth,
            *[lambda op=op: typed(op, self.number(depth - 1), self.real(depth - 1)) for op in ("add", "sub", "mul")],
            *[lambda: typed("div", self.number(depth - 1), self.number(depth - 1))] * 2,
            *[lambda op=op: typed(op, self.real(depth - 1)) for op in ("neg", "abs")],
            lambda: cast(self.exact(depth - 1), FLOAT64),
        )  # fmt: skip

    def boolean(self, depth: int) -> Expression:
        """A bool."""
        kinds = (self.number, self.exact, self.real, self.text, self.instant, self.day)
        operands = self.rng.choice(kinds)
        comparison = self.rng.choice(("eq", "ne", "lt", "le", "gt", "ge"))
        return self.pick(
            Kind.BOOL, depth,
            *[lambda: typed(comparison, operands(depth - 1), operands(depth - 1))] * 4,
            lambda: typed(self.rng.choice(("eq", "ne")), self.boolean(depth - 1), self.boolean(depth - 1)),
            *[lambda op=op: typed(op, self.boolean(depth - 1), self.boolean(depth - 1)) for op in ("and", "or")],
            lambda: typed("not", self.boolean(depth - 1)),
            lambda: typed("is_null", operands(depth - 1)),
            lambda: typed("between", operands(depth - 1), operands(depth - 1), operands(depth - 2)),
            lambda: self.membership(depth - 1),
            *[lambda: typed("like", self.text(depth - 2), literal(STRING, self.pattern()))] * 2,
        )  # fmt: skip

    def membership(self, depth: int) -> Expression:
        """value IN (literals); the list holds values that occur, and of other types where numbers allow it."""
        value = self.rng.choice(
            (self.integer, self.decimal, self.real, self.text, self.instant, self.day, self.boolean)
        )(depth)
        kind = Kind.DECIMAL if value.type.kind is Kind.INT64 and self.rng.random() < 0.3 else value.type.kind
        items = [self.leaf(kind) for _ in range(self.rng.choice((6, 12, 60)))]
        return typed("in", value, *[item for item in items if item.operation == "literal"])

    def pattern(self) -> str:
        """A pattern of LIKE, made of texts that occur."""
        text = str(self._drawn(STRING))
        text = self.rng.choice((text, text[:1], text.swapcase()))
        return self.rng.choice(
            (text, f"{text}%", f"%{text}", f"%{text}%", "_" * len(text), f"_{text[1:]}", f"{text[:1]}_%")
        )

    def text(self, depth: int) -> Expression:
        """A string."""
        start, length = (constant(INT64, self.rng.randrange(low, 6)) for low in (1, 0))
        return self.pick(
            Kind.STRING, depth,
            *[lambda op=op: typed(op, self.text(depth - 1)) for op in ("lower", "upper")],
            lambda: typed("concat", self.text(depth - 1), self.text(depth - 1)),
            lambda: typed("substring", self.text(depth - 1), start, length),
            lambda: cast(self.integer(depth - 1), STRING),
            lambda: cast(self.boolean(depth - 1), STRING),
            lambda: cast(self.day(depth - 1), STRING),
        )  # fmt: skip

    def instant(self, depth: int) -> Expression:
        """A timestamp."""
        return self.pick(Kind.TIMESTAMP, depth, lambda: cast(self.day(depth - 1), TIMESTAMP))

    def day(self, depth: int) -> Expression:
        """A date."""
        return self.pick(Kind.DATE, depth, lambda: cast(self.instant(depth - 1), DATE))


def operations(expression: Expression) -> set[str]:
    """The operations of a tree; casts with the kinds that they convert."""
    name = expression.operation
    own = f"cast {expression.args[0].type.kind} {expression.type.kind}" if name == "cast" else name
    return {own}.union(*(operations(item) for item in expression.args))


def differences(
    expected: Sequence[Sequence[Physical]], found: Sequence[Sequence[Physical]]
) -> list[tuple[int, int, Physical, Physical]]:
    """Where columns of values differ: (expression, row, expected, found). Floats count as different by any bit."""
    return [
        (number, row, left, right)
        for number, (lefts, rights) in enumerate(zip(expected, found, strict=True))
        for row, (left, right) in enumerate(zip(lefts, rights, strict=True))
        if _exactly(left) != _exactly(right)
    ]


def _exactly(value: Physical) -> object:
    return struct.pack(">d", value) if isinstance(value, float) else (type(value), value)
