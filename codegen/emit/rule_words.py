"""A rule for people: its equations, as the docstring of its class has them."""

from __future__ import annotations

import textwrap

from nldsl.resolve.algorithm import Algorithm, Formula, Operation, RuleMemory
from nldsl.resolve.formulas import text


def docstring(algorithm: Algorithm, otherwise: str | None) -> str:
    """The rule's equations in the order in which they are done, as the spec has them."""
    lines = [f"`{algorithm.name}`{_words(algorithm)}.", ""]
    named = dict(algorithm.locals)
    for name in algorithm.order:
        if name == "weight":
            lines.append(f"weight <- {text(algorithm.weight)}")
        elif name in named:
            lines.append(f"{name} = {text(named[name])}")
        else:
            lines.append(_equation(algorithm.memory(name)))
    if otherwise is not None:
        lines += ["", f"What is no matrix is left to `{otherwise}`."]
    return "\n".join(part for line in lines for part in _wrapped(line))


def _words(algorithm: Algorithm) -> str:
    words = ", ".join(f"{key} = {value}" for key, value in algorithm.words.items())
    return f" with {words}" if words else ""


def _equation(memory: RuleMemory) -> str:
    """The write of a memory, for people."""
    rate, value = _factor(memory.rate), text(memory.value)
    kept = memory.name if memory.retain is None else f"{_factor(memory.retain)} {memory.name}"
    said = f"{memory.name} <- "
    if memory.key is not None:
        loss = "1/2 |m(key) - value|^2" if memory.objective == "l2" else "-<m(key), value>"
        how = "an implicit step" if memory.implicit else "a step"
        said += f"{kept}, and {how} of {rate} down on {loss} with key {text(memory.key)}, value {value}"
    elif memory.objective == "dot":
        said += f"{kept} + {_factor(memory.value) if rate == '1' else f'{rate} {_factor(memory.value)}'}"
    else:
        said += f"{kept} + {rate} ({value} - {kept})"
    if memory.update is not None:
        many = text(memory.update)
        many = many if many.isdigit() else f"`{many}`"
        said += f"; every {many} updates, with the {memory.reduce} of their values"
    return said


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 102, subsequent_indent="    ", break_on_hyphens=False) or [""]


def _factor(formula: Formula) -> str:
    said = text(formula)
    return f"({said})" if isinstance(formula, Operation) and formula.op in "+-" else said
