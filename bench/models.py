"""Whole models against a Transformer of the same width: a training step, timed in turns.

Every model has the same embedding, blocks and feed-forward; only what mixes tokens differs.  "plain" mixers
project keys, values and queries and nothing more, as the peers of the same name do; the others are the
library's, with short convolutions and output gates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.timing import Timing, costs, interleaved

Facts = dict[str, str]

MODEL = """edition 2026

import [{library}] from std
{memory}
block Block(dim) {{
  mixer: x = x + (x |> rmsnorm |> {mixer})
  ffn: x = x + (x |> rmsnorm |> {ffn})
}}

model Model(dim = {dim}, depth = {depth}, vocab = 256) {{
  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> unembed
}}

train Run {{
  model     = Model(dim = {dim}, depth = {depth})
  data      = text("sotu", tokenizer = bytes, length = {length}, batch = 4, split = manifest)
  objective = next_token
  steps     = 1
  level pretrain {{ learns = rest, rule = adamw(rate = 1e-3), update = every 1 step }}
}}
"""
PLAIN = """
memory Plain(dim, heads = 4) {{
  key       = x |> linear{unit}
  value     = x |> linear
  query     = x |> linear{unit}
{gates}  objective = {objective}
  out       = read |> linear
}}
"""
RATE = "  rate      = x |> linear(heads) |> sigmoid\n"
RETAIN = "  retain    = x |> linear(heads) |> sigmoid(start = 0.99)\n"
EVERY_TOKEN = """
memory EveryToken(dim, heads = 4) {
  key       = x |> linear |> conv(4) |> silu |> unit
  value     = x |> linear |> conv(4) |> silu |> unit
  query     = x |> linear |> conv(4) |> silu |> unit
  rate      = x |> linear(heads) |> sigmoid(start = 0.5) |> scale(0.02)
  retain    = x |> linear(heads) |> sigmoid(start = 0.999)
  momentum  = x |> linear(heads) |> sigmoid(start = 0.6) |> scale(0.9)
  map       = mlp(dim, residual)
  objective = l2
  anchor    = current
  start     = learned
  out       = (read |> rmsnorm) * (x |> linear |> silu) |> linear
}
"""


def plain(objective: str, gates: str = "") -> str:
    """A memory of bare projections."""
    return PLAIN.format(objective=objective, gates=gates, unit=" |> unit" if objective == "l2" else "")


# Name: what mixes tokens, the library's name that it imports, and a memory of its own
MIXERS: dict[str, tuple[str, str, str]] = {
    "attention": ("SoftmaxAttention(dim)", "SoftmaxAttention", ""),
    "plain linear attention": ("Plain(dim)", "SoftmaxAttention", plain("dot")),
    "plain gated linear attention": ("Plain(dim)", "SoftmaxAttention", plain("dot", RETAIN)),
    "plain RetNet": ("Plain(dim)", "SoftmaxAttention", plain("dot", "  retain    = 1 - 2 ^ (-5 - head)\n")),
    "plain DeltaNet": ("Plain(dim)", "SoftmaxAttention", plain("l2", RATE)),
    "plain Gated DeltaNet": ("Plain(dim)", "SoftmaxAttention", plain("l2", RATE + RETAIN)),
    "LinearAttention": ("LinearAttention(dim)", "LinearAttention", ""),
    "RetNet": ("RetNet(dim)", "RetNet", ""),
    "Mamba2": ("Mamba2(dim)", "Mamba2", ""),
    "DeltaNet": ("DeltaNet(dim)", "DeltaNet", ""),
    "GatedDeltaNet": ("GatedDeltaNet(dim)", "GatedDeltaNet", ""),
    "TTTLinear, every 16": ("TTTLinear(dim)", "TTTLinear", ""),
    "Titans, every 64": ("Titans(dim, hidden = dim, period = 64 tokens)", "Titans", ""),
    "Titans, every 16": ("Titans(dim, hidden = dim, period = 16 tokens)", "Titans", ""),
    "Titans, every token": ("EveryToken(dim)", "SoftmaxAttention", EVERY_TOKEN),
    "MomentumDelta": ("MomentumDelta(dim)", "MomentumDelta", ""),
    "GLA": ("GLA(dim)", "GLA", ""),
    "KDA": ("KDA(dim)", "KDA", ""),
    "SelfModifying, every 64": ("SelfModifying(dim, period = 64 tokens)", "SelfModifying", ""),
    "SelfModifying, every 16": ("SelfModifying(dim)", "SelfModifying", ""),
}
# Hope's feed-forward is a chain of memories with clocks of their own; all of them step in this table.
FEEDS = {"Hope, every 64": "SelfModifying, every 64", "Hope, every 16": "SelfModifying, every 16"}
CONTINUUM = "Continuum(dim, hidden = 2 * dim)"
USUAL = (*MIXERS, *FEEDS)
# What peers cost over the same Transformer, eager and compiled, as measured on another occasion with two
# threads; Hope's and the token's peer are goals, as these peers are a hundred times as slow and more.
PEERS_COST: dict[str, tuple[str, float | None, float | None]] = {
    "plain linear attention": ("fla naive_chunk_linear_attn", 1.00, 0.74),
    "plain RetNet": ("fla naive_retention", 1.12, 0.81),
    "plain gated linear attention": ("fla naive_chunk_simple_gla", 1.36, 0.85),
    "plain DeltaNet": ("fla delta_rule_chunkwise", 2.08, None),
    "plain Gated DeltaNet": ("transformers torch_chunk_gated_delta_rule", 1.65, 1.05),
    "Mamba2": ("transformers Mamba2", 1.85, 1.76),
    "TTTLinear, every 16": ("fla chunk_ttt_linear_ref", 2.6, 1.25),
    "Titans, every 64": ("titans-pytorch, every chunk; compiled at the start", 4.9, 2.05),
    "Titans, every 16": ("goal; titans-pytorch 12.0 eager; compiled at the start", 4.0, 3.2),
    "Titans, every token": ("goal; titans-pytorch 522", 20.0, None),
    "Hope, every 16": ("goal; nested-learning 117 to 1,456", 8.0, None),
}


class Reference(nn.Module):
    """A Transformer written by hand: rotary attention in torch's kernel, a feed-forward of four widths."""

    def __init__(self, dim: int = 128, heads: int = 4, depth: int = 2, vocab: int = 256) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "mixer_norm": nn.RMSNorm(dim),
                    "projections": nn.Linear(dim, 3 * dim, bias=False),
                    "out": nn.Linear(dim, dim, bias=False),
                    "norm": nn.RMSNorm(dim),
                    "up": nn.Linear(dim, 4 * dim, bias=False),
                    "down": nn.Linear(4 * dim, dim, bias=False),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(dim)
        self.unembed = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`tokens` `[B, T]` to logits `[B, T, vocab]`."""
        x = self.embed(tokens)
        batch, length, dim = x.shape
        half = dim // self.heads // 2
        angles = torch.arange(length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        cos, sin = angles.cos(), angles.sin()

        def turned(z: torch.Tensor) -> torch.Tensor:
            first, second = z.chunk(2, dim=-1)
            return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

        for block in self.blocks:
            part: Any = block
            split = part["projections"](part["mixer_norm"](x)).view(batch, length, 3, self.heads, -1)
            query, key, value = split.permute(2, 0, 3, 1, 4)
            read = nn.functional.scaled_dot_product_attention(
                turned(query), turned(key), value, is_causal=True
            )
            x = x + part["out"](read.transpose(1, 2).reshape(batch, length, dim))
            x = x + part["down"](nn.functional.gelu(part["up"](part["norm"](x))))
        return self.unembed(self.norm(x))


def build(folder: Path, text: str) -> nn.Module:
    """The model that a spec's build defines; its seed is fixed."""
    import nldsl
    from nldsl.run.folder import load

    folder.mkdir(parents=True)
    source = folder / "model.nl"
    source.write_text(text, encoding="utf-8")
    nldsl.load(source).compile(folder / "build")
    built = load(folder / "build", ("kernels", "model"))  # each build's modules have names of their own
    torch.manual_seed(0)
    return built.modules["model"].build()


def spec(name: str, dim: int = 128, depth: int = 2, length: int = 256, ffn: str = "mlp(4 * dim)") -> str:
    """The spec of the model whose blocks mix tokens by `name`."""
    mixer, library, memory = MIXERS[FEEDS.get(name, name)]
    if name in FEEDS:
        library, ffn = f"{library}, Continuum", CONTINUUM
    return MODEL.format(
        mixer=mixer, library=library, memory=memory, dim=dim, depth=depth, length=length, ffn=ffn
    )


def trainer(model: nn.Module, length: int, batch: int = 4) -> Callable[[], float]:
    """One training step on random bytes; gives its loss."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, 256, (batch, length + 1))

    def run() -> float:
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        logits = logits[0] if isinstance(logits, tuple) else logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def compiled(model: nn.Module) -> nn.Module:
    """The model with its blocks compiled, as a run with `compile = true` does."""
    regions = [m for m in model.modules() if getattr(type(m), "compile_region", False)]
    for module in regions or [model]:
        module.compile()
    return model


def steps(rounds: int, names: tuple[str, ...], *, compile_too: bool) -> tuple[dict[str, Timing], Facts]:
    """A training step of each model and of the reference, in turns, and how many parameters they have."""
    models: dict[str, nn.Module] = {"Transformer": Reference()}
    if compile_too:
        models["Transformer, compiled"] = compiled(Reference())
    runs = {name: trainer(model, 256) for name, model in models.items()}
    with tempfile.TemporaryDirectory() as place:
        for n, name in enumerate(names):
            models[name] = build(Path(place) / str(n), spec(name))
            runs[name] = trainer(models[name], 256)
            if compile_too:
                both = f"{name}, compiled"
                models[both] = compiled(build(Path(place) / f"{n}c", spec(name)))
                runs[both] = trainer(models[both], 256)
        sizes = {name: f"{sum(p.numel() for p in m.parameters()):,}" for name, m in models.items()}
        return interleaved(runs, rounds), sizes


def report(rounds: int = 5, names: tuple[str, ...] = USUAL, *, compile_too: bool = False) -> str:
    """A training step of each model as a multiple of the reference Transformer's."""
    timings, sizes = steps(rounds, names, compile_too=compile_too)
    title = "Training step, d 128, 2 layers, T 256, B 4"
    return costs(title, timings, "Transformer", sizes, "parameters")


def language_steps(rounds: int, length: int) -> tuple[dict[str, Timing], Facts]:
    """Gated DeltaNet and Transformer++ of equal parameters (1 %): d 256, 4 layers, B 4."""
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = (
            build(Path(place) / name, spec(name, 256, 4, length, f"swiglu({hidden})"))
            for name, hidden in (("GatedDeltaNet", 597), ("attention", 683))
        )
    models = {"Transformer++": theirs, "GatedDeltaNet": ours}
    sizes = {name: f"{sum(p.numel() for p in m.parameters()):,}" for name, m in models.items()}
    return interleaved({name: trainer(m, length) for name, m in models.items()}, rounds), sizes


def language(rounds: int = 3, lengths: tuple[int, ...] = (512, 2048)) -> str:
    """Gated DeltaNet against Transformer++ of equal parameters, one table for each length."""
    parts = []
    for length in lengths:
        timings, sizes = language_steps(rounds, length)
        title = f"Training step, d 256, 4 layers, T {length}, B 4"
        parts.append(costs(title, timings, "Transformer++", sizes, "parameters"))
    return "\n".join(parts)


def finite(length: int = 1024, steps: int = 3) -> str:
    """Losses of the Titans model that is re-linearised every 16 tokens, on a long sequence."""
    with tempfile.TemporaryDirectory() as place:
        model = build(Path(place) / "long", spec("Titans, every 16", length=length))
        run = trainer(model, length, batch=2)
        losses = [run() for _ in range(steps)]
    said = ", ".join(f"{loss:.3f}" for loss in losses)
    return f"Titans, every 16, T = {length}: losses of the first {steps} steps {said}.\n"
