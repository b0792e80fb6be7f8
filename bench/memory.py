"""Peak memory of a training pass, each case in a process of its own.

Deep memory, per-token rate, retention and momentum, B2 H4 D64: the engine in closed form; the same tiles as
autograd differentiates them; and weights of every token, by `vmap(grad)`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

CASES = ("closed", "autograd", "per token")


def deep(way: str, hidden: int, tile: int, tokens: int) -> Callable[[int], object]:
    """Forward and backward over the first so many tokens."""
    from nldsl.codegen.engines import frozen as engine
    from nldsl.codegen.engines import frozen_tiles

    if way == "autograd":
        frozen_tiles.closed_form_fits = lambda *_: False
    torch.manual_seed(0)
    batch, heads, dim = 2, 4, 64
    unit = torch.nn.functional.normalize
    query, key, value = (torch.randn(batch, heads, tokens, dim) for _ in range(3))
    drawn = [
        torch.empty(batch, heads, tokens).uniform_(*ends) for ends in ((0.005, 0.05), (0.99, 1), (0.3, 0.7))
    ]
    start = (torch.randn(heads, hidden, dim) / 8, torch.randn(heads, dim, hidden) / 16)
    leaves = [x.requires_grad_() for x in (unit(query, dim=-1), unit(key, dim=-1), value, *drawn, *start)]

    def run(length: int) -> object:
        given = [x[:, :, :length] for x in leaves[:6]]
        if way == "per token":
            read = per_token(given, (leaves[6], leaves[7]), tile)
        else:
            query, key, value, rate, retain, momentum = given
            read, _ = engine.frozen(
                query,
                key,
                value,
                rate,
                retain,
                momentum,
                start=(leaves[6], leaves[7]),
                period=tile,
                map="mlp",
                residual=False,
            )
        return torch.autograd.grad(read.square().mean(), leaves)

    return run


def per_token(pairs: list[Tensor], start: tuple[Tensor, Tensor], tile: int) -> Tensor:
    """The same memory, of queries, keys, values and gates, with a gradient and weights for every token."""
    from nldsl.codegen.engines.decay import decay_matrix
    from nldsl.codegen.engines.frozen import frozen_coefficients

    def loss(*one: Tensor) -> Tensor:
        first, second, k, v = one
        return 0.5 * (second @ torch.nn.functional.gelu(first @ k) - v).square().sum()

    per_pair = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), (None, None, 0, 0))
    slopes = torch.func.vmap(torch.func.vmap(per_pair))
    weights = [w.expand(pairs[0].shape[0], *w.shape) for w in start]
    moments = [torch.zeros_like(w) for w in weights]
    reads = []
    for pieces in zip(*(x.split(tile, 2) for x in pairs), strict=True):
        q, k, v, e, r, b = pieces
        pushes = decay_matrix(b)
        kept, moved, taken = frozen_coefficients(decay_matrix(r), pushes, e)
        gradients = slopes(*weights, k, v)
        formed = []
        for n, g in enumerate(gradients):
            own = torch.einsum("bhti,bhimn->bhtmn", taken, g)
            old, push = weights[n].unsqueeze(2), moments[n].unsqueeze(2)
            formed.append(kept.unsqueeze(-1) * old + moved.unsqueeze(-1) * push - own)  # type: ignore[union-attr]
            pushed = torch.einsum("bhi,bhimn->bhmn", pushes[..., -1, 1:] * e, g)
            moments[n] = pushes[..., -1, 0, None, None] * moments[n] - pushed
        inner = torch.nn.functional.gelu(torch.einsum("bhtmn,bhtn->bhtm", formed[0][:, :, 1:], q))
        reads.append(torch.einsum("bhtmn,bhtn->bhtm", formed[1][:, :, 1:], inner))
        weights = [w[:, :, -1] for w in formed]
    return torch.cat(reads, 2)


def measure(way: str, hidden: int, tile: int, tokens: int) -> float:
    """Megabytes above a pass over one tile."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run = deep(way, hidden, tile, tokens)
    run(tile)
    before = peak()
    run(tokens)
    return peak() - before


def peak() -> float:
    """Megabytes this program has held at most.

    `ru_maxrss` begins at the peak of the process that started this one, so Linux is asked for the
    program's own.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(way: str, hidden: int, tile: int, tokens: int) -> float:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "bench.memory", way, *map(str, (hidden, tile, tokens))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report() -> str:
    """A table; every figure comes from a process of its own."""
    lines = [
        "### Peak memory of a pass, above that of one tile",
        "",
        "| memory | " + " | ".join(CASES) + " |",
        "| --- |" + " ---: |" * len(CASES),
    ]
    for hidden, tile, tokens, ways in (
        (256, 32, 256, CASES),
        (128, 32, 1024, CASES[:2]),
        (128, 32, 4096, CASES[:2]),
    ):
        row = []
        for way in CASES:
            if way not in ways:
                row.append("")
                continue
            row.append(f"{apart(way, hidden, tile, tokens):.0f} MB")
        lines.append(f"| hidden {hidden}, {tokens // tile} tiles of {tile} | " + " | ".join(row) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=CASES)
    parser.add_argument("sizes", type=int, nargs=3)
    chosen = parser.parse_args()
    print(measure(chosen.way, *chosen.sizes))
