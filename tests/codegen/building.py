"""Specs to modules: what the tests of code generation share."""

from __future__ import annotations

import sys
import threading
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import nldsl
from nldsl.codegen import build
from nldsl.codegen.emit import model as model_file
from nldsl.codegen.emit.model import ModelFile
from nldsl.levels.outer import assign

ROOT = Path(__file__).parents[2]
FEATURES = sorted(path.stem for path in (Path(__file__).parent / "features").glob("*.nl"))
SPECS = sorted(path.stem for path in (ROOT / "specs").glob("*.nl"))
_lock = threading.Lock()


@cache
def feature(name: str) -> nldsl.Spec:
    """A spec of `tests/codegen/features`."""
    return nldsl.load(Path(__file__).parent / "features" / f"{name}.nl")


@cache
def gallery(name: str) -> nldsl.Spec:
    """A spec of `specs/`, made small."""
    return nldsl.load(ROOT / "specs" / f"{name}.nl", variant="Tiny", set={"model.dim": 16})


def written(spec: nldsl.Spec, lowering: str = "chunked") -> ModelFile:
    """`model.py`, with a header that does not change with versions."""
    model = spec.expanded.model
    assert model is not None
    return model_file.write(model, f"The model `{spec.name}`.", lowering)


def kernels(spec: nldsl.Spec, made: ModelFile) -> str:
    """`kernels.py` beside it."""
    request = build.Request(
        spec.expanded, assign(spec.expanded), spec.levels(), spec.source.name, spec.source.text, "0"
    )
    return build.kernels(made.kernels, request)


def imported(spec: nldsl.Spec, lowering: str = "chunked") -> ModuleType:
    """The module `model.py`, beside its own `kernels`."""
    made = written(spec, lowering)
    with _lock:
        sys.modules["kernels"] = _module("kernels", kernels(spec, made))
        try:
            return _module(f"model_{spec.name}_{lowering}".replace("-", "_"), made.text)
        finally:
            del sys.modules["kernels"]


def _module(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"{name}.py", "exec", dont_inherit=True), module.__dict__)
    return module


def built(spec: nldsl.Spec, lowering: str = "chunked", *, seed: int = 0) -> Any:
    """The model in float64, with weights that are large enough for every path to count."""
    torch.manual_seed(seed)
    model = imported(spec, lowering).build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tokens(model: Any, length: int, *, batch: int = 2, seed: int = 1) -> Tensor:
    """Random tokens `[batch, length]` of the model's vocabulary."""
    vocab: Any = model.embed.num_embeddings
    return torch.randint(0, int(vocab), (batch, length), generator=torch.Generator().manual_seed(seed))


def streamed(model: nn.Module, ids: Tensor, cuts: tuple[int, ...]) -> tuple[Tensor, Any]:
    """Logits of a sequence read in pieces of these lengths, and the last state."""
    state, pieces = None, []
    for piece in ids.split(list(cuts), dim=1):
        logits, state = model(piece, state)
        pieces.append(logits)
    return torch.cat(pieces, dim=1), state


def gradients(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """The gradient of a loss that sees every logit."""
    model.zero_grad()
    logits, _ = model(ids)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape).cos()
    (logits.log_softmax(-1) * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
