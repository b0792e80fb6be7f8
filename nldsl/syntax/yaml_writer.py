"""The statement tree as YAML; `nldsl.syntax.yaml` tells how, and reads it back.

What has no form of its own in YAML is written as `.nl` text in a block scalar, comments and all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nldsl.document import expr as e
from nldsl.document.printer import print_expr, print_statement
from nldsl.syntax.comments import BLANK_LINE
from nldsl.syntax.fmt import WIDTH, comment_line, format_expr, format_statement

JOINING = frozenset(("edition", "keep", "otherwise"))
"""Keys whose value continues them: `keep: parameters within 2%` is `keep parameters within 2%`."""

ASSIGNING = frozenset(("set", "add", "let", "vary", "replace", "grid", "zip"))
"""First words behind which a list is a list of values."""

LISTING = frozenset(("block", "model", "segments", "branch", "eval"))
"""First words whose bodies are written as lists, since their order is what they say."""

_PLAIN = re.compile(r"[A-Za-z0-9_(/.=][^\n\t#]*\Z|-(?=[A-Za-z0-9_(])[^\n\t#]*\Z")
_FLOW_MARKS = re.compile(r"[,\[\]{}]")


def joins_value(key: str) -> bool:
    """Whether a scalar behind `key` goes on with the same statement."""
    return key in JOINING


def assigns_list(head: e.Expr) -> bool:
    """Whether a list behind `head` is a value; else it is a body."""
    if isinstance(head, e.Name):
        return True
    return isinstance(head, e.Phrase) and head.head in ASSIGNING


def to_yaml(body: e.Body) -> str:
    """A YAML spec that reads back as an equal tree."""
    lines = _body_lines(body, 0, as_list=False, top=True)
    if not lines:
        return "[]\n" if not body.closing_comments else ""
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Entry:
    """What stands behind a key: nothing, text, a body, or a list of values."""

    key: str
    value: str | e.Body | e.ListOf | None


# -- scalars -----------------------------------------------------------------------------------


def scalar(text: str, *, flow: bool = False, key: bool = False) -> str:
    """A one-line scalar, quoted only where it must be.

    >>> scalar("mlp(hidden)"), scalar("[a, b]"), scalar("conv(4, same)", flow=True)
    ('mlp(hidden)', "'[a, b]'", "'conv(4, same)'")
    """
    plain = _PLAIN.match(text) is not None and ": " not in text and not text.endswith((":", " "))
    if flow and (_FLOW_MARKS.search(text) or ":" in text):
        plain = False
    if plain and not (key and text.startswith(("=", "."))) and not text.startswith(("...", "---")):
        return text
    return "'" + text.replace("'", "''") + "'"


def _block(text: str, indent: int) -> list[str]:
    return [" " * indent + line if line else "" for line in text.split("\n")]


# -- statements --------------------------------------------------------------------------------


def _entry(statement: e.Statement) -> _Entry | None:
    """The statement as a key and its value in a mapping, or None if it has no such form."""
    if statement.label is not None:
        return None
    if statement.target is not None:
        return _assignment(statement.target, statement.value)
    headed = _headed(statement)
    if headed is not None:
        as_list = _as_list(headed.value, headed.key)
        ambiguous = as_list and _reads_as_values(statement.value)
        return None if ambiguous else headed
    text = format_expr(statement.value)
    if "\n" in text:
        return None
    first, _, rest = text.partition(" ")
    if first in JOINING and rest and _is_phrase_of(statement.value, first):
        return _Entry(first, rest)
    return _Entry(text, None)


def _reads_as_values(value: e.Expr) -> bool:
    """Whether a list behind these head words would be read as a list of values."""
    if not isinstance(value, e.Phrase):
        return False
    one_name = len(value.words) == 2 and isinstance(value.words[0], e.Name)
    return one_name or value.head in ASSIGNING


def _is_phrase_of(value: e.Expr, first: str) -> bool:
    while isinstance(value, e.Pipe | e.Binary):
        value = value.source if isinstance(value, e.Pipe) else value.left
    return isinstance(value, e.Phrase) and value.head == first


def _assignment(target: e.Expr, value: e.Expr) -> _Entry | None:
    key = format_expr(target)
    if "\n" in key or key in JOINING:
        return None
    if isinstance(value, e.ListOf) and assigns_list(target) and not _has_body(value):
        return _Entry(key, value)
    return _Entry(key, format_expr(value))


def _has_body(node: e.Expr) -> bool:
    return any(isinstance(n, e.Body) for n in node.walk())


def _headed(statement: e.Statement) -> _Entry | None:
    """`head words { ... }` as a key with a body."""
    value = statement.value
    if statement.label is not None or statement.target is not None:
        return None
    if not isinstance(value, e.Phrase):
        return None
    *head, body = value.words
    if not head or not isinstance(body, e.Body) or any(_has_body(w) for w in head):
        return None
    key = print_expr(e.Phrase(tuple(head))) if len(head) > 1 else print_expr(head[0])
    grouped = len(head) == 1 and not isinstance(head[0], e.Name | e.Call)
    return None if grouped else _Entry(key, body)


def _as_list(body: object, key: str) -> bool:
    assert isinstance(body, e.Body)
    first = re.match(r"[A-Za-z_0-9]*", key)
    if body.statements and first is not None and first.group() in LISTING:
        return True
    return not _can_map(body)


def _can_map(body: e.Body) -> bool:
    keys: list[str] = []
    for statement in body.statements:
        entry = _entry(statement)
        if entry is None:
            return False
        flows = entry.value is None and not isinstance(statement.value, e.Phrase | e.Name | e.Call)
        if flows:
            return False
        keys.append(" ".join(entry.key.split()))
    return len(keys) == len(set(keys))


def _body_lines(body: e.Body, indent: int, *, as_list: bool, top: bool = False) -> list[str]:
    as_list = as_list or not _can_map(body)
    lines: list[str] = []
    previous: e.Statement | None = None
    for statement in body.statements:
        blank = statement.blank_before or (
            top and previous is not None and (_tall(previous) or _tall(statement))
        )
        if previous is not None and blank:
            lines.append("")
        lines += _comment_lines(statement.comments, indent)
        lines += _item(statement, indent) if as_list else _pair(statement, indent)
        previous = statement
    if top and body.closing_comments and lines:
        lines.append("")
    lines += _comment_lines(body.closing_comments, indent)
    return lines


def _tall(statement: e.Statement) -> bool:
    value = statement.value
    return isinstance(value, e.Phrase) and (value.head == "edition" or value.body is not None)


def _comment_lines(comments: tuple[str, ...], indent: int) -> list[str]:
    return ["" if text == BLANK_LINE else " " * indent + comment_line(text) for text in comments]


def _remark(statement: e.Statement) -> str:
    return "" if statement.trailing is None else f"  {comment_line(statement.trailing)}"


def _pair(statement: e.Statement, indent: int) -> list[str]:
    entry = _entry(statement)
    assert entry is not None
    return _keyed(entry, statement, " " * indent, indent + 2)


def _keyed(entry: _Entry, statement: e.Statement, lead: str, inner: int) -> list[str]:
    key, remark = scalar(entry.key, key=True), _remark(statement)
    match entry.value:
        case None:
            return [f"{lead}{key}:{remark}"]
        case str(text) if "\n" in text:
            return [f"{lead}{key}: |-{remark}", *_block(text, inner)]
        case str(text):
            return [f"{lead}{key}: {scalar(text)}{remark}"]
        case e.ListOf() as items:
            return [f"{lead}{key}: {_flow_list(items)}{remark}"]
        case body:
            return _with_body(key, body, lead, inner, remark, _as_list(body, entry.key))


def _with_body(key: str, body: e.Body, lead: str, inner: int, remark: str, as_list: bool) -> list[str]:
    if not body.statements:
        if not body.closing_comments:
            return [f"{lead}{key}: {{}}{remark}"]
        return [f"{lead}{key}: {{", *_comment_lines(body.closing_comments, inner), " " * inner + "}" + remark]
    if body.inline:
        flow = _flow_items(body) if as_list else _flow_mapping(body)
        if flow is not None and len(lead) + len(key) + len(flow) + 2 <= WIDTH:
            return [f"{lead}{key}: {flow}{remark}"]
    return [f"{lead}{key}:{remark}", *_body_lines(body, inner, as_list=as_list)]


def _flow_mapping(body: e.Body) -> str | None:
    pairs: list[str] = []
    for statement in body.statements:
        entry = _entry(statement)
        if entry is None or statement.comments or statement.trailing is not None:
            return None
        value = entry.value
        if isinstance(value, e.ListOf):
            value = _flow_list(value)
        elif isinstance(value, str) and "\n" not in value:
            value = scalar(value, flow=True)
        else:
            return None
        pairs.append(f"{scalar(entry.key, flow=True, key=True)}: {value}")
    return None if body.closing_comments else "{" + ", ".join(pairs) + "}"


def _flow_items(body: e.Body) -> str | None:
    """A body of plain statements as a list on one line."""
    items: list[str] = []
    for statement in body.statements:
        plain = statement.label is None and not statement.comments and statement.trailing is None
        if not plain or _has_body(statement):
            return None
        items.append(scalar(print_statement(statement), flow=True))
    return None if body.closing_comments else "[" + ", ".join(items) + "]"


def _flow_list(items: e.ListOf) -> str:
    inner = (
        _flow_list(i) if isinstance(i, e.ListOf) else scalar(print_expr(i), flow=True) for i in items.items
    )
    return "[" + ", ".join(inner) + "]"


def _item(statement: e.Statement, indent: int) -> list[str]:
    """A statement as an item of a list."""
    lead, inner, remark = " " * indent + "- ", indent + 4, _remark(statement)
    headed = _headed(statement)
    if headed is not None:
        return _keyed(headed, statement, lead, inner)
    bare = e.Statement(statement.value, statement.target)
    text = format_statement(bare)
    if statement.label is not None:
        lead += f"{statement.label.text}: "
    if "\n" in text:
        return [f"{lead}|-{remark}", *_block(text, inner)]
    return [f"{lead}{scalar(print_statement(bare))}{remark}"]
