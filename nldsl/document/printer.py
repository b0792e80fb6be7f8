"""Expressions back to canonical text.  Layout of whole files is the formatter's work (`nldsl.syntax.fmt`)."""

from __future__ import annotations

from nldsl.document import expr as e

_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4}


def _number(node: e.Number) -> str:
    return node.text or repr(node.value)


def _quantity(node: e.Quantity) -> str:
    amount = _wrap(node.amount, isinstance(node.amount, e.Number | e.Name))
    if node.unit == "%":
        return f"{amount}%"
    one = isinstance(node.amount, e.Number) and node.amount.value == 1
    return f"{amount} {node.unit}{'' if one else 's'}"


def _wrap(node: e.Expr, bare: bool) -> str:
    return print_expr(node) if bare else f"({print_expr(node)})"


def _word(node: e.Expr) -> str:
    return _wrap(
        node,
        isinstance(node, e.Number | e.Name | e.Call | e.Text | e.ListOf | e.TupleOf | e.Body | e.Quantity),
    )


def _operand(node: e.Expr, level: int, *, right: bool = False) -> str:
    if isinstance(node, e.Binary):
        mine = _LEVEL[node.op]
        tighter_right = right if node.op != "^" else not right
        return _wrap(node, mine > level or (mine == level and not tighter_right))
    if isinstance(node, e.Unary):
        return _wrap(node, level < 3 and not right)
    return _wrap(node, not isinstance(node, e.Pipe))


def print_expr(node: e.Expr) -> str:
    """One line of canonical text; parsing it gives an equal tree.

    >>> print_expr(e.Pipe(e.Name(("x",)), (e.Call(e.Name(("conv",)), (e.Argument(e.Number(4)),)),)))
    'x |> conv(4)'
    """
    match node:
        case e.Number():
            return _number(node)
        case e.Text(value=value):
            return (
                '"'
                + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
                + '"'
            )
        case e.Name():
            return node.text
        case e.Quantity():
            return _quantity(node)
        case e.Argument(value=value, name=name):
            return print_expr(value) if name is None else f"{name} = {print_expr(value)}"
        case e.Call(function=function, arguments=arguments):
            return f"{function.text}({', '.join(print_expr(a) for a in arguments)})"
        case e.Pipe(source=source, stages=stages):
            return " |> ".join(_wrap(s, not isinstance(s, e.Pipe)) for s in (source, *stages))
        case e.Binary(op=op, left=left, right=right):
            level = _LEVEL[op]
            return f"{_operand(left, level)} {op} {_operand(right, level, right=True)}"
        case e.Unary(op=op, operand=operand):
            bare = not isinstance(operand, e.Pipe | e.Unary) and not (
                isinstance(operand, e.Binary) and operand.op != "^"
            )
            return f"{op}{_wrap(operand, bare)}"
        case e.ListOf(items=items):
            return f"[{', '.join(print_expr(i) for i in items)}]"
        case e.TupleOf(items=items):
            return f"({', '.join(print_expr(i) for i in items)})"
        case e.Phrase(words=words):
            return " ".join(_word(w) for w in words)
        case e.Body(statements=statements):
            inner = ", ".join(print_statement(s) for s in statements)
            return f"{{ {inner} }}" if inner else "{ }"
        case e.Statement():
            return print_statement(node)
        case _:
            raise TypeError(f"no such expression: {type(node).__name__}")


def print_statement(node: e.Statement) -> str:
    """A statement on one line, without its comments."""
    label = f"{node.label.text}: " if node.label is not None else ""
    target = f"{print_expr(node.target)} = " if node.target is not None else ""
    return f"{label}{target}{print_expr(node.value)}"
