"""What `ablate` blocks ask for, read as plain values."""

from __future__ import annotations

import time

import pytest

from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.document import model as doc
from nldsl.resolve.ablations import COUNTED, Asked, Keep, asked, count
from nldsl.resolve.findings import Findings
from nldsl.syntax import read

REST = """
train Run { model = Small }
train Other { model = Small }
variant Nested of Run { set steps = 1, remove clip }
variant Deeper of Nested { set seed = 3 }
variant Away of Other { set steps = 2 }
variant Ring of Ring { set steps = 2 }
"""


def document_of(lines: str) -> doc.Document:
    document, findings = read(Source("a.nl", f"edition 2026\nablate Study of Run {{\n{lines}\n}}\n{REST}"))
    assert findings == []
    return document


def ask(lines: str) -> tuple[Asked, list[Diagnostic]]:
    document, findings = document_of(lines), Findings()
    block = document.find("Study")
    assert isinstance(block, doc.Ablate)
    return asked(block, document, findings), findings.items


def plain(lines: str) -> Asked:
    wanted, findings = ask(lines)
    assert findings == []
    return wanted


def words(lines: str) -> list[str]:
    return [one.words for one in plain(lines).variants]


def codes(lines: str) -> list[str]:
    return [d.code for d in ask(lines)[1]]


def test_every_axis_in_the_order_written() -> None:
    lines = """
      vary C.order = [[slow, fast], [fast, slow]]
      without = [A.b, [C.d, E.f]]
      replace B.c = [mlp(4 * dim), x |> f |> g]
      zip [a, b] = [[1, 2], [every 3 steps, never]]
      grid [a, b] = [[1, 2], [3]]
      variants = [Deeper, Nested]
    """
    assert words(lines) == [
        "C.order = [slow, fast]", "C.order = [fast, slow]",
        "without A.b", "without C.d, E.f",
        "replace B.c by mlp(4 * dim)", "replace B.c by x |> f |> g",
        "a = 1, b = every 3 steps", "a = 2, b = never",
        "a = 1, b = 3", "a = 2, b = 3",
        "Deeper", "Nested",
    ]  # fmt: skip


def test_amendments_of_removals_and_declared_variants() -> None:
    together, deeper = plain("without = [[C.d, E.f]], variants = [Deeper]").variants
    assert [(a.action, a.path) for a in together.amendments] == [("remove", "C.d"), ("remove", "E.f")]
    assert [s.text for s in together.spans] == ["C.d", "E.f"]
    assert [(a.action, a.path) for a in deeper.amendments] == [
        ("set", "steps"), ("remove", "clip"), ("set", "seed"),
    ]  # fmt: skip
    assert [s.text for s in deeper.spans] == ["Deeper"]
    assert together.question == deeper.question == ""


@pytest.mark.parametrize("name", ["Away", "Run", "Ring", "Nowhere"])
def test_only_variants_of_the_base_take_part(name: str) -> None:
    wanted, found = ask(f"variants = [{name}, Nested]")
    assert [one.words for one in wanted.variants] == ["Nested"]
    assert [d.code for d in found] == ["NL0611"]
    assert found[0].span is not None and found[0].span.text == name


def test_a_misspelled_variant_is_told_what_is_near() -> None:
    assert [d.help for d in ask("variants = [Nestd]")[1]] == ["maybe `Nested`"]


def test_fields_and_what_holds_without_them() -> None:
    bare = plain("without = [a]")
    assert (bare.seeds, bare.measures, bare.keep, bare.baseline) == ((0,), ("loss",), None, "base")
    full = plain(
        "without = [A.b], seeds = [3, 0], measure = [perplexity, loss]\n"
        'baseline = "without  A.b", keep flops within 2.5% by [model.dim, A.hidden]'
    )
    assert (full.seeds, full.measures, full.baseline) == ((3, 0), ("perplexity", "loss"), "without A.b")
    assert full.keep is not None and full.keep.span is not None
    assert full.keep.span.text == "flops within 2.5% by [model.dim, A.hidden]"
    assert (full.keep.what, full.keep.within, full.keep.by) == ("flops", 0.025, ("model.dim", "A.hidden"))
    assert plain("seeds = 5").seeds == (0, 1, 2, 3, 4)
    assert plain("variants = [Nested], baseline = Nested").baseline == "Nested"
    time = plain("keep time within 0%").keep
    assert time == Keep("time", 0.0, (), time.span if time else None)
    assert getattr(plain("keep parameters within 5% by model.dim").keep, "by", None) == ("model.dim",)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        *((f"seeds = {v}", ["NL0205"]) for v in ("0", "-1", "2.5", "many", "[]", "1001")),
        *((f"seeds = [{v}]", ["NL0205"]) for v in ("0, 0", "x", "-1", "[1]")),
        (f"seeds = [{2**63}]", ["NL0205"]),
        (f"seeds = {10**30}", ["NL0205"]),
        *((f"measure = {v}", ["NL0203"]) for v in ("[]", "lss", "loss(2)", '"loss"')),
        *((f"measure = [{v}]", ["NL0203"]) for v in ("loss, loss", "[loss]")),
        *((f"keep {v}", ["NL0608"]) for v in (
            "parameters", "parameters within 2", "parameters within 100%", "parameter within 2%", "2%",
            "parameters within (1 + 1)%", "parameters within 2% by", "parameters within 2% by []",
            "parameters within 2% by [a, a]", "parameters within 2% by 3", "parameters within 2% by a b",
            "parameters within 2% with a", "time within 2% by a", "f(x)", "parameters within -2%",
        )),
        *((f"baseline = {v}", ["NL0612"]) for v in ("Nested", '""', "3", "[base]", '"without A"')),
        ("vary a = []", ["NL0614"]),
        ("without = []", ["NL0614"]),
        ("variants = []", ["NL0614"]),
        ("grid [a, b] = [[1], []]", ["NL0614"]),
        ("zip [a, b] = [[], []]", ["NL0614"]),
        ("zip [a, b] = [[1], [1, 2]]", ["NL0609"]),
        ("seed = 3", ["NL0214"]),
        ("witout = [A.b]", ["NL0214"]),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_a_finding(line: str, found: list[str]) -> None:
    assert codes(line) == found


def test_what_is_near_is_named() -> None:
    lines = ("measure = perplexty", "keep flop within 2%", "witout = [A.b]", "measure = xyz")
    helps = [ask(line)[1][0].help for line in lines]
    assert helps[:3] == ["maybe `perplexity`", "maybe `flops`", "maybe `without`"]
    assert helps[3] is not None and "`loss`" in helps[3]


def test_a_budget_says_which_half_of_it_is_wrong() -> None:
    (bound,) = ask("keep parameters within -2%")[1]
    assert bound.message == "`keep parameters within - 2%` is no budget"
    assert (bound.help or "").startswith("write `keep parameters within 2%`")
    (quantity,) = ask("keep memory within 2%")[1]
    assert quantity.message == "`keep memory within 2%` holds nothing that is known"


def test_a_grid_of_a_million_is_counted_and_not_made() -> None:
    paths = ", ".join(f"a{i}" for i in range(6))
    rows = ", ".join("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]" for _ in range(6))
    before = time.perf_counter()
    wanted, found = ask(f"grid [{paths}] = [{rows}]")
    assert (wanted.variants, [d.code for d in found]) == ((), ["NL0606"])
    assert "1,000,000 variants" in found[0].message
    assert time.perf_counter() - before < 5


def test_a_product_without_end_is_counted_so_far() -> None:
    values = [[None] * 50] * 5000
    axis = doc.Axis.model_construct(action="grid", paths=["a"] * 5000, values=values)
    block = doc.Ablate.model_construct(name="S", base="Run", axes=[axis], fields={}, keep=None)
    assert count(block) == COUNTED
    findings = Findings()
    assert asked(block, doc.Document(), findings).variants == ()
    assert findings.items[0].message == f"`S` makes more than {COUNTED:,} variants"
    empty = doc.Axis.model_construct(action="grid", paths=["a"] * 5001, values=[*values, []])
    assert count(block.model_copy(update={"axes": [empty]})) == 0


def test_a_long_zip_is_not_made_either() -> None:
    many = "[" + ", ".join(str(n) for n in range(1001)) + "]"
    assert codes(f"zip [a, b] = [{many}, {many}]") == ["NL0606"]
    assert codes(f"vary a = {many}") == ["NL0606"]
    assert codes("without = [" + ", ".join(f"[a.b{n}, c]" for n in range(1001)) + "]") == ["NL0606"]
