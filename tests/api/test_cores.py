"""Cores: every memory of the library, both lowerings, whole and in pieces; and what they refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.api.reading import library
from nldsl.codegen.plan.engines import TOKEN_LOOP, choose
from tests.engines.compare import assert_same, piecewise, rand

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    name: {"period": "4 tokens"}
    for name in ("Titans", "TTTLinear", "TTTMLP", "Moneta", "Yaad", "Memora", "OmegaNet", "Atlas")
}


def made(name: str, lowering: str = "chunked") -> nldsl.Core:
    """The core of a library memory; that of the token loop where no engine fits."""
    found = nldsl.core(name, "reference", dim=8, heads=2, **SMALL.get(name, {}))  # type: ignore[arg-type]
    assert isinstance(found, nldsl.Core)
    if lowering == "reference" or choose(found.memory.core).engine is TOKEN_LOOP:
        return found
    return nldsl.core(name, dim=8, heads=2, **SMALL.get(name, {}))  # type: ignore[arg-type,return-value]


def memories() -> list[str]:
    """The memories of the library whose core is a function of one pair for each token."""
    texts = {p.stem: p.read_text(encoding="utf-8") for p in (ROOT / "nldsl" / "lib").glob("*.nl")}
    declared = [n for n in library().names if f"memory {n}(" in texts.get(n, "")]
    found = [n for n in declared if not n.startswith("Continuum") and n != "SelfModifying"]
    return [n for n in found if made(n, "reference").memory.core.writes == 1]


def tensors(core: nldsl.Core, tokens: int = 9, dim: int = 4) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for n, name in enumerate(core.inputs):
        if name in ("query", "key", "value"):
            given[name] = rand(2, 2, tokens, dim, seed=n)
            if name == "key":
                given[name] = torch.nn.functional.normalize(given[name], dim=-1).detach().requires_grad_()
        else:
            wide = name.startswith("erase") or getattr(core.memory.core, name, "") == "channel"
            channels = (dim,) if wide else ()
            given[name] = rand(2, 2, tokens, *channels, seed=n, low=0.1, high=0.9)
    if core.memory.core.normalise:
        given |= {n: given[n].detach().abs().add(0.1).requires_grad_() for n in ("query", "key")}
    return given


@pytest.mark.parametrize("name", memories())
def test_lowerings_agree_whole_and_in_pieces(name: str) -> None:
    fast, slow = made(name), made(name, "reference")
    assert fast.inputs == slow.inputs
    given = tensors(fast)
    reference = slow(**given)
    assert_same(fast(**given), reference, given)
    assert_same(piecewise(fast, given, [1, 2, 6]), reference, given)
    assert_same(piecewise(slow, given, [5]), reference, given)
    assert reference[0].shape == (2, 2, 9, 4)


@pytest.mark.parametrize("name", memories())
def test_a_fresh_state_is_what_a_call_begins_with(name: str) -> None:
    core = made(name)
    given = tensors(core)
    state = core.init_state(2, 2, 4, 4, dtype=torch.float64)
    assert_same(core(**given, state=state), core(**given), given)
    assert all(t.dtype == torch.float64 for n, t in state.items() if n != "phase")


def test_a_core_with_several_writes_takes_as_many_pairs() -> None:
    fast, slow = made("DeltaProduct"), made("DeltaProduct", "reference")
    given: dict[str, Any] = {
        "query": rand(2, 2, 5, 4, seed=0),
        "retain": rand(2, 2, 5, seed=1, low=0.5, high=1.0),
    }
    given["key"] = torch.nn.functional.normalize(rand(2, 2, 10, 4, seed=2), dim=-1).detach().requires_grad_()
    given |= {"value": rand(2, 2, 10, 4, seed=3), "rate": rand(2, 2, 10, seed=4, low=0.0, high=2.0)}
    assert_same(fast(**given), slow(**given), given)
    with pytest.raises(ValueError, match=r"`key` has the shape .*; give \[2, 2, 10, 4\]"):
        fast(**given | {"key": given["query"]})


def test_states_have_the_shapes_they_promise() -> None:
    assert {n: tuple(t.shape) for n, t in made("DeltaNet").init_state(2, 3, 4, 5).items()} == {
        "W": (2, 3, 5, 4)
    }
    start = torch.ones(3, 5, 4)
    assert torch.equal(made("DeltaNet").init_state(2, 3, 4, 5, start=start)["W"], start.expand(2, 3, 5, 4))


def test_a_core_of_a_spec() -> None:
    spec = nldsl.load(ROOT / "specs" / "titans.nl", variant="Tiny")
    assert nldsl.core(spec).memory.name == "Titans"
    assert nldsl.core(spec, memory="Titans").inputs == nldsl.core(str(ROOT / "specs" / "titans.nl")).inputs
    with pytest.raises(
        ValueError, match=r"there is no memory `Delta` in `.*`; it has `TitansModelBlock\.mixer\.Titans`"
    ):
        nldsl.core(spec, memory="Delta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("DeltaNett",), "there is no memory called `DeltaNett` in the standard library; maybe `DeltaNet`"),
        (("Continuum",), "`Continuum` cannot be made: `Continuum` learns from the task"),
        (
            ("MemoryAsContext",),
            'call that of a memory in it (`core("SoftmaxAttention")`, `core("Titans")`), or compile a model',
        ),
        (("DeltaNet", "fast"), "there is no lowering `fast`; use `chunked` or `reference`"),
    ],
)
def test_what_has_no_core(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        nldsl.core(*arguments)


def test_where_no_engine_fits_the_obstacles_are_named() -> None:
    source = nldsl.Source(
        "odd.nl",
        "edition 2026\nmemory Odd(dim) {\n"
        "  key = x |> unit, value = x, query = x |> unit, objective = huber(1), rate = 0.1\n}\n"
        "model M(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Odd(dim) |> unembed(tied) }\n",
    )
    spec = nldsl.load(source)
    with pytest.raises(
        ValueError, match=r"no engine fits `Odd` \(.*`objective = huber`.*use `lowering=\"reference\"`"
    ):
        nldsl.core(spec)
    assert nldsl.core(spec, "reference").inputs == ("query", "key", "value", "rate")


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.float64)


def change(**new: Any) -> Any:
    return lambda given: {k: v for k, v in {**given, **new}.items() if v is not None}


@pytest.mark.parametrize(
    ("alter", "error", "message"),
    [
        (change(rate=None), TypeError, "`DeltaNet` needs `rate`"),
        (change(retain=torch.ones(2, 2, 9)), TypeError, "`DeltaNet` takes no `retain`; "),
        (change(rate=0.5), TypeError, "`rate` is a `float`; give a floating-point tensor"),
        (change(rate=ones(2, 2, 8)), ValueError, r"`rate` has the shape \[2, 2, 8\]; give \[2, 2, 9\]"),
        (change(rate=-ones(2, 2, 9)), ValueError, "`rate` goes down to -1, below 0; "),
        (change(key=ones(2, 9, 3)), ValueError, r"`key` has the shape \[2, 9, 3\]; give \[batch, heads"),
        (change(key=ones(2, 2, 9, 5)), ValueError, r"`key` has the shape .* give \[2, 2, 9, 4\]"),
        (
            change(key=torch.ones(2, 2, 9, 4)),
            ValueError,
            "`key` has the dtype torch.float32, and `query` torch.float64",
        ),
        (change(value=float("nan") * ones(2, 2, 9, 4)), ValueError, "`value` holds NaN"),
        (change(query=float("inf") * ones(2, 2, 9, 4)), ValueError, "`query` holds an infinity"),
        (change(state={"W": float("nan") * ones(2, 2, 4, 4)}), ValueError, r"`state\[\"W\"\]` holds NaN"),
        (change(start=float("nan") * ones(2, 4, 4)), ValueError, "`start` holds NaN"),
        (
            change(state={"W": 0 * ones(1, 2, 4, 4)}),
            ValueError,
            r"`state\[\"W\"\]` has the shape \[1, 2, 4, 4\]",
        ),
        (change(state={}), ValueError, "`state` lacks `W`; give what a call of this core returned"),
        (change(state={"W": None}), TypeError, r"`state\[\"W\"\]` is a `NoneType`; give a tensor"),
        (
            change(state={"W": torch.zeros(2, 2, 4, 4)}),
            ValueError,
            r"`state\[\"W\"\]` has the dtype torch.float32, and these inputs need torch.float64",
        ),
        (change(state=3), TypeError, "`state` is a `int`"),
        (
            change(start=0 * ones(2, 3, 5)),
            ValueError,
            r"`start` holds the shape \[2, 3, 5\]; give \[2, 4, 4\]",
        ),
    ],
)
def test_bad_calls_say_what_is_wrong(alter: Any, error: type[Exception], message: str) -> None:
    core = made("DeltaNet")
    with pytest.raises(error, match=message):
        core(**alter(tensors(core)))


def test_gates_above_one_and_starts_of_caches() -> None:
    core = made("GatedDeltaNet")
    given = tensors(core)
    with pytest.raises(ValueError, match=r"`retain` goes up to 1\.5, above 1; pass it through `sigmoid`"):
        core(**{**given, "retain": given["retain"].detach() * 0 + 1.5})
    with pytest.raises(TypeError, match="has no start"):
        made("SoftmaxAttention").init_state(1, 2, 3, 3, start=torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match="`heads` is 0"):
        core.init_state(1, 0, 3, 3)
    with pytest.raises(ValueError, match="need one width"):
        made("Titans").init_state(1, 2, 3, 4)


@pytest.mark.parametrize("lowering", ["chunked", "reference"])
@pytest.mark.parametrize("name", memories())
def test_no_sequences_are_no_error(name: str, lowering: str) -> None:
    core = made(name, lowering)
    read, state = core(**{n: t[:0] for n, t in tensors(core).items()})
    assert read.shape == (0, 2, 9, 4)
    assert core.memory.core.map.kind == "cache" or all(
        t.dim() == 0 or t.shape[0] == 0 for t in state.values()
    )


def test_a_window_takes_its_pairs_with_it() -> None:
    core, other = made("Atlas"), made("Titans")
    given = tensors(core)
    with pytest.raises(ValueError, match="lacks `window_key`, `window_value`, `window_weight`; give what"):
        core(**given, state=other.init_state(2, 2, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"`weight` goes down to -0\..*, below 0; pass it through `sigmoid`"):
        core(**given | {"weight": -given["weight"]})


def test_cores_work_under_torchs_transforms() -> None:
    core = made("DeltaNet")
    given = {n: t.detach() for n, t in tensors(core).items()}
    many = {n: torch.stack((t, t)) for n, t in given.items()}
    read = torch.func.vmap(lambda kw: core(**kw)[0])(many)
    torch.testing.assert_close(read[1], core(**given)[0])


def test_a_period_of_one_token_begins_with_every_token() -> None:
    core = nldsl.core("Titans", dim=16, heads=2, period="1 token")
    assert core.memory.core.anchor == "current"  # what stands at the start of the period
