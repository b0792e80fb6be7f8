"""Budgets: widths, or steps, at which a variant costs what its base does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.ablate.match import Held, finding, hold
from nldsl.ablate.rows import Keep
from nldsl.ablate.widths import amount_of
from nldsl.api.reading import linked
from nldsl.api.spec import Spec, load, of_module
from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.amend import amendment

ROOT = Path(__file__).resolve().parents[2]


def without(*paths: str) -> list[doc.Amendment]:
    return [amendment("remove", path, None, None) for path in paths]


def put(path: str, value: int) -> doc.Amendment:
    return amendment("set", path, e.Number(value), None)


def shipped(spec: str, variant: str = "Tiny") -> Spec:
    return load(ROOT / "specs" / f"{spec}.nl", variant=variant)


def made(spec: Spec, own: list[doc.Amendment], held: Held) -> Spec:
    """The variant with what holds its budget; raises where it has errors."""
    return of_module(spec.module, variant=spec.variant, settings=(*own, *held.amendments))


HELD = [
    ("hope", ["HopeBlock.store"], "parameters", 0.02),
    ("hope", ["HopeBlock.store"], "parameters", 0.005),
    ("hope", ["HopeBlock.store"], "flops", 0.005),
    ("hope", ["SelfModifying.retain"], "parameters", 0.001),
    ("hope", ["Continuum.fast"], "flops", 0.02),
    ("transformer", ["TransformerBlock.ffn"], "parameters", 0.005),
    ("transformer", ["TransformerBlock.mixer"], "flops", 0.01),
    ("samba", ["SambaBlock.memory"], "parameters", 0.01),
]


@pytest.mark.parametrize(("spec", "parts", "what", "within"), HELD)
def test_a_variant_then_costs_what_its_base_does(
    spec: str, parts: list[str], what: str, within: float
) -> None:
    base, own = shipped(spec), without(*parts)
    keep = Keep(what, within)  # type: ignore[arg-type]
    held = hold(base.module, "Tiny", (), own, keep)
    assert held.problem is None
    assert held.amendments
    goal = amount_of(base.levels(), keep.what)
    before = amount_of(of_module(base.module, variant="Tiny", settings=tuple(own)).levels(), keep.what)
    after = amount_of(made(base, own, held).levels(), keep.what)
    assert after == held.amount
    assert abs(before - goal) > within * goal
    assert abs(after - goal) <= within * goal
    assert f"holds {what}" in held.words
    assert all(str(a.path) in held.words for a in held.amendments)
    assert held == hold(base.module, "Tiny", (), own, keep)


@pytest.mark.parametrize(("spec", "parts", "what", "within"), [HELD[1], HELD[5], HELD[7]])
def test_the_model_that_is_built_has_as_many_parameters(
    spec: str, parts: list[str], what: str, within: float, tmp_path: Path
) -> None:
    base, own = shipped(spec), without(*parts)
    held = hold(base.module, "Tiny", (), own, Keep(what, within))  # type: ignore[arg-type]
    sizes = [
        sum(p.numel() for p in one.compile(tmp_path / name).model().parameters())
        for name, one in (("base", base), ("variant", made(base, own, held)))
    ]
    assert sizes[0] == base.levels().parameters
    assert abs(sizes[1] - sizes[0]) <= within * sizes[0]


def test_the_widths_that_touch_least_are_taken() -> None:
    base = shipped("hope")
    held = hold(base.module, "Tiny", (), without("HopeBlock.mixer"), Keep("parameters", 0.005))
    assert [a.path for a in held.amendments] == ["HopeBlock.store.Continuum.hidden"]
    assert held.words == "HopeBlock.store.Continuum.hidden 128 -> 180 holds parameters: +0.2%"


def test_a_second_width_takes_up_what_heads_leave() -> None:
    base, own = shipped("hope"), without("HopeBlock.store")
    wide, narrow = (hold(base.module, "Tiny", (), own, Keep("parameters", p)) for p in (0.02, 0.005))
    assert [a.path for a in wide.amendments] == ["model.dim"]
    assert [a.path for a in narrow.amendments] == ["SelfModifying.hidden", "model.dim"]


def test_a_variant_that_has_the_budget_is_left_alone() -> None:
    base = shipped("hope")
    held = hold(base.module, "Tiny", (), [put("steps", 100)], Keep("parameters", 0.0))
    assert held == Held(amount=base.levels().parameters)


def test_what_is_set_for_all_changes_the_budget() -> None:
    base, own = shipped("hope"), without("SelfModifying.retain")
    shared = [put("model.dim", 32)]
    held = hold(base.module, "Tiny", shared, own, Keep("parameters", 0.01))
    small = of_module(base.module, variant="Tiny", settings=tuple(shared)).levels().parameters
    whole = of_module(base.module, variant="Tiny", settings=(*shared, *own, *held.amendments))
    assert held.amendments
    assert abs(whole.levels().parameters - small) <= 0.01 * small


# --------------------------------------------------------------------------- the author's own widths


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("HopeBlock.store", "model.dim"),
        ("HopeBlock.store", "SelfModifying.hidden"),
        ("HopeBlock.store", "model.depth"),  # no width, but the author's own choice
        ("HopeBlock.mixer", "Continuum.slow.map.hidden"),  # follows another, unless it is asked for
    ],
)
def test_the_author_says_which_widths(part: str, path: str) -> None:
    base, own = shipped("hope"), without(part)
    held = hold(base.module, "Tiny", (), own, Keep("parameters", 0.02, (path,)))
    assert [a.path for a in held.amendments] == [path]
    goal = base.levels().parameters
    assert abs(made(base, own, held).levels().parameters - goal) <= 0.02 * goal


def test_what_the_variant_does_not_have_is_left_out_of_the_authors_widths() -> None:
    base, own = shipped("hope"), without("HopeBlock.store")
    gone, there = "HopeBlock.store.Continuum.hidden", "SelfModifying.hidden"
    held = hold(base.module, "Tiny", (), own, Keep("parameters", 0.05, (gone, there)))
    assert [a.path for a in held.amendments] == [there]
    alone = hold(base.module, "Tiny", (), own, Keep("parameters", 0.05, (gone,)))
    assert alone.why is not None
    assert alone.why.endswith(f"the variant has no whole number `{gone}`")
    neither = hold(base.module, "Tiny", (), own, Keep("parameters", 0.05, (gone, "steps.many")))
    assert neither.why == alone.why


def test_the_variants_own_value_is_not_taken_back() -> None:
    base, own = shipped("hope"), [put("model.dim", 32)]
    held = hold(base.module, "Tiny", (), own, Keep("parameters", 0.02))
    assert held.amendments
    assert "model.dim" not in {a.path for a in held.amendments}
    asked = hold(base.module, "Tiny", (), own, Keep("parameters", 0.02, ("model.dim",)))
    assert asked.why is not None
    assert asked.why.endswith("and the variant itself sets `model.dim`")


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("steps", "the variant has no whole number `steps`"),
        ("SelfModifying.nothing", "the variant has no whole number `SelfModifying.nothing`"),
        ("SelfModifying.key.conv", "the variant has no whole number `SelfModifying.key.conv`"),
        ("Continuum.hidden", "`Continuum.hidden` does not change that"),
    ],
)
def test_a_path_that_is_no_width_is_a_problem(by: str, said: str) -> None:
    base = shipped("hope")
    held = hold(base.module, "Tiny", (), without("SelfModifying.retain"), Keep("parameters", 0.001, (by,)))
    assert held.amendments == ()
    assert held.why is not None
    assert held.why.endswith(f", and {said}")
    assert held.problem == f"{held.why}; {held.help}"


def test_weights_of_a_file_keep_their_widths() -> None:
    base = load(ROOT / "specs" / "pretrained" / "smollm2.nl")
    for by in ((), ("model.dim",)):
        held = hold(base.module, None, (), without("Attention.out"), Keep("parameters", 0.001, by))
        assert held.amendments == ()
        assert held.why is not None
        assert held.why.endswith("its weights are read from a file, with the widths that they have there")


def test_a_budget_that_cannot_be_met_says_what_comes_nearest() -> None:
    base, own = shipped("transformer"), without("TransformerBlock.ffn")
    keep = Keep("flops", 0.02)
    held = hold(base.module, "Tiny", (), own, keep)
    assert held.amendments == ()
    assert held.why == (
        "it has 132,736 FLOPs per token, and its base 231,552 (-42.7%, more than 2%); "
        "`model.dim` 64 -> 88 comes nearest, with 216,304 (-6.6%)"
    )
    assert held.help == "name a finer width with `by`, or allow more, as in `within 7%`"
    goal = amount_of(base.levels(), "flops")
    every = [
        amount_of(made(base, [*own, put("model.dim", dim)], Held()).levels(), "flops")
        for dim in range(8, 200, 8)
    ]
    assert held.amount == min(every, key=lambda a: abs(a - goal))
    found = finding("without TransformerBlock.ffn", held, None, keep)
    assert (found.code, found.severity, found.help) == ("NL0605", "warning", held.help)
    assert hold(base.module, "Tiny", (), own, Keep("flops", 0.07)).problem is None


# --------------------------------------------------------------------------- time


def test_time_is_held_by_steps() -> None:
    base, own = shipped("hope"), without("HopeBlock.store")
    held = hold(base.module, "Tiny", (), own, Keep("time", 0.01), seconds=(0.3, 0.17))
    assert held.words == "steps 200 -> 353 holds time: 0.0%"
    assert held.amount == 0.17 * 353
    training = made(base, own, held).expanded.training
    assert training is not None
    assert training.steps == 353
    assert abs(0.17 * 353 - 60) <= 0.6
    assert hold(base.module, "Tiny", (), own, Keep("time", 0.5), seconds=(0.3, 0.2)).amendments == ()


@pytest.mark.parametrize(
    ("own", "seconds", "said"),
    [
        ([], None, "the seconds of a step are not known"),
        ([("steps", 100)], (0.3, 0.3), "the variant sets `steps` to 100 itself"),
        ([], (0.3, 41.0), "`steps = 1` comes nearest, -31.7%"),
    ],
)
def test_time_that_cannot_be_held(
    own: list[tuple[str, int]], seconds: tuple[float, float] | None, said: str
) -> None:
    base = shipped("hope")
    held = hold(base.module, "Tiny", (), [put(*one) for one in own], Keep("time", 0.05), seconds=seconds)
    assert held.why is not None
    assert held.why.startswith("time cannot be held")
    assert held.why.endswith(said)
    assert held.help


def test_steps_that_give_no_sound_spec_do_not_hold_time() -> None:
    base = load(
        Source(
            "shared.nl",
            """edition 2026
model Small(dim = 8) { tokens |> embed(256, dim) |> linear(dim) |> unembed(tied) }
train Run {
  model = Small
  data  = tasks([era("sotu", 1790, 1889), era("sotu", 1890, 1980)], length = 16, batch = 2)
  steps = 200
  level all { learns = rest, rule = adamw(rate = 1e-3) }
}
""",
        )
    )
    held = hold(base.module, None, (), [put("model.dim", 16)], Keep("time", 0.01), seconds=(0.3, 0.4))
    assert held.amendments  # 150 steps, that two tasks share
    held = hold(base.module, None, (), [put("model.dim", 16)], Keep("time", 0.01), seconds=(0.3, 60 / 151))
    assert held.amendments == ()
    assert held.why is not None
    assert held.why.endswith("`steps = 151` has an error: 151 steps cannot be shared equally among 2 tasks")


# --------------------------------------------------------------------------- against brute force

PARTS = {
    "a": "x = x + (x |> rmsnorm |> Fast(dim))",
    "b": "x = x + (x |> rmsnorm |> mlp({b}))",
    "c": "x = x + (x |> swiglu({c}))",
    "d": "x = x + (x |> linear(dim) |> silu |> linear(dim))",
}

SPEC = """edition 2026
memory Fast(dim, heads = {heads}) {{
  key   = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  rate  = x |> linear(heads) |> sigmoid
  out   = read |> linear
}}
block Layer(dim) {{
{lines}
}}
model Small(dim = {dim}, depth = {depth}, vocab = 256) {{
  tokens |> embed(vocab, dim) |> repeat(depth, Layer(dim)) |> rmsnorm |> unembed(tied)
}}
train Run {{
  model = Small
  data  = text("sotu", tokenizer = bytes, length = 16, batch = 2, split = manifest)
  steps = 4
  level all {{ learns = rest, rule = adamw(rate = 1e-3) }}
}}
"""


class Known:
    """A spec with its parameters as a formula, written down apart from the level graph."""

    def __init__(self, dim: int, depth: int, heads: int, parts: str, b: int, c: int, tied: bool) -> None:
        self.dim, self.depth, self.heads, self.parts = dim, depth, heads, parts
        self.b, self.c, self.tied = b, c, tied
        written = {"b": f"{b} * dim" if tied else str(b), "c": str(c)}
        lines = "\n".join(f"  {part}: {PARTS[part].format(**written)}" for part in parts)
        text = SPEC.format(heads=heads, lines=lines, dim=dim, depth=depth)
        self.module = linked(Source("small.nl", text), None).module

    def size(self, parts: str, dim: Any, hidden: Any = None, gate: Any = None) -> Any:
        """Parameters with these parts and widths, whole numbers or arrays of them."""
        b = hidden if hidden is not None else self.b * (dim if self.tied else 1)
        c = gate if gate is not None else self.c
        each = {
            "a": dim + 4 * dim * dim + dim * self.heads,
            "b": dim + 2 * dim * b,
            "c": 3 * dim * c,
            "d": 2 * dim * dim,
        }
        return 256 * dim + dim + self.depth * sum(each[p] for p in parts)

    def nearest(self, parts: str, goal: int) -> int:
        """The least distance from `goal` that one or two widths reach, by trying all their values: from an
        eighth of each to eight times it.
        """
        dims = self._values(self.dim, self.heads if "a" in parts else 1)[:, None]
        hidden = self._values(self.b * (self.dim if self.tied else 1))
        gate = self._values(self.c)
        sizes = [self.size(parts, dims)]
        if "b" in parts:
            sizes += [self.size(parts, self.dim, hidden), self.size(parts, dims, hidden)]
        if "c" in parts:
            sizes += [self.size(parts, self.dim, None, gate), self.size(parts, dims, None, gate)]
        if "b" in parts and "c" in parts:
            sizes.append(self.size(parts, self.dim, hidden[:, None], gate))
        return min(int(np.abs(np.asarray(size) - goal).min()) for size in sizes)

    @staticmethod
    def _values(width: int, step: int = 1) -> np.ndarray:
        values = np.arange(step, 8 * width + 1, step)
        return values[8 * values >= width]


@st.composite
def knowns(draw: st.DrawFn) -> tuple[Known, str]:
    heads = draw(st.sampled_from([1, 2, 4]))
    parts = "".join(draw(st.permutations("abcd"))[: draw(st.integers(2, 4))])
    one = Known(
        heads * draw(st.integers(2, 4)),
        draw(st.integers(1, 2)),
        heads,
        parts,
        draw(st.integers(1, 9)),
        draw(st.integers(1, 40)),
        draw(st.booleans()),
    )
    return one, draw(st.sampled_from(parts))


@settings(max_examples=25, deadline=None)
@given(knowns(), st.sampled_from([0.1, 0.02, 0.005, 0.0005, 0.0]))
def test_it_is_within_the_bound_or_nothing_is_nearer(made_: tuple[Known, str], within: float) -> None:
    known, gone = made_
    rest = known.parts.replace(gone, "")
    goal = known.size(known.parts, known.dim)
    own = without(f"Layer.{gone}")
    held = hold(known.module, "Run", (), own, Keep("parameters", within))
    spec = of_module(known.module, variant="Run", settings=(*own, *held.amendments))
    if held.why is None:
        assert spec.levels().parameters == held.amount
        assert abs(held.amount - goal) <= within * goal
        values = {a.path: a.value.value for a in held.amendments if isinstance(a.value, e.Number)}
        dim = values.get("model.dim", known.dim)
        hidden, gate = values.get("Layer.b.mlp.hidden"), values.get("Layer.c.swiglu.hidden")
        assert known.size(rest, dim, hidden, gate) == held.amount
    else:
        assert abs(held.amount - goal) > within * goal
        assert abs(held.amount - goal) == known.nearest(rest, goal)


def test_a_model_whose_only_width_heads_divide() -> None:
    known = Known(16, 1, 8, "ad", 1, 1, tied=False)
    held = hold(known.module, "Run", (), without("Layer.d"), Keep("parameters", 0.1))
    assert [a.path for a in held.amendments] == []
    goal = known.size("ad", 16)
    assert held.problem is None or abs(held.amount - goal) == known.nearest("a", goal)
    tight = hold(known.module, "Run", (), without("Layer.a"), Keep("parameters", 0.001))
    assert abs(tight.amount - goal) == known.nearest("d", goal)
