"""`optimizer` declarations become algorithms: names, kinds, order, what is folded, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.api.reading import Analysis, analyse, library, linked
from nldsl.diagnostics.model import Source
from nldsl.resolve.algorithm import FUNCTIONS, SIGNALS, Algorithm, constant
from nldsl.resolve.expanded import Rule
from nldsl.resolve.formulas import text
from nldsl.syntax.parse import parse_nl
from nldsl.syntax.yaml import to_yaml

RUN = """
model M(dim = 32, vocab = 256) {
  tokens |> embed(vocab, dim) |> linear |> rmsnorm |> unembed(tied)
}
train T {
  model = M(dim = 32)
  data  = text("sotu", length = 64)
  steps = 20
  level all { learns = rest, rule = RULE }
}
"""


def analysed(declared: str, rule: str = "own(rate = 1e-3)", variant: str | None = None) -> Analysis:
    source = Source("m.nl", f"edition 2026\n{declared}\n{RUN.replace('RULE', rule)}")
    return analyse(linked(source, None), variant=variant)


def resolved(declared: str, rule: str = "own(rate = 1e-3)", variant: str | None = None) -> Rule:
    analysis = analysed(declared, rule, variant)
    expanded = analysis.resolution.expanded
    assert expanded is not None, [(d.code, d.message) for d in analysis.findings]
    assert expanded.training is not None
    return expanded.training.levels[0].rule


def made(declared: str, rule: str = "own(rate = 1e-3)", variant: str | None = None) -> Algorithm:
    algorithm = resolved(declared, rule, variant).algorithm
    assert algorithm is not None
    return algorithm


def codes(declared: str, rule: str = "own(rate = 1e-3)") -> list[str]:
    """Findings about the rule; whether code can be made for it is another matter."""
    return [d.code for d in analysed(declared, rule).findings if d.code != "NL0701"]


def messages(declared: str, rule: str = "own(rate = 1e-3)") -> str:
    return "\n".join(f"{d.code} {d.message} | {d.help}" for d in analysed(declared, rule).findings)


# --------------------------------------------------------------------------- the library


@pytest.mark.parametrize("name", library().rules)
def test_library_rules_need_no_import(name: str) -> None:
    assert codes("", f"{name}(rate = 1e-3)") == []
    rule = resolved("", f"{name}(rate = 1e-3)")
    assert (rule.name, rule.rate) == (name, 1e-3)


def test_importing_one_means_the_same() -> None:
    assert made("import [adamw] from std", "adamw(rate = 1e-3)") == made("", "adamw(rate = 1e-3)")


def test_the_file_s_own_rule_wins() -> None:
    own = "optimizer adamw(rate) { weight = weight - rate * sign(grad) }"
    assert text(made(own, "adamw(rate = 1e-3)").weight) == "weight - rate * sign(grad)"
    assert "own" not in library().rules


def test_a_rule_keeps_its_name_where_a_block_has_it_too() -> None:
    block = "block adamw(dim) { x = x |> linear }"
    assert made(block, "adamw(rate = 1e-3)").name == "adamw"


def test_adamw_is_two_averages_beside_each_other() -> None:
    algorithm = made("", "adamw(rate = 1e-3, beta1 = 0.8)")
    assert [(m.name, m.map.kind, m.objective, text(m.value), text(m.rate)) for m in algorithm.memories] == [
        ("first", "vector", "l2", "grad", "1 - beta1"),
        ("second", "vector", "l2", "grad ^ 2", "1 - beta2"),
    ]
    assert algorithm.options == {"beta1": 0.8, "beta2": 0.999, "eps": 1e-8, "decay": 0.0}
    assert algorithm.order == ("first", "second", "weight")
    assert not algorithm.matrices


def test_words_choose_formulas_and_are_no_options() -> None:
    printed = made("", "m3(rate = 1e-3, accumulate = sum, divide = root)")
    averaged = made("", "m3(rate = 1e-3, divide = relative, shape = true)")
    assert {m.objective for m in printed.memories} == {"dot"}
    assert {m.objective for m in averaged.memories} == {"l2"}
    assert [m.reduce for m in (printed.memory("far"), averaged.memory("far"))] == ["sum", "mean"]
    assert printed.words["accumulate"] == "sum"
    assert "accumulate" not in printed.options
    assert "rows" in averaged.signals()
    assert "rows" not in printed.signals()


def test_the_slow_momentum_is_read_from_the_next_update_on() -> None:
    algorithm = made("", "m3(rate = 1e-3, period = 4 steps)")
    far = algorithm.memory("far")
    assert (far.read, algorithm.period(far), algorithm.options["period"]) == ("before", 4, 4)
    assert algorithm.order.index("turned") < algorithm.order.index("far")
    assert made("", "m3(rate = 1e-3, period = 1 steps)").memory("far").update is None


def test_what_is_no_matrix_goes_to_another_rule() -> None:
    algorithm = made("", "muon(rate = 1e-3, decay = 0.1, adam_beta1 = 0.7)")
    assert algorithm.matrices
    assert algorithm.otherwise is not None
    assert {k: text(v) for k, v in algorithm.otherwise_options.items()} == {
        "rate": "rate * adam_scale", "beta1": "adam_beta1", "beta2": "adam_beta2", "eps": "adam_eps",
        "decay": "decay",
    }  # fmt: skip
    assert algorithm.otherwise.options["beta1"] == 0.7


def test_rules_that_look_at_layers_say_so() -> None:
    layers = {n: made("", f"{n}(rate = 1e-3)").of_layers for n in library().rules}
    assert [n for n, yes in layers.items() if yes] == ["dgd"]
    assert made("", "deep_momentum(rate = 1e-3, by = input)").of_layers


# --------------------------------------------------------------------------- parameters


def test_a_default_may_follow_the_rate() -> None:
    own = "optimizer own(rate, eta = rate / 2, kept = 1 - eta) { weight = weight * kept - eta * grad }"
    algorithm = made(own, "own(rate = 1e-3 |> warmup(5))")
    assert {n: text(f) for n, f in algorithm.locals} == {"eta": "rate / 2", "kept": "1 - eta"}
    assert "eta" not in algorithm.options
    fixed = made(own, "own(rate = 1e-3, eta = 0.5)")
    assert fixed.options["eta"] == 0.5


def test_periods_carry_their_unit() -> None:
    assert codes("", "m3(rate = 1e-3, period = 4)") == ["NL0549"]
    assert "NL0204" in codes("", "m3(rate = 1e-3, period = 4 tokens)")
    assert made("", "m3(rate = 1e-3, period = 4)") == made("", "m3(rate = 1e-3, period = 4 steps)")


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("adamw", "NL0201"),
        ("adamw(beta1 = 0.9)", "NL0201"),
        ("adamw(rate = -1)", "NL0502"),
        ("adamw(rate = 1e-3, beta3 = 0.9)", "NL0202"),
        ("adamw(rate = 1e-3, rate = 1e-3)", "NL0202"),
        ("adamw(1e-3, 0.9, 0.99, 1e-8, 0.0, 5)", "NL0202"),
        ("adamv(rate = 1e-3)", "NL0501"),
        ("M(rate = 1e-3)", "NL0501"),
        ("m3(rate = 1e-3, accumulate = some)", "NL0203"),
        ("muon(rate = 1e-3, rounds = 0)", "NL0205"),
        ("muon(rate = 1e-3, rounds = 2.5)", "NL0205"),
        ("muon(rate = 1e-3, beta = high)", "NL0204"),
        ("m3(rate = 1e-3, period = 0 steps)", "NL0305"),
        ("deep_momentum(rate = 1e-3, hidden = 0)", "NL0205"),
        ("adamw(rate = 1e-3, beta1 = 1)", "NL0550"),
        ("adamw(rate = 1e-3, beta1 = -0.5)", "NL0550"),
        ("momentum(rate = 1e-3, beta = 1.5)", "NL0550"),
        ("adamw(rate = 1, decay = 3)", "NL0553"),
        ("gd(rate = 30, decay = 0.1)", "NL0553"),
        ("delta_momentum(rate = 1e-3, eta = 5, form = explicit)", "NL0551"),
    ],
)
def test_calls_that_are_refused(rule: str, code: str) -> None:
    assert code in codes("", rule), messages("", rule)


def test_the_nearest_rule_is_named() -> None:
    assert "maybe `nesterov`" in messages("", "nesterof(rate = 1e-3)")
    own = "optimizer ownrule(rate) { weight = weight - rate * grad }"
    assert "maybe `ownrule`" in messages(own, "ownrul(rate = 1e-3)")


# --------------------------------------------------------------------------- what a declaration says


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("weight = weight - rate * gradd", "NL0540"),
        ("weight = weight - rate * m(grad)", "NL0540"),
        ("weight = weight - rate * grad(weight)", "NL0541"),
        ("weight = weight - rate * [grad]", "NL0541"),
        ('weight = "grad"', "NL0541"),
        ("weight = every 4 steps", "NL0541"),
        ("weight = rate", "NL0542"),
        ("weight = input", "NL0542"),
        ("weight = weight - rate * input", "NL0542"),
        ("weight = weight - rate * times(grad, grad)", "NL0542"),
        ("weight = weight - rate * times(grad, transposed(grad))", "NL0542"),
        ("weight = weight - solve(grad, grad)", "NL0542"),
        ("weight = weight - grad ^ weight", "NL0542"),
        ("weight = weight - orthogonal(rate)", "NL0542"),
        ("weight = weight - orthogonal(grad, 1, 2)", "NL0542"),
        ("weight = weight - sqrt(grad, grad)", "NL0542"),
        ("weight = weight - identity(step)", "NL0542"),
        ("weight = weight - jacobian(grad)", "NL0542"),
        ("weight = weight - gram(grad)", "NL0542"),
        ("weight = weight - mean(rate) * grad", "NL0542"),
        ("weight = weight - orthogonal(grad, step)", "NL0205"),
        ("unknown = grad", "NL0545"),
        ("grad = 1\n  weight = weight - rate * grad", "NL0544"),
        ("rate = 1\n  weight = weight - rate * grad", "NL0544"),
        ("memory rate { value = grad }\n  weight = weight - rate * grad", "NL0544"),
        ("memory weight { value = grad }\n  weight = weight", "NL0544"),
        ("a = b\n  b = a\n  weight = weight - a * grad", "NL0546"),
        ("a = a\n  weight = weight - a * grad", "NL0546"),
        ("a = grad\n  weight = weight - rate * grad", "NL0215"),
        ("memory a { value = grad - a, rate = 0.5 }\n  weight = weight - a", "NL0546"),
        ("memory a { value = grad }\n  weight = weight - rate * grad", "NL0547"),
        ("memory a { rate = 0.5 }\n  weight = weight - a", "NL0206"),
        ("memory a { value = rate }\n  weight = weight - a", "NL0542"),
        ("memory a { value = grad, rate = grad }\n  weight = weight - a", "NL0542"),
        ("memory a { value = grad, valu = 3 }\n  weight = weight - a", "NL0214"),
        ("memory a { value = grad, map = cache(3) }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, map = swiglu(3) }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, map = matrix }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, map = mlp(3) }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, objective = huber(1) }\n  weight = weight - a", "NL0203"),
        ("memory a { value = grad, rule = muon }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, rule = gd(implicit) }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, update = every 3 tokens }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, update = every 3 }\n  weight = weight - a", "NL0304"),
        ("memory a { value = grad, update = every 3 steps offset 1 }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, update = never }\n  weight = weight - a", "NL0543"),
        ("memory a { value = grad, update = every 3 steps, read = after }\n  weight = weight - a", "NL0543"),
        ("memory a(dim) { value = grad }\n  weight = weight - a", "NL0543"),
        ("memory a { map = matrix, key = grad, value = grad, update = every 2 steps }\nweight = a", "NL0543"),
        ("memory a { map = matrix, key = input, value = grad }\n  weight = weight - a", "NL0542"),
        ("memory a { map = mlp(8), key = grad, value = grad }\n  weight = weight - a", "NL0542"),
        ("memory a { map = mlp(8), key = input, value = error, start = identity }\nweight = a", "NL0543"),
        ("weight = weight - grad\n  otherwise adamw(rate)", "NL0548"),
        ("weight = weight - orthogonal(grad)\n  otherwise own(rate)", "NL0546"),
        ("weight = weight - orthogonal(grad)\n  otherwise nobody(rate)", "NL0501"),
        ("weight = weight - orthogonal(grad)\n  otherwise adamw", "NL0201"),
        ("weight = weight - orthogonal(grad)", "NL0552"),
        ("weight = weight * (1 - rate)", "NL0554"),
        ("weight = weight * 3 - rate * grad", "NL0553"),
    ],
)  # fmt: skip
def test_declarations_that_are_refused(body: str, code: str) -> None:
    own = f"optimizer own(rate) {{\n  {body}\n}}"
    assert code in codes(own), messages(own)


def test_rules_nobody_calls_are_looked_at() -> None:
    other = "optimizer other(rate, beta) { weight = weight - rate * gradd * beta }"
    assert codes(other, "gd(rate = 1e-3)") == ["NL0540"]


def test_a_circle_is_drawn() -> None:
    own = "optimizer own(rate) {\n a = b\n b = c\n c = a\n weight = weight - a * grad }"
    found = next(d for d in analysed(own).findings if d.code == "NL0546")
    assert found.notes == ("a -> b -> c -> a",)


def test_memories_may_read_each_other_before_their_writes() -> None:
    own = """optimizer own(rate) {
      memory last { value = grad, rate = 1, read = before }
      memory change { value = grad - last, rate = 0.1 }
      weight = weight - rate * change
    }"""
    assert codes(own) == []
    assert made(own).order == ("change", "last", "weight")


def test_two_memories_that_each_need_the_other_as_it_was_have_no_order() -> None:
    own = """optimizer own(rate) {
      memory one { value = grad - other, rate = 0.1, read = before }
      memory other { value = grad - one, rate = 0.1, read = before }
      weight = weight - rate * (one + other)
    }"""
    assert "NL0546" in codes(own)


def test_what_reads_the_weights_stands_before_they_change() -> None:
    own = """optimizer own(rate) {
      memory mean_weight { value = weight, rate = 0.1, read = before }
      weight = weight - rate * (grad + weight - mean_weight)
    }"""
    # `weight` reads the memory as it was, the memory reads the weights as they were
    assert "NL0546" in codes(own)
    after = own.replace(", read = before", "")
    assert made(after).order == ("mean_weight", "weight")


# --------------------------------------------------------------------------- what need not be kept


def test_a_memory_that_keeps_nothing_is_its_value() -> None:
    still, moving = made("", "rmsprop(rate = 1e-3)"), made("", "rmsprop(rate = 1e-3, momentum = 0.5)")
    assert [m.name for m in still.memories] == ["second"]
    assert [m.name for m in moving.memories] == ["second", "velocity"]
    assert dict(still.locals)["velocity"] == moving.memory("velocity").value
    assert [m.name for m in made("", "adam(rate = 1e-3, beta1 = 0)").memories] == ["second"]


@pytest.mark.parametrize(
    "fields", ["rate = 0.5, retain = 0", "rate = 1", "rate = 1, retain = 1", "rate = 0.5"]
)
@pytest.mark.parametrize("objective", ["l2", "dot"])
def test_folding_changes_no_value(objective: str, fields: str) -> None:
    """The same sequence of numbers, by the equations at the head of `algorithm.py`."""
    memory = f"memory m {{ value = grad, objective = {objective}, {fields} }}"
    algorithm = made(f"optimizer own(rate) {{\n{memory}\nweight = weight - m }}")
    words = dict(part.split(" = ") for part in fields.split(", "))
    rate, retain = float(words["rate"]), float(words.get("retain", 1))
    held = 0.0
    for grad in (3.0, -2.0, 0.5):
        kept = retain * held
        held = kept + rate * (grad - kept if objective == "l2" else grad)
        if not algorithm.memories:
            (_, value), *_ = algorithm.locals
            shown = constant_at(value, grad)
            assert math.isclose(shown, held)
    assert bool(algorithm.memories) == (not (retain == 0 or (rate == 1 and objective == "l2")))


def constant_at(formula: object, grad: float) -> float:
    from nldsl.resolve.algorithm import Figure, Formula, Signal
    from nldsl.resolve.formulas import replaced

    assert isinstance(formula, Formula)
    number = replaced(formula, lambda n: Figure("number", grad) if isinstance(n, Signal) else None)
    found = constant(number, {})
    assert found is not None
    return found


def test_unchosen_memories_are_left_out_without_a_word() -> None:
    own = """optimizer own(rate, kind = plain) {
      memory m { value = grad, rate = 0.1 }
      weight = weight - rate * kind(plain = grad, averaged = m)
    }"""
    assert codes(own) == []
    assert made(own).memories == ()
    assert [m.name for m in made(own, "own(rate = 1e-3, kind = averaged)").memories] == ["m"]


# --------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("change", "memory", "rate"),
    [
        ("set own.m.rate = 0.5", "m", "0.5"),
        ("set own.beta = 0.8", "m", "1 - beta"),
        ("set all.rule.beta = 0.8", "m", "1 - beta"),
    ],
)
def test_variants_reach_into_rules(change: str, memory: str, rate: str) -> None:
    own = f"""optimizer own(rate, beta = 0.9) {{
      memory m {{ value = grad, rate = 1 - beta }}
      weight = weight - rate * m
    }}
    variant V of T {{ {change} }}"""
    algorithm = made(own, variant="V")
    assert text(algorithm.memory(memory).rate) == rate
    assert algorithm.options["beta"] == (0.9 if "m.rate" in change else 0.8)


def test_variants_change_rules_of_the_library() -> None:
    changed = made("variant V of T { set adamw.beta1 = 0.5 }", "adamw(rate = 1e-3)", variant="V")
    assert changed.options["beta1"] == 0.5
    assert made("", "adamw(rate = 1e-3)").options["beta1"] == 0.9


def test_paths_that_lead_nowhere_name_what_is_near() -> None:
    own = "variant V of T { set adamw.frst.rate = 0.5 }"
    found = analysed(own, "adamw(rate = 1e-3)", "V").findings
    assert [(d.code, d.help) for d in found] == [("NL0601", "maybe `adamw.first`")]


# --------------------------------------------------------------------------- any input

WORDS = st.sampled_from(
    [
        *SIGNALS, *FUNCTIONS, "rate", "beta", "m", "n", "a", "0", "1", "0.5", "1e308", "2%", "4 steps",
        "3 tokens", "every", "never", "l2", "dot", "vector", "matrix", "mlp(4)", "mlp(residual)",
    ]
)  # fmt: skip
EXPRESSIONS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/^"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(WORDS, st.lists(inner, max_size=3)).map(
            lambda p: f"{p[0].split('(')[0]}({', '.join(p[1])})"
        ),
        inner.map(lambda one: f"-{one}"),
        inner.map(lambda one: f"{one} |> silu"),
    ),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "map",
            "key",
            "value",
            "objective",
            "rule",
            "rate",
            "retain",
            "anchor",
            "update",
            "reduce",
            "read",
            "start",
        ]
    ),
    EXPRESSIONS,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(
    FIELDS, FIELDS, EXPRESSIONS, EXPRESSIONS, st.sampled_from(["", "adamw(rate)", "own(rate)", "m", "gd(m)"])
)
def test_no_declaration_is_too_strange(
    first: dict[str, str], second: dict[str, str], local: str, weight: str, otherwise: str
) -> None:
    lines = [
        f"memory {name} {{ {', '.join(f'{k} = {v}' for k, v in fields.items())} }}"
        for name, fields in (("m", {"value": "grad"} | first), ("n", second))
        if fields
    ]
    lines += [f"a = {local}", f"weight = weight - rate * {weight}"]
    lines += [f"otherwise {otherwise}"] if otherwise else []
    body = "\n  ".join(lines)
    analysis = analysed(f"optimizer own(rate, beta = 0.9) {{\n  {body}\n}}")
    assert analysis.findings or analysis.resolution.expanded is not None


# --------------------------------------------------------------------------- the other surface


@pytest.mark.parametrize("name", library().rules)
def test_a_rule_in_yaml_means_the_same(name: str) -> None:
    body, _ = parse_nl(library().read(name))
    declared = to_yaml(body)
    run, _ = parse_nl(Source("r.nl", RUN.replace("RULE", f"{name}(rate = 1e-3)")))
    analysis = analyse(linked(Source("m.yaml", f"{declared}\n{to_yaml(run)}"), None))
    expanded = analysis.resolution.expanded
    assert expanded is not None, [(d.code, d.message) for d in analysis.findings]
    assert expanded.training is not None
    assert expanded.training.levels[0].rule.algorithm == made("", f"{name}(rate = 1e-3)")
