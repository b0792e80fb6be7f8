"""Streaming generation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nldsl.run.folder import Build


@pytest.fixture
def model(build: Build) -> torch.nn.Module:
    torch.manual_seed(0)
    return build.checkpoint.construct({"vocab": 128, "dim": 8}).double()


def _greedy(build: Build, model: torch.nn.Module, prompt: torch.Tensor, count: int) -> list[int]:
    return list(build.generate.generate(model, prompt, count, temperature=0.0))


def test_tokens_one_by_one_are_those_of_the_whole_sequence(build: Build, model: torch.nn.Module) -> None:
    prompt = build.data.encode("hazel")
    tokens = _greedy(build, model, prompt, 12)
    sequence = prompt
    for token in tokens:
        logits, _ = model(sequence[None])
        assert int(logits[0, -1].argmax()) == token
        sequence = torch.cat([sequence, torch.tensor([token])])


def test_streamed_logits_equal_the_whole_forward(model: torch.nn.Module) -> None:
    tokens = torch.randint(128, (2, 20))
    whole, _ = model(tokens)
    state, parts = None, []
    for t in range(20):
        logits, state = model(tokens[:, t : t + 1], state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-12, atol=1e-12)


def test_the_seed_decides(build: Build, model: torch.nn.Module) -> None:
    def draw(seed: int) -> list[int]:
        return list(build.generate.generate(model, build.data.encode("a"), 30, seed=seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_top_k_keeps_the_likeliest(build: Build) -> None:
    logits = torch.tensor([0.0, 3.0, 2.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    drawn = {build.generate.choose(logits, 1.0, 2, generator) for _ in range(200)}
    assert drawn == {1, 2}
    assert {build.generate.choose(logits, 1.0, 9, generator) for _ in range(400)} == {0, 1, 2, 3}


def test_the_gradient_mode_outside_is_left_alone(build: Build, model: torch.nn.Module) -> None:
    stream = build.generate.generate(model, build.data.encode("a"), 3)
    next(stream)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ("", {}, "the prompt is empty"),
        ("a", {"temperature": -1.0}, "the temperature is -1.0"),
        ("a", {"top_k": 0}, "top-k is 0"),
    ],
)
def test_what_cannot_be_generated_is_said(
    build: Build, model, prompt: str, options: dict, words: str
) -> None:
    with pytest.raises(build.schedule.UserError, match=words):
        build.generate.generate(model, build.data.encode(prompt), 3, **options)


def test_checkpoints_are_found_and_read(build: Build, tmp_path: Path) -> None:
    with pytest.raises(build.schedule.UserError, match="there is no checkpoint in"):
        build.checkpoint.newest(build.folder)
    build.train.train(build.settings, device="cpu", listen=lambda _: None)
    model, content = build.checkpoint.restore(build.checkpoint.newest(build.folder))
    assert content["step"] == 6
    assert len(_greedy(build, model, build.data.encode("a"), 5)) == 5
    with pytest.raises(build.schedule.UserError, match="there is no checkpoint"):
        build.checkpoint.load(tmp_path / "none.pt")
    torch.save({"x": 1}, tmp_path / "other.pt")
    with pytest.raises(build.schedule.UserError, match="no checkpoint of this program"):
        build.checkpoint.load(tmp_path / "other.pt")


def test_a_prompt_of_unknown_tokens_is_said(build: Build, model: torch.nn.Module) -> None:
    with pytest.raises(build.schedule.UserError, match="the token 195, and the model has 128 tokens"):
        build.generate.generate(model, build.data.encode("é"), 3)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logits_that_are_not_finite_end_a_text_and_name_the_weight(
    build: Build, model: torch.nn.Module, temperature: float
) -> None:
    stream = build.generate.generate(model, build.data.encode("a"), 3, temperature=temperature)
    next(stream)
    with torch.no_grad():
        model.get_parameter("slow.bias")[2] = float("nan")
    with pytest.raises(build.schedule.UserError, match=r"token 2 .* the weight `slow.bias` is not finite"):
        next(stream)
