"""Measure the tool and the engines, and print Markdown."""

from __future__ import annotations

import argparse

import torch

from bench import engines, tool


def main() -> None:
    """Run what is asked for; everything by default."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=["tool", "engines"], choices=["tool", "engines"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if "tool" in chosen.what:
        print(tool.report())
    if "engines" in chosen.what:
        print(engines.peak())
        print(engines.report(chosen.rounds, chosen.tokens))


if __name__ == "__main__":
    main()
