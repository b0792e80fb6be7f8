"""Proposals that leave a part of a memory out, or make it a constant."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.ablate.propose.begins import begins_at
from nldsl.ablate.propose.proposal import Proposal, asks, given, removed
from nldsl.ablate.propose.subject import Part, Subject
from nldsl.document import expr as e
from nldsl.resolve.calls import function_name
from nldsl.resolve.fields import FIELDS
from nldsl.resolve.primitives import PRIMITIVES

PROJECTIONS = ("key", "value", "query")
GATES = ("rate", "retain", "momentum")
ACTIVATIONS = ("silu", "gelu", "relu", "elu", "tanh", "softplus", "sigmoid", "exp")
NORMS = ("unit", "rmsnorm", "layernorm")


def momentum(subject: Subject) -> Iterator[Proposal]:
    """Each memory without its momentum."""
    for part in _with(subject, "momentum"):
        path = f"{part.name}.momentum"
        yield asks(f"does {part.name} need momentum? (each write stands alone)", removed(path))


def retention(subject: Subject) -> Iterator[Proposal]:
    """Each memory that forgets nothing: the weight decay of its weights."""
    for part in _with(subject, "retain"):
        path = f"{part.name}.retain"
        yield asks(f"does {part.name} need to forget? (all of the old weights stay)", removed(path))


def erasure(subject: Subject) -> Iterator[Proposal]:
    """Each memory that erases along something else, erasing along its key."""
    for part in _with(subject, "erase"):
        path = f"{part.name}.erase"
        yield asks(f"does it matter that {part.name} erases apart from its key?", removed(path))


def restraints(subject: Subject) -> Iterator[Proposal]:
    """Each memory without what holds its weights or its answers in bounds."""
    for part in _with(subject, "constrain"):
        yield asks(
            f"do the weights of {part.name} need to be held in bounds?", removed(f"{part.name}.constrain")
        )
    for part in _with(subject, "normalise"):
        yield asks(
            f"does a read of {part.name} need to be divided by its total?", removed(f"{part.name}.normalise")
        )


def windows(subject: Subject) -> Iterator[Proposal]:
    """Each memory that writes the last pairs again, writing the newest alone, or all with one weight."""
    for part in _with(subject, "window"):
        path = f"{part.name}.window"
        value = part.fields["window"]
        yield asks(f"does {part.name} gain from writing old pairs again? (only the newest)", removed(path))
        if isinstance(value, e.Phrase) and len(value.words) == 4:
            reach = (
                e.Quantity(value.words[0], "token")
                if isinstance(value.words[0], e.Number)
                else value.words[0]
            )
            yield asks(
                f"does {part.name} need to weigh the pairs of its window? (all count alike)",
                given(path, reach),
            )


def several_writes(subject: Subject) -> Iterator[Proposal]:
    """Each memory that writes several pairs for a token, writing one."""
    for part in subject.parts:
        value = part.fields.get("writes")
        if part.core is None or part.core.writes == 1 or value is None:
            continue
        name = value.text if isinstance(value, e.Name) else "writes"
        yield asks(
            f"does {part.name} need several writes for each token? (one)", given(f"{part.name}.{name}", "1")
        )


def constant_gates(subject: Subject) -> Iterator[Proposal]:
    """Each gate that depends on the token, as the constant that it begins at."""
    for part in subject.parts:
        for gate in GATES:
            if part.core is None or gate not in part.fields or not _reads(part, part.fields[gate]):
                continue
            start = begins_at(part, part.fields[gate])
            if start is not None and start > 0:
                name = gate_name(gate)
                yield asks(
                    f"does the {name} of {part.name} need to depend on the token? ({start:.4g} always)",
                    given(f"{part.name}.{gate}", f"{start:.4g}"),
                )


def convolutions(subject: Subject) -> Iterator[Proposal]:
    """Each memory without each of its convolutions, and without all of them."""
    for part in subject.parts:
        found = [name for name in part.fields if _stages(part, name, ("conv",))]
        for name in found:
            yield asks(
                f"does {_spelled(part, name)} need to see the tokens before?",
                removed(f"{part.name}.{name}.conv"),
            )
        if len(found) > 1:
            yield asks(
                f"does {part.name} need convolutions at all?",
                *(removed(f"{part.name}.{name}.conv") for name in found),
            )


def adaptive(subject: Subject) -> Iterator[Proposal]:
    """Each projection that is written while reading, as its twin that stands still, and all of them."""
    for part in subject.parts:
        found = [name for name, value in part.fields.items() if _is_adaptive(value)]
        for name in found:
            what = f"the projection in {_spelled(part, name)}"
            yield asks(
                f"does {what} need to adapt? (its static twin)",
                removed(f"{part.name}.{name}.adaptive"),
            )
        if len(found) > 1:
            yield asks(
                f"does {part.name} gain from projections that adapt at all? (all are static)",
                *(removed(f"{part.name}.{name}.adaptive") for name in found),
            )


def lengths(subject: Subject) -> Iterator[Proposal]:
    """Each memory whose keys and queries, or values, are left as long as they come.

    Steps of memories that erase overshoot where keys are long: their keys keep their length.
    """
    for part in subject.parts:
        if part.core is None:
            continue
        erases = part.core.objective != "dot" or part.core.rule.startswith("dgd")
        yield from _unstaged(part, ("key", "query")[erases:], NORMS, "to be normalised")


def activations(subject: Subject) -> Iterator[Proposal]:
    """Each memory without the nonlinearities of its keys and queries, or of its values."""
    for part in subject.parts:
        yield from _unstaged(part, ("key", "query"), ACTIVATIONS, "a nonlinearity")


def _unstaged(part: Part, asking: tuple[str, ...], kinds: tuple[str, ...], need: str) -> Iterator[Proposal]:
    """A memory without stages of some kinds: all at once where it is `asking`, and those of its values."""
    found = [(name, stage) for name in asking for stage in _stages(part, name, kinds)]
    if found:
        who = "keys and queries" if "key" in asking else "queries"
        yield asks(
            f"do {who} of {part.name} need {need}?",
            *(removed(f"{part.name}.{name}.{stage}") for name, stage in found),
        )
    for stage in _stages(part, "value", kinds):
        yield asks(f"do values of {part.name} need {need}?", removed(f"{part.name}.value.{stage}"))


def positions(subject: Subject) -> Iterator[Proposal]:
    """Each memory without the rotation that tells positions apart."""
    for part in subject.parts:
        found = [name for name in ("key", "query") if _stages(part, name, ("rope",))]
        if found:
            yield asks(
                f"does {part.name} need to know positions?",
                *(removed(f"{part.name}.{name}.rope") for name in found),
            )


def outputs(subject: Subject) -> Iterator[Proposal]:
    """Each memory without the norm, the gate or the skip of its output, and with its reads as they are."""
    for part in subject.parts:
        value = part.fields.get("out")
        if value is None:
            continue
        path = f"{part.name}.out"
        for norm in NORMS:
            if sum(isinstance(n, e.Name) and n.text == norm for n in value.walk()) == 1:
                yield asks(f"do reads of {part.name} need to be normalised?", removed(f"{path}.{norm}"))
        for op, question in (("*", "need a gate"), ("+", "need what is added to them")):
            simpler = _without_operand(value, op)
            if simpler is not None:
                yield asks(f"do reads of {part.name} {question}?", given(path, simpler))
        yield asks(f"does {part.name} need an output of its own? (reads leave as they are)", removed(path))


def depth_of_map(subject: Subject) -> Iterator[Proposal]:
    """Each deep memory as a matrix, and its map without its residual or its norm."""
    for part in subject.parts:
        core = part.core
        if core is None or core.map.kind not in ("mlp", "swiglu"):
            continue
        path = f"{part.name}.map"
        yield asks(f"does {part.name} need a deep memory? (a matrix)", given(path, "matrix"))
        for switch in ("residual", "norm"):
            plainer = _switched_off(part.fields["map"], switch)
            if plainer is not None:
                yield asks(f"does the map of {part.name} need its {switch}?", given(path, plainer))


def block_norms(subject: Subject) -> Iterator[Proposal]:
    """Each line of a block or model without its norm."""
    for line in subject.lines:
        for norm in ("rmsnorm", "layernorm"):
            path = line.below(norm)
            if path is not None:
                yield asks(f"is the norm at {path} needed?", removed(path))


def _with(subject: Subject, field: str) -> Iterator[Part]:
    """Memories inside the sequence that give `field`."""
    return (part for part in subject.parts if part.core is not None and field in part.fields)


def _switched_off(written: e.Expr, switch: str) -> e.Expr | None:
    """A map without one of its switches; None where it does not have that."""
    if not isinstance(written, e.Call):
        return None
    rest = tuple(
        a
        for a in written.arguments
        if a.name != switch and not (a.name is None and a.value == e.Name((switch,)))
    )
    if len(rest) == len(written.arguments):
        return None
    return e.Call(written.function, rest) if rest else written.function


def _spelled(part: Part, name: str) -> str:
    """`the key of A`, or `written` of A for a line that the memory has for itself."""
    return f"the {gate_name(name)} of {part.name}" if name in FIELDS else f"`{name}` of {part.name}"


def gate_name(field: str) -> str:
    """How people call a field."""
    return "retention" if field == "retain" else field


def _reads(part: Part, value: e.Expr) -> bool:
    """Whether a value depends on the token."""
    for node in value.walk():
        if isinstance(node, e.Name):
            if node.text == "x":
                return True
            inner = part.fields.get(node.text)
            if inner is not None and inner is not value and node.text not in GATES and _reads(part, inner):
                return True
    return False


def _is_adaptive(value: e.Expr) -> bool:
    return any(isinstance(n, e.Phrase) and n.head == "adaptive" for n in value.walk())


def _stages(part: Part, name: str, wanted: tuple[str, ...]) -> list[str]:
    """Those of the outermost stages of a field that are among `wanted` and stand there once."""
    value = part.fields.get(name)
    if not isinstance(value, e.Pipe):
        return []
    stages = [function_name(stage) for stage in value.stages]
    assert set(wanted) <= set(PRIMITIVES)
    return [stage for stage in dict.fromkeys(stages) if stage in wanted and stages.count(stage) == 1]


def _without_operand(value: e.Expr, op: str) -> e.Expr | None:
    """`out` without what `read` is multiplied with, or added to; None where there is no such thing."""
    if isinstance(value, e.Pipe):
        source = _without_operand(value.source, op)
        if source is None:
            return None
        inner = (source.source, source.stages) if isinstance(source, e.Pipe) else (source, ())
        return e.Pipe(inner[0], (*inner[1], *value.stages))
    if not isinstance(value, e.Binary):
        return None
    sides = [side for side in (value.left, value.right) if _mentions_read(side)]
    if len(sides) != 1:
        return None
    if value.op == op:
        return sides[0]
    inner_side = _without_operand(sides[0], op)
    if inner_side is None:
        return None
    left = inner_side if sides[0] is value.left else value.left
    right = inner_side if sides[0] is value.right else value.right
    return e.Binary(value.op, left, right)


def _mentions_read(value: e.Expr) -> bool:
    return any(isinstance(n, e.Name) and n.text == "read" for n in value.walk())
