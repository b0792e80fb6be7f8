"""The words people read when the parser stops, keyed by what it could have read next.

`POSITIONS` has an entry for every set of terminals that some state of the parse table of `nl.lark`
can go on with (a test walks the table); the entry says where in a statement the parser stands.
"""

from __future__ import annotations

from typing import Literal

Position = Literal["statement", "value", "value or close", "after value", "item end", "separator", "end"]

_WORD = "CALL LBRACE LPAR LSQB NAME NUMBER STRING"
_VALUE = f"{_WORD} MINUS"
_STATEMENT = f"{_VALUE} COMMA ERROR _NL"
_AFTER = "$END COMMA EQUAL RBRACE _NL"
_AFTER_INSIDE = f"{_AFTER} PIPE RPAR RSQB"
_AFTER_SUM = f"{_AFTER_INSIDE} MINUS PLUS"
_AFTER_TERM = f"{_AFTER_SUM} SLASH STAR"
_AFTER_POWER = f"{_AFTER_TERM} CARET"
_OPERATORS = "CARET MINUS PERCENT PIPE PLUS SLASH STAR"

_TABLE: tuple[tuple[Position, str], ...] = (
    ("statement", f"{_STATEMENT} $END"),
    ("statement", f"{_STATEMENT} $END RBRACE"),
    ("statement", f"{_STATEMENT} RBRACE"),
    ("value", _VALUE),
    ("value or close", f"{_VALUE} RPAR"),
    ("value or close", f"{_VALUE} RSQB"),
    ("after value", f"{_AFTER_POWER} {_WORD} PERCENT COLON".replace("RPAR RSQB ", "")),
    ("after value", f"{_WORD} {_OPERATORS} COMMA EQUAL RPAR"),
    ("after value", f"{_AFTER_POWER} {_WORD} PERCENT"),
    ("after value", f"{_AFTER_POWER} {_WORD}"),
    ("after value", _AFTER_POWER),
    ("after value", _AFTER_TERM),
    ("after value", _AFTER_SUM),
    ("after value", f"{_AFTER} PIPE RPAR RSQB"),
    ("after value", _AFTER),
    ("item end", "COMMA RPAR RSQB"),
    ("item end", "COMMA RPAR"),
    ("item end", "COMMA RSQB"),
    ("separator", "$END COMMA RBRACE _NL"),
    ("separator", "RBRACE"),
    ("end", "$END"),
    ("end", ""),
)  # fmt: skip

POSITIONS: dict[frozenset[str], Position] = {frozenset(names.split()): position for position, names in _TABLE}

TERMINALS: dict[str, str] = {
    "$END": "the end of the file",
    "_NL": "the end of the line",
    "ERROR": "a statement that could not be read",
    "NAME": "a name",
    "CALL": "a call",
    "NUMBER": "a number",
    "STRING": "a string",
    "PIPE": "`|>`",
    "EQUAL": "`=`",
    "COLON": "`:`",
    "COMMA": "`,`",
    "PLUS": "`+`",
    "MINUS": "`-`",
    "STAR": "`*`",
    "SLASH": "`/`",
    "CARET": "`^`",
    "PERCENT": "`%`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
}

_CLOSERS = {"(": "`)`", "[": "`]`"}

_OPERATOR_FIRST = "a line is continued by an operator at its end; only `|>` may stand first"

_HELP: dict[tuple[Position, str], str] = {
    ("after value", "COLON"): "a label is one word in front of its statement, as in `mixer: x = ...`",
    ("after value", "PERCENT"): "`%` stands right after an amount, as in `2%`",
    ("item end", "PERCENT"): "`%` stands right after an amount, as in `2%`",
    ("separator", "COLON"): "a label is one word in front of its statement, as in `mixer: x = ...`",
    ("statement", "CARET"): _OPERATOR_FIRST,
    ("statement", "COLON"): "a label is one word in front of its statement, as in `mixer: x = ...`",
    ("statement", "EQUAL"): "the name that is assigned to stands in front of `=`",
    ("statement", "PIPE"): "a pipeline starts with a value, as in `x |> linear`",
    ("statement", "PLUS"): _OPERATOR_FIRST,
    ("statement", "SLASH"): "comments start with `#`",
    ("statement", "STAR"): _OPERATOR_FIRST,
    ("value", "EQUAL"): "one `=` assigns; there is no comparison",
    ("value", "SLASH"): "comments start with `#`",
    ("value", "STAR"): "a power is written `a ^ b`",
    ("value or close", "COMMA"): "remove the `,`, or put a value in front of it",
}


def expected_words(position: Position, bracket: str | None) -> str:
    """What could have stood there, in words; `bracket` is the innermost open `(` or `[`, if any.

    >>> expected_words("item end", "[")
    '`,` or `]`'
    """
    closer = _CLOSERS.get(bracket or "")
    match position:
        case "statement":
            return "a statement"
        case "value":
            return "a value"
        case "value or close":
            return f"a value or {closer}" if closer else "a value"
        case "after value" | "item end":
            return f"`,` or {closer}" if closer else "the end of the statement"
        case "separator" | "end":
            return "the end of the statement"


def help_for(position: Position, found: str, bracket: str | None) -> str | None:
    """How such a mistake is usually mended, or None."""
    if found == "EQUAL" and position in ("after value", "item end", "separator"):
        return "is a `,` missing in front of this argument?" if bracket else "a statement holds one `=`"
    return _HELP.get((position, found))
