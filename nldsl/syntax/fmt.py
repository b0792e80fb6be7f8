"""The one canonical layout of a spec: no options, the same tree, every comment kept, stable when repeated.

Two spaces of indent, lines of 110 characters where they can be, one empty line between declarations and
at most one elsewhere, the `=` of neighbouring assignments in one column, long pipelines broken before
`|>`.  A body that its author wrote on one line stays on one line while it fits.
"""

from __future__ import annotations

from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.syntax.comments import BLANK_LINE
from nldsl.syntax.layout import (
    REMARK,
    Doc,
    Group,
    Hard,
    IfBroken,
    Line,
    Nest,
    Remark,
    flat_width,
    render,
)

WIDTH = 110
_INDENT = 2
_FARTHEST_PIPE = 40
_FARTHEST_REMARK = 90
_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4}


def format_body(body: e.Body) -> str:
    """The canonical text of a file.

    >>> from nldsl.document.expr import Body, Name, Number, Statement
    >>> format_body(Body((Statement(Number(1), Name(("a",))), Statement(Number(2), Name(("bc",))))))
    'a  = 1\\nbc = 2\\n'
    """
    parts: list[Doc] = [*_statements(body, top=True)]
    if body.closing_comments:
        if body.statements:
            parts.append(Hard(blank=True))
        parts.append(_comments(body.closing_comments))
    if not parts:
        return ""
    return _place_remarks(render(tuple(parts), WIDTH))


def format_statement(statement: e.Statement) -> str:
    """The canonical text of one statement with its comments, without a final line end."""
    return format_body(e.Body((statement,))).rstrip("\n")


def format_expr(node: e.Expr) -> str:
    """The canonical text of one value: one line, unless it holds comments or a body of several lines."""
    return _place_remarks(render(_doc(node), 10_000 if not _must_break(node) else WIDTH)).rstrip("\n")


def comment_line(text: str) -> str:
    """A comment as it is written.

    >>> comment_line("why"), comment_line("")
    ('# why', '#')
    """
    return f"#{text}" if not text or text[0] in "#!" else f"# {text}"


# -- statements --------------------------------------------------------------------------------


def _statements(body: e.Body, *, top: bool = False) -> list[Doc]:
    """The statements of a body with the line ends between them."""
    hard = top or not body.inline or _must_break(body)
    pads = _target_widths(body.statements)
    parts: list[Doc] = []
    previous: e.Statement | None = None
    for statement, width in zip(body.statements, pads, strict=True):
        if previous is not None:
            blank = statement.blank_before or (top and (_declares(previous) or _declares(statement)))
            parts.append(Hard(blank) if hard else (IfBroken("", ","), Line(" ")))
        parts.append(_statement(statement, width))
        previous = statement
    return parts


def _statement(statement: e.Statement, width: int) -> Doc:
    parts: list[Doc] = []
    if statement.comments:
        parts += [_comments(statement.comments), Hard()]
    if statement.label is not None:
        parts.append(f"{statement.label.text}: ")
    if statement.target is not None:
        target = _doc(statement.target)
        own = flat_width(target) or 0
        parts += [target, IfBroken(" " * max(0, width - own)), " = "]
    parts.append(_doc(statement.value))
    if statement.trailing is not None:
        parts.append(Remark(comment_line(statement.trailing)))
    return tuple(parts)


def _comments(comments: tuple[str, ...]) -> Doc:
    """Comment lines; the caller ends the last one."""
    parts: list[Doc] = []
    for i, text in enumerate(comments):
        if text == BLANK_LINE:
            continue
        if parts:
            parts.append(Hard(blank=comments[i - 1] == BLANK_LINE))
        parts.append(comment_line(text))
    if comments[-1] == BLANK_LINE:
        parts.append(Hard())
    return tuple(parts)


def _target_widths(statements: tuple[e.Statement, ...]) -> list[int]:
    """For each statement, how wide its target is printed so that the `=` of its group stand in one column."""
    widths = [0] * len(statements)
    start = 0
    while start < len(statements):
        end = start + 1
        while end < len(statements) and _goes_with(statements[end - 1], statements[end]):
            end += 1
        group = statements[start:end]
        widest = max((flat_width(_doc(s.target)) or 0 for s in group if s.target is not None), default=0)
        widths[start:end] = [widest] * (end - start)
        start = end
    return widths


def _goes_with(above: e.Statement, below: e.Statement) -> bool:
    if above.target is None or below.target is None or above.label is not None or below.label is not None:
        return False
    return not below.blank_before and not below.comments and _kind(above.target) == _kind(below.target)


def _kind(target: e.Expr) -> str | None:
    """Names are aligned with names, and `vary ...` with `vary ...`."""
    return target.head if isinstance(target, e.Phrase) else None


def _declares(statement: e.Statement) -> bool:
    value = statement.value
    if statement.target is not None or not isinstance(value, e.Phrase):
        return False
    return value.head == "edition" or value.body is not None


def _must_break(node: e.Expr) -> bool:
    """Whether something in `node` cannot stand on one line: a comment, or a body written on several."""
    if isinstance(node, e.Body):
        commented = bool(node.closing_comments) or any(
            s.comments or s.trailing is not None for s in node.statements
        )
        if commented or (not node.inline and node.statements):
            return True
    return any(_must_break(child) for child in node.children())


# -- expressions -------------------------------------------------------------------------------


def _doc(node: e.Expr) -> Doc:
    match node:
        case e.Number() | e.Text() | e.Name():
            return print_expr(node)
        case e.Quantity(amount=e.Number() | e.Name()):
            return print_expr(node)
        case e.Quantity(amount=amount, unit=unit):
            return (_wrap(amount, bare=False), "%" if unit == "%" else f" {unit}s")
        case e.Argument(value=value, name=name):
            return _doc(value) if name is None else (f"{name} = ", _doc(value))
        case e.Call(function=function, arguments=arguments):
            return _bracketed(f"{function.text}(", arguments, ")")
        case e.ListOf(items=items):
            return _bracketed("[", items, "]")
        case e.TupleOf(items=items):
            return _bracketed("(", items, ")")
        case e.Pipe():
            return _pipe(node)
        case e.Binary():
            return _binary(node)
        case e.Unary(op=op, operand=operand):
            power = isinstance(operand, e.Binary) and operand.op == "^"
            return (op, _wrap(operand, bare=power or not isinstance(operand, e.Pipe | e.Unary | e.Binary)))
        case e.Phrase(words=words):
            return _joined([_word(w) for w in words], " ")
        case e.Body():
            return _body(node)
        case _:
            raise TypeError(f"no such expression: {type(node).__name__}")


def _joined(parts: list[Doc], between: Doc) -> Doc:
    joined: list[Doc] = []
    for part in parts:
        if joined:
            joined.append(between)
        joined.append(part)
    return tuple(joined)


def _wrap(node: e.Expr, *, bare: bool) -> Doc:
    if bare:
        return _doc(node)
    return Group(("(", Nest(_INDENT, (Line(""), _doc(node))), Line(""), ")"))


def _word(node: e.Expr) -> Doc:
    simple = e.Number | e.Name | e.Call | e.Text | e.ListOf | e.TupleOf | e.Body | e.Quantity
    return _wrap(node, bare=isinstance(node, simple))


def _bracketed(opening: str, items: tuple[e.Expr, ...], closing: str) -> Doc:
    if not items:
        return opening + closing
    inner = _joined([_doc(i) for i in items], (",", Line()))
    return Group((opening, Nest(_INDENT, (Line(""), inner)), Line(""), closing))


def _pipe(node: e.Pipe) -> Doc:
    source = _wrap(node.source, bare=not isinstance(node.source, e.Pipe))
    stages = [("|> ", _wrap(s, bare=not isinstance(s, e.Pipe))) for s in node.stages]
    width = flat_width(source)
    if width is not None and width <= _FARTHEST_PIPE:
        return Group((source, " ", Nest(None, _joined([*stages], Line()))))
    return Group((source, Nest(2 * _INDENT, (Line(), _joined([*stages], Line())))))


def _binary(node: e.Binary) -> Doc:
    level = _LEVEL[node.op]
    left = _operand(node.left, level, right=False)
    right = _operand(node.right, level, right=True)
    return Group((left, f" {node.op}", Nest(2 * _INDENT, (Line(), right))))


def _operand(node: e.Expr, level: int, *, right: bool) -> Doc:
    if isinstance(node, e.Binary):
        mine = _LEVEL[node.op]
        wraps_equal = not right if node.op == "^" else right
        return _wrap(node, bare=mine > level or (mine == level and not wraps_equal))
    if isinstance(node, e.Unary):
        return _wrap(node, bare=level < 3 and not right)
    return _wrap(node, bare=not isinstance(node, e.Pipe))


def _body(body: e.Body) -> Doc:
    if not body.statements and not body.closing_comments:
        return "{ }"
    inner = _statements(body)
    if not body.inline or _must_break(body):
        if body.closing_comments:
            inner += [Hard()] if inner else []
            inner.append(_comments(body.closing_comments))
        return ("{", Nest(_INDENT, (Hard(), *inner)), Hard(), "}")
    return Group(("{", Nest(_INDENT, (Line(), *inner)), Line(), "}"), yields=True)


# -- lines -------------------------------------------------------------------------------------


def _place_remarks(text: str) -> str:
    """Put trailing comments two spaces behind their line, or into the column of their neighbours'."""
    lines = [line.rstrip() for line in text.split("\n")]
    split = [line.partition(REMARK) for line in lines]
    placed: list[str] = []
    start = 0
    while start < len(split):
        end = start
        while end < len(split) and split[end][1]:
            end += 1
        column = max(
            (len(code) for code, _, _ in split[start:end] if len(code) <= _FARTHEST_REMARK), default=0
        )
        placed += [f"{code.ljust(column)}  {said}" for code, _, said in split[start:end]]
        if end < len(split):
            placed.append(lines[end])
        start = end + 1
    return "\n".join(placed).rstrip("\n") + "\n"
