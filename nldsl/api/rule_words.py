"""What a rule keeps, what it does with weights, and by which code; in words."""

from __future__ import annotations

from nldsl.levels.build import DEFAULT_LENGTH, learned
from nldsl.levels.draw.words import count, size
from nldsl.levels.graph import Clock
from nldsl.levels.outer import OuterLevel
from nldsl.levels.rules import Learned, learns_from, memories, parts, together
from nldsl.resolve.algorithm import Algorithm, Formula, RuleMemory, constant
from nldsl.resolve.expanded import Expanded
from nldsl.resolve.formulas import text


def rows(level: OuterLevel, length: int = DEFAULT_LENGTH) -> list[tuple[str, str]]:
    """Labels and texts for the rule of one outer level; `length` in tokens of a sequence."""
    what = together([learned(one, length) for one in level.weights])
    found: list[tuple[str, str]] = []
    for algorithm, _, numbers in parts(level, what):
        if found:
            found.append(
                ("otherwise", f"{algorithm.name}, for {count(numbers.numbers)} numbers that are no matrices")
            )
        found += [
            ("memory", f"{one.name}: {memory_words(one, algorithm, level.clock)}")
            for one in algorithm.memories
        ]
        found.append(("weight", text(algorithm.weight)))
        found += [("", f"with {name} = {text(value)}") for name, value in algorithm.locals]
        found.append(("code", code_words(algorithm)))
    return [*found, ("keeps", kept_words(level, what))]


def memory_words(memory: RuleMemory, algorithm: Algorithm, clock: Clock) -> str:
    """What one memory of a rule is taught, how it takes it in, and when."""
    rate, retain = (_number(one, algorithm) for one in (memory.rate, memory.retain))
    said = f"{memory.map.kind}, {learns_from(memory)}; rate = {rate}"
    if memory.retain is not None:
        said += f", retain = {retain}"
    if memory.implicit:
        said += ", by the proximal step"
    period = algorithm.period(memory)
    if period > 1:
        return f"{said}; written every {clock.period * period} {clock.unit}s, read from the next update on"
    return f"{said}; read as it was before the update" if memory.read == "before" else said


def _number(formula: Formula | None, algorithm: Algorithm) -> str:
    if formula is None:
        return "1"
    value, written = constant(formula, algorithm.options), text(formula)
    return written if value is None or written == f"{value:g}" else f"{written} = {value:g}"


def code_words(algorithm: Algorithm) -> str:
    """The form in which a rule is compiled."""
    from nldsl.codegen.emit.rule_torch import fused

    own = fused(algorithm)
    if own is not None:
        return f"torch's own `{own.function}`, one kernel where the device has it: the algebra is the same"
    if algorithm.of_layers:
        return "matrices of one shape together; linear layers are watched for what they are given"
    return "matrices of one shape together" if algorithm.matrices else "lists of weights, in place"


def kept_words(level: OuterLevel, what: Learned) -> str:
    """The bytes of all memories of a rule, for how many learned numbers."""
    made, _ = memories(level, what, lambda clock: float(clock.period))
    held = sum(component.state_bytes for component, _ in made)
    return f"{size(held)} for {count(what.numbers)} numbers" if held else "nothing"


def levels(expanded: Expanded) -> list[tuple[str, list[tuple[str, str]]]]:
    """A heading and rows for each outer level whose weights change."""
    from nldsl.levels.outer import assign

    if expanded.training is None:
        return []
    length = expanded.training.data.length
    return [
        (f"{one.name}: {one.declared.rule.name}, {one.clock}", rows(one, length))
        for one in assign(expanded).levels
        if one.clock.unit != "never"
    ]
