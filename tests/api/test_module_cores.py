"""Cores that make their own projections: what they refuse, and that their states are their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nldsl
from nldsl.api.modules import ModuleCore

torch.set_num_threads(1)
SELF = """edition 2026
memory Plain(dim) {
  key = x |> unit, value = x, query = x |> unit, rate = 0.1, target = self
}
model M(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Plain(dim) |> unembed(tied) }
"""


def made(lowering: Any = "chunked", heads: int = 2) -> ModuleCore:
    core = nldsl.core("SelfModifying", lowering, dim=8, heads=heads)
    assert isinstance(core, ModuleCore)
    return core


def x(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(shape)


@pytest.mark.parametrize("lowering", ["chunked", "reference"])
def test_a_sequence_may_be_cut_anywhere(lowering: str) -> None:
    core, whole = made(lowering), x(2, 7, 8)
    read, _ = core(x=whole)
    first, state = core(x=whole[:, :3], state=core.init_state(2))
    second, _ = core(x=whole[:, 3:], state=state)
    torch.testing.assert_close(torch.cat((first, second), 1), read)


def replaced(**new: Any) -> Any:
    return lambda state: state | new


@pytest.mark.parametrize("lowering", ["chunked", "reference"])
@pytest.mark.parametrize(
    ("alter", "error", "message"),
    [
        (lambda _: 3, TypeError, "`state` is a `int`; give the dict"),
        (
            lambda _: {"W": x(1)},
            ValueError,
            "`state` lacks `anchor`, .* and holds `W`, which ",
        ),
        (replaced(running=None), TypeError, r"`state\[\"running\"\]` is a `NoneType`; give 2 tensors"),
        (replaced(running=(x(1),)), ValueError, r"`state\[\"running\"\]` holds 1 tensors; give 2"),
        (replaced(phase=0), TypeError, r"`state\[\"phase\"\]` is a `int`; give a tensor"),
        (
            lambda s: s | {"running": tuple(w * float("inf") for w in s["running"])},
            ValueError,
            r"`state\[\"running\"\]\[0\]` holds",
        ),
        (
            lambda s: s | {"running": tuple(w.double() for w in s["running"])},
            ValueError,
            r"`state\[\"running\"\]\[0\]` has the dtype torch.float64, and these inputs need torch.float32",
        ),
        (
            lambda _: made().init_state(3),
            ValueError,
            r"has the shape \[3, 3, 8\], and these inputs need",
        ),
        (
            lambda _: made(heads=4).init_state(2),
            ValueError,
            r"has the shape \[5, 2, 4, 2, 2\], and",
        ),
    ],
)
def test_states_of_others_are_refused(
    lowering: str, alter: Any, error: type[Exception], message: str
) -> None:
    core = made(lowering)
    with pytest.raises(error, match=message):
        core(x=x(2, 3, 8), state=alter(core.init_state(2)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([1.0], TypeError, "`x` is a `list`; give a floating-point tensor"),
        (torch.ones(1, 2, 8, dtype=torch.long), TypeError, "`x` is a `torch.int64`"),
        (
            x(2, 8),
            ValueError,
            r"`x` has the shape \[2, 8\]; `SelfModifying` takes \[batch, ",
        ),
        (x(1, 2, 8).double(), ValueError, "`x` has the dtype torch.float64, and the weights torch.float32"),
        (x(1, 2, 8) * float("nan"), ValueError, "`x` holds NaN"),
        (x(1, 2, 8) * float("inf"), ValueError, "`x` holds an infinity"),
    ],
)
def test_bad_inputs_say_what_is_wrong(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made()(x=given)


@pytest.mark.parametrize("batch", [0, True, 2.5, "2"])
def test_a_batch_is_a_whole_number(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"`batch` is .*; give a whole number of at least 1"):
        made().init_state(batch)


def test_autocast_and_modules_of_other_dtypes() -> None:
    core = made()
    with torch.autocast("cpu", torch.bfloat16):
        _, state = core(x=x(2, 3, 8))
        core(x=x(2, 3, 8), state=state)
    core.module.double()
    assert core(x=x(2, 3, 8).double(), state=core.init_state(2))[0].dtype == torch.float64


def test_a_core_without_weights_of_its_own() -> None:
    core = nldsl.core(nldsl.load(nldsl.Source("plain.nl", SELF)))
    assert isinstance(core, ModuleCore)
    read, state = core(x=x(2, 5, 8))
    assert torch.equal(core(x=x(2, 5, 8), state=core.init_state(2))[0], read)
    assert [w.shape[1] for w in state["running"]] == [2]
