"""Gradient flow: what the outer loss reaches.

No spec can let a future token reach the past: every part of the language that mixes tokens (a memory,
a cache, `conv`, `segments`) is causal by its definition, so there is no such finding.  A test holds
every primitive to that, and `nldsl verify` probes the code that was generated.
"""

from __future__ import annotations

from nldsl.checks.subject import Subject, report
from nldsl.diagnostics.model import Span
from nldsl.levels import costs
from nldsl.resolve.expanded import (
    Adaptive,
    Apply,
    Flow,
    Line,
    MemoryInstance,
    Repeat,
    Segments,
    Use,
    WriteApart,
)
from nldsl.resolve.fields import PAIRED
from nldsl.resolve.findings import Findings
from nldsl.resolve.sides import inner_flows, reached, reads

WRITES = ("key", "value", "rate", "momentum", "erase", "erase_into", "window_weight", "objective_threshold")


def stopped_gradients(subject: Subject, findings: Findings) -> None:
    """With `gradient = stop`, no weights stand in the pipelines that only write.

    Why: the whole update is then a constant, so keys, values, rates and momentum get no gradient and stay
    as they were initialised; what the query, `retain` and `out` read is still learned, and so is the start.
    Non-goals: `first_order` and `through N tokens`, which do reach them.
    """
    for one in subject.memories():
        if one.core.gradient != "stop":
            continue
        learned = reached(inner_flows(one), ("query", "retain", "out"))
        unreached = [
            PAIRED.get(name, "objective" if name.startswith("objective_") else name)
            for name in (*WRITES, *asked_by_objective(one))
            if name in one.flows and _weights(one, one.flows[name], learned)
        ]
        dead = list(dict.fromkeys(unreached))
        if dead:
            names = ", ".join(f"`{n}`" for n in dead)
            report(
                subject,
                findings,
                "NL0340",
                f"the loss never reaches the {names} of `{one.name}`",
                [
                    (one.fields.get("gradient"), "gradients stop here"),
                    *((one.fields.get(n) or one.flows[n].span, "never learned") for n in dead),
                ],
                fallback=one.span,
                help="use `gradient = first_order`, which still learns the pipelines",
                severity="warning",
            )


def asked_by_objective(one: MemoryInstance) -> tuple[str, ...]:
    """The pipelines that an objective written as an expression reads."""
    written = one.core.expression
    return tuple(p.flow for p in written.parameters if p.flow != "query") if written is not None else ()


def _weights(one: MemoryInstance, flow: Flow, known: set[str]) -> int:
    """Learned numbers in a pipeline and in what it reads, apart from the pipelines that are `known`."""
    flows = inner_flows(one)
    found = costs.static(flow).parameters + sum(isinstance(n, Adaptive) for n in flow.walk())
    for name in reached(flows, reads(flow)) - known:
        found += costs.static(flows[name]).parameters + sum(
            isinstance(n, Adaptive) for n in flows[name].walk()
        )
    return found


def values_nobody_reads(subject: Subject, findings: Findings) -> None:
    """Every line of a block or model is part of its result.

    Why: the loss never reaches the weights of a line whose value nothing reads.  The result of a block
    is its last `x`, or its last line where `x` is never bound again; that of a model is its last line.
    Non-goals: values that are read and then multiplied by zero.
    """
    for block in subject.blocks():
        _lines(subject, findings, f"the block `{block.name}`", block.lines, block.span)
        for line in block.lines:
            if isinstance(line.flow, Segments):
                what = f"these segments of `{block.name}`"
                _lines(subject, findings, what, line.flow.lines, block.span)
    model = subject.expanded.model
    if model is not None:
        last = len(model.lines) - 1
        _lines(subject, findings, f"the model `{model.name}`", model.lines, model.span, last)


def _lines(
    subject: Subject,
    findings: Findings,
    what: str,
    lines: tuple[Line, ...],
    use: Span | None,
    last: int | None = None,
) -> None:
    rebound = [i for i, line in enumerate(lines) if line.target == "x"]
    result = last if last is not None else (rebound or [len(lines) - 1])[-1]
    needed: set[str] = set()
    dead: list[Line] = []
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        if isinstance(line.flow, WriteApart):  # of use to what reads the memory, which is another finding
            needed |= reads(line.flow)
        elif index == result or (index < result and line.target is not None and line.target in needed):
            needed.discard(line.target or "")
            needed |= reads(line.flow)
        else:
            dead.append(line)
    for line in reversed(dead):
        name = f"`{line.label or line.target}`" if line.label or line.target else "this line"
        report(
            subject,
            findings,
            "NL0341",
            f"nothing in {what} reads {name}",
            [(line.span, "never read"), (lines[result].span, "the result")],
            fallback=use,
            notes=("the loss never reaches the weights in it",) if _learns(line.flow) else (),
            help="remove the line, or read its value in one that leads to the result",
            severity="warning",
        )


def _learns(flow: Flow) -> bool:
    return costs.static(flow).parameters > 0 or any(isinstance(n, Use | Repeat) for n in flow.walk())


def tied_widths(subject: Subject, findings: Findings) -> None:
    """`unembed(tied)` is given as many features as the embedding has.

    Why: it multiplies by the embedding's own weights.
    Non-goals: `unembed` with weights of its own, which takes any width.
    """
    model = subject.expanded.model
    if model is None:
        return
    nodes = [n for line in model.lines for n in line.flow.walk() if isinstance(n, Apply)]
    embedded = next((n for n in nodes if n.primitive == "embed"), None)
    for node in nodes:
        if node.primitive != "unembed" or not node.arguments.get("tied") or embedded is None:
            continue
        given, wanted = node.input.shape.features, embedded.shape.features
        if given != wanted:
            report(
                subject,
                findings,
                "NL0408",
                f"`unembed(tied)` is given {given} features, and the embedding has {wanted}",
                [(node.span, f"{given} features"), (embedded.span, f"{wanted} features")],
                fallback=model.span,
                help=f"bring the features to {wanted} with `linear({wanted})`, or leave `tied` out",
            )
