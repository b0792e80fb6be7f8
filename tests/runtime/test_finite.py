"""What is said where numbers end: in a checkpoint, on held-out text, in a part or its state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import nldsl.run.evaluate
import nldsl.run.generate
from nldsl.run.errors import RunError
from nldsl.run.folder import Build


class Overflow(nn.Module):
    """A part that overflows for large inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.abs() * 200).exp() * x


def _saved(build: Build, model: nn.Module) -> Path:
    """A checkpoint of `model` in a run of the folder."""
    folder = build.folder / "runs" / "001"
    folder.mkdir(parents=True)
    content = {"sizes": {"vocab": 128, "dim": 8}, "step": 3, "weights": model.state_dict()}
    build.checkpoint.save(folder / build.checkpoint.NAME, content)
    return folder / build.checkpoint.NAME


@pytest.fixture
def model(build: Build) -> nn.Module:
    """The toy, in float32."""
    torch.manual_seed(0)
    return build.checkpoint.construct({"vocab": 128, "dim": 8})


def test_a_checkpoint_with_nan_is_refused_and_kept(build: Build, model: nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("fast.weight")[0, 0] = float("inf")
        model.get_parameter("slow.bias")[0] = float("nan")
    path = _saved(build, model)
    before = path.read_bytes()
    for verb in (nldsl.run.evaluate.evaluate, nldsl.run.generate.generate):
        with pytest.raises(RunError) as caught:
            verb(build.folder)
        found = caught.value.diagnostic
        assert found.code == "NL0805"
        assert "not finite: `fast.weight` and 1 more" in found.message
    assert path.read_bytes() == before


def test_a_part_that_leaves_the_numbers_is_named_by_every_verb(build: Build, model: nn.Module) -> None:
    class Wild(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.over = model, Overflow()

        def forward(self, tokens: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
            logits, state = self.inner(tokens, state)
            return self.over(logits * 10), state

    wild = Wild()
    tokens = build.data.encode("hazel and oak")[None]
    said = r"`over` \(Overflow\) leaves the numbers by itself"
    with torch.no_grad():
        wild.get_parameter("inner.embed.weight").mul_(100)
    error = build.schedule.UserError
    with pytest.raises(error, match=f"the held-out loss is .*: {said}"):
        build.measures.evaluate(wild, tokens, (), batch=1, context=torch.no_grad)
    with pytest.raises(error, match=f"token 1 has logits that are not finite: {said}"):
        list(build.generate.generate(wild, tokens[0], 2))
    needle = build.schedule.Measure("needle", {"length": 128, "count": 1})
    with pytest.raises(error, match=f"a needle has logits that are not finite: {said}"):
        build.measures.needle(wild, tokens, batch=1, context=torch.no_grad, **needle.options)


def test_a_state_that_is_not_finite_is_told_from_a_part(build: Build, model: nn.Module) -> None:
    tokens = torch.zeros(1, 2, dtype=torch.long)
    assert build.finite.first_not_finite(model, tokens) is None
    state = {"sum": torch.full((1, 8), float("nan"))}
    assert (
        build.finite.blame(model, tokens, state) == "the state that the tokens before it left is not finite"
    )
    assert build.finite.blame(model, tokens) == "its logits are too large for a loss"


def test_an_earlier_checkpoint_is_only_named_where_a_weight_is_at_fault(
    build: Build, model: nn.Module
) -> None:
    tokens = torch.zeros(1, 2, dtype=torch.long)
    assert "checkpoint" not in build.finite.not_finite("a loss", model, tokens).help
    with torch.no_grad():
        model.get_parameter("fast.weight")[0, 0] = float("nan")
    assert build.finite.not_finite("a loss", model, tokens).help == "use an earlier checkpoint"


def test_errors_while_a_text_is_made_are_findings(
    build: Build, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    _saved(build, model)
    pieces = nldsl.run.generate.generate(build.folder, prompt="a", tokens=4)
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x * float("nan"))
    with pytest.raises(RunError) as caught:
        list(pieces)
    found = caught.value.diagnostic
    assert found.code == "NL0808"
    assert "token 1 has logits that are not finite: `fast` (Linear)" in found.message
