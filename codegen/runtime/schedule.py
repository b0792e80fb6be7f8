"""Settings of a run, and the clocks that say which level changes when.

A *level* is a set of weights with a rule and a clock.  Clocks tick in optimizer steps or in
tokens of one stream: with sequences of 512 tokens, `Clock(2048, "token")` and
`Clock(4, "step")` are due at the same moments, and `Clock(128, "token")` cuts every sequence
into segments of 128 tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal


class UserError(Exception):
    """Something the user can mend.  `help` says how; `code` is the exit status; `kind` names the group.

    `kind` is one of `settings`, `data`, `checkpoint`, `output`, `device`, `diverged`.
    """

    def __init__(self, message: str, *, help: str = "", code: int = 1, kind: str = "settings") -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.message}\n  help: {self.help}" if self.help else self.message


@dataclass(frozen=True)
class Clock:
    """Due every `period` units, for the first time not before `offset` units.

    `partial` says what becomes of a period that is open when a sequence ends.  `carry`: a token clock
    counts on in the next sequence.  `drop`: it begins anew with each sequence, and what was gathered is
    thrown away.  `flush`: it begins anew, and what was gathered is applied.  Of step clocks only `flush`
    makes a difference: they are then due at the last step of the run as well.
    """

    period: int
    unit: Literal["step", "token"] = "step"
    offset: int = 0
    partial: Literal["carry", "drop", "flush"] = "carry"

    def __str__(self) -> str:
        offset = f" offset {self.offset}" if self.offset else ""
        partial = f" {self.partial}" if self.partial != "carry" else ""
        return f"every {self.period} {self.unit}{'' if self.period == 1 else 's'}{offset}{partial}"


@dataclass(frozen=True)
class Rate:
    """A learning rate over the run: linear warm-up over `warmup` steps, then `shape` down to `floor * base`.

    The schedule counts optimizer steps of the run, whatever the clock of the level that asks.
    """

    base: float
    warmup: int = 0
    shape: Literal["constant", "cosine", "linear"] = "constant"
    floor: float = 0.0

    def at(self, step: int, steps: int) -> float:
        """The rate of step `step` (from 0) of a run of `steps`.

        >>> rate = Rate(1.0, warmup=4, shape="linear")
        >>> [rate.at(step, 8) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        if step < self.warmup:
            return self.base * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        if self.shape == "linear":
            return self.base * (1 - (1 - self.floor) * done)
        if self.shape == "cosine":
            return self.base * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done)))
        return self.base


@dataclass(frozen=True)
class Level:
    """Weights that change together.

    `learns` holds patterns over parameter names (`blocks.*.store.slow`, which takes in all below
    it); `("rest",)` is what no other level claims.  `reduce` says what becomes of the gradients
    gathered since the last update: their mean, their sum, in which one sequence counts 1, or only
    what the `last` step gave, the one in which the level is due.

    `start` is where the weights begin: `learned in LEVEL`, a tensor of its own that LEVEL learns;
    `copy of LEVEL`, what LEVEL's weights are; or as the model was made.  They return there on `reset`:
    `with LEVEL`, whenever LEVEL has changed, or `every N steps` (or tokens); "" is never.
    A `plastic` level goes on learning at test time.
    """

    name: str
    learns: tuple[str, ...]
    rule: str
    clock: Clock
    rate: Rate
    options: dict[str, Any] = field(default_factory=dict)
    reduce: Literal["mean", "sum", "last"] = "mean"
    start: str = ""
    reset: str = ""
    plastic: bool = False


@dataclass(frozen=True)
class Task:
    """One of the tasks that a run learns one after the other.

    `text`: `source`, or the documents that its manifest dates from the first to the last of `years`;
    `pairs`: lines of `source`, a tab between what is given and what answers it;
    `classes`: the items of `source` (`digits`, `presidents`, or lines of a label, a tab and a text) with
    these `labels`.
    """

    name: str
    source: str
    kind: Literal["text", "pairs", "classes"] = "text"
    years: tuple[int, int] | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """The stream: `length` tokens a sequence, `batch` sequences a step.

    `split` is `manifest` (documents held out by the corpus' own rule), `tail` or `tail(0.05)`
    (the last tenth, or that share), or `auto`: the manifest where there is one.

    Where there are `tasks`, each is read for `each` steps, one after the other, or all of them at once with
    the order `joint`; `source` then only says what they come from.  With `counts = "answer"` only the label
    of an item is asked for, or the target of a pair.
    """

    source: str
    length: int
    batch: int
    tokenizer: str = "bytes"
    split: str = "auto"
    seed: int = 0
    tasks: tuple[Task, ...] = ()
    each: int = 0
    order: Literal["sequence", "joint"] = "sequence"
    counts: Literal["all", "answer"] = "all"


@dataclass(frozen=True)
class Measure:
    """What to measure on held-out text: `perplexity`, `bits_per_byte`, `accuracy`, `needle(length=512)`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """The text to generate when the run ends; no text if `tokens` is 0."""

    prompt: str = "The "
    tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = 40
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """All that a run depends on besides the code.

    `no_decay`, `elementwise`, `stacked` and `frozen` are patterns over parameter names: what is never
    decayed; matrices that `muon` and `m3` leave to AdamW (embeddings, heads); parameters of three
    axes that are stacks of matrices; what nobody learns.  `compile = None` compiles on CUDA only.
    """

    name: str
    model: dict[str, int | float | str | bool]
    data: Data
    levels: tuple[Level, ...]
    steps: int = 2_000
    seed: int = 0
    clip: float | None = 1.0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    evaluate_every: int = 200
    evaluate_windows: int = 64
    measures: tuple[Measure, ...] = (Measure("perplexity"),)
    checkpoint_every: int | None = None
    sample: Sample = Sample()
    no_decay: tuple[str, ...] = ("*bias", "*norm*")
    elementwise: tuple[str, ...] = ("*embed*",)
    stacked: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    compile: bool | None = None
    deterministic: bool = True

    def level(self, name: str) -> Level:
        """The level called `name`; `KeyError` if there is none."""
        for level in self.levels:
            if level.name == name:
                return level
        raise KeyError(name)


# --------------------------------------------------------------------------- clocks


def due(clock: Clock, step: int, tokens: int) -> bool:
    """Whether `clock` is due after `step` whole steps and `tokens` tokens of one stream.

    >>> [step for step in range(10) if due(Clock(4, "step", offset=1), step, 0)]
    [1, 5, 9]
    """
    count = step if clock.unit == "step" else tokens
    return count > 0 and count >= clock.offset and (count - clock.offset) % clock.period == 0


def segment_length(settings: Settings) -> int:
    """Tokens between two moments at which a level may be due: a sequence, or less if token clocks ask.

    >>> fast = Level("fast", ("*",), "gd", Clock(96, "token", offset=32), Rate(0.1))
    >>> segment_length(Settings("s", {}, Data("text.txt", length=192, batch=1), (fast,)))
    32
    """
    length = settings.data.length
    clocks = [level.clock for level in settings.levels if level.clock.unit == "token"]
    return math.gcd(length, *(math.gcd(clock.period, clock.offset) for clock in clocks))


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter name is, or stands below, what `pattern` names.

    In a pattern with dots `*` stays within one part of the name; in one without, it runs over all of them.

    >>> matches("blocks.0.slow.weight", "blocks.*.slow"), matches("blocks.0.slower", "blocks.*.slow")
    (True, False)
    >>> matches("blocks.0.store.norm.weight", "blocks.*.norm"), matches("blocks.0.norm.weight", "*norm*")
    (False, True)
    """
    if "." not in pattern:
        return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")
    wanted, parts = pattern.split("."), name.split(".")
    return len(wanted) <= len(parts) and all(map(fnmatchcase, parts, wanted))


def validate(settings: Settings) -> None:
    """Raise `UserError` for the first setting with which no run makes sense."""
    _validate_numbers(settings)
    names = [level.name for level in settings.levels]
    if not names:
        raise UserError("no level learns anything", help="give `settings.levels` at least one level")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two levels are called `{name}`", help="rename one of them")
    if sum("rest" in level.learns for level in settings.levels) > 1:
        raise UserError("two levels learn `rest`", help="only one level can take what no other claims")
    for level in settings.levels:
        _validate_level(level, settings)


def _validate_numbers(settings: Settings) -> None:
    least = {
        "steps": (settings.steps, 0),
        "data.length": (settings.data.length, 1),
        "data.batch": (settings.data.batch, 1),
        "evaluate_every": (settings.evaluate_every, 1),
        "evaluate_windows": (settings.evaluate_windows, 1),
        "checkpoint_every": (settings.checkpoint_every or 1, 1),
        "sample.tokens": (settings.sample.tokens, 0),
    }
    for path, (value, minimum) in least.items():
        if value < minimum:
            raise UserError(f"`{path}` is {value}", help=f"it has to be {minimum} or more")
    if settings.clip is not None and not settings.clip > 0:
        raise UserError(f"`clip` is {settings.clip}", help="give a norm above 0, or `none` for no clipping")


def _validate_level(level: Level, settings: Settings) -> None:
    clock, length = level.clock, settings.data.length
    at = f"levels.{level.name}"
    if clock.period < 1:
        raise UserError(f"the period of level `{level.name}` is {clock.period}", help="give 1 or more")
    if clock.offset < 0:
        raise UserError(f"the offset of level `{level.name}` is {clock.offset}", help="give 0 or more")
    if not (math.isfinite(level.rate.base) and level.rate.base >= 0):
        raise UserError(f"the rate of level `{level.name}` is {level.rate.base}", help="give 0 or more")
    if clock.unit == "token" and length % clock.period and clock.period % length:
        raise UserError(
            f"level `{level.name}` changes {clock}, which does not divide sequences of {length} tokens",
            help=f"choose `{at}.clock` or `data.length` so that one is a multiple of the other",
        )


def idle_levels(settings: Settings) -> list[str]:
    """What is worth a line before a run: the levels that it never changes."""
    said = []
    for level in settings.levels:
        clock = level.clock
        first = clock.offset or clock.period
        run = settings.steps if clock.unit == "step" else settings.steps * settings.data.length
        if 0 < run < first:
            enough = math.ceil(first * settings.steps / run)
            said.append(
                f"level `{level.name}` changes {clock} and is never due in a run of {run} {clock.unit}s; "
                f"shorten `levels.{level.name}.clock`, or train for {enough} steps or more"
            )
    return said
