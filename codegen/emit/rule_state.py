"""What a rule keeps for each weight and what it sees of layers, and names that are safe in Python."""

from __future__ import annotations

import keyword

from nldsl.codegen.emit import code as c
from nldsl.resolve.algorithm import (
    RuleMemory,
)

RESERVED = frozenset(
    """weights grads memory step rows columns tokens torch math cls self group params lr matrix
    answers slopes associate regress regress_implicit descend first_layers add_identity
    counts fusable list zip int""".split()
)
"""Variables of a rule's methods, keys of its groups, and functions that they call."""

CLASSES = frozenset(
    """Rule LayerRule Optimizer Tensor Tensors Any Parameters Group Memory Lists Callable Iterable Iterator
    Sequence ClassVar None True False""".split()
)
"""Names that mean something in `rules.py` or in Python."""


def class_name(rule: str) -> str:
    """`delta_momentum` as the name of a class."""
    made = "".join(part[:1].upper() + part[1:] for part in rule.split("_"))
    return f"{made}Rule" if made in CLASSES else made


def safe(name: str) -> str:
    """An option's or local's name as a variable."""
    return f"{name}_" if name in RESERVED or keyword.iskeyword(name) else name


def held_names(memory: RuleMemory) -> list[str]:
    """The names of the tensors that a memory keeps for a weight."""
    layers = [f"{memory.name}_{i + 1}" for i in range(memory.map.depth)]
    names = layers if memory.map.kind == "mlp" else [memory.name]
    return [*names, f"{memory.name}_period"] if memory.update is not None else names


def net_form(memory: RuleMemory) -> list[tuple[str, c.Code]]:
    """What a net is besides its layers, where it differs from the plainest."""
    named: list[tuple[str, c.Code]] = []
    if memory.map.kind == "mlp":
        named += [("residual", c.name("True"))] if memory.map.residual else []
        named += [("norm", c.name("True"))] if memory.map.norm else []
        if memory.map.activation != "gelu":
            named.append(("activation", c.Atom(f'"{memory.map.activation}"')))
    return named
