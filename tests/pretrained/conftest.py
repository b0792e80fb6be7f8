"""A small model of the Llama family, written as its users write theirs, and builds that start from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import nldsl
from nldsl.run.folder import Build, load

HERE = Path(__file__).parent
LAYERS, DIM, HIDDEN, HEADS, GROUPS, VOCAB = 4, 32, 48, 4, 2, 256

torch.set_num_threads(1)


def drawn(layers: int = LAYERS) -> dict[str, Tensor]:
    """Weights by the names of the Llama family, drawn from a fixed seed."""
    chance = torch.Generator().manual_seed(0)
    small = GROUPS * DIM // HEADS
    shapes = {"model.embed_tokens.weight": (VOCAB, DIM), "model.norm.weight": (DIM,)}
    for n in range(layers):
        at = f"model.layers.{n}"
        shapes |= {
            f"{at}.input_layernorm.weight": (DIM,),
            f"{at}.self_attn.q_proj.weight": (DIM, DIM),
            f"{at}.self_attn.k_proj.weight": (small, DIM),
            f"{at}.self_attn.v_proj.weight": (small, DIM),
            f"{at}.self_attn.o_proj.weight": (DIM, DIM),
            f"{at}.post_attention_layernorm.weight": (DIM,),
            f"{at}.mlp.gate_proj.weight": (HIDDEN, DIM),
            f"{at}.mlp.up_proj.weight": (HIDDEN, DIM),
            f"{at}.mlp.down_proj.weight": (DIM, HIDDEN),
        }
    return {name: torch.randn(shape, generator=chance) * 0.1 for name, shape in shapes.items()}


@pytest.fixture
def tensors() -> Callable[..., dict[str, Tensor]]:
    """`tensors(layers)`: what a file of such a model holds; each call gives copies of its own."""
    return drawn


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str | None], Path]:
    """`compiled(text, variant)`: the build folder of a spec, made once for each."""
    made: dict[tuple[str, str | None], Path] = {}

    def make(text: str, variant: str | None) -> Path:
        if (text, variant) not in made:
            folder = tmp_path_factory.mktemp("compiled")
            (folder / "llama.nl").write_text(text, encoding="utf-8")
            nldsl.load(folder / "llama.nl", variant=variant).compile(folder / "build")
            made[text, variant] = folder / "build"
        return made[text, variant]

    return make


@pytest.fixture
def make_build(compiled: Callable[[str, str | None], Path], tmp_path: Path) -> Callable[..., Build]:
    """`make_build(tensors, variant, change=(old, new))`: a build of `llama.nl` beside a file of `tensors`."""

    def make(
        given: dict[str, Tensor] | None = None,
        variant: str | None = None,
        change: tuple[str, str] | None = None,
    ) -> Build:
        text = (HERE / "llama.nl").read_text(encoding="utf-8")
        if change is not None:
            assert change[0] in text
            text = text.replace(*change)
        folder = tmp_path / f"build-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(compiled(text, variant), folder)
        if given is not None:
            save_file(given, folder / "model.safetensors")
        return load(folder)

    return make


@pytest.fixture
def begun() -> Callable[[Build], tuple[dict[str, Tensor], list[str]]]:
    """`begun(build)`: the weights of its model after its start, and the lines of the report."""

    def begin(build: Build) -> tuple[dict[str, Tensor], list[str]]:
        torch.manual_seed(0)
        model = build.checkpoint.construct(build.settings.model)
        reports = build.pretrained.start_from_files(model, build.settings, build.folder)
        return dict(model.named_parameters()), [line for one in reports for line in one.lines()]

    return begin
