"""What a study is made of, as plain values: variants with their costs, a budget, and trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.document import model as doc
from nldsl.resolve.ablations import BASE, Keep, Quantity

__all__ = ["BASE", "Keep", "Quantity", "Row", "State", "Trial"]


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of a study and what it costs.

    Attributes:
        name: file-safe and stable: it depends on what the variant changes, and on no other variant.
        words: what it changes, in words.
        question: what it asks; "" where nobody said.
        amendments: all that it changes in the base, what holds its budget included, in order.
        digest: of its meaning, steps and data included; its runs belong to it, whatever it is called.
        parameters, flops_per_token, state_bytes: of the model; forward FLOPs; state of one sequence.
        steps: optimizer steps of one training.
        matched: how its budget was held, in words; "" where nothing had to be changed.
        merged: the words of variants that turned out to be the same spec and are left out.
        changes: what differs from the base in meaning, one line each, without what holds its budget.
        problem: why it cannot be run, with what would mend it; None where it can.  All figures are 0 then.
        span: where it is written.
    """

    name: str
    words: str
    question: str = ""
    amendments: tuple[doc.Amendment, ...] = ()
    digest: str = ""
    parameters: int = 0
    flops_per_token: int = 0
    state_bytes: int = 0
    steps: int = 0
    matched: str = ""
    merged: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    problem: str | None = None
    span: Span | None = None


State = Literal["waiting", "running", "done", "diverged", "failed", "stopped"]
"""Of a trial.  `failed`: it ended badly as often as is allowed; `stopped`: early, by a scheduler's choice."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one variant with one seed.

    `step` is the last that its log knows of, `attempts` how often it was begun; `problem` says what went
    wrong.
    """

    variant: str
    seed: int
    state: State = "waiting"
    attempts: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    problem: str = ""

    @property
    def name(self) -> str:
        """`VARIANT/seed-N`, which is its folder below `runs/`."""
        return f"{self.variant}/seed-{self.seed}"
