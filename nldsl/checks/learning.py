"""Learning: gates, steps, and which objective, rule and map go together.

Source: REF b.13 (delta gradient descent), e-13, f ("Numerics"), and the measured collapse of deep
memories that forget too fast.
"""

from __future__ import annotations

import math

from nldsl.checks.gates import at_start, bounds, has_unit_length, is_constant
from nldsl.checks.steps import steps_at_start
from nldsl.checks.subject import Subject, field_spots, report
from nldsl.resolve import spelling
from nldsl.resolve.expanded import Core, Flow, MemoryInstance
from nldsl.resolve.findings import Findings

UNDERFLOW = 1e-30
"""What is left of a weight that counts as nothing: float32 loses precision below 1e-38, gradients sooner."""

GATE_RANGES = {"retain": (0.0, 1.0), "momentum": (0.0, 1.0), "rate": (0.0, math.inf)}


def gates_in_range(subject: Subject, findings: Findings) -> None:
    """`retain` and `momentum` lie from 0 to 1, and `rate` and what pairs count in a window are not negative.

    Why: a memory that multiplies itself by more than 1 at every token overflows, one that is multiplied
    by a negative number alternates, and a negative rate climbs.  Only numbers known for certain are
    errors; a gate that could be learned out of its range is a warning.
    Non-goals: the size of a rate; see `steps_that_diverge`.
    """
    for one in subject.memories():
        if one.core.map.kind == "cache":
            continue
        for name, (low, high) in GATE_RANGES.items():
            flow = one.flows.get(name)
            if flow is not None:
                _gate(subject, findings, one, name, flow, low, high)
        if "window_weight" in one.flows:
            _pairs_in_windows(subject, findings, one)


def _pairs_in_windows(subject: Subject, findings: Findings, one: MemoryInstance) -> None:
    """A pair that counts negatively is pushed away from its value, without bound."""
    flow = one.flows["window_weight"]
    lies = bounds(flow, one)
    if lies.low >= 0:
        return
    certain = lies.high < 0 or is_constant(flow)
    number = f"{lies.low:g}" if lies.low == lies.high else f"down to {lies.low:g}"
    report(
        subject,
        findings,
        "NL0503" if certain else "NL0504",
        f"the weights of the window of `{one.name}` {f'are {number}' if certain else 'can become negative'}",
        [(flow.span, "the weights")],
        fallback=one.span,
        help="end them with `sigmoid`, which stays from 0 to 1",
        severity="error" if certain else "warning",
    )


def _gate(
    subject: Subject, findings: Findings, one: MemoryInstance, name: str, flow: Flow, low: float, high: float
) -> None:
    lies, spots = bounds(flow, one), field_spots(subject, one, name, "the gate")
    spots = spots if one.fields.get(name) else [(flow.span, "the gate")]
    wanted = "from 0 to 1" if high == 1 else "0 or more"
    certain = lies.high < low or lies.low > high or (name == "retain" and lies.high <= 0)
    if certain or (is_constant(flow) and not lies.within(low, high)):
        number = f"{lies.low:g}" if lies.low == lies.high else f"{lies.low:g} to {lies.high:g}"
        if name == "rate":
            report(
                subject,
                findings,
                "NL0502",
                f"the rate of `{one.name}` is {number}",
                spots,
                fallback=one.span,
                help="rates are positive; the rule subtracts the gradient",
            )
            return
        report(
            subject,
            findings,
            "NL0503",
            f"`{name}` of `{one.name}` is {number}",
            spots,
            fallback=one.span,
            help=f"`{name}` lies {wanted}" + (", and 0 keeps nothing" if name == "retain" else ""),
        )
    elif not lies.within(low, high):
        report(
            subject,
            findings,
            "NL0504",
            f"`{name}` of `{one.name}` can become {_outside(lies.low, lies.high, high)}",
            spots,
            fallback=one.span,
            help=f"end it with `{'sigmoid' if high == 1 else 'softplus'}`, which stays {wanted}",
            severity="warning",
        )


def _outside(low: float, high: float, most: float) -> str:
    if low < 0:
        return "negative" if high <= most else "negative, and more than 1"
    return "more than 1"


def retention_underflows(subject: Subject, findings: Findings) -> None:
    """Retention at initialisation keeps something over a whole sequence.

    Why: a deep memory whose layers fade to nothing has no gradient either, and arithmetic on denormals
    made a training step more than six times slower in our measurements; 0.95 per token is too little
    for 512 tokens, 0.9997 is not.  The layers of a deep map fade together, so each of them counts.
    Non-goals: heads that forget at different rates on purpose: one lasting head is enough.
    """
    training = subject.training
    if training is None:
        return
    length = training.data.length
    for one in subject.memories():
        flow = one.flows.get("retain")
        if flow is None or one.core.map.kind == "cache":
            continue
        gate = at_start(flow, one).high
        layers = one.core.map.depth if one.core.map.kind == "mlp" else 1
        if not 0 < gate < 1 or length * layers * math.log10(gate) > math.log10(UNDERFLOW):
            continue
        left = length * layers * math.log10(gate)
        report(
            subject,
            findings,
            "NL0512",
            f"`{one.name}` starts by retaining {gate:g}, which leaves 1e{left:.0f} after {length} tokens",
            [
                *field_spots(subject, one, "retain", f"{gate:g} at the start"),
                (training.data.spans.get("length") or training.data.span, f"{length} tokens"),
            ],
            fallback=one.span,
            help=f"start nearer to 1, for instance with `sigmoid(start = {_lasting(length)})`",
            severity="warning",
        )


def _lasting(length: int) -> str:
    """A retention that keeps about a seventh over a sequence."""
    return f"{1 - 2 / max(length, 3):.{max(3, len(str(length)))}f}"


def steps_that_diverge(subject: Subject, findings: Findings) -> None:
    """A write never overshoots so far that repeating it diverges.

    Why (REF f): along a key, one write multiplies the old content by retain * (1 - rate |k|^2) when the
    gradient is taken at the retained weights, and by retain - rate |k|^2 at the current ones; frozen
    gradients add up over their period.  Keys of unit length make the bound a number.
    Non-goals: objectives without a fixed point (`dot` with `gd`), keys of unknown length, hidden layers,
    whose inputs have no known length, what is erased apart from the key, and momentum, which moves the bound.
    """
    for one in subject.memories():
        core, flow = one.core, one.flows.get("rate")
        if core.map.kind == "cache" or core.erase or not has_unit_length(one.flows["key"], one):
            continue
        if steps_at_start(one) is not None:  # of which `deep_steps` speaks
            continue
        if core.rule == "gd" and core.objective != "l2":
            continue
        if core.rule not in ("gd", "dgd", "dgd_explicit", "dgd_first_layer"):
            continue
        rate = at_start(flow, one).low if flow is not None else 1.0
        retained = at_start(one.flows["retain"], one).high if "retain" in one.flows else 1.0
        known = (flow is None or is_constant(flow)) and (
            "retain" not in one.flows or is_constant(one.flows["retain"])
        )
        spots = [
            *field_spots(subject, one, "rate", f"{rate:g} at the start"),
            (one.fields.get("retain"), "what is kept"),
        ]
        if core.rule == "gd" and core.period > 1:
            _frozen(subject, findings, one, rate, retained)
            continue
        if core.momentum != "none":  # which steadies a step that overshoots: the bound is another
            continue
        before = core.rule != "gd" or core.anchor == "current"  # the gradient is taken before forgetting
        limit = _limit(retained, before)
        if rate < limit:
            continue
        grows = abs(retained - rate) if before else retained * abs(1 - rate)
        message = f"each write of `{one.name}` multiplies what its key recalls by -{grows:g}"
        if known and core.map.kind in ("matrix", "vector"):
            report(
                subject,
                findings,
                "NL0513",
                message,
                spots,
                fallback=one.span,
                help=f"keep the rate below {limit:g}",
            )
        else:
            report(
                subject,
                findings,
                "NL0514",
                message + " at the start",
                spots,
                fallback=one.span,
                help=f"keep the rate below {limit:g}, for instance with `sigmoid`",
                severity="warning",
            )


def _limit(retained: float, before: bool) -> float:
    """The rate from which on a write overshoots by more than there was, for a key of unit length."""
    if before:
        return 1 + retained
    return 1 + 1 / retained if retained > 0 else math.inf


def _frozen(subject: Subject, findings: Findings, one: MemoryInstance, rate: float, retained: float) -> None:
    period = one.core.period
    together = rate * period
    if together < 2 or retained <= 0:
        return
    name = "update" if one.core.update > 1 else "anchor"
    report(
        subject,
        findings,
        "NL0514",
        f"writes of one key by `{one.name}` add up to {together:g} over {period} tokens",
        [
            *field_spots(subject, one, "rate", f"{rate:g} at the start"),
            *field_spots(subject, one, name, f"{period} tokens"),
        ],
        fallback=one.span,
        notes=("with gradients frozen over the period, a sum of 2 or more diverges",),
        help=f"start the rate lower, for instance with `sigmoid(start = {1 / period:.2g})`",
        severity="warning",
    )


def delta_gradient_descent(subject: Subject, findings: Findings) -> None:
    """`dgd` has keys of unit length, and an objective that does not erase as well.

    Why: the rule erases along the key with the rate itself, which is exact for unit keys only (REF b.13);
    and `l2` erases already, so that a repeated key converges to half of its value (REF e-13).
    Non-goals: `dgd` in a hidden layer, whose rate is divided by the length of its input.
    """
    for one in subject.memories():
        if not one.core.rule.startswith("dgd"):
            continue
        if not has_unit_length(one.flows["key"], one):
            report(
                subject,
                findings,
                "NL0508",
                f"`dgd` needs keys of unit length, and those of `{one.name}` have any",
                [
                    (
                        one.flows["key"].span if not one.fields.get("key") else one.fields["key"],
                        "no `unit` at the end",
                    ),
                    *field_spots(subject, one, "rule", "the rule"),
                ],
                fallback=one.span,
                help="end the key with `|> unit`",
                severity="warning",
            )
        if one.core.objective == "l2":
            report(
                subject,
                findings,
                "NL0505",
                f"`{one.name}` erases twice: `dgd` does, and the objective `l2` does",
                [
                    *field_spots(subject, one, "objective", "erases"),
                    *field_spots(subject, one, "rule", "erases"),
                ],
                fallback=one.span,
                help="use `objective = dot`, with which a repeated key converges to its value",
                severity="warning",
            )


def _wrong_for_blocks(core: Core) -> str | None:
    """What a rule asks of a map that a user's own block cannot give."""
    if core.map.kind != "block":
        return None
    if core.rule.startswith("dgd"):
        return "erases along the input of each layer, which a block does not tell"
    if core.rule == "muon" and any(len(weight.shape) == 1 for weight in core.map.fast):
        return "makes matrices orthogonal"
    return None


def objectives_and_maps(subject: Subject, findings: Findings) -> None:
    """The objective and the rule can be evaluated on the map.

    Why: Oja's objective reads one matrix (REF c.9), and Newton-Schulz makes matrices orthogonal.
    Non-goals: whether the pair is a good one.
    """
    for one in subject.memories():
        core = one.core
        if core.objective == "oja" and core.map.kind != "matrix":
            report(
                subject,
                findings,
                "NL0515",
                f"the objective `oja` is about one matrix, and the map of `{one.name}` is `{core.map.kind}`",
                [
                    *field_spots(subject, one, "objective", "the objective"),
                    *field_spots(subject, one, "map", "the map"),
                ],
                fallback=one.span,
                help="use `map = matrix`, or another objective such as `l2`",
            )
        if core.rule == "muon" and core.map.kind == "vector":
            report(
                subject,
                findings,
                "NL0515",
                f"`muon` makes matrices orthogonal, and the map of `{one.name}` is a vector",
                [
                    *field_spots(subject, one, "rule", "the rule"),
                    *field_spots(subject, one, "map", "the map"),
                ],
                fallback=one.span,
                help="use `map = matrix`, or `rule = gd`",
            )
        if (why := _wrong_for_blocks(core)) is not None:
            report(
                subject,
                findings,
                "NL0515",
                f"`{core.rule.split('_')[0]}` {why}, and the map of `{one.name}` is `{core.map.call}`",
                [
                    *field_spots(subject, one, "rule", "the rule"),
                    *field_spots(subject, one, "map", "the map"),
                ],
                fallback=one.span,
                help="use `rule = gd`, with `momentum` if writes are to go on",
            )
        if core.map.kind == "vector" and one.key_width.value != one.value_width.value:
            report(
                subject,
                findings,
                "NL0515",
                f"a vector keeps {int(one.key_width)} features, and values have {int(one.value_width)}",
                [*field_spots(subject, one, "map", "the map"), (one.fields.get("value"), "values")],
                fallback=one.span,
                help="give keys and values one width, or use `map = matrix`",
            )


def caches(subject: Subject, findings: Findings) -> None:
    """A `cache` is read by `softmax`, and nothing else is.

    Why: a cache keeps pairs and has no weights a gradient could change; softmax reads pairs, not weights.
    Gates, objectives and clocks of a cache are never used.
    Non-goals: windows; a cache has its own.
    """
    for one in subject.memories():
        cache = one.core.map.kind == "cache"
        if cache != (one.core.rule == "softmax"):
            what = (
                f"a cache has no weights for `{spelling.rule(one.core)}` to change"
                if cache
                else f"`softmax` reads a cache, and the map of `{one.name}` is `{one.core.map.kind}`"
            )
            report(
                subject,
                findings,
                "NL0509",
                what,
                [
                    *field_spots(subject, one, "rule", "the rule"),
                    *field_spots(subject, one, "map", "the map"),
                ],
                fallback=one.span,
                help="write `rule = softmax`, or leave `rule` out"
                if cache
                else "write `map = cache(all)`, or another rule",
            )
        elif cache:
            for name in (
                "rate",
                "retain",
                "momentum",
                "erase",
                "objective",
                "update",
                "anchor",
                "target",
                "window",
                "constrain",
                "normalise",
            ):
                if one.fields.get(name) is not None:
                    report(
                        subject,
                        findings,
                        "NL0510",
                        f"a cache makes no use of `{name}`",
                        [
                            *field_spots(subject, one, name, "never used"),
                            *field_spots(subject, one, "map", "the map"),
                        ],
                        fallback=one.span,
                        help=f"remove `{name}`",
                        severity="warning",
                    )


def schedules(subject: Subject, findings: Findings) -> None:
    """A warm-up ends before the run does.

    Why: schedules count steps of the run, so the rate would never reach the value written.
    Non-goals: how long a good warm-up is.
    """
    training = subject.training
    if training is None:
        return
    for level in training.levels:
        for name, numbers in level.rule.stages:
            if name == "warmup" and numbers and numbers[0] >= training.steps:
                report(
                    subject,
                    findings,
                    "NL0516",
                    f"`{level.name}` warms up for {numbers[0]:g} steps, and the run has {training.steps}",
                    [(level.rule.span, "the schedule"), (training.spans.get("steps"), "the run")],
                    help=f"warm up for {max(training.steps // 20, 1)} steps, for instance",
                    severity="warning",
                )
