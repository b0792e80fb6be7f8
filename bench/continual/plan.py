"""What is tried: studies, arms, rates and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPECS = Path(__file__).resolve().parents[2] / "specs" / "continual"
STRENGTHS = (0.1, 10.0, 1000.0)  # of the penalty of EWC


@dataclass(frozen=True)
class Study:
    """A sequence of tasks: `specs/continual/NAME.nl`, and by what it is judged.

    `loss` in nats per token, or `within`: the accuracy among the labels of a task.
    """

    name: str
    vocabulary: int
    measure: str
    seeds: tuple[int, ...]

    @property
    def lower_is_better(self) -> bool:
        """Whether less is more."""
        return self.measure == "loss"

    @property
    def said(self) -> str:
        """The measure in words."""
        return "accuracy within a task" if self.measure == "within" else self.measure


@dataclass(frozen=True)
class Arm:
    """A model and a way to train it: `plain`, `ewc`, `frozen` after the first task, or `joint`."""

    name: str
    model: str
    way: str = "plain"


@dataclass(frozen=True)
class Trial:
    """One run; `strength` is that of the penalty, 0 where there is none."""

    study: str
    model: str
    way: str
    rate: float
    strength: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its file."""
        strength = f"-{self.strength:g}" if self.strength else ""
        return f"{self.study}/{self.model}-{self.way}{strength}-{self.rate:g}-{self.seed}.json"


STUDIES = (
    Study("languages", 256, "loss", (0, 1, 2)),
    Study("digits", 27, "within", (0, 1, 2)),
    Study("eras", 256, "loss", (0, 1, 2)),
    Study("presidents", 266, "within", (0, 1, 2)),
)
TUNING = 0  # the seed on which rates are chosen
RATES = (2e-3, 6e-3)
ARMS = (
    *(Arm(f"Hope, {n} level{'s' if n > 1 else ''}", f"Hope{n}") for n in (1, 2, 3, 4)),
    Arm("Hope, 4 levels, one clock", "HopeOneClock"),
    *(Arm(f"Hope-Attention, {n} level{'s' if n > 1 else ''}", f"HopeAttention{n}") for n in (1, 2, 3, 4)),
    Arm("Hope-Attention, 4 levels, one clock", "HopeAttentionOneClock"),
    Arm("Transformer, fine-tuned", "Transformer"),
    Arm("Transformer, EWC", "Transformer", "ewc"),
    Arm("Transformer, frozen after task 1", "Transformer", "frozen"),
    Arm("Transformer, all tasks at once", "Transformer", "joint"),
)


def trials_of(study: Study, arm: Arm, seed: int, rates: tuple[float, ...]) -> list[Trial]:
    """The trials of an arm with each of `rates`; a frozen model is a fine-tuned one, read otherwise."""
    way = "plain" if arm.way == "frozen" else arm.way
    strengths = STRENGTHS if way == "ewc" else (0.0,)
    return [
        Trial(study.name, arm.model, way, rate, strength, seed) for rate in rates for strength in strengths
    ]
