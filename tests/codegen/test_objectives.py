"""Objectives written as expressions: what they are equal to, what is refused, and that they train."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nldsl
from nldsl.api.planned import algebra
from nldsl.diagnostics.model import Source, SpecError
from nldsl.resolve.expanded import MemoryInstance
from nldsl.syntax.fmt import format_body
from nldsl.syntax.parse import parse_statements
from nldsl.syntax.yaml import parse_yaml, to_yaml
from tests.codegen.building import built, gradients, streamed, tokens
from tests.engines.compare import assert_same, piecewise, rand

torch.set_num_threads(1)

L2 = (
    "0.5 * (M(key) - value) ^ 2",
    "(value - M(key)) ^ 2 / 2",
    "M(key) ^ 2 / 2 - value * (M(key) - value / 2)",
)
DOT = ("-(M(key) * value)", "-value * M(key)", "0 - M(key) * value", "M(key) * (1 - 1 - value)")
OTHERS = (
    "(M(key) - value) ^ 2",
    "0.5 * M(key) ^ 2 - M(key) * value",
    "0.5 * (M(key + 0) - value) ^ 2",
    "M(key) * value",
    "0.5 * margin * (M(key) - value) ^ 2",
)


def text(objective: str, *fields: str, parameters: str = "") -> str:
    inner = "".join(f"  {line}\n" for line in (f"objective = {objective}", *fields))
    return (
        f"edition 2026\nmemory Own(dim, heads = 2{parameters}) {{\n"
        "  key = x |> linear |> unit, value = x |> linear, query = x |> linear |> unit\n"
        "  rate = x |> linear(heads) |> sigmoid(start = 0.1)\n"
        "  margin = x |> linear(heads) |> softplus(start = 0.5)\n"
        f"{inner}}}\n"
        "model Small(dim = 8, vocab = 11) { tokens |> embed(vocab, dim) |> Own(dim) |> unembed(tied) }\n"
    )


def spec(objective: str, *fields: str, parameters: str = "") -> nldsl.Spec:
    return nldsl.load(Source("own.nl", text(objective, *fields, parameters=parameters)))


def memory(of: nldsl.Spec) -> MemoryInstance:
    return next(i for i, _ in of.expanded.instances() if isinstance(i, MemoryInstance))


def core(objective: str, *fields: str, lowering: Any = "chunked") -> nldsl.Core:
    made = nldsl.core(spec(objective, *fields), lowering)
    assert isinstance(made, nldsl.Core)
    return made


def given(of: nldsl.Core, count: int = 9) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: rand(2, 2, count, 4, seed=n) for n, name in enumerate(("query", "key", "value"))
    }
    made["key"] = torch.nn.functional.normalize(made["key"].detach(), dim=-1).requires_grad_()
    made["rate"] = rand(2, 2, count, seed=21, low=0.0, high=0.3)
    others = {p.name: p.kind for p in memory_of(of) if not p.field}
    for n, (name, kind) in enumerate(others.items()):
        size = (2, 2, count) if kind == "head" else (2, 2, count, 4)
        made[name] = rand(*size, seed=30 + n, low=0.2, high=1.0)
    return made


def memory_of(of: nldsl.Core) -> tuple[Any, ...]:
    written = of.memory.core.expression
    return written.parameters if written is not None else ()


# --------------------------------------------------------------------------- what they are


@pytest.mark.parametrize(("word", "objective"), [("l2", o) for o in L2] + [("dot", o) for o in DOT])
def test_what_is_l2_or_dot_gets_their_engines(word: str, objective: str) -> None:
    made = memory(spec(objective, "retain = margin / (1 + margin)")).core
    assert made == memory(spec(word, "retain = margin / (1 + margin)")).core


@pytest.mark.parametrize("objective", OTHERS)
def test_what_differs_from_l2_and_dot_stays_as_it_is_written(objective: str) -> None:
    made = memory(spec(objective, "retain = margin / (1 + margin)")).core
    assert (made.objective, made.lowers) == ("expression", objective)


def test_numbers_of_parameters_count() -> None:
    half = spec("p * (M(key) - value) ^ n", "retain = margin / (1 + margin)", parameters=", p = 1 / 2, n = 2")
    assert memory(half).core.objective == "l2"
    whole = nldsl.load(half.source, set={"Own.p": "1"})
    assert memory(whole).core.objective == "expression"


EQUAL = [
    ("2 * (M(key) - value) ^ 2 / 4", "l2"),
    ("abs(M(key) - value) ^ 3", "lp(3)"),
    ("0.5 * margin * (M(key) - value) ^ 2 / margin", "l2"),
    ("0 * tanh(M(key)) - M(key) * value", "dot"),
]


@pytest.mark.parametrize(("objective", "word"), EQUAL)
@pytest.mark.parametrize("lowering", ["chunked", "reference"])
@pytest.mark.parametrize("mapped", ["matrix", "mlp(6, residual, norm)"])
def test_expressions_equal_the_words(objective: str, word: str, mapped: str, lowering: Any) -> None:
    fields = ("retain = margin / (1 + margin)", f"map = {mapped}", "anchor = every 4 tokens")
    own, known = core(objective, *fields, lowering=lowering), core(word, *fields, lowering=lowering)
    tensors = given(own)
    tensors["retain"] = rand(2, 2, 9, seed=8, low=0.0)
    shared = {n: t for n, t in tensors.items() if n in known.inputs}
    assert_same(own(**tensors), known(**shared), shared, tolerance=1e-8)


HUBER = (
    "0.5 * (M(key) - value) ^ 2 - 0.5 * relu(abs(M(key) - value) - margin) ^ 2"  # the tail grows by its size
)


@pytest.mark.parametrize("rule", ["gd", "dgd", "muon"])
def test_huber_written_out(rule: str) -> None:
    fields = (f"rule = {rule}", "anchor = every 4 tokens", "momentum = 0.5")
    own, known = (
        core(HUBER, *fields, lowering="reference"),
        core("huber(margin)", *fields, lowering="reference"),
    )
    tensors = given(own)
    tensors["momentum"] = rand(2, 2, 9, seed=9, low=0.0)
    as_known = {n: t for n, t in tensors.items() if n != "margin"} | {
        "objective_parameter": tensors["margin"]
    }
    assert_same(own(**tensors), known(**as_known), tensors, tolerance=1e-8)


MIXED = (
    "margin * log(cosh(M(key) - value))",
    "rate * softplus(M(key) * value) + 0.1 * abs(M(query)) ^ 3",
    "0.5 * (M(key) - value) ^ 2 - 0.1 * (M(key) - M(other)) ^ 2",
    "exp(-key * M(key)) * (x |> linear |> sigmoid) + 2 ^ (-head) * (M(key) - value) ^ 2",
)


@pytest.mark.parametrize("objective", MIXED)
@pytest.mark.parametrize(
    "field",
    ["map = matrix", "map = mlp(5, 3)", "window = 3 tokens", "update = every 3 tokens", "gradient = stop"],
)
def test_the_engine_and_the_token_loop_agree(objective: str, field: str) -> None:
    fields = ("other = x |> linear |> unit", "shrink = margin", "anchor = every 3 tokens", field)
    used = [f for f in fields if f.split()[0] not in ("other", "shrink") or f.split()[0] in objective]
    used += ["retain = margin / (1 + margin)"]
    fast, slow = core(objective, *used), core(objective, *used, lowering="reference")
    assert fast.inputs == slow.inputs
    assert fast.engine != slow.engine == "token loop"
    tensors = given(fast)
    tensors["retain"] = rand(2, 2, 9, seed=8, low=0.0)
    if "window" not in field:
        state = fast.init_state(2, 2, 4, 4, dtype=torch.float64)
        assert_same(fast(**tensors, state=state), fast(**tensors), tensors)
    assert_same(fast(**tensors), slow(**tensors), tensors, tolerance=1e-8)
    assert_same(piecewise(fast, tensors, [2, 3, 7]), slow(**tensors), tensors, tolerance=1e-8)


def test_a_core_says_what_its_objective_wants() -> None:
    own = core("margin * (M(key) - value - (x |> linear)) ^ 2", "anchor = every 4 tokens")
    assert own.inputs == ("query", "key", "value", "rate", "margin", "given_2")
    tensors = given(own)
    with pytest.raises(ValueError, match=r"`margin` has the shape \[2, 2, 9, 4\]; give \[2, 2, 9\]"):
        own(**tensors | {"margin": tensors["given_2"]})
    with pytest.raises(TypeError, match="needs `margin`"):
        own(**{n: t for n, t in tensors.items() if n != "margin"})


# --------------------------------------------------------------------------- in a model


def test_a_model_is_the_same_token_by_token_and_under_both_lowerings() -> None:
    made = spec(MIXED[0], "map = mlp(6)", "anchor = every 4 tokens", "retain = 0.9")
    chunked, reference = built(made), built(made, "reference")
    ids = tokens(chunked, 11)
    whole, _ = chunked(ids)
    assert torch.allclose(whole, reference(ids)[0], atol=1e-9)
    assert torch.allclose(streamed(chunked, ids, (1, 4, 2, 3, 1))[0], whole, atol=1e-9)
    found, other = gradients(chunked, ids), gradients(reference, ids)
    assert all(torch.allclose(g, other[n], atol=1e-8) and float(g.abs().max()) > 0 for n, g in found.items())


def test_an_objective_of_a_memory_that_is_read_apart() -> None:
    lines = (
        "block Apart(dim) {\n  let m = Own(dim)\n  before = m.read(x)\n  m.write(x)\n"
        "  x = before + m.read(x)\n}\n"
    )
    whole = text(MIXED[0], "map = mlp(6)", "anchor = every 4 tokens").replace("|> Own(dim)", "|> Apart(dim)")
    made = nldsl.load(Source("own.nl", whole.replace("model Small", lines + "model Small")))
    chunked, reference = built(made), built(made, "reference")
    ids = tokens(chunked, 11)
    assert torch.allclose(chunked(ids)[0], reference(ids)[0], atol=1e-9)


def test_training_lowers_the_loss_end_to_end() -> None:
    torch.manual_seed(0)
    model = built(spec(MIXED[0], "anchor = every 4 tokens")).train()
    ids = torch.arange(24).remainder(5).repeat(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        logits, _ = model(ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


# --------------------------------------------------------------------------- as text


@pytest.mark.parametrize("objective", [*L2, *DOT, *OTHERS, *MIXED])
def test_text_and_yaml_hold_the_same_objective(objective: str) -> None:
    fields = ("other = x |> linear |> unit",) if "other" in objective else ()
    body, findings = parse_statements(Source("own.nl", text(objective, *fields)))
    assert findings == []
    assert parse_yaml(Source("own.yaml", to_yaml(body))) == (body, [])
    assert parse_statements(Source("own.nl", format_body(body))) == (body, [])
    nldsl.load(Source("own.yaml", to_yaml(body)))


def test_defaults_are_written_into_what_an_objective_reads() -> None:
    expanded = spec(MIXED[3]).expand()
    assert "(x |> linear(bias = false) |> sigmoid)" in expanded
    again = nldsl.load(Source("own.nl", expanded))
    assert memory(again).core.expression == memory(spec(MIXED[3])).core.expression


def test_a_setting_may_be_an_objective() -> None:
    made = nldsl.load(spec("l2", "retain = margin / (1 + margin)").source, set={"Own.objective": MIXED[0]})
    assert memory(made).core.lowers == MIXED[0]


def test_what_is_shown_is_what_was_written() -> None:
    made = spec(MIXED[0], "anchor = every 4 tokens")
    assert f"objective = {MIXED[0]}" in algebra(memory(made))
    assert MIXED[0] in {one.learns_from for one in made.levels().components}


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("objective", "code"),
    [
        ("value ^ 2 * margin", "NL0531"),
        ("M(M(key)) * margin", "NL0531"),
        ("M(key, value) * margin", "NL0531"),
        ("M() * margin", "NL0531"),
        ("(M(key) |> conv(4)) * margin", "NL0531"),
        ("margin * (M(key) |> linear)", "NL0531"),
        ("unit(M(key)) * margin", "NL0531"),
        ("margin * abs(M(key), 2)", "NL0531"),
        ("margin * foo(M(key))", "NL0200"),
        ("margin * (M(key) - valeu)", "NL0200"),
        ("margin * (M(key) - (x |> linear(3)))", "NL0401"),
        ("margin * M(x |> linear(3))", "NL0401"),
        ("M(margin)", "NL0401"),
        ("margin * log(0 - 1) * M(key)", "NL0205"),
        ("margin * exp(1000) * M(key)", "NL0205"),
        ("margin * M(key) / (2 - 2)", "NL0205"),
        ("margin * M(key) * (tanh(2) / (tanh(1) - tanh(1)))", "NL0205"),
        ("margin * M(key) * exp(700) * (exp(700) * exp(700))", "NL0205"),
        ("margin * M(key) + 2 tokens", "NL0204"),
        ("margin * M(key) + [value]", "NL0410"),
    ],
)
def test_what_is_refused(objective: str, code: str) -> None:
    with pytest.raises(SpecError) as raised:
        spec(objective)
    assert [d.code for d in raised.value.diagnostics] == [code]


def test_a_power_of_powers_is_no_work() -> None:
    tall = "((((M(key) + value) ^ 4) ^ 4) ^ 4) ^ 4 + 0 * margin"
    assert memory(spec(tall)).core.lowers == tall


def test_a_long_sum_is_a_finding_or_a_memory() -> None:
    long = " + ".join(["(M(key) - value) ^ 2"] * 40) + " + 0 * margin"
    assert memory(spec(long)).core.objective == "expression"


def test_keys_meet_answers_only_in_one_width() -> None:
    narrow = text("margin * key * M(key)").replace("value = x |> linear,", "value = x |> linear(4),")
    with pytest.raises(SpecError) as raised:
        nldsl.load(Source("own.nl", narrow))
    assert [d.code for d in raised.value.diagnostics] == ["NL0401"]
