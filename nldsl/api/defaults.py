"""The defaults of an edition, stated: what a declaration leaves out, as fields and arguments that can be
written.

A field whose default differs between uses of one memory stays unstated, since it has no one value;
so does what is chosen from the input, such as the width of `linear`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve import Module
from nldsl.resolve.calls import function_name
from nldsl.resolve.data import DATA_KINDS
from nldsl.resolve.expanded import WINDOWS, BlockInstance, ChainInstance, Expanded, MemoryInstance
from nldsl.resolve.fields import FIELDS, FLOWS
from nldsl.resolve.flows import MAP_TAKES
from nldsl.resolve.primitives import PRIMITIVES, Takes
from nldsl.resolve.training import TRAIN_FIELDS

Instance = BlockInstance | MemoryInstance | ChainInstance
Instances = dict[str, list[Instance]]


def instances_of(expanded: Expanded | None) -> Instances:
    """The instances of an expanded spec by the name of their declaration."""
    found: Instances = {}
    for instance, _ in expanded.instances() if expanded is not None else ():
        found.setdefault(instance.name, []).append(instance)
    return found


def word(text: str) -> e.Name:
    """A plain word."""
    return e.Name((text,))


def every(amount: e.Expr, unit: str | None = None) -> e.Phrase:
    """A clock."""
    return e.Phrase((word("every"), e.Quantity(amount, unit) if unit else amount))


EVERY_TOKEN = every(e.Number(1), "token")
EVERY_STEP = every(e.Number(1), "step")


def placeless(node: e.Expr) -> e.Expr:
    """`node` as if it stood in no text."""
    changes: dict[str, Any] = {"span": None}
    for one in fields(node):
        value = getattr(node, one.name)
        if isinstance(value, e.Expr):
            changes[one.name] = placeless(value)
        elif isinstance(value, tuple):
            changes[one.name] = tuple(placeless(v) if isinstance(v, e.Expr) else v for v in value)
    return replace(node, **changes)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a declaration, and which of them stand for numbers."""

    names: frozenset[str]
    numbers: frozenset[str]


def parameters_of(
    declaration: doc.Memory | doc.Block | doc.Model | doc.Optimizer, instances: Iterable[Any]
) -> Parameters:
    """What is known of the parameters of a declaration from their defaults and from how it is used."""
    names = frozenset(p.name for p in declaration.parameters)
    plain = {p.name for p in declaration.parameters if isinstance(p.default, e.Number | e.Binary | e.Unary)}
    bound = [frozenset(i.arguments) for i in instances]
    return Parameters(names, frozenset.intersection(*bound) & names if bound else frozenset(plain))


# --------------------------------------------------------------------------- memories


def memory_fields(memory: doc.Memory, instances: Iterable[Instance]) -> dict[str, e.Expr]:
    """The fields of a memory: pipelines as written, then the others in a fixed order, defaults included."""
    known = list(instances)
    objective = memory.fields.get("objective")
    task = any(isinstance(i, ChainInstance) for i in known) or (
        objective is not None and function_name(objective) == "task"
    )
    stated = (
        _task(memory)
        if task or memory.chain is not None
        else _local(memory, [i for i in known if isinstance(i, MemoryInstance)])
    )
    missing = {name: value for name, value in stated.items() if name not in memory.fields}
    return in_order(memory.fields | missing, [name for name in FIELDS if name not in FLOWS[:6]])


def _task(memory: doc.Memory) -> dict[str, e.Expr]:
    shared: dict[str, e.Expr] = {"scope": word("shared")}
    return shared if memory.chain is not None else shared | level_fields(memory)


def level_fields(memory: doc.Memory, level: doc.Level | None = None) -> dict[str, e.Expr]:
    """What a level of a chain leaves out and its memory does not say for all; what a nested chain is short
    for.  Without `level`, those of a memory that is one level.
    """
    chain = memory.chain
    objective = level.fields.get("objective") if level is not None else None
    if objective is not None and function_name(objective) != "task":
        return {"query": word("key")} if level is not None and "query" not in level.fields else {}
    scope = memory.fields.get("scope", word("shared"))
    if function_name(scope) == "sequence":
        stated: dict[str, e.Expr] = {
            "reduce": word("sum"),
            "start": word("learned"),
            "rule": word("gd"),
            "retain": e.Number(1),
            "gradient": word("first_order"),
        }
        given = level.fields if level is not None else memory.fields
        if "rule" not in given | memory.fields:
            stated["momentum"] = e.Number(0)
    else:
        stated = {
            "update": EVERY_STEP,
            "reduce": word("mean"),
            "start": word("learned"),
            "reset": word("never"),
            "plastic": word("false"),
        }
    slower = _slower(chain, level)
    if slower is not None:
        stated["start"] = e.Phrase((word("learned"), word("in"), word(slower)))
        stated["reset"] = e.Phrase((word("with"), word(slower)))
    return {name: value for name, value in stated.items() if level is None or name not in memory.fields}


def _slower(chain: doc.Chain | None, level: doc.Level | None) -> str | None:
    """The level of a nested chain that this one starts from."""
    if chain is None or level is None or chain.variant != "nested":
        return None
    following = dict(pairwise(one.name for one in chain.levels))
    return following.get(level.name)


def _local(memory: doc.Memory, instances: list[MemoryInstance]) -> dict[str, e.Expr]:
    stated: dict[str, e.Expr] = {}
    if not any(p.name == "heads" for p in memory.parameters):
        stated["heads"] = e.Number(1)
    cache = function_name(memory.fields.get("map", word("matrix"))) == "cache"
    stated["map"] = word("matrix")
    if cache:
        stated["rule"] = word("softmax")
    else:
        update = memory.fields.get("update")
        stated |= {
            "objective": word("l2"),
            "target": word("value"),
            "rule": word("gd"),
            "update": EVERY_TOKEN,
        }
        stated |= _timing(update, instances)
        stated |= {"normalise": word("none"), "gradient": word("through")}
        if function_name(memory.fields.get("rule", word("gd"))) == "ridge":  # which takes no steps
            stated = {name: value for name, value in stated.items() if name not in ("anchor", "normalise")}
        flat = function_name(memory.fields.get("map", word("matrix"))) in ("matrix", "vector")
        stated["start"] = word("zeros" if flat else "learned")
    stated |= {
        "reset": e.Phrase((word("every"), word("sequence"))),
        "scope": word("sequence"),
        "plastic": word("true"),
    }
    return stated


def _timing(update: e.Expr | None, instances: list[MemoryInstance]) -> dict[str, e.Expr]:
    """`anchor` and `read`, where they are the same wherever the memory is used."""
    if update is None:
        return {"anchor": word("retained"), "read": word("after")}
    if not instances or len({(i.core.update > 1, i.core.read) for i in instances}) > 1:
        return {}
    read: dict[str, e.Expr] = {"read": word(instances[0].core.read)}
    if instances[0].core.update == 1:
        return read | {"anchor": word("retained")}
    if isinstance(update, e.Phrase) and len(update.words) > 1:
        # A clock's offset and partial periods are no anchor's, and without spans it counts as nobody's words.
        return read | {"anchor": placeless(e.Phrase(update.words[:2]))}
    return read


# --------------------------------------------------------------------------- training


UNSTATED: dict[str, e.Expr] = {"evaluate_windows": e.Number(WINDOWS)}
"""Defaults of a `train` block that a complete spec leaves out even where they are given: a spec from before
there was such a field keeps its digest, and its studies go on.
"""


def train_fields(train: doc.Train) -> dict[str, e.Expr]:
    """The fields of a `train` block in a fixed order, those that it leaves out with their defaults, and none
    of `UNSTATED`.
    """
    stated: dict[str, e.Expr] = {
        "objective": word("next_token"), "steps": e.Number(1000), "seed": e.Number(0), "clip": e.Number(1.0),
        "precision": word("float32"), "compile": word("false"),
    }  # fmt: skip
    missing = {name: value for name, value in stated.items() if name not in train.fields}
    given = {name: value for name, value in train.fields.items() if value != UNSTATED.get(name)}
    return in_order(given | missing, TRAIN_FIELDS)


def in_order(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What is not in `names` first, as it came; then the rest in the order of `names`."""
    order = {name: i for i, name in enumerate(names)}
    return dict(sorted(values.items(), key=lambda item: order.get(item[0], -1)))


def data(value: e.Expr) -> e.Expr:
    """`text(...)`, or another kind of data, with every argument; how long tasks are follows from `steps`."""
    kind = function_name(value) or ""
    if not isinstance(value, e.Call) or kind not in DATA_KINDS:
        return value
    source = value.get("source") or next(iter(value.positional), None)
    name = source.value if isinstance(source, e.Text) else source.text if isinstance(source, e.Name) else ""
    split = ("manifest" if name == "sotu" else "tail") if kind == "text" else "auto"
    stated: dict[str, e.Expr] = {
        "tokenizer": word("bytes"), "order": word("sequence"), "batch": e.Number(8), "split": word(split),
        "length": e.Number(64 if name == "digits" else 256), "seed": e.Number(0),
    }  # fmt: skip
    names = DATA_KINDS[kind]
    return _complete(value, names, {n: stated[n] for n in names if n in stated})


def rule(value: e.Expr, module: Module) -> e.Expr:
    """`adamw(...)`, as it stands in `module`, with every option that is a number, a period or a word."""
    found = module.rule(function_name(value) or "")
    if found is None or not isinstance(value, e.Call):
        return value
    parameters = found[0].parameters
    stated = {
        p.name: placeless(p.default)
        for p in parameters
        if isinstance(p.default, e.Number | e.Quantity)
        or (isinstance(p.default, e.Name) and p.default.text not in {q.name for q in parameters})
    }
    return _complete(value, tuple(p.name for p in parameters), stated)


def _complete(call: e.Call, names: tuple[str, ...], stated: dict[str, e.Expr]) -> e.Call:
    """A call with all its arguments, those with names in a fixed order."""
    given = {a.name or names[i] for i, a in enumerate(call.arguments) if a.name or i < len(names)}
    arguments = [*call.arguments, *(e.Argument(v, n) for n, v in stated.items() if n not in given)]
    arguments.sort(key=lambda a: -1 if a.name is None else names.index(a.name))
    return replace(call, arguments=tuple(arguments))


# --------------------------------------------------------------------------- pipelines


def pipeline(node: e.Expr, parameters: Parameters, module: Module) -> e.Expr:
    """A value with every stage of its pipelines given all its arguments."""
    match node:
        case e.Pipe(source=source, stages=stages):
            new = tuple(_stage(s, parameters, module) for s in stages)
            return replace(node, source=pipeline(source, parameters, module), stages=new)
        case e.Binary(left=left, right=right):
            return replace(
                node, left=pipeline(left, parameters, module), right=pipeline(right, parameters, module)
            )
        case e.Unary(operand=operand):
            return replace(node, operand=pipeline(operand, parameters, module))
        case e.TupleOf(items=items):
            return replace(node, items=tuple(pipeline(i, parameters, module) for i in items))
        case _:
            return node


def _stage(node: e.Expr, parameters: Parameters, module: Module) -> e.Expr:
    if isinstance(node, e.Phrase) and node.head == "adaptive" and len(node.words) > 1:
        return replace(node, words=(node.words[0], mapping(node.words[1], parameters), *node.words[2:]))
    name = function_name(node)
    if name is None or name in parameters.names or name not in PRIMITIVES or module.lookup(name) is not None:
        return node
    return _filled(node, PRIMITIVES[name].takes, parameters)


def mapping(node: e.Expr, parameters: Parameters) -> e.Expr:
    """A map with all its arguments."""
    name = function_name(node)
    if name is None or name in parameters.names or name == "cache" or name not in MAP_TAKES:
        return node
    return _filled(node, MAP_TAKES[name], parameters)


def _filled(node: e.Expr, takes: tuple[Takes, ...], parameters: Parameters) -> e.Expr:
    arguments = node.arguments if isinstance(node, e.Call) else ()
    given = {a.name for a in arguments if a.name}
    numbers = [t.name for t in takes if t.kind == "number"]
    for argument in arguments:
        if argument.name is not None:
            continue
        text = argument.value.text if isinstance(argument.value, e.Name) else None
        choice = next(
            (
                t.name
                for t in takes
                if text is not None and ((t.kind == "flag" and t.name == text) or text in t.words)
            ),
            None,
        )
        if choice is None and text in parameters.names - parameters.numbers and len(numbers) < len(takes):
            return node  # the parameter may stand for a number or for a choice
        given.add(choice or next((n for n in numbers if n not in given), ""))
    return _with(
        node, {t.name: _constant(t.default) for t in takes if t.default is not None and t.name not in given}
    )


def _constant(value: float | str | bool) -> e.Expr:
    if isinstance(value, bool):
        return word("true" if value else "false")
    return word(value) if isinstance(value, str) else e.Number(value)


def _with(node: e.Expr, stated: dict[str, e.Expr]) -> e.Expr:
    if not stated:
        return node
    new = tuple(e.Argument(v, n) for n, v in stated.items())
    if isinstance(node, e.Call):
        return replace(node, arguments=(*node.arguments, *new))
    assert isinstance(node, e.Name)
    return e.Call(node, new, span=node.span)
