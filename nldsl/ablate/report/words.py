"""What was found, in sentences, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nldsl.ablate.report.facts import Facts, Line, Outcome
from nldsl.ablate.rows import State
from nldsl.ablate.statistics import ENOUGH, Effect, higher_is_better

MINUS = "\u2212"
STATES: dict[State, str] = {
    "waiting": "waiting",
    "running": "running",
    "done": "done",
    "diverged": "diverged",
    "failed": "failed",
    "stopped": "stopped early",
}

ENDS: tuple[State, ...] = ("diverged", "failed", "stopped", "running", "waiting")
"""All but `done`, what needs a look first."""


# --------------------------------------------------------------------------- numbers


def signed(value: float, digits: int) -> str:
    """A difference with its sign; what rounds to nothing has none.

    >>> signed(0.0312, 3), signed(-0.5, 1), signed(-0.0001, 3)
    ('+0.031', '\u22120.5', '0.000')
    """
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def digits_for(effects: Iterable[Effect | None]) -> int:
    """Decimals at which the narrowest interval still has two figures to each side; at least 3, at most 5."""
    halves = [(e.high - e.low) / 2 for e in effects if e is not None and has_interval(e) and e.high > e.low]
    if not halves:
        return 3
    return min(5, max(3, 1 - math.floor(math.log10(min(halves)))))


def has_interval(effect: Effect) -> bool:
    """Its interval is finite: two seeds or more are shared with the baseline."""
    return math.isfinite(effect.low) and math.isfinite(effect.high)


def shift(value: float, effect: Effect, digits: int) -> str:
    """A difference on the scale of an effect: with its sign, in percent where the effect is relative."""
    if effect.scale == "relative":
        return f"{signed(100 * value, max(0, digits - 2))} %"
    return signed(value, digits)


def interval(effect: Effect, digits: int) -> str:
    """`+0.012 to +0.050`; empty where there is none."""
    if not has_interval(effect):
        return ""
    return f"{shift(effect.low, effect, digits)} to {shift(effect.high, effect, digits)}"


def quantity(value: float) -> str:
    """A count in few figures.

    >>> quantity(950), quantity(88_888), quantity(1_200_000)
    ('950', '88.9k', '1.20M')
    """
    for size, mark in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{mark}"
    return f"{value:.0f}"


def bytes_of(value: float) -> str:
    """An amount of memory.

    >>> bytes_of(512), bytes_of(36_000)
    ('512 B', '35.2 KiB')
    """
    for size, mark in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.1f} {mark}"
    return f"{value:.0f} B"


def change(value: float | None, base: float | None) -> str:
    """How much more than the baseline's, in percent; empty where it is the same or not known.

    >>> change(110, 100), change(100, 100), change(None, 100), change(5, 0)
    ('+10 %', '', '', '')
    """
    if value is None or base is None or not base or value == base:
        return ""
    percent = 100 * (value - base) / base
    return f"{signed(percent, 0 if abs(percent) >= 9.5 else 1)} %"


def seconds_of(value: float) -> str:
    """A time in words.

    >>> seconds_of(72.4), seconds_of(7_300)
    ('72 s', '2 h 2 min')
    """
    if value < 120:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def listed(items: Sequence[str]) -> str:
    """Items in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def seeds_in_words(seeds: Sequence[int]) -> str:
    """`seed 1`, `seeds 0, 1 and 4`."""
    return f"seed{'' if len(seeds) == 1 else 's'} {listed([str(seed) for seed in seeds])}"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "seed"), counted(0, "seed"), counted(1200, "trial")
    ('1 seed', '0 seeds', '1,200 trials')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(words: str, width: int) -> str:
    """Words with their middle left out where they are too long: paths differ at their ends.

    >>> short("without SelfModifying.momentum", 20)
    'without…ng.momentum'
    """
    if len(words) <= width:
        return words
    tail = (width - 1) * 3 // 5
    return f"{words[: width - 1 - tail].rstrip()}…{words[-tail:].lstrip()}"


def unit_of(measure: str, facts: Facts) -> str:
    """What a difference of a measure is counted in: `nats` for a loss, in full on its first mention."""
    units = {"loss": f"nats per {facts.unit}", "bits_per_byte": "bits per byte"}
    return units.get(measure, "")


def title_of(measure: str) -> str:
    """A measure as people call it; `accuracy.forgetting` is of tasks."""
    kind, _, task = measure.partition(".")
    if task:
        return f"{task} ({kind} of tasks)"
    return {"loss": "held-out loss", "bits_per_byte": "bits per byte"}.get(measure, measure)


# --------------------------------------------------------------------------- sentences


def heading(facts: Facts) -> str:
    """What the study is, in one line."""
    others = counted(len(facts.others), "variant")
    return f"{others} of {facts.base}, {counted(len(facts.seeds), 'seed')} each"


def findings(facts: Facts, measure: str | None = None) -> list[tuple[Line, str]]:
    """A sentence for each variant: what is worse first, then better, then what cannot be told."""
    measure = measure or facts.measure
    effects = {line.number: line.effects.get(measure) for line in facts.others}
    digits = digits_for(effects.values())

    def order(line: Line) -> tuple[int, float]:
        effect = effects[line.number]
        if effect is None or not math.isfinite(effect.mean):
            return 4, 0.0
        ranks = {"worse": 0, "better": 1, "nothing can be told": 2}
        return ranks.get(effect.verdict, 3), -abs(effect.mean)

    lines = sorted(facts.others, key=order)
    return [(line, finding(line, effects[line.number], digits, measure, facts)) for line in lines]


def finding(line: Line, effect: Effect | None, digits: int, measure: str, facts: Facts) -> str:
    """What can be told of one variant; names no other variant than the baseline."""
    name = line.row.words
    if effect is None or not math.isfinite(effect.mean):
        return f"{name}: {_why_nothing(line)}"
    unit = "" if effect.scale == "relative" else _short_unit(measure, facts)
    match effect.verdict:
        case "worse" | "better" as verdict:
            near, far = sorted((effect.low, effect.high), key=abs)
            mean, near, far = (shift(abs(v), effect, digits).lstrip("+") for v in (effect.mean, near, far))
            text = f"{name}: {verdict} by {mean}{unit} ({near} to {far})"
        case "nothing can be told":
            text = f"{name}: nothing can be told, the interval reaches from {interval(effect, digits)}"
        case _:
            many = "one seed" if effect.seeds == 1 else f"the mean of {counted(effect.seeds, 'seed')}"
            text = f"{name}: {shift(effect.mean, effect, digits)}{unit} in {many}, too few to tell"
    lost = line.in_state("diverged")
    theirs = [seed for seed in facts.baseline.in_state("diverged") if seed not in lost]
    if lost:
        text += f"; {seeds_in_words(lost)} diverged and {_is(lost)} left out"
    if theirs:
        text += f"; {seeds_in_words(theirs)} {_is(theirs)} left out, as the baseline diverged"
    return text


def _short_unit(measure: str, facts: Facts) -> str:
    """` nats` for a loss; the unit of others in full, after a blank."""
    unit = "nats" if measure == "loss" else unit_of(measure, facts)
    return f" {unit}" if unit else ""


def _is(items: Sequence[int]) -> str:
    return "is" if len(items) == 1 else "are"


def _why_nothing(line: Line) -> str:
    if not line.outcomes:
        return "no trial of it was asked for"
    if not line.done:
        states = [
            f"{STATES[state]} with {seeds_in_words(line.in_state(state))}"
            for state in ENDS
            if line.in_state(state)
        ]
        return f"no trial is done ({listed(states)})"
    return "no seed is done both with it and with the baseline"


def caveats(facts: Facts) -> list[str]:
    """What a reader has to know before the numbers: what is missing, and what may not be concluded."""
    told: list[str] = []
    missing = [one for one in facts.trials if one.state in ("waiting", "running")]
    if missing:
        told.append(
            f"The study is not finished: {len(missing):,} of {counted(len(facts.trials), 'trial')} "
            "have not ended"
        )
    if not facts.baseline.done:
        told.append(f"No trial of the baseline, {facts.baseline.row.words}, is done: nothing can be compared")
    elif any(e.verdict == "too few seeds" for line in facts.others for e in line.effects.values()):
        told.append(
            f"A verdict takes {ENOUGH} seeds that a variant shares with the baseline; below that, "
            "differences are shown and nothing is concluded"
        )
    ends: tuple[tuple[State, str], ...] = (
        ("diverged", "Training diverged"),
        ("failed", "Training failed"),
        ("stopped", "Trials were stopped early"),
    )
    for state, words in ends:
        lines = [line for line in facts.lines if line.in_state(state)]
        if lines:
            which = [f"{line.row.words} ({seeds_in_words(line.in_state(state))})" for line in lines]
            told.append(f"{words}: {listed(which)}")
    return [*told, *(warning[:1].upper() + warning[1:] for warning in facts.warnings)]


def reasons(facts: Facts) -> list[tuple[str, str, str]]:
    """What is not in the table or only in part: (variant, what, why), one for each state of each variant."""
    rows: list[tuple[str, str, str]] = [
        (row.words, "cannot be made", row.problem or "") for row in facts.broken
    ]
    for line in facts.lines:
        rows += [(words, "left out", f"the same spec as {line.row.words}") for words in line.row.merged]
    for line in facts.lines:
        for state in ENDS:
            some = [one for one in line.outcomes if one.state == state]
            if some:
                rows.append(
                    (line.row.words, f"{STATES[state]}, {seeds_in_words([o.seed for o in some])}", _why(some))
                )
    return rows


def _why(outcomes: Sequence[Outcome]) -> str:
    """The problems of trials, each once."""
    problems = list(dict.fromkeys(one.problem for one in outcomes if one.problem))
    reached = [one.step for one in outcomes if one.step]
    text = "; ".join(problems)
    if not text and reached:
        text = f"at step {max(reached):,}"
    return text


def better_of(measure: str) -> str:
    """Which way is better."""
    return "higher is better" if higher_is_better(measure) else "lower is better"


def legend(facts: Facts) -> str:
    """What the columns of the main table are."""
    unit = unit_of(facts.measure, facts)
    inside = f"{facts.measure} in {unit}" if unit else facts.measure
    return (
        f"Effect: {inside}, less the baseline's; {better_of(facts.measure)}. ± is the standard deviation "
        "over seeds. Percentages are the change of a cost against the baseline."
    )


def method(facts: Facts) -> list[str]:
    """How effects were made, in sentences."""
    told = [
        f"Effects are paired with {facts.baseline.row.words}: the same seed, and the same held-out "
        f"{facts.kind}s ({facts.documents:,} of them)."
        if facts.documents
        else f"Effects are paired with {facts.baseline.row.words} by seed.",
        *(f"{note.rstrip('.')}." for note in facts.notes),
    ]
    if facts.keep is not None:
        told.append(f"Held equal within {facts.keep.within:.2%}: {facts.keep.what}.".replace(".00%", "%"))
        held = [line.row for line in facts.lines if line.row.matched]
        told += [f"In {row.words}, {row.matched}." for row in held]
    return told
