"""An objective that is an expression: a function of answers, written into the class of the memory."""

from __future__ import annotations

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import Namespace, reserved, trimmed
from nldsl.codegen.emit.numbers import literal
from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.resolve.expanded import Expression

_FUNCTIONS = {
    "exp": "torch.exp",
    "sigmoid": "torch.sigmoid",
    "tanh": "torch.tanh",
    "softplus": "F.softplus",
    "silu": "F.silu",
    "gelu": "F.gelu",
    "relu": "F.relu",
    "elu": "F.elu",
    "sqrt": "torch.sqrt",
    "log": "torch.log",
    "abs": "torch.abs",
    "cosh": "torch.cosh",
}


def objective_method(expression: Expression, name: str) -> tuple[c.Step, ...]:
    """A static method `name(memory, key, value, ...)`, with a parameter for each of the expression's."""
    names = Namespace(frozenset({"memory", "key", "value"}), kept=reserved)
    own = {one.flow: names.fresh(one.name) for one in expression.parameters}
    names_of = own | {"key": "key", "value": "value"}
    answers = {text: names.fresh("found") for text in expression.answers}
    steps: list[c.Step] = [
        c.Assign(c.name(answer), c.call("memory", names_of[text])) for text, answer in answers.items()
    ]
    loss = names.fresh("loss")
    steps.append(c.Assign(c.name(loss), _code(expression.body, names_of, answers)))
    steps.append(c.Return(c.call(f"{loss}.sum", -1)))
    takes = ("memory: Any", "key: Tensor", "value: Tensor", *(f"{n}: Tensor" for n in own.values()))
    said = trimmed(f"`{expression.written}`, summed over channels.")
    return c.Verbatim("    @staticmethod"), c.Function(name, takes, "Tensor", tuple(steps), said)


def handed(expression: Expression, local: dict[str, str]) -> c.Code:
    """The parameters as engines take them, `[B, H, T, n]` each; `local` names the flows where they stand."""
    items = [
        c.Indexed(c.name(local[one.flow]), "..., None") if one.kind == "head" else c.name(local[one.flow])
        for one in expression.parameters
    ]
    return c.Several(tuple(items))


def _code(node: e.Expr, names: dict[str, str], answers: dict[str, str]) -> c.Code:
    match node:
        case e.Number(value=value):
            return literal(value)
        case e.Name(text=text):
            return c.name(names[text])
        case e.Unary(operand=operand):
            return c.Infix("*", c.Atom("-1"), _code(operand, names, answers))
        case e.Binary(op=op, left=left, right=right):
            one, other = _code(left, names, answers), _code(right, names, answers)
            return c.Infix({"^": "**"}.get(op, op), one, other)
        case e.Call(function=function, arguments=(argument,)):
            if function.text in _FUNCTIONS:
                return c.call(_FUNCTIONS[function.text], _code(argument.value, names, answers))
            return c.name(answers[print_expr(argument.value)])
        case _:
            raise TypeError(f"no part of an objective: {type(node).__name__}")
