"""Interleaved timing: every round runs every variant once, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of process time: the median and the least over the rounds."""

    median: float
    least: float


def interleaved(
    variants: Mapping[str, Callable[[], object]], rounds: int = 5, *, wall: bool = False
) -> dict[str, Timing]:
    """Time each variant `rounds` times, taking turns, after one round of warm-up.

    Process time is taken, not wall time (`wall`): other work on the machine then counts less.
    """
    clock = time.perf_counter if wall else time.process_time
    for run in variants.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: Timing(statistics.median(t), min(t)) for name, t in taken.items()}


def table(title: str, timings: Mapping[str, Timing], base: str, note: str = "") -> str:
    """A Markdown table: milliseconds, and how many times faster than `base`."""
    lines = [
        f"### {title}",
        "",
        f"| variant | median ms | least ms | speed against {base} |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, one in timings.items():
        ratio = timings[base].median / one.median
        lines.append(f"| {name} | {one.median * 1e3:.1f} | {one.least * 1e3:.1f} | {ratio:.2f}x |")
    return "\n".join([*lines, *(["", note] if note else []), ""])


def costs(title: str, timings: Mapping[str, Timing], base: str, facts: Mapping[str, str], head: str) -> str:
    """A Markdown table: milliseconds, and the time over that of `base`; `facts` fill the column `head`."""
    lines = [
        f"### {title}",
        "",
        f"| variant | {head} | median ms | least ms | time over {base} |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, one in timings.items():
        ratio = one.median / timings[base].median
        fact = facts.get(name, "")
        lines.append(f"| {name} | {fact} | {one.median * 1e3:.1f} | {one.least * 1e3:.1f} | {ratio:.2f} |")
    return "\n".join([*lines, ""])
