"""Where the SQL of Flink, Spark and DuckDB differs for row expressions: one small class each. Pure text in, text out.

Every form takes and gives physical values (BIGINT, DOUBLE, STRING; whole numbers of over 18 digits in `wide`) and
uses each argument once where it can, so that a tree of expressions does not grow into a forest.
"""

from __future__ import annotations

from coeval.spec.time import DAY
from coeval.spec.types import DataType, Kind

WIDE = "DECIMAL(38, 0)"
"""The type of a physical value of more than 18 digits."""

_BEFORE_ANY = 1_000_000
"""Days before the epoch that no date reaches: shifted by it all are positive, and division rounds down."""

_DOW_SHIFT = (3 - _BEFORE_ANY) % 7


class Dialect:
    """Forms that the engines share; a subclass says where it differs."""

    wide = WIDE
    """The type in which whole numbers of up to 38 digits are computed."""

    def literal(self, value: str) -> str:
        """A string."""
        return "'" + value.replace("'", "''") + "'"

    def sql_type(self, data_type: DataType) -> str:
        """The type of a physical value."""
        match data_type.kind:
            case Kind.STRING:
                return "STRING"
            case Kind.FLOAT64:
                return "DOUBLE"
        return self.wide if data_type.is_wide else "BIGINT"

    def to_int64(self, wide: str) -> str:
        """A whole number as BIGINT; NULL beyond its range."""
        return f"TRY_CAST({wide} AS BIGINT)"

    def to_digits(self, number: str, digits: int) -> str:
        """A number rounded half away from zero to a whole one of at most so many digits; NULL where it has more."""
        return f"TRY_CAST({number} AS DECIMAL({digits}, 0))"

    def truncated(self, double: str) -> str:
        """A double in the range of int64, for a cast to BIGINT, which drops the fraction."""
        return double

    def quotient(self, left: str, right: str) -> str:
        """Division of doubles; NULL, NaN or infinite for a zero divisor."""
        return f"{left} / {right}"

    def whole_quotient(self, left: str, right: str) -> str:
        """Division of BIGINTs towards zero; NULL for a zero divisor."""
        raise NotImplementedError

    def wide_quotient(self, left: str, right: str) -> str:
        """The same of wide whole numbers; any value beyond int64 may be NULL."""
        raise NotImplementedError

    def remainder(self, left: str, right: str) -> str:
        """The remainder of BIGINTs, with the sign of the dividend; NULL for a zero divisor."""
        return f"({left} % {right})"

    def part(self, name: str, days: str) -> str:
        """YEAR, MONTH or DAY of a number of days since the epoch, as BIGINT."""
        return f"CAST(EXTRACT({name.upper()} FROM {self.date(days)}) AS BIGINT)"

    def date(self, days: str) -> str:
        """A DATE from a number of days since the epoch."""
        raise NotImplementedError

    def length(self, text: str) -> str:
        """The number of code points, as BIGINT."""
        return f"CAST(CHAR_LENGTH({text}) AS BIGINT)"

    def order_key(self, text: str) -> str:
        """What orders strings by the bytes of their UTF-8."""
        return text

    def like(self, text: str, pattern: str) -> str:
        """LIKE without an escape character."""
        return f"{text} LIKE {self.literal(pattern)}"

    def coalesce(self, values: list[str]) -> str:
        """The first value that is not NULL."""
        return f"COALESCE({', '.join(values)})"

    def shifted(self, micros: str) -> str:
        """An instant, counted from a day before any."""
        return f"({micros} + {_BEFORE_ANY * DAY})"

    def days(self, micros: str) -> str:
        """The day of an instant."""
        return f"({self.whole_quotient(self.shifted(micros), str(DAY))} - {_BEFORE_ANY})"

    def midnight(self, days: str) -> str:
        """The instant at which a day begins."""
        return f"({days} * {DAY})"

    def weekday(self, days: str) -> str:
        """1 for Monday to 7 for Sunday."""
        return f"(({days} + {_BEFORE_ANY + _DOW_SHIFT}) % 7 + 1)"

    def clock(self, micros: str, unit: int, count: int) -> str:
        """How many units (microseconds) of the day have passed, modulo `count`."""
        return f"({self.whole_quotient(self.shifted(micros), str(unit))} % {count})"


class Flink(Dialect):
    """Flink SQL: BIGINT arithmetic wraps, casts of decimals wrap, and constants are folded early."""

    def literal(self, value: str) -> str:
        """A bare one is a CHAR, and CASE pads CHARs to one length."""
        return f"CAST({super().literal(value)} AS STRING)"

    def to_int64(self, wide: str) -> str:
        """Through text: a cast of a decimal keeps the low 64 bits, one of a text checks the range."""
        return f"TRY_CAST(CAST({wide} AS STRING) AS BIGINT)"

    def whole_quotient(self, left: str, right: str) -> str:
        """The division of BIGINTs is whole."""
        return f"{left} / {right}"

    def wide_quotient(self, left: str, right: str) -> str:
        """An exact quotient has no digits to round."""
        return f"CAST(({left} - {left} % {right}) / {right} AS DECIMAL(38, 0))"

    def coalesce(self, values: list[str]) -> str:
        """COALESCE breaks the plan where folding constants leaves an argument that cannot be NULL."""
        *first, last = values
        return "".join(f"IFNULL({value}, " for value in first) + last + ")" * len(first)

    def date(self, days: str) -> str:
        """Days are the one unit that fits an INT in any year."""
        return f"TIMESTAMPADD(DAY, CAST({days} AS INT), DATE '1970-01-01')"

    def order_key(self, text: str) -> str:
        """Bytes: strings that were not serialised yet are compared by their UTF-16."""
        return f"ENCODE({text}, 'UTF-8')"

    def like(self, text: str, pattern: str) -> str:
        """A regular expression: LIKE's underscore does not match a line feed."""
        parts = {"%": ".*", "_": "."}
        regex = "".join(parts.get(c, c if c.isalnum() or not c.isascii() else "\\" + c) for c in pattern)
        whole = super().literal(rf"(?s)\A{regex}\z")
        return f"REGEXP({text}, {whole})"


class Spark(Dialect):
    """Spark SQL, also in ANSI mode, where an overflow, a bad cast or a division by zero would end the job."""

    def literal(self, value: str) -> str:
        """A backslash escapes, and a dollar sign could begin a variable of the session."""
        for sign, escaped in (("\\", "\\\\"), ("'", "\\'"), ("$", "\\u0024")):
            value = value.replace(sign, escaped)
        return f"'{value}'"

    def quotient(self, left: str, right: str) -> str:
        """NULL for a zero divisor."""
        return f"TRY_DIVIDE({left}, {right})"

    def whole_quotient(self, left: str, right: str) -> str:
        """DIV is whole, and checked: only for what cannot overflow."""
        return f"{left} DIV {right}"

    def wide_quotient(self, left: str, right: str) -> str:
        """DIV of decimals keeps the low 64 bits; an exact quotient has no digits to round."""
        return f"TRY_DIVIDE({left} - {left} % {right}, {right})"

    def date(self, days: str) -> str:
        """NULL beyond an INT."""
        return f"DATE_FROM_UNIX_DATE(TRY_CAST({days} AS INT))"

    def shifted(self, micros: str) -> str:
        """NULL beyond a BIGINT."""
        return f"TRY_ADD({micros}, {_BEFORE_ANY * DAY})"

    def midnight(self, days: str) -> str:
        """NULL beyond a BIGINT."""
        return f"TRY_MULTIPLY({days}, {DAY})"

    def like(self, text: str, pattern: str) -> str:
        """With an escape character that the pattern does not hold, for a backslash would escape."""
        unused = next(sign for sign in map(chr, range(33, 0x3000)) if sign not in pattern + "'\\$")
        return f"{super().like(text, pattern)} ESCAPE '{unused}'"


class DuckDB(Dialect):
    """DuckDB: an independent check of the others."""

    wide = "HUGEINT"

    def truncated(self, double: str) -> str:
        """A cast would round."""
        return f"TRUNC({double})"

    def whole_quotient(self, left: str, right: str) -> str:
        """The whole one of the two divisions."""
        return f"{left} // {right}"

    def wide_quotient(self, left: str, right: str) -> str:
        """The same for HUGEINT."""
        return f"{left} // {right}"

    def remainder(self, left: str, right: str) -> str:
        """In HUGEINT: the least BIGINT % -1 is an error."""
        return f"CAST(CAST({left} AS HUGEINT) % {right} AS BIGINT)"

    def date(self, days: str) -> str:
        """A DATE and whole days."""
        return f"(DATE '1970-01-01' + CAST({days} AS INTEGER))"

    def length(self, text: str) -> str:
        """Code points; a BIGINT already."""
        return f"LENGTH({text})"


DIALECTS: dict[str, Dialect] = {"flink": Flink(), "spark": Spark(), "duckdb": DuckDB()}
