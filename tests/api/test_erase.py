"""Erasure apart from the key, from the language to the numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.syntax.parse import parse_statements
from nldsl.syntax.yaml import parse_yaml, to_yaml
from tests.engines.compare import assert_same, piecewise, rand

torch.set_num_threads(1)

ALONG, PAIR = "lost", "(lost, lost * (x |> linear |> sigmoid))"


def text(erase: str, anchor: str = "retained") -> str:
    return (
        "edition 2026\nmemory Odd(dim, heads = 2) {\n"
        "  key = x |> linear |> unit, value = x |> linear, query = x |> linear\n"
        "  lost = x |> linear |> unit, retain = x |> linear |> sigmoid\n"
        "  rate = x |> linear(heads) |> sigmoid\n"
        f"  erase = {erase}, anchor = {anchor}\n}}\n"
        "model M(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Odd(dim) |> unembed(tied) }\n"
    )


def core(erase: str, lowering: Any = "chunked", anchor: str = "retained") -> nldsl.Core:
    found = nldsl.core(nldsl.load(Source("odd.nl", text(erase, anchor))), lowering)
    assert isinstance(found, nldsl.Core)
    return found


def given(of: nldsl.Core, tokens: int = 9) -> dict[str, Any]:
    made = {name: rand(2, 2, tokens, 4, seed=n) for n, name in enumerate(of.inputs)}
    made["retain"] = rand(2, 2, tokens, 4, seed=20, low=0.0)
    made["rate"] = rand(2, 2, tokens, seed=21, low=0.0, high=0.9)
    return made


@pytest.mark.parametrize("anchor", ["retained", "current"])
@pytest.mark.parametrize(("erase", "names"), [(ALONG, ("erase",)), (PAIR, ("erase", "erase_into"))])
def test_a_core_takes_what_its_memory_erases(erase: str, names: tuple[str, ...], anchor: str) -> None:
    fast, slow = core(erase, anchor=anchor), core(erase, "reference", anchor)
    assert fast.inputs == slow.inputs == ("query", "key", "value", "rate", "retain", *names)
    assert fast.engine != slow.engine == "token loop"
    tensors = given(fast)
    assert_same(fast(**tensors), slow(**tensors), tensors)
    assert_same(piecewise(fast, tensors, [2, 3]), slow(**tensors), tensors)
    state = fast.init_state(2, 2, 4, 4, dtype=torch.float64)
    assert_same(fast(**tensors, state=state), fast(**tensors), tensors)


def test_a_core_refuses_what_is_not_shaped_like_a_key() -> None:
    pair = core(PAIR)
    tensors = given(pair)
    with pytest.raises(ValueError, match=r"`erase_into` has the shape \[2, 2, 9\]; give \[2, 2, 9, 4\]"):
        pair(**tensors | {"erase_into": tensors["rate"]})
    with pytest.raises(TypeError, match="`Odd` needs `erase_into`"):
        pair(**{n: t for n, t in tensors.items() if n != "erase_into"})
    with pytest.raises(TypeError, match="`Odd` takes no `erase_into`"):
        core(ALONG)(**tensors)


def test_a_pair_is_the_same_in_yaml() -> None:
    body, findings = parse_statements(Source("odd.nl", text(PAIR)))
    assert findings == []
    again, findings = parse_yaml(Source("odd.yaml", to_yaml(body)))
    assert findings == []
    assert again == body
    from_yaml = nldsl.core(nldsl.load(Source("odd.yaml", to_yaml(body))))
    assert from_yaml.inputs == core(PAIR).inputs


def test_defaults_are_written_into_a_pair() -> None:
    expanded = nldsl.load(Source("odd.nl", text(PAIR))).expand()
    assert "(lost, lost * (x |> linear(bias = false) |> sigmoid))" in expanded


@pytest.mark.parametrize(
    ("change", "names"),
    [("(key, lost |> linear)", ("erase", "erase_into")), ("key", ("erase",))],
)
def test_a_variant_sets_one_or_both(change: str, names: tuple[str, ...]) -> None:
    run = (
        'train T { model = M, data = text("sotu", length = 32), steps = 3\n'
        "  level all { learns = rest, rule = adamw(rate = 1e-3) } }\n"
        f"variant V of T {{ set Odd.erase = {change} }}\n"
    )
    found = nldsl.core(nldsl.load(Source("odd.nl", text(ALONG) + run), variant="V"))
    assert found.inputs[5:] == names


@pytest.mark.parametrize("more", ["rule = gd(implicit)", "writes = 2", "read = before"])
def test_other_fields_hold_beside_a_pair(more: str) -> None:
    lines = (
        "  key = x |> linear(dim * 2) |> unit, value = x |> linear(dim * 2), query = x |> linear\n"
        "  rate = x |> linear(heads * 2) |> sigmoid\n"
        "  erase = (x |> linear(dim * 2) |> unit, x |> linear(dim * 2))\n"
        if "writes" in more
        else "  key = x |> linear |> unit, value = x |> linear, query = x |> linear\n"
        "  rate = x |> linear(heads) |> sigmoid, erase = (x |> linear |> unit, x |> linear)\n"
    )
    source = Source(
        "odd.nl",
        f"edition 2026\nmemory Odd(dim, heads = 2) {{\n{lines}  retain = x |> linear |> sigmoid, {more}\n}}\n"
        "model M(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Odd(dim) |> unembed(tied) }\n",
    )
    fast, slow = nldsl.core(nldsl.load(source)), nldsl.core(nldsl.load(source), "reference")
    assert isinstance(fast, nldsl.Core) and isinstance(slow, nldsl.Core)
    tensors = given(fast, 6)
    if "writes" in more:
        longer = given(fast, 12)
        tensors |= {n: longer[n] for n in ("key", "value", "rate", "erase", "erase_into")}
    assert fast.engine == "delta tiles by channel"
    assert_same(fast(**tensors), slow(**tensors), tensors)
