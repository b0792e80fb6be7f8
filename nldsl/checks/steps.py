"""Steps: gates that leave a memory nothing to do, and writes that can leave the numbers before training."""

from __future__ import annotations

import math

from nldsl.checks.gates import at_start, bounds, has_unit_length, is_constant
from nldsl.checks.subject import Spot, Subject, field_spots, report
from nldsl.diagnostics.model import Span
from nldsl.records import record
from nldsl.resolve.expanded import Core, Map, MemoryInstance
from nldsl.resolve.findings import Findings

LIMIT = 2.0
"""From here on a step overshoots by more than there was to mend."""

LENGTH = 2.0
"""How long a vector is taken to be that is not divided by its length."""

NO_FIXED_POINT = 2.0
"""What a step counts that goes on when its key answers with its value: `dot` under `gd`."""

BOUNDED_FORCE = 0.5
"""What a step counts that no error makes longer than a threshold: `huber`."""


def gates_at_their_ends(subject: Subject, findings: Findings) -> None:
    """A constant rate is not 0, and a constant momentum is not 1.

    Why: a memory with a rate of 0 is its start, whatever it is shown; a step that never fades is added again
    at every later token, so what one pair writes grows with the length of the sequence.
    Non-goals: gates that are learned, and come near to their ends.
    """
    for one in subject.memories():
        if one.core.map.kind == "cache" or one.core.rule == "ridge":
            continue
        if _stands_at(one, "rate", 0.0) and not one.core.still:
            report(
                subject,
                findings,
                "NL0519",
                f"the rate of `{one.name}` is 0, so nothing is ever written",
                [*field_spots(subject, one, "rate", "always 0")],
                fallback=one.span,
                help="give a rate above 0, such as `rate = 0.1`",
                severity="warning",
            )
        if _stands_at(one, "momentum", 1.0):
            report(
                subject,
                findings,
                "NL0519",
                f"the momentum of `{one.name}` is 1, so no step ever fades",
                [(_place_of_momentum(one), "always 1")],
                fallback=one.span,
                help="give a momentum below 1, such as 0.9",
                severity="warning",
            )


def _stands_at(one: MemoryInstance, name: str, end: float) -> bool:
    """Whether a gate is this number for every token and head."""
    flow = one.flows.get(name)
    if flow is None or not is_constant(flow):
        return False
    lies = bounds(flow, one)
    return lies.low == lies.high == end


def _place_of_momentum(one: MemoryInstance) -> Span | None:
    """The field, or the rule that stands for it."""
    return one.fields.get("momentum") or one.fields.get("rule")


# --------------------------------------------------------------------------- the sum of steps


@record
class Steps:
    """How far the writes of a memory go before training, for a key that comes again and again.

    `together`: the rate, over the tokens whose gradients stand still or are summed, and what momentum makes
    of it.  `layers`: how many take the step.  `unit`: whether keys have length 1.  `gain`: what the objective
    makes of an error, as a multiple of it.
    """

    rate: float
    together: float
    layers: int
    unit: bool
    gain: float

    @property
    def score(self) -> float:
        return self.together * self.layers * self.gain * (1.0 if self.unit else LENGTH**2)


def weighed(one: MemoryInstance) -> bool:
    """Whether `deep_steps` speaks of this memory, and not the bound that is exact for one matrix."""
    return _powerful(one.core) or _layers(one) > 1


def deep_steps(subject: Subject, findings: Findings) -> None:
    """What a deep map, or a memory under `lp(p > 2)`, is written with at the start stays below a bound.

    Why: each layer takes the whole step, through the weights of the others, so the answer moves by the sum;
    `lp(p)` steps by `p |error|^(p-1)`, so an error that is large enough overshoots at any rate.  Of drawn
    specs that left the numbers before training, almost all were of these kinds.
    Non-goals: a proof.  Constraints, `muon` and a norm in the map bound what steps do, unless weights are
    divided by their norm only now and then; what is erased apart from the key is not weighed.
    """
    length = subject.training.data.length if subject.training is not None else None
    for one in subject.memories():
        steps = steps_at_start(one, length)
        if steps is None or steps.score < LIMIT:
            continue
        if length is not None and one.core.update >= max(length, 2):  # nothing reads what is written
            continue
        report(
            subject,
            findings,
            "NL0514",
            _headline(one, steps),
            _spots(subject, one, steps),
            fallback=one.span,
            notes=_notes(one),
            help=_advice(one, steps),
            severity="warning",
        )


def steps_at_start(one: MemoryInstance, length: int | None = None) -> Steps | None:
    """The steps of a memory as they stand before training; None where nothing is said about them.

    Args:
        one: the memory.
        length: tokens of a sequence, beyond which no period and no window reaches.
    """
    core = one.core
    gain = _gain(one)
    if gain is None or not weighed(one):
        return None
    if core.rule in ("muon", "ridge", "softmax", "optimizer") or core.map.norm or core.erase:
        return None
    if any(name != "norm" or every == 1 for name, _, every in core.constrain):
        return None
    most = math.inf if length is None else length
    rate = _first(one, "rate", 1.0)
    weight = _first(one, "window_weight", 1.0)
    momentum = min(_first(one, "momentum", 0.0), 0.999)
    together = rate * min(core.period, most) * max(1.0, min(core.window or 1, most) * weight) / (1 - momentum)
    unit = has_unit_length(one.flows["key"], one) or core.rule == "gd_implicit"
    return Steps(rate, together, _layers(one), unit, gain)


def _first(one: MemoryInstance, name: str, default: float) -> float:
    """A gate before training: the largest of the heads, `default` where nothing is known of it."""
    flow = one.flows.get(name)
    largest = at_start(flow, one).high if flow is not None else default
    return largest if math.isfinite(largest) else default


def _powerful(core: Core) -> bool:
    return core.objective == "lp" and (core.objective_parameter or 0.0) > 2


def _gain(one: MemoryInstance) -> float | None:
    """What the objective makes of an error; None where it is of one matrix only."""
    core = one.core
    match core.objective:
        case "lp":
            power = core.objective_parameter or 0.0
            reach = LENGTH if has_unit_length(one.flows["value"], one) else LENGTH**2
            return power * reach ** (power - 2) if power > 2 else 1.0
        case "huber":
            return BOUNDED_FORCE
        case "dot":
            return NO_FIXED_POINT if core.rule.startswith("gd") else 1.0
        case "oja":
            return None
        case _:
            return 1.0


def _layers(one: MemoryInstance) -> int:
    """Matrices that take one step after the other in a map, the deepest of a memory and its projections."""
    maps: list[Map] = [one.core.map, *(node.map for _, node in one.adaptives())]
    keys, values = int(one.key_width), int(one.value_width)
    return max(sum(rows > 1 for rows, _ in each.weights(keys, values)) for each in maps)


def _headline(one: MemoryInstance, steps: Steps) -> str:
    if _powerful(one.core):
        return f"steps of `{one.name}` under `lp({one.core.objective_parameter:g})` outgrow its errors"
    together = f"{steps.together:.3g} at the start, in each of {steps.layers} layers"
    return f"steps of `{one.name}` add up to {together}"


def _spots(subject: Subject, one: MemoryInstance, steps: Steps) -> list[Spot]:
    core = one.core
    spots: list[Spot] = list(field_spots(subject, one, "rate", f"{steps.rate:g} at the start"))
    if _powerful(core):
        spots += field_spots(subject, one, "objective", "a power above 2")
    if "rate" not in one.flows:
        spots.append((one.declared, "a rate of 1, since none is given"))
    if not steps.unit:
        spots.append((one.fields.get("key"), "of any length"))
    if core.period > 1:
        name = "update" if core.update > 1 else "anchor"
        spots += field_spots(subject, one, name, f"{core.period} tokens")
    if core.window is not None:
        spots += field_spots(subject, one, "window", f"{core.window} tokens")
    if "momentum" in one.flows:
        spots.append((_place_of_momentum(one), "takes each step again"))
    return spots


def _notes(one: MemoryInstance) -> tuple[str, ...]:
    if not _powerful(one.core):
        return ("each layer takes the whole step, so what a key recalls moves by their sum",)
    power = one.core.objective_parameter or 0.0
    return (f"a step is {power:g} times the error to the power {power - 1:g}: a large error overshoots",)


def _advice(one: MemoryInstance, steps: Steps) -> str:
    """What brings the score below its bound: lengths first, then the rate."""
    bounded = Steps(steps.rate, steps.together, steps.layers, True, steps.gain)
    missing = [] if steps.unit else ["the key"]
    if _powerful(one.core) and not has_unit_length(one.flows["value"], one):
        missing.append("the value")
        power = one.core.objective_parameter or 0.0
        bounded = Steps(steps.rate, steps.together, steps.layers, True, power * LENGTH ** (power - 2))
    rate = f"start the rate at {steps.rate * LIMIT / 2 / bounded.score:.1g} or less"
    if not missing:
        return rate
    ends = f"end {' and '.join(missing)} with `|> unit`"
    return ends if bounded.score < LIMIT else f"{ends}, and {rate}"
