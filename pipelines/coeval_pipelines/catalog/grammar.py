"""The grammar of row expressions, as sqlglot reads it: few keywords, no functions of its own. It knows sqlglot.

Words that our language does not use are names like any other, so that a column may be called `offset` or `comment`,
and every function arrives by the name that was written.
"""

from __future__ import annotations

from sqlglot import exp, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, TokenError
from sqlglot.parser import Parser as SqlParser

from coeval_pipelines.catalog.errors import DefinitionError

_WORDS = frozenset(
    {"AND", "AS", "BETWEEN", "CASE", "DISTINCT", "ELSE", "END", "ESCAPE", "FALSE", "FOR", "FROM", "ILIKE", "IN"}
    | {"INTERVAL", "IS", "LIKE", "NOT", "NULL", "OR", "OVER", "SELECT", "THEN", "TRUE", "WHEN", "WITH"}
    | {"PARTITION BY", "ORDER BY", "GROUP BY"}
    | {"BIGINT", "BOOL", "BOOLEAN", "DATE", "DECIMAL", "DOUBLE", "FLOAT", "INT", "INT64", "INTEGER", "NUMERIC"}
    | {"SMALLINT", "STRING", "TEXT", "TIME", "TIMESTAMP", "VARCHAR"}
)
_SIGNS = frozenset({"||", "<>", "!=", "<=", ">=", "==", "::", "<=>"})
_EXAMPLE = "Write one SQL expression over the columns: amount > 100 AND note IS NOT NULL."


class RowExpressions(Dialect):
    """What sqlglot needs to know."""

    class Tokenizer(tokens.Tokenizer):
        """Words and signs."""

        IDENTIFIERS = ['"', "`"]  # noqa: RUF012 - how sqlglot is told
        SINGLE_TOKENS = {sign: tokens.Tokenizer.SINGLE_TOKENS[sign] for sign in "(),.;:!+-*/%=<>&|'\"`"}  # noqa: RUF012
        KEYWORDS = {  # noqa: RUF012
            **{word: token for word, token in tokens.Tokenizer.KEYWORDS.items() if word in _WORDS | _SIGNS},
            "FLOAT64": tokens.Tokenizer.KEYWORDS["DOUBLE"],
        }

    class Parser(SqlParser):
        """Functions keep their names; only those with words between their arguments are read here."""

        FUNCTIONS = {}  # noqa: RUF012
        FUNCTION_PARSERS = {  # noqa: RUF012
            name: SqlParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST", "EXTRACT", "SUBSTRING")
        }
        NO_PAREN_FUNCTIONS = {}  # noqa: RUF012
        NO_PAREN_FUNCTION_PARSERS = {"CASE": SqlParser.NO_PAREN_FUNCTION_PARSERS["CASE"]}  # noqa: RUF012


def read_sql(where: str, text: str) -> exp.Expression:
    """The syntax tree of one expression.

    Raises:
        DefinitionError: the text is empty, or cannot be read; it says up to where it could.
    """
    if not text.strip():
        raise DefinitionError(where, "the expression is empty", _EXAMPLE)
    try:
        tree = exp.maybe_parse(text, into=exp.Condition, dialect=RowExpressions)
    except TokenError as error:
        start = max(text.rfind(sign) for sign in ("'", '"', "`", "/*"))
        what = f"what begins at {_place(text, start)} is not closed: {text}"
        raise DefinitionError(
            where, what, "Close the quote; a quote inside a string is written twice: 'it''s'."
        ) from error
    except ParseError as error:
        raise DefinitionError(where, _unread(text, error), _EXAMPLE) from error
    assert isinstance(tree, exp.Expression)
    if any(node.comments for node in tree.walk()):
        fix = "Leave it out. To subtract a negative number, put a space between the signs."
        raise DefinitionError(where, f"it holds a comment: {text}", fix)
    return tree


def _unread(text: str, error: ParseError) -> str:
    found = error.errors[0] if error.errors else {}
    sign = str(found.get("highlight") or "")
    line, end = int(found.get("line") or 1), int(found.get("col") or 1)
    place = f"line {line}, column {max(1, end - len(sign) + 1)}"
    return f"it cannot be read at {place}, at {sign!r}: {text}"


def _place(text: str, index: int) -> str:
    before = text[: max(index, 0)]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
