"""What each operation of row expressions takes and gives: one rule per family. Pure.

`coeval.spec.operations` makes nodes by these rules; their meaning is in docs/semantics.md, "Row expressions".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coeval.spec.expressions import Expression, to_text
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind

NARROW = 18
"""Digits of the decimals that arithmetic takes and gives: eight bytes hold them."""

INT64_DIGITS = 19
WIDEST = 38
_LONGEST_TEXT = 1_000_000
_ORDERED = frozenset({"lt", "le", "gt", "ge", "between"})

CASTS = (
    "Casts: between int64 and decimals; int64 and decimals to float64; float64 to int64; int64, bool and date to "
    "string; bool to int64; timestamp to date and back."
)
_NO_ARITHMETIC = "Dates, instants and booleans have no arithmetic; EXTRACT gives their parts, CASE a number."


class ExpressionError(ValueError):
    """An expression that has no meaning: what is wrong with it, and what to write instead."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}. {fix}")
        self.what = what
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Signature:
    """The type that an operation gives, and the types that it works in, one for each argument."""

    result: DataType
    operands: tuple[DataType, ...]


Arguments: TypeAlias = Sequence[Expression]


def signature_of(operation: str, args: Arguments) -> Signature:
    """What an operation gives over these arguments, and works in.

    Raises:
        ExpressionError: it does not take them.
    """
    low, high = _COUNTS.get(operation, (2, 2))
    if not low <= len(args) <= high:
        name = _NAMES.get(operation, operation.upper())
        wanted = f"{low}" if low == high else f"at least {low}"
        form = f"{name}({', '.join('abc'[:low])})"
        raise ExpressionError(f"{name} takes {wanted} argument{'s' * (low > 1)}, not {len(args)}", f"Write {form}.")
    return RULES[operation](operation, args)


def shown(*args: Expression) -> str:
    """Arguments and their types, for a message."""
    return ", ".join("NULL" if item.operation == "null" else f"{to_text(item)} is {item.type}" for item in args)


def _refuse(operation: str, args: Arguments, takes: str, fix: str) -> ExpressionError:
    return ExpressionError(f"{_NAMES.get(operation, operation.upper())} takes {takes}: {shown(*args)}", fix)


def _known(args: Arguments) -> list[Expression]:
    return [item for item in args if item.operation != "null"]


def _whole_digits(item: Expression) -> int:
    if item.operation == "literal" and item.type == INT64:
        return len(item.value.lstrip("-"))
    return (item.type.precision or INT64_DIGITS) - item.type.scale


def common_type(operation: str, args: Arguments) -> DataType:
    """The one type that holds every argument exactly; float64 where one of them is.

    Raises:
        ExpressionError: there is none.
    """
    known = _known(args)
    if not known:
        raise ExpressionError(
            f"{_NAMES.get(operation, operation.upper())} has nothing but NULL, which has no type",
            "Name one: CAST(NULL AS int64).",
        )
    types = {item.type for item in known}
    if len(types) == 1:
        return types.pop()
    if FLOAT64 in types and all(item == FLOAT64 or item.is_exact_number for item in types):
        _narrow(operation, known)
        return FLOAT64
    if not all(item.is_exact_number for item in types):
        raise _refuse(operation, known, "arguments of one type", _same_type_fix({item.kind for item in types}))
    scale = max(item.type.scale for item in known)
    digits = max(_whole_digits(item) for item in known) + scale
    if digits > WIDEST:
        raise _refuse(operation, known, f"numbers that {WIDEST} digits hold at one scale", "CAST one of them first.")
    return DataType(Kind.DECIMAL, digits, scale)


def _same_type_fix(kinds: set[Kind]) -> str:
    if kinds == {Kind.STRING, Kind.TIMESTAMP}:
        return "Write the instant as TIMESTAMP '2026-03-20T10:00:00Z'."
    if kinds == {Kind.STRING, Kind.DATE}:
        return "Write the day as DATE '2026-03-20'."
    if Kind.STRING in kinds:
        return "Only a string stands in quotes; or CAST the other side to string."
    if kinds == {Kind.TIMESTAMP, Kind.DATE}:
        return "CAST the timestamp to date, or the date to timestamp."
    return f"Bring them to one type with CAST. {CASTS}"


def _narrow(operation: str, args: Arguments) -> None:
    if any(item.type.is_wide for item in args):
        fix = f"CAST it to decimal({NARROW},s) first; wider ones can be compared, tested for NULL and passed through."
        raise _refuse(operation, args, f"decimals of at most {NARROW} digits", fix)


def _numbers(operation: str, args: Arguments) -> DataType:
    """The common type of arithmetic's arguments."""
    for item in _known(args):
        if item.type != FLOAT64 and not item.type.is_exact_number:
            fix = "Declare the column as a number in its source." if item.type == STRING else _NO_ARITHMETIC
            raise _refuse(operation, args, "numbers", fix)
    _narrow(operation, _known(args))
    return common_type(operation, args)


def _arithmetic(operation: str, args: Arguments) -> Signature:
    shared = _numbers(operation, args)
    both = (shared,) * len(args)
    if shared.kind is Kind.DECIMAL:
        return Signature(DataType(Kind.DECIMAL, NARROW, shared.scale), both)
    return Signature(shared, both)


def _product(operation: str, args: Arguments) -> Signature:
    shared = _numbers(operation, args)
    if shared.kind is not Kind.DECIMAL:
        return Signature(shared, (shared, shared))
    own = tuple(shared if item.operation == "null" else item.type for item in args)
    scale = sum(item.scale for item in own)
    if scale > NARROW:
        fix = "CAST one of them to fewer decimal places first."
        raise _refuse(operation, args, f"decimals with at most {NARROW} places together", fix)
    return Signature(DataType(Kind.DECIMAL, NARROW, scale), own)


def _quotient(operation: str, args: Arguments) -> Signature:
    _numbers(operation, args)
    return Signature(FLOAT64, (FLOAT64, FLOAT64))


def _exact(operation: str, args: Arguments) -> Signature:
    shared = _numbers(operation, args)
    if shared == FLOAT64:
        raise _refuse(operation, args, "int64 and decimals", "Use / for floats, or CAST them to int64 first.")
    if operation == "idiv":
        return Signature(INT64, (shared, shared))
    return _arithmetic(operation, args)


def _sign(operation: str, args: Arguments) -> Signature:
    shared = _numbers(operation, args)
    return Signature(shared, (shared,))


def _comparison(operation: str, args: Arguments) -> Signature:
    shared = common_type(operation, args)
    if shared == BOOL and operation in _ORDERED:
        raise _refuse(operation, args, "values that have an order", "Compare booleans with = and <> only.")
    return Signature(BOOL, (shared,) * len(args))


def _membership(operation: str, args: Arguments) -> Signature:
    for item in args[1:]:
        if item.operation != "literal":
            fix = "A NULL in the list never equals anything: leave it out. Compare with columns by = and OR."
            raise ExpressionError(f"IN takes a list of literals, not {to_text(item)}", fix)
    return _comparison(operation, args)


def _logic(operation: str, args: Arguments) -> Signature:
    _all_of(operation, args, BOOL, "Compare: amount <> 0, note IS NOT NULL.")
    return Signature(BOOL, (BOOL,) * len(args))


def _null_test(operation: str, args: Arguments) -> Signature:
    del operation
    return Signature(BOOL, (BOOL if args[0].operation == "null" else args[0].type,))


def _case(operation: str, args: Arguments) -> Signature:
    if len(args) % 2 == 0:
        raise ExpressionError("CASE takes pairs of condition and value, and the value for ELSE", "Add the last one.")
    _all_of(operation, args[:-1:2], BOOL, "Write a comparison after WHEN.")
    shared = common_type(operation, [*args[1::2], args[-1]])
    return Signature(shared, (BOOL, shared) * (len(args) // 2) + (shared,))


def _choice(operation: str, args: Arguments) -> Signature:
    shared = common_type(operation, args)
    return Signature(shared, (shared,) * len(args))


def _calendar(operation: str, args: Arguments) -> Signature:
    kind = args[0].type
    if args[0].operation == "null" or kind == TIMESTAMP or (kind == DATE and operation in _DATE_PARTS):
        return Signature(INT64, (TIMESTAMP if args[0].operation == "null" else kind,))
    takes = "a timestamp or a date" if operation in _DATE_PARTS else "a timestamp"
    raise _refuse(operation, args, takes, "Declare the column as timestamp in its source.")


def _strings(operation: str, args: Arguments) -> Signature:
    _all_of(operation, args, STRING, "CAST int64, bool and date to string; others have no text that all engines share.")
    return Signature(INT64 if operation == "length" else STRING, (STRING,) * len(args))


def _substring(operation: str, args: Arguments) -> Signature:
    _all_of(operation, args[:1], STRING, "CAST it to string.")
    for item, least in zip(args[1:], (1, 0), strict=True):
        literal = item.operation == "literal" and item.type == INT64
        if not literal or not least <= int(item.value) <= _LONGEST_TEXT:
            raise ExpressionError(
                f"SUBSTRING takes whole numbers for start (from 1) and length, not {to_text(item)}",
                "Write SUBSTRING(note, 1, 3).",
            )
    return Signature(STRING, (STRING, INT64, INT64))


def _pattern(operation: str, args: Arguments) -> Signature:
    _all_of(operation, args, STRING, "LIKE is for strings.")
    if args[1].operation != "literal":
        raise ExpressionError(f"LIKE takes a literal pattern, not {to_text(args[1])}", "Write note LIKE 'a%'.")
    return Signature(BOOL, (STRING, STRING))


def _all_of(operation: str, args: Arguments, wanted: DataType, fix: str) -> None:
    wrong = [item for item in _known(args) if item.type != wanted]
    if wrong:
        raise _refuse(operation, wrong, wanted.kind.value, fix)


_DATE_PARTS = ("year", "month", "day", "dow")
PARTS = (*_DATE_PARTS, "hour", "minute", "second")
"""The parts that EXTRACT takes."""

RULES: Mapping[str, Callable[[str, Arguments], Signature]] = {
    **dict.fromkeys(("add", "sub"), _arithmetic),
    "mul": _product,
    "div": _quotient,
    **dict.fromkeys(("idiv", "mod"), _exact),
    **dict.fromkeys(("neg", "abs"), _sign),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "between"), _comparison),
    "in": _membership,
    **dict.fromkeys(("and", "or", "not"), _logic),
    "is_null": _null_test,
    "case": _case,
    **dict.fromkeys(("coalesce", "nullif"), _choice),
    **dict.fromkeys(PARTS, _calendar),
    **dict.fromkeys(("lower", "upper", "length", "concat"), _strings),
    "substring": _substring,
    "like": _pattern,
}
_MANY = 1_000
_COUNTS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("neg", "abs", "not", "is_null", "lower", "upper", "length", *PARTS), (1, 1)),
    **dict.fromkeys(("between", "substring"), (3, 3)),
    **dict.fromkeys(("and", "or", "concat", "coalesce", "in"), (2, _MANY)),
    "case": (3, _MANY),
}
_NAMES: Mapping[str, str] = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "idiv": "DIV", "neg": "unary minus",
    "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "concat": "||", "is_null": "IS NULL",
    **{part: f"EXTRACT({part.upper()})" for part in PARTS},
}  # fmt: skip
