"""What a chain does: how its levels follow one another, when each changes, and how long its weights live."""

from __future__ import annotations

import math
from fractions import Fraction

from nldsl.levels import costs
from nldsl.levels.draw.words import count
from nldsl.resolve.expanded import ChainInstance, ChainLevel
from nldsl.resolve.spelling import mapping

REDUCES = {"sum": "the sum of its gradients", "last": "the gradient of the due step alone"}
GRADIENTS = {
    "first_order": "the inner gradient is a constant of the outer loss",
    "stop": "what a write adds is a constant of the outer loss",
    "through": "the outer loss differentiates the writes",
}


def rows(chain: ChainInstance, length: int) -> list[tuple[str, str]]:
    """Labels and texts for one chain; `length` in tokens of a sequence, to which a step is equal."""
    whose = (
        "each sequence has weights of its own" if chain.scope == "sequence" else "all sequences share them"
    )
    found = [("chain", f"{chain.variant}: {equation(chain)}; {whose}")]
    found += [(level.name, level_words(level, chain, length)) for level in chain.levels]
    width = int(chain.width)
    cost = sum((costs.chain_level(one, width) for one in chain.levels if one.memory is None), costs.Cost())
    if chain.variant == "independent":
        cost += costs.combination(chain)
    if cost.parameters:
        words = f"{cost.parameters:,} parameters"
        starts = [one for one in chain.levels if one.start == "learned in" and chain.scope == "shared"]
        if starts:
            more = sum(costs.chain_level(one, width).parameters for one in starts)
            words += f", and {more:,} numbers of starts"
        found.append(("weights", f"{words}; {count(cost.flops)} FLOPs per token"))
    return found


def equation(chain: ChainInstance) -> str:
    """The output of a chain by its levels (Nested Learning, Eq. 70 and 74).

    A sequential chain gives `slow(fast(x))`.
    """
    names = [level.name for level in chain.levels]
    if chain.variant != "independent":
        text = "x"
        for name in names:
            text = f"{name}({text})"
        return f"y = {text}"
    answers = [f"{name}(x)" for name in names]
    match chain.combine:
        case "sum":
            return f"y = {' + '.join(answers)}"
        case "mean":
            return f"y = ({' + '.join(answers)}) / {len(answers)}"
        case "gated":
            shares = "with p = softmax(G x)"
        case "weighted softmax":
            shares = "with p = softmax(w), w learned"
        case _:
            shares = "with p learned"
    return f"y = {' + '.join(f'p{i + 1} {answer}' for i, answer in enumerate(answers))}, {shares}"


def level_words(level: ChainLevel, chain: ChainInstance, length: int) -> str:
    """One level: its map, its clock, where it starts, when it returns there, and how long it lives."""
    words = [mapping(level.map), str(level.clock)]
    if level.memory is not None:
        return ", ".join([*words, "learns from its own keys and values, in each sequence"])
    if chain.scope == "sequence":
        words.append(f"by {level.rule.name if level.rule is not None else 'gd'} at rate {level.rate:g}")
        words += [f"momentum {level.momentum:g}"] if level.momentum else []
        words += [f"retain {level.retain:g}"] if level.retain != 1 else []
        words += ["the mean of a period's gradients"] if level.reduce == "mean" else []
        words += [f"starts as learned in {level.teacher}"] if level.teacher is not None else []
        anew = level.reset is not None or level.reset_with is not None
        lives = life(level, chain, length) if anew else "lives for a sequence"
        return ", ".join([*words, GRADIENTS[level.gradient], lives])
    if level.reduce in REDUCES:
        words.append(REDUCES[level.reduce])
    if level.start == "learned in":
        words.append(f"starts as learned in {level.teacher}")
    elif level.start == "copy of":
        words.append(f"starts as a copy of {level.teacher}")
    elif level.start != "learned":
        words.append(f"starts {level.start}")
    words.append(life(level, chain, length))
    if level.plastic:
        words.append("goes on learning at test time")
    return ", ".join(words)


def life(level: ChainLevel, chain: ChainInstance, length: int) -> str:
    """How long the weights of a level live before they return to their start (REF d.4)."""
    facts = {"token": 1, "step": length, "sequence": length}
    if level.clock.unit == "never":
        return "stands still"
    if level.reset_with is not None:
        parent = next((one.clock for one in chain.levels if one.name == level.reset_with), None)
        begins = f"begins anew with {level.reset_with}"
    elif level.reset is not None:
        parent, begins = level.reset, f"begins anew {level.reset}"
    else:
        return "lives for the run"
    if parent is None or parent.unit == "never":
        return begins
    many = math.ceil(Fraction(parent.tokens(facts)) / Fraction(level.clock.tokens(facts)))
    return f"{begins}, after {many} update{'s' * (many != 1)} of its own"
