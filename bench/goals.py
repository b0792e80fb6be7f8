"""What the project wants to reach, beside what this machine measures now: one row for each ratio.

Ratios of time are how many times faster than the other side; "over" rows are the time of a training step over
a Transformer's, where less is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench import engines, layers, memory, models
from bench.peers import installed
from bench.timing import Timing, interleaved

ALL = ("engines", "layers", "memory", "models", "language")


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio that was measured, and what it should be at least, or at most where `least` is false."""

    what: str
    found: float
    wanted: float
    least: bool = True

    @property
    def reached(self) -> bool:
        return self.found >= self.wanted if self.least else self.found <= self.wanted

    def row(self) -> str:
        """A row of the table."""
        sign = "" if self.least else "at most "
        return (
            f"| {self.what} | {self.found:.2f} | {sign}{self.wanted:g} | {'yes' if self.reached else 'no'} |"
        )


def report(rounds: int = 5, *, compile_too: bool = False, parts: tuple[str, ...] = ALL) -> str:
    """A Markdown table of all goals whose peers are installed."""
    made = {
        "engines": lambda: _engines(rounds, compile_too=compile_too),
        "layers": lambda: _layers(rounds),
        "memory": _memory,
        "models": lambda: _models(rounds, compile_too=compile_too),
        "language": lambda: _language(rounds),
    }
    rows = [goal.row() for part in parts for goal in made[part]()]
    head = ["### Goals", "", "| ratio | measured | goal | reached |", "| --- | ---: | ---: | --- |"]
    return "\n".join([*head, *rows, ""])


def faster(timings: Mapping[str, Timing], than: str, *, compiled: bool = False) -> float | None:
    """How many times faster the engine is than the variant whose name starts so; nothing if it is absent."""

    def find(start: str) -> float | None:
        fits = (n for n in timings if n.startswith(start) and n.endswith(", compiled") == compiled)
        name = next(fits, None)
        return None if name is None else timings[name].median

    ours, theirs = find("nldsl"), find(than)
    return None if ours is None or theirs is None else theirs / ours


def _engines(rounds: int, *, compile_too: bool) -> Iterator[Goal]:
    gated = "Gated DeltaNet, T 512, against"
    fla, transformers = "fla naive_chunk_gated", "transformers torch_chunk_gated"
    short = interleaved(engines.variants("GatedDeltaNet", 512, compile_too=compile_too), rounds)
    rows = [
        (f"{gated} the token loop", faster(short, "token loop"), 15),
        (f"{gated} fla's chunks", faster(short, fla), 4),
        (f"{gated} transformers' chunks", faster(short, transformers), 1.5),
        (f"{gated} transformers' chunks, both compiled", faster(short, transformers, compiled=True), 1.5),
    ]
    long = interleaved(engines.variants("GatedDeltaNet", 2048, loop=False), rounds)
    rows.append(("Gated DeltaNet, T 2048, against fla's chunks", faster(long, fla), 6))
    for name, what, wanted in (
        ("MomentumDelta", "momentum delta rule", 10),
        ("Titans", "deep memory with momentum", 17),
    ):
        found = interleaved(engines.variants(name, 512), max(1, rounds // 3))
        rows.append((f"{what} against the token loop", faster(found, "token loop"), wanted))
    yield from (Goal(what, found, wanted) for what, found, wanted in rows if found is not None)


def _layers(rounds: int) -> Iterator[Goal]:
    if not installed("titans-pytorch"):
        return
    for (chunk, length), wanted in zip(layers.SIZES, ((2.5, 2.5), (3, 4)), strict=True):
        timings = layers.timings(rounds, chunk, length)
        theirs = timings["titans-pytorch, every chunk"].median
        for reads, goal in zip(("of every token", "at the boundary"), wanted, strict=True):
            ratio = theirs / timings[f"nldsl, reads {reads}"].median
            yield Goal(f"Titans' module against titans-pytorch, chunk {chunk}, reads {reads}", ratio, goal)


def _memory() -> Iterator[Goal]:
    closed, per_token = (memory.apart(way, 256, 32, 256) for way in ("closed", "per token"))
    yield Goal("peak memory over that of weights for every token", closed / per_token, 0.1, least=False)
    closed, plain = (memory.apart(way, 128, 32, 4096) for way in ("closed", "autograd"))
    yield Goal("peak memory of 128 tiles over that of autograd", closed / plain, 0.5, least=False)


def _models(rounds: int, *, compile_too: bool) -> Iterator[Goal]:
    names = tuple(models.PEERS_COST)
    timings, _ = models.steps(rounds, names, compile_too=compile_too)
    base = timings["Transformer"].median
    for name, (peer, eager, compiled) in models.PEERS_COST.items():
        for wanted, how in ((eager, ""), (compiled, ", compiled")):
            if wanted is None or name + how not in timings:
                continue
            found = timings[name + how].median / base
            yield Goal(f"{name}{how}: a step over a Transformer's ({peer})", found, wanted, least=False)


def _language(rounds: int) -> Iterator[Goal]:
    for length in (512, 2048):
        timings, _ = models.language_steps(max(1, rounds // 2), length)
        ratio = timings["Transformer++"].median / timings["GatedDeltaNet"].median
        yield Goal(f"Gated DeltaNet language model against Transformer++, T {length}", ratio, 1.0)
