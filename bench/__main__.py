"""Measure the tool, the engines, whole models and their memory on one thread, and print Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from bench import engines, goals, layers, memory, models, phases, rules, sequence, tool

WHAT = (
    "tool",
    "engines",
    "long",
    "layers",
    "models",
    "language",
    "memory",
    "phases",
    "rules",
    "sequence",
    "goals",
)


def main() -> None:
    """Run what is asked for; everything by default."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=WHAT, choices=WHAT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512, help="of the engines' sequences")
    parser.add_argument("--only", default="", help="names of engines or models, with `;` between")
    parser.add_argument("--compile", action="store_true", help="engines and whole models compiled as well")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    only = tuple(name.strip() for name in chosen.only.split(";") if name.strip())
    reports: dict[str, Callable[[], str]] = {
        "tool": tool.report,
        "engines": lambda: engines.report(
            chosen.rounds, chosen.tokens, only or tuple(engines.MEMORIES), compile_too=chosen.compile
        ),
        "long": lambda: engines.long(chosen.rounds),
        "layers": lambda: layers.report(chosen.rounds),
        "models": lambda: (
            models.report(chosen.rounds, only or models.USUAL, compile_too=chosen.compile)
            + "\n"
            + models.finite()
        ),
        "language": lambda: models.language(chosen.rounds),
        "memory": memory.report,
        "phases": lambda: phases.report(chosen.rounds, compile_too=chosen.compile),
        "sequence": lambda: sequence.report(chosen.rounds),
        "rules": lambda: rules.report(max(chosen.rounds, 11)),
        "goals": lambda: goals.report(chosen.rounds, compile_too=chosen.compile),
    }
    print(engines.peak())
    for name in WHAT:
        if name in chosen.what:
            print(reports[name](), flush=True)


if __name__ == "__main__":
    main()
