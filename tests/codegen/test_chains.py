"""Chains: what they compute against modules written by hand, and which outer levels they give a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nldsl
from nldsl.codegen.emit import settings as settings_file
from nldsl.codegen.runtime import schedule
from nldsl.diagnostics.model import Source
from nldsl.levels.outer import assign
from tests.codegen.building import built, feature, imported, tokens, written

LEVELS = ("fast", "middle", "slow")


def _levels(chain: Any, x: Tensor) -> list[Tensor]:
    """The answers of the three levels of `Weighted` to `x`, from their weights alone."""
    fast, middle, slow = (getattr(chain, name) for name in LEVELS)
    gain = fast.norm.weight
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps) * gain
    up, down = (one.weight for one in fast.modules() if isinstance(one, nn.Linear))
    gate, value, out = (one.weight for one in middle.modules() if isinstance(one, nn.Linear))
    return [
        x + F.gelu(normed @ up.T) @ down.T,
        (F.silu(x @ gate.T) * (x @ value.T)) @ out.T,
        x @ slow.weight.T,
    ]


def _combined(name: str, chain: Any, x: Tensor) -> Tensor:
    """What an independent chain gives for `x`, as the page on clocks writes it."""
    if name == "weighted":
        return sum((p * a for p, a in zip(chain.level_gain, _levels(chain, x), strict=True)), 0 * x)
    fast, slow = chain.fast(x), chain.slow(x)
    if name == "shares":
        p = chain.level_gain.exp() / chain.level_gain.exp().sum()
        return p[0] * fast + p[1] * slow
    if name == "gated":
        p = (x @ chain.gate.weight.T).softmax(-1)
        return p[..., :1] * fast + p[..., 1:] * slow
    return (fast + slow) / 2 if name == "mean" else fast + slow


@pytest.mark.parametrize("name", ["weighted", "shares", "gated", "mean", "sum"])
def test_independent_levels_are_added_as_the_page_says(name: str) -> None:
    """Forward and gradients of all weights and of the input, in float64."""
    chain = getattr(built(feature("chain_independent")).blocks[0], name)
    inputs = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    weights = [inputs, *chain.parameters()]
    ours, by_hand = chain(inputs), _combined(name, chain, inputs)
    torch.testing.assert_close(ours, by_hand, rtol=1e-12, atol=1e-12)
    tested = [torch.autograd.grad(out.square().sum(), weights) for out in (ours, by_hand)]
    for one, other in zip(*tested, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_learned_weights_begin_equal_and_do_not_decay() -> None:
    torch.manual_seed(0)
    model = imported(feature("chain_independent")).build()
    block = model.blocks[0]
    torch.testing.assert_close(block.weighted.level_gain.detach(), torch.full((3,), 1 / 3))
    torch.testing.assert_close(block.shares.level_gain.detach(), torch.zeros(2))
    assert schedule.matches("blocks.0.weighted.level_gain", "*_gain")


def test_a_nested_chain_computes_what_the_sequential_one_does() -> None:
    """The same levels in the same order: only when they change and return differs."""
    nested = feature("chain_nested")
    text = nested.source.text.replace("chain nested", "chain sequential")
    plain = nldsl.load(Source("chain_nested.nl", text))
    ids = tokens(built(nested), 7)
    torch.testing.assert_close(built(nested)(ids)[0], built(plain)(ids)[0], rtol=0, atol=0)


def _delta(x: Tensor, key: nn.Linear, value: nn.Linear, rate: float, period: int) -> Tensor:
    """Reads by the key of a matrix that learns by gradient descent on l2; with a period, of its start."""
    keys, values = F.normalize(x @ key.weight.T, dim=-1), x @ value.weight.T
    reads = []
    for b in range(x.shape[0]):
        running = anchor = x.new_zeros(x.shape[-1], x.shape[-1])
        for t in range(x.shape[1]):
            if t % period == 0:
                anchor = running
            k, v = keys[b, t], values[b, t]
            running = running - rate * torch.outer(anchor @ k - v if period > 1 else running @ k - v, k)
            reads.append((anchor if period > 1 else running) @ k)
    return torch.stack(reads).view_as(x)


def test_levels_with_keys_and_values_are_memories_in_their_place() -> None:
    """Side by side, each reads by its key what it wrote; in pieces they give what they give at once."""
    model = built(feature("chain_local"))
    chain = model.blocks[0].beside
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    fast = _delta(x, chain.fast.key_linear, chain.fast.value_linear, 0.5, 1)
    slow = _delta(x, chain.slow.key_linear, chain.slow.value_linear, 0.5, 4)
    whole, _ = chain(x)
    torch.testing.assert_close(whole, (fast + slow) / 2, rtol=1e-9, atol=1e-10)
    first, state = chain(x[:, :6])
    second, _ = chain(x[:, 6:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-9, atol=1e-10)


# --------------------------------------------------------------------------- outer levels


RUN = """edition 2026
{memories}
model Small(dim = 8, vocab = 256) {{
  tokens |> embed(vocab, dim) |> {uses} |> rmsnorm |> unembed(tied)
}}
train Run {{
  model = Small
  data  = text("sotu", length = 32, batch = 2)
  steps = 64
  {levels}
}}
"""
ALL = "level all { learns = rest, rule = adamw(rate = 1e-3) }"


def _settings(memories: str, levels: str = ALL) -> Any:
    """The settings that a run with these memories is written with."""
    names = [line.split()[1].split("(")[0] for line in memories.splitlines() if line.startswith("memory")]
    text = RUN.format(memories=memories, uses=" |> ".join(f"{n}(dim)" for n in names), levels=levels)
    spec = nldsl.load(Source("run.nl", text))
    made = settings_file.write(spec.expanded, assign(spec.expanded), written(spec), "The run.")
    scope: dict[str, Any] = {}
    exec(made.replace("from schedule import", "from nldsl.codegen.runtime.schedule import"), scope)
    schedule.validate(scope["SETTINGS"])
    return scope["SETTINGS"]


def _chain(name: str, kind: str, *levels: str) -> str:
    rows = "\n".join(f"    level {level}" for level in levels)
    return f"memory {name}(dim) {{\n  objective = task\n  chain {kind} {{\n{rows}\n  }}\n}}\n"


MAP = "map = mlp(8)"


def test_a_nested_chain_starts_and_returns_with_its_outer_levels() -> None:
    text = _chain(
        "Nest",
        "nested",
        f"fast {{ {MAP} }}",
        f"middle {{ {MAP}, update = every 4 steps }}",
        f"slow {{ {MAP}, update = every 16 steps }}",
    )
    found = {one.name: (one.learns, one.start, one.reset) for one in _settings(text).levels}
    assert found == {
        "all": (("rest",), "", ""),
        "all_fast": (("nest.fast",), "learned in all_middle", "with all_middle"),
        "all_middle": (("nest.middle",), "learned in all_slow", "with all_slow"),
        "all_slow": (("nest.slow",), "", ""),
    }


def test_levels_that_differ_in_what_happens_to_them_are_outer_levels_of_their_own() -> None:
    """One clock, but another reduce, start, reset or test time."""
    text = _chain(
        "One",
        "sequential",
        f"plain {{ {MAP} }}",
        f"added {{ {MAP}, reduce = sum }}",
        f"due {{ {MAP}, reduce = last }}",
        f"alive {{ {MAP}, plastic = yes }}",
        f"copied {{ {MAP}, start = copy of plain, reset = every 8 steps }}",
        f"cut {{ {MAP}, update = every 24 tokens flush }}",
        f"late {{ {MAP}, update = every 2 steps offset 1 }}",
    )
    levels = {one.name: one for one in _settings(text).levels}
    assert set(levels) == {
        "all", "all_plain", "all_added", "all_due", "all_alive", "all_copied", "all_cut", "all_late"
    }  # fmt: skip
    assert (levels["all_added"].reduce, levels["all_due"].reduce) == ("sum", "last")
    assert [n for n, one in levels.items() if one.plastic] == ["all_alive"]
    assert (levels["all_copied"].start, levels["all_copied"].reset) == (
        "copy of all_plain",
        "every 8 steps",
    )
    assert levels["all_cut"].clock == schedule.Clock(24, "token", partial="flush")
    assert levels["all_late"].clock == schedule.Clock(2, "step", offset=1)


def test_levels_of_one_name_in_two_chains_have_outer_levels_of_two_names() -> None:
    one = _chain("A", "sequential", f"fast {{ {MAP} }}", f"slow {{ {MAP}, update = every 4 steps }}")
    two = _chain("B", "sequential", f"fast {{ {MAP} }}", f"slow {{ {MAP}, update = every 8 steps }}")
    found = {level.name: level.learns for level in _settings(one + two).levels}
    assert found == {"all": ("rest",), "all_A_slow": ("a.slow",), "all_B_slow": ("b.slow",)}


def test_saying_the_default_of_a_clock_changes_nothing() -> None:
    one = _chain("A", "sequential", f"x {{ {MAP}, update = every 24 tokens }}")
    assert _settings(one) == _settings(one.replace("tokens }", "tokens carry }"))


def test_a_level_of_the_run_can_teach_a_start_and_say_when_weights_return() -> None:
    text = _chain(
        "A",
        "sequential",
        f"fast {{ {MAP}, start = learned in rare, reset = with rare }}",
        f"slow {{ {MAP}, update = every 4 steps, start = learned in B.last }}",
    ) + _chain("B", "sequential", f"last {{ {MAP}, update = every 16 steps }}")
    levels = _settings(
        text, ALL + "\n  level rare { learns = embed, rule = adamw(rate = 1e-3), update = every 8 steps }"
    ).levels
    found = {one.name: (one.start, one.reset) for one in levels}
    assert found == {
        "all": ("", ""),
        "all_fast": ("learned in rare", "with rare"),
        "all_slow": ("learned in all_last", ""),
        "rare": ("", ""),
        "all_last": ("", ""),
    }
