"""Levels of the task with weights of each sequence: how their classes are made, and a model that reads with
them.
"""

from __future__ import annotations

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import ClassWriter
from nldsl.codegen.emit.inner_rules import rule_method
from nldsl.codegen.emit.numbers import literal
from nldsl.codegen.plan.keywords import kept
from nldsl.levels.task import learns_within, resets, teacher_within
from nldsl.resolve.expanded import ChainInstance, ChainLevel, Expanded, ModelInstance

FILE = "task_levels"
CLASSES = {"MLP": "TaskMLP", "SwiGLU": "TaskSwiGLU"}


def learning_levels(model: ModelInstance) -> list[ChainLevel]:
    """The levels of a model that learn from the task inside the sequence."""
    instances = (one for one, _ in Expanded(model.name, model, None).instances())
    chains = (one for one in instances if isinstance(one, ChainInstance))
    return [level for one in chains for level in one.levels if learns_within(level)]


def task_level(owner: ClassWriter, made: c.Code, level: ChainLevel, chain: ChainInstance) -> c.Code:
    """The class of a level whose map is `made`, with how it learns."""
    learning = ("learning", learning_of(owner, level, chain))
    assert isinstance(made, c.Invoke)
    if made.function not in CLASSES:
        return c.Invoke(owner.kernel("TaskMatrix", FILE), made.arguments[:1], (learning,))
    owner.kernels.pop(made.function)
    return c.Invoke(owner.kernel(CLASSES[made.function], FILE), made.arguments, (*made.named, learning))


def learning_of(owner: ClassWriter, level: ChainLevel, chain: ChainInstance) -> c.Code:
    """`Learning(period=16, rate=0.01, ...)`, what is usual left out."""
    assert level.rate is not None
    named: list[tuple[str, c.Code]] = [("period", literal(level.clock.period)), ("rate", literal(level.rate))]
    usual = (("retain", level.retain, 1.0), ("momentum", level.momentum, 0.0))
    if level.clock.offset:
        named.append(("offset", literal(level.clock.offset)))
    named += [(name, literal(value)) for name, value, unsaid in usual if value != unsaid]
    words = (("reduce", level.reduce, "sum"), ("gradient", level.gradient, "first_order"))
    named += [(name, c.Atom(f'"{value}"')) for name, value, unsaid in words if value != unsaid]
    returns = [c.Several((literal(one.period), literal(one.offset))) for one in resets(level, chain)]
    if returns:
        named.append(("resets", c.Several(tuple(returns))))
    rule = level.rule.algorithm if level.rule is not None else None
    if rule is not None:
        named.append(("rule", rule_method(owner, rule)))
        memories = tuple((name, c.Several(tuple(map(_axis, axes)))) for name, axes in kept(rule).items())
        named += [("memories", c.Mapping(memories))] if memories else []
    teacher = teacher_within(level, chain)
    if teacher is not None:
        named.append(("origin", learning_of(owner, _rule_alone(teacher), chain)))
    return c.Invoke(owner.kernel("Learning", FILE), (), tuple(named))


def _axis(one: str | int) -> c.Code:
    return literal(one) if isinstance(one, int) else c.Atom(f'"{one}"')


def _rule_alone(teacher: ChainLevel) -> ChainLevel:
    """A level without its own start and resets: how it teaches the start of another."""
    return ChainLevel(
        teacher.name,
        teacher.path,
        teacher.map,
        teacher.clock,
        teacher.reduce,
        rule=teacher.rule,
        rate=teacher.rate,
        retain=teacher.retain,
        momentum=teacher.momentum,
        gradient=teacher.gradient,
    )


def reading(owner: ClassWriter, method: str, forward: c.Function) -> tuple[c.Step, ...]:
    """The methods of a model that learns while it reads: `forward`, and under `method` what stands still."""
    kernel = owner.kernel("learn_in_sequence", "task_sequence")
    whole = c.Return(c.call(kernel, "self", f"self.{method}", "tokens", "state"))
    inner = c.Function(
        method,
        forward.parameters,
        forward.returns,
        forward.body,
        "The same while all weights stand still: the tokens between two updates, or some of them.",
    )
    outer = c.Function("forward", forward.parameters, forward.returns, (whole,), forward.docstring)
    return (outer, c.Blank(), inner)


__all__ = ["learning_levels", "learning_of", "learns_within", "reading", "task_level"]
