"""Code values to text, laid out as the formatter would leave it."""

from __future__ import annotations

import re
import textwrap

from nldsl.codegen.emit import code as c

WIDTH = 110
_PRECEDENCE = {"==": 0, "+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "@": 2, "**": 4}


def flat(node: c.Code) -> str:
    """An expression on one line.

    >>> flat(c.Infix("*", c.Infix("+", c.name("a"), c.name("b")), c.name("c")))
    '(a + b) * c'
    >>> flat(c.Infix("**", c.name("a"), c.Atom("2")))
    'a**2'
    """
    match node:
        case c.Atom(text=text):
            return text
        case c.Invoke(function=function):
            return f"{function}({', '.join(_arguments(node))})"
        case c.Method(value=value, name=name):
            return f"{_primary(value)}.{name}({', '.join(_arguments(node))})"
        case c.Indexed(value=value, index=index):
            return f"{_primary(value)}[{index}]"
        case c.Infix(op=op, left=left, right=right):
            space = "" if op == "**" and not _signed(left) and _simple(left) and _simple(right) else " "
            return f"{_operand(left, op, right=False)}{space}{op}{space}{_operand(right, op, right=True)}"
        case c.Conditional(value=value, condition=condition, other=other):
            return f"{flat(value)} if {flat(condition)} else {flat(other)}"
        case c.Several(items=items, bare=bare):
            inner = ", ".join(flat(i) for i in items) + ("," if len(items) == 1 else "")
            return inner if bare else f"({inner})"
        case c.Mapping(items=items):
            return "{" + ", ".join(f'"{k}": {flat(v)}' for k, v in items) + "}"
        case _:
            raise TypeError(f"no such code: {type(node).__name__}")


def _arguments(node: c.Invoke | c.Method) -> list[str]:
    return [flat(a) for a in node.arguments] + [f"{k}={flat(v)}" for k, v in node.named]


def _primary(node: c.Code) -> str:
    return f"({flat(node)})" if isinstance(node, c.Infix) or _signed(node) else flat(node)


def _simple(node: c.Code) -> bool:
    """A name or a number, which the formatter leaves no room around in a power."""
    return isinstance(node, c.Atom) and re.fullmatch(r"-?[\w.]+", node.text) is not None


def _signed(node: c.Code) -> bool:
    return isinstance(node, c.Atom) and node.text.startswith("-")


def _operand(node: c.Code, op: str, *, right: bool) -> str:
    if isinstance(node, c.Atom) and " " in node.text and not node.text.startswith(('"', "'")):
        return f"({node.text})"
    if _signed(node) and op == "**" and not right:
        return f"({flat(node)})"
    if not isinstance(node, c.Infix):
        return flat(node)
    mine, outer = _PRECEDENCE[node.op], _PRECEDENCE[op]
    wrap = mine < outer or (mine == outer and (right != (op == "**")))
    return f"({flat(node)})" if wrap else flat(node)


def _expression(node: c.Code, prefix: str, indent: int, suffix: str = "") -> list[str]:
    """An expression after `prefix`, broken like the formatter breaks it when it is too long."""
    pad = " " * indent
    line = f"{pad}{prefix}{flat(node)}{suffix}"
    if len(line) <= WIDTH:
        return [line]
    if isinstance(node, c.Invoke | c.Method):
        head = f"{node.function}(" if isinstance(node, c.Invoke) else f"{_primary(node.value)}.{node.name}("
        return _brackets(f"{pad}{prefix}{head}", _pieces(node), f"){suffix}", indent)
    if isinstance(node, c.Mapping):
        return _brackets(
            f"{pad}{prefix}{{", [(f'"{k}": ', v) for k, v in node.items], f"}}{suffix}", indent, exploded=True
        )
    if isinstance(node, c.Several):
        return _brackets(
            f"{pad}{prefix}(", [("", i) for i in node.items], f"){suffix}", indent, exploded=True
        )
    if isinstance(node, c.Infix):
        return _at_last_bracket(node, line, indent, suffix) or [
            f"{pad}{prefix}(",
            *_chain(node, indent + 4),
            f"{pad}){suffix}",
        ]
    return [line]


def _at_last_bracket(node: c.Infix, line: str, indent: int, suffix: str) -> list[str]:
    """One operator whose right side ends in a bracket is broken there; nothing where that does not fit."""
    if isinstance(node.left, c.Infix) and _PRECEDENCE[node.left.op] == _PRECEDENCE[node.op]:
        return []
    here: c.Infix = node
    while isinstance(here.right, c.Infix):
        inner = flat(here.right)
        if _operand(here.right, here.op, right=True) != inner:
            head = line.removesuffix(f"{inner}){suffix}")
            lines = [head, f"{' ' * (indent + 4)}{inner}", f"{' ' * indent}){suffix}"]
            return lines if max(map(len, lines)) <= WIDTH else []
        here = here.right
    return []


def _chain(node: c.Infix, indent: int) -> list[str]:
    """A long sum or product, one operand a line, each line beginning with its operator."""
    operands: list[tuple[str, c.Code]] = []
    here: c.Code = node
    while isinstance(here, c.Infix) and _PRECEDENCE[here.op] == _PRECEDENCE[node.op]:
        operands.append((f"{here.op} ", here.right))
        here = here.left
    pad = " " * indent
    lines = [f"{pad}{_operand(here, node.op, right=False)}"]
    lines += [f"{pad}{op}{_operand(value, node.op, right=True)}" for op, value in reversed(operands)]
    return lines


def _pieces(node: c.Invoke | c.Method) -> list[tuple[str, c.Code]]:
    return [("", a) for a in node.arguments] + [(f"{k}=", v) for k, v in node.named]


def _brackets(
    head: str, pieces: list[tuple[str, c.Code]], tail: str, indent: int, *, exploded: bool = False
) -> list[str]:
    pad = " " * (indent + 4)
    one = pad + ", ".join(f"{p}{flat(v)}" for p, v in pieces)
    close = " " * indent + tail
    if not exploded and len(one) <= WIDTH:
        return [head, one, close]
    lines = [head]
    for prefix, value in pieces:
        lines += _expression(value, prefix, indent + 4, ",")
    return [*lines, close]


def statement(node: c.Step, indent: int = 0) -> list[str]:
    """The lines of a statement."""
    pad = " " * indent
    match node:
        case c.Comment(text=text):
            return [f"{pad}# {line}".rstrip() for line in text.split("\n")]
        case c.Blank(lines=lines):
            return [""] * lines
        case c.Assign():
            return _assign(node, indent)
        case c.Do(value=value):
            return _expression(value, "", indent)
        case c.Return(value=value):
            return _expression(value, "return ", indent)
        case c.Nested(head=head, body=body):
            return [f"{pad}{head}:", *(line for s in body for line in statement(s, indent + 4))]
        case c.Function():
            return _function(node, indent)
        case c.Class():
            return _class(node, indent)
        case c.Verbatim(text=text):
            return text.rstrip("\n").split("\n")
        case _:
            raise TypeError(f"no such statement: {type(node).__name__}")


def _assign(node: c.Assign, indent: int) -> list[str]:
    annotation = f": {node.annotation}" if node.annotation else ""
    lines = _expression(node.value, f"{flat(node.target)}{annotation} = ", indent)
    if not node.comment:
        return lines
    if len(lines) == 1 and len(lines[0]) + 4 + len(node.comment) <= WIDTH:
        return [f"{lines[0]}  # {node.comment}"]
    return (
        [*lines[:-1], f"{lines[-1]}  # {node.comment}"]
        if len(lines) > 1
        else [f"{' ' * indent}# {node.comment}", *lines]
    )


def _docstring(text: str, indent: int) -> list[str]:
    if not text:
        return []
    pad = " " * indent
    text = text.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    text = f'{text[:-1]}\\"' if text.endswith('"') else text
    lines = text.split("\n")
    if len(lines) == 1 and len(text) + indent + 6 <= WIDTH:
        return [f'{pad}"""{lines[0]}"""']
    lines = _refilled(lines, WIDTH - indent - 4)
    return [f'{pad}"""{lines[0]}', *(f"{pad}{line}".rstrip() for line in lines[1:]), f'{pad}"""']


def _refilled(lines: list[str], width: int) -> list[str]:
    """Lines of at most `width`; what is too much of one in the middle of a sentence begins the next."""
    made: list[str] = []
    over = ""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        parts = textwrap.wrap(f"{over} {line}" if over else line, width) or [""]
        goes_on = following[:1].strip() and not line.endswith((".", ":"))
        over = parts.pop() if len(parts) > 1 and goes_on else ""
        made += parts
    return made


def _function(node: c.Function, indent: int) -> list[str]:
    pad = " " * indent
    head = f"{pad}def {node.name}({', '.join(node.parameters)}) -> {node.returns}:"
    if len(head) > WIDTH:
        one = " " * (indent + 4) + ", ".join(node.parameters)
        middle = [one] if len(one) <= WIDTH else [" " * (indent + 4) + p + "," for p in node.parameters]
        heads = [f"{pad}def {node.name}(", *middle, f"{pad}) -> {node.returns}:"]
    else:
        heads = [head]
    return [
        *(f"{pad}@{d}" for d in node.decorators),
        *heads,
        *_docstring(node.docstring, indent + 4),
        *(line for s in node.body for line in statement(s, indent + 4)),
    ]


def _class(node: c.Class, indent: int) -> list[str]:
    pad = " " * indent
    bases = f"({', '.join(node.bases)})" if node.bases else ""
    lines = [
        *(f"{pad}@{d}" for d in node.decorators),
        f"{pad}class {node.name}{bases}:",
        *_docstring(node.docstring, indent + 4),
    ]
    if node.docstring and node.body:
        lines.append("")
    for one in node.body:
        lines += statement(one, indent + 4)
    return lines


def file(node: c.File) -> str:
    """The text of a whole file."""
    lines = [*_docstring(node.docstring, 0), ""]
    lines += [*node.imports, ""] if node.imports else []
    apart = False
    for one in node.body:
        large = isinstance(one, c.Class | c.Function | c.Verbatim)
        if (large or apart) and lines:
            while lines and not lines[-1]:
                lines.pop()
            after_imports = one is node.body[0] and isinstance(one, c.Verbatim) and one.text.startswith("#")
            lines += [""] if after_imports else ["", ""]
        lines += statement(one)
        apart = large
    text = "\n".join(line.rstrip() for line in lines)
    return text.strip("\n") + "\n"
