"""Proposals that take whole parts of a block away, or put the nearest plain part in their place."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.ablate.propose.levels import unlearned
from nldsl.ablate.propose.proposal import Proposal, asks, removed, replaced
from nldsl.ablate.propose.subject import Line, Part, Place, Subject
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.calls import function_name
from nldsl.resolve.modules import Module

ATTENTION = "SoftmaxAttention"
SUMS = "LinearAttention"


def lines(subject: Subject) -> Iterator[Proposal]:
    """Each block without each line that adds to the stream, or without each memory of its other lines."""
    for line in subject.lines:
        used = [(part, place) for part, place in _used(subject) if place.line.statement is line.statement]
        if line.residual and line.path is not None and _lines_of(line) > 1:
            gone = [
                change
                for part, _ in used
                if len(part.places) == 1
                for change in unlearned(subject, part.name)
            ]
            inside = ", ".join(dict.fromkeys(part.name for part, _ in used)) or _stages(line)
            yield asks(f"does the model need {inside}? (no {line.path})", removed(line.path), *gone)
            continue
        for part, place in used:
            if place.path is not None and not line.residual:
                yield asks(
                    f"does {line.owner.name} need its {part.name}?",
                    removed(place.path),
                    *(unlearned(subject, part.name) if len(part.places) == 1 else ()),
                )


def plain_parts(subject: Subject) -> Iterator[Proposal]:
    """Each memory with the nearest plain part in its place.

    For a chain that is one MLP as wide as all its levels together, for a memory that mixes tokens it is
    attention with as many heads, and for attention a memory of fixed size: sums that nothing forgets.
    """
    for part, place in _used(subject):
        if place.path is None:
            continue
        if part.chain is not None:
            yield asks(
                f"does {part.name} do more than one MLP of its size with one clock?",
                replaced(place.path, _mlp(part, place)),
                *(unlearned(subject, part.name) if len(part.places) == 1 else ()),
            )
        elif part.memory is not None:
            heads = int(part.memory.heads)
            if part.cache:
                question = f"does {part.name} need to keep every pair? (a matrix of sums)"
                yield from _by(subject, SUMS, question, place, heads)
            else:
                question = f"does {part.name} do better than softmax attention?"
                yield from _by(subject, ATTENTION, question, place, heads)
    for body, _ in subject.bodies:
        if isinstance(body, doc.Block) and _mixes(subject, body):
            for place in subject.places(body):
                if place.line.residual:
                    question = f"does {body.name} do better than softmax attention?"
                    yield from _by(subject, ATTENTION, question, place, None)


def gated_layers(subject: Subject) -> Iterator[Proposal]:
    """Each gated feed-forward as a plain one with as many weights, and each tied output with its own."""
    for line in subject.lines:
        path = line.below("swiglu")
        call = next((n for n in line.statement.value.walk() if function_name(n) == "swiglu"), None)
        if path is not None and isinstance(call, e.Call) and len(call.arguments) == 1:
            plain = e.Call(e.Name(("mlp",)), (e.Argument(_half_as_much_again(call.arguments[0].value)),))
            yield asks(
                f"does the feed-forward at {path} need its gate? (an MLP as large)", replaced(path, plain)
            )
        yield from _untied(line)


def _untied(line: Line) -> Iterator[Proposal]:
    """A model whose output reads the weights of its embedding, with weights of its own."""
    path = line.below("unembed")
    calls = [n for n in line.statement.value.walk() if isinstance(n, e.Call)]
    tied = any(c.function.text == "unembed" and e.Name(("tied",)) in c.positional for c in calls)
    embed = next((c for c in calls if c.function.text == "embed"), None)
    if path is None or not tied or embed is None:
        return
    vocab = embed.get("vocab") or next(iter(embed.positional), None)
    if vocab is not None:
        yield asks(
            f"does the output of {line.owner.name} need the weights of the embedding? (weights of its own)",
            replaced(path, e.Call(e.Name(("unembed",)), (e.Argument(vocab),))),
        )


def _used(subject: Subject) -> Iterator[tuple[Part, Place]]:
    return ((part, place) for part in subject.parts for place in part.places)


def _lines_of(line: Line) -> int:
    return len(line.owner.body)


def _stages(line: Line) -> str:
    """The last stage of what a line adds."""
    value = line.statement.value
    inner = value.right if isinstance(value, e.Binary) else value
    last = inner.stages[-1] if isinstance(inner, e.Pipe) else inner
    return f"its {function_name(last) or 'line'}"


def _mlp(part: Part, place: Place) -> e.Expr:
    """`mlp(n * dim)`, as wide as the levels of a chain together; `dim` as it is called there."""
    chain = part.chain
    assert chain is not None
    width = int(chain.width)
    hidden = sum(int(level.map.hidden or 4 * width) for level in chain.levels)
    dim = place.argument("dim", part.declaration.parameters)
    whole = hidden // width
    size: e.Expr = e.Number(hidden)
    if dim is not None and hidden % width == 0:
        size = dim if whole == 1 else e.Binary("*", e.Number(whole), dim)
    return e.Call(e.Name(("mlp",)), (e.Argument(size),))


def _half_as_much_again(width: e.Expr) -> e.Expr:
    """Three halves of a width: two matrices of that size have as many weights as three of the width."""
    match width:
        case e.Binary(op="*", left=e.Number(value=int(times)), right=right) if times % 2 == 0:
            return e.Binary("*", e.Number(3 * times // 2), right)
        case e.Number(value=int(number)) if number % 2 == 0:
            return e.Number(3 * number // 2)
        case _:
            return e.Binary("/", e.Binary("*", e.Number(3), width), e.Number(2))


def _by(subject: Subject, other: str, question: str, place: Place, heads: int | None) -> Iterator[Proposal]:
    """A part of the library in place of what is called there, with its `dim`; imported where it is not.

    An instance that a block reads and writes apart is left alone.
    """
    path, target = place.path, place.line.statement.target
    seen = place.line.module.lookup(other)
    if path is None or (isinstance(target, e.Phrase) and target.head == "let"):
        return
    own = place.line.module is subject.module
    if not own if seen is None else not _library(seen[1]):
        return
    call = place.call
    dim = call.get("dim") or next(iter(call.positional), None) if isinstance(call, e.Call) else None
    if dim is None:
        return
    arguments = [e.Argument(dim)]
    if heads is not None:
        arguments.append(e.Argument(e.Number(heads), "heads"))
    made = replaced(path, e.Call(e.Name((other,)), tuple(arguments)))
    needed = () if seen is not None else (other,)
    yield asks(question, made, imports=needed)


def _mixes(subject: Subject, block: doc.Block) -> bool:
    """Whether a block holds a memory that learns inside the sequence and is no layer of residual lines."""
    own = [line for line in subject.lines if line.owner is block]
    inside = any(part.core is not None and place.line.owner is block for part, place in _used(subject))
    return inside and not any(line.residual for line in own)


def _library(module: Module) -> bool:
    return module.source.name.startswith("std/")
