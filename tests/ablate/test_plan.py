"""Plans: which rows a block makes, what they cost and change, and what a plan leaves out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nldsl.ablate.changes import in_words
from nldsl.ablate.making import digest_of
from nldsl.ablate.propose import propose
from nldsl.ablate.table import as_json, as_text
from nldsl.api.expand import lines
from nldsl.api.studies import study
from nldsl.diagnostics.model import Source, SpecError
from nldsl.document.printer import print_expr
from nldsl.resolve import resolve

from .plans import SMALL, plan_of, spec_of

EXAMPLE = Path(__file__).resolve().parents[1] / "specs" / "language_example.nl"


def with_line(line: str) -> str:
    return SMALL.replace("  seeds = 2\n", f"  seeds = 2\n  {line}\n")


def test_a_plan_says_what_each_variant_costs() -> None:
    made = plan_of(EXAMPLE.read_text(encoding="utf-8").replace("keep      parameters within 2%", ""))
    assert (made.name, made.base, made.seeds) == ("HopeAblation", "HopeOnText", (0, 1, 2, 3, 4))
    assert made.rows[0].parameters == 9_263_376
    assert made.rows[0].merged == ("SelfModifying.rule = dgd",)
    text = as_text(made)
    assert "without HopeBlock.store" in text
    assert "-67.9%" in text
    assert text.startswith("HopeAblation of HopeOnText: the base and 8 variants, 5 seeds each: 45 trials\n")


def test_rows_are_the_base_then_each_spec_once_then_what_cannot_be_run() -> None:
    made = plan_of(with_line("without = [Small_block.storr, Small_block.mixer]\n  vary steps = [4, 8, 8.0]"))
    assert [row.words for row in made.rows] == [
        "Run",
        "without Small_block.store",
        "without Small_block.mixer.rmsnorm",
        "all.rule = adamw(rate = 1e-2)",
        "all.rule = muon(rate = 1e-2)",
        "without Small_block.mixer",
        "steps = 8",
        "without Small_block.storr",
    ]
    assert made.rows[0].merged == ("all.rule = adamw(rate = 1e-3)", "steps = 4")
    assert [row.name for row in made.rows if row.problem] == ["without-Small_block.storr"]
    assert made.row("steps=8").steps == 8
    assert len({row.digest for row in made.runnable}) == len(made.runnable)
    assert made.trials == 2 * len(made.runnable)


def test_what_cannot_be_made_is_a_finding_with_its_place() -> None:
    made = plan_of(with_line("without = [data.lenght]"))
    [broken] = [row for row in made.rows if row.problem is not None]
    assert broken.problem == "the path `data.lenght` matches nothing; maybe `data.length`"
    [finding] = made.findings
    assert (finding.code, finding.span and finding.span.text) == ("NL0601", "data.lenght")


def test_everything_that_cannot_be_made_is_told_and_no_budget_is_sought_for_it() -> None:
    made = plan_of(with_line("without = [data.lenght, Small_block.storr]\n  keep parameters within 50%"))
    assert [row.name for row in made.rows if row.problem] == [
        "without-data.lenght",
        "without-Small_block.storr",
    ]
    assert [found.code for found in made.findings] == ["NL0601", "NL0601"]


def test_a_variant_that_fails_the_checks_is_broken_as_well_and_both_places_are_told() -> None:
    made = plan_of(with_line("vary Small_block.mixer.SoftmaxAttention.heads = [3]"))
    [broken] = [row for row in made.rows if row.problem is not None]
    [finding] = made.findings
    assert finding.code == "NL0607"
    assert broken.words in finding.message
    assert finding.labels[-1].text == "the variant"
    assert broken.problem is not None
    assert broken.problem.startswith(finding.message.partition("is broken: ")[2])
    assert "cannot be run: Small_block.mixer.SoftmaxAttention.heads = 3: " in as_text(made)


@pytest.mark.parametrize(("text", "name"), [(SMALL, "Studdy"), (SMALL.partition("ablate")[0], None)])
def test_a_plan_needs_its_block(text: str, name: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(text, name)
    assert [d.code for d in caught.value.diagnostics] == ["NL0610"]


def test_a_field_that_no_block_has_is_an_error() -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(with_line("witout = [Small_block.mixer]"))
    assert [d.code for d in caught.value.diagnostics] == ["NL0214"]


def test_a_base_that_nothing_declares_is_told_at_its_place() -> None:
    with pytest.raises(SpecError) as caught:
        study(Source("small.nl", SMALL.replace("Study of Run", "Study of Runn")))
    (found,) = caught.value.diagnostics
    assert (found.code, found.help) == ("NL0602", "maybe `Run`")
    assert found.span is not None and found.span.text == "Runn"


def test_what_is_wrong_is_said_with_what_would_be_right() -> None:
    made = plan_of(with_line("vary steps = [0]"))
    assert made.rows[-1].problem == "`steps` is 0; needs a whole number of at least 1"
    made = plan_of(with_line("keep parameters within 0.1% by [model.dimm]"))
    assert (made.rows[-1].problem or "").endswith("no whole number `model.dimm`; maybe `model.dim`")


def test_a_broken_base_is_an_error() -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(SMALL.replace("heads = 2", "heads = 3"))
    assert all(not d.code.startswith("NL06") for d in caught.value.diagnostics)


def test_only_takes_pieces_and_globs_of_names_and_words() -> None:
    words = lambda made: [row.words for row in made.rows[1:]]  # noqa: E731
    assert words(plan_of(only=["STORE"])) == ["without Small_block.store"]
    assert words(plan_of(only=["*muon*", "rmsnorm"])) == [
        "without Small_block.mixer.rmsnorm",
        "all.rule = muon(rate = 1e-2)",
    ]
    assert words(plan_of(only=["all.rule=muon-rate=1e-2*"])) == ["all.rule = muon(rate = 1e-2)"]
    assert [why for _, why in plan_of(only=["STORE"]).left_out] == ["not asked for"] * 4


def test_only_takes_pieces_of_questions() -> None:
    from nldsl.ablate.plan import plan

    made = plan(spec_of(), auto=True, only=["DOES THE MODEL NEED"], families=["controls"])
    asked = [row.question for row in made.rows[1:]]
    assert all(one.startswith("does the model need") for one in asked)
    whole = plan(spec_of(), auto=True, families=["controls"])
    assert 0 < len(asked) < len(whole.rows) - 1


def test_only_that_means_nothing_names_what_is_near() -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(only=["store", "stoer"])
    [finding] = caught.value.diagnostics
    assert (finding.code, finding.message) == ("NL0650", "no variant is called `stoer`")
    assert finding.help is not None
    assert "`store`" in finding.help


@pytest.mark.parametrize(("values", "more"), [(1, ""), (2, " and 1 more")])
def test_only_that_is_near_to_nothing_lists_variants(values: int, more: str) -> None:
    line = f"vary data.length = {list(range(17, 17 + values))}"
    with pytest.raises(SpecError) as caught:
        plan_of(with_line(line), only=["xyzxyzxyz"])
    [finding] = caught.value.diagnostics
    assert finding.help is not None
    assert finding.help.startswith("the variants are `without Small_block.store`, ")
    assert finding.help.endswith(f"`data.length = 17`{more}")


def test_most_takes_the_first_ones_and_says_what_is_left_out() -> None:
    made = plan_of(most=2)
    assert [row.words for row in made.rows[1:]] == [
        "without Small_block.store",
        "without Small_block.mixer.rmsnorm",
    ]
    assert len(made.left_out) == 3
    assert "left out, more than 2: 3 variants (all.rule = adamw(rate = 1e-3), " in as_text(made)


def test_the_baseline_is_never_left_out() -> None:
    text = with_line('baseline = "all.rule = muon(rate = 1e-2)"')
    for made in (plan_of(text, only=["store"]), plan_of(text, most=2)):
        assert made.baseline == "all.rule=muon-rate=1e-2-" + made.baseline[-6:]
        assert made.row(made.baseline).problem is None
        assert len(made.rows) == 3
        assert "compared with: all.rule = muon(rate = 1e-2)" in as_text(made)
        assert json.loads(as_json(made))["baseline"] == made.baseline


def test_the_baseline_alone_is_left_of_no_variants() -> None:
    made = plan_of(with_line('baseline = "all.rule = muon(rate = 1e-2)"'), most=0)
    assert [row.words for row in made.rows] == ["Run", "all.rule = muon(rate = 1e-2)"]


def test_a_baseline_that_is_the_same_spec_as_another_is_that_one() -> None:
    assert plan_of(with_line('baseline = "all.rule = adamw(rate = 1e-3)"')).baseline == "base"


def test_proposals_are_compared_with_the_base_whatever_the_block_compares_with() -> None:
    line = 'baseline = "without Small_block.store"'
    written, proposed = (
        plan_of(with_line(line), "Study", auto=auto, only=["store"]) for auto in (False, True)
    )
    assert written.baseline == "without-Small_block.store"
    assert "without Small_block.store" in [row.words for row in proposed.rows]
    assert proposed.baseline == "base"


def test_what_is_proposed_in_vain_is_left_out_with_its_reason() -> None:
    text = SMALL.replace("SoftmaxAttention(dim, heads = 2)", "DeltaNet(dim)")
    text = text.replace("[SoftmaxAttention]", "[DeltaNet]")
    made = plan_of(text, auto=True, only=["without Small_block.store"])
    wanted = [(one.proposal.words, one.reason) for one in propose(spec_of(text)).left_out]
    assert wanted
    assert made.left_out[: len(wanted)] == tuple(wanted)
    assert {why for _, why in made.left_out[len(wanted) :]} == {"not asked for"}


def test_names_and_digests_do_not_depend_on_other_variants() -> None:
    whole, part = plan_of(), plan_of(only=["store"])
    assert whole.rows[1] == part.rows[1]
    assert whole.row("base").digest == digest_of(lines(resolve(spec_of().module)))


def test_settings_change_every_row() -> None:
    from nldsl.ablate.plan import plan

    made = plan(spec_of(set={"steps": 6}))
    assert {row.steps for row in made.rows} == {6}
    assert made.spec_of(made.rows[1]).expanded.training.steps == 6  # type: ignore[union-attr]


def test_proposals_are_those_of_the_spec_as_it_is_set() -> None:
    from nldsl.ablate.plan import plan

    spec = spec_of(set={"all.rule": "muon(rate = 1e-2)"})
    told = [[row.words for row in plan(one, auto=True).rows[1:]] for one in (spec, spec_of())]
    assert set(told[0]) == {one.words for one in propose(spec)}
    assert set(told[0]) != set(told[1])


def test_a_variant_sets_what_the_settings_set_too() -> None:
    from nldsl.ablate.plan import plan

    made = plan(spec_of(with_line("vary steps = [8]"), set={"steps": 6}))
    assert [row.steps for row in made.rows if row.words in ("Run", "steps = 8")] == [6, 8]
    assert made.spec_of(made.row("steps=8")).expanded.training.steps == 8  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"seeds": 1001}, {"most": -1}])
def test_numbers_that_count_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is {next(iter(wrong.values()))};"):
        plan_of(SMALL, **wrong)


@pytest.mark.parametrize("wrong", [{"on": "mars"}, {"jobs": 0}])
def test_a_place_that_is_none_and_no_trials_at_once_are_refused(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    made = plan_of(only=["store"])
    with pytest.raises(ValueError, match=r"cannot be run on `mars`|`jobs` is 0"):
        made.run(tmp_path / "study", **wrong)
    assert not list(tmp_path.rglob("result.json"))


def test_a_plan_is_short_in_a_shell_and_a_table_in_a_notebook() -> None:
    made = plan_of(only=["store"])
    assert repr(made) == "<Plan Study of Run: 1 variant, 4 trials>"
    assert made._repr_html_().startswith("<pre>Study of Run: the base and 1 variant, 2 seeds each")  # pyright: ignore[reportPrivateUsage]


def test_seeds_can_be_other_ones() -> None:
    assert plan_of().seeds == (0, 1)
    assert plan_of(seeds=3).seeds == (0, 1, 2)


# --------------------------------------------------------------------------- in words

CHANGED = {
    "Small_block.mixer.SoftmaxAttention.heads=4": (
        "Small_block.mixer: `... heads = 2) ...` -> `... heads = 4) ...`"
    ),
    "model.dim=32": "Run.model: `Small` -> `Small(dim = 32)`",
    "steps=2_000": "Run.steps: `4` -> `2_000`",
    "data.batch=8": "Run.data: `... batch = 2, ...` -> `... batch = 8, ...`",
    "Small.depth=3": "Small.depth: `1` -> `3`",
    "all.update=every 2 steps": "Run.all.update is new: `every 2 steps`",
}


@pytest.mark.parametrize(("setting", "told"), CHANGED.items())
def test_a_change_is_told_by_its_path(setting: str, told: str) -> None:
    module = spec_of().module
    changed = spec_of(set=[setting])
    after = lines(resolve(module, extra=list(changed.settings)))
    assert in_words(lines(resolve(module)), after) == (told,)


def test_long_differences_are_counted() -> None:
    before = ["memory M(a = 1, b = 2, c = 3, d = 4) {", "}"]
    after = ["memory M(a = 2, b = 3, c = 4, d = 5) {", "}"]
    assert in_words(before, after, most=3) == ("M.a: `1` -> `2`", "M.b: `2` -> `3`", "and 2 more")
    assert in_words(before, after, most=4)[-1] == "M.d: `4` -> `5`"
    assert in_words(before, before) == ()


def test_what_comes_or_goes_because_another_line_says_so_is_told_once() -> None:
    before = ["model M {", "x |> A", "}", "memory A {", "rate = 1", "}", "optimizer o(rate) {", "}"]
    after = ["model M {", "x |> B", "}", "memory B {", "rate = 1", "}"]
    assert in_words(before, after) == ("M loses `x |> A`", "M gains `x |> B`")
    assert in_words(before, [*before, "memory C {", "}"]) == ("C is new",)
    assert in_words(after, before) == ("M loses `x |> B`", "M gains `x |> A`")
    chain = ["model M {", "x = B.a", "}", "memory B {", "level a {", "}", "}"]
    assert in_words(chain, [*chain[:4], "}"]) == ("B.a is gone",)


def test_a_value_that_is_put_in_place_of_another_is_told_by_what_differs() -> None:
    def told(old: str, new: str) -> str:
        [line] = in_words(["memory M {", old, "}"], ["memory M {", new, "}"])
        return line

    assert told("map = matrix", "map = mlp(12)") == "M.map: `matrix` -> `mlp(12)`"
    assert told("key = x |> a |> a", "key = x |> a") == "M.key loses `a`"
    assert told("out = read(2)", "out = read") == "M.out: `read(2)` -> `read`"


def test_levels_in_another_order_are_told() -> None:
    def chain(*names: str) -> list[str]:
        levels = [line for name in names for line in (f"level {name} {{", "update = every 1 step", "}")]
        return ["memory M(dim) {", "chain sequential {", *levels, "}", "}"]

    assert in_words(chain("fast", "slow"), chain("slow", "fast")) == ("M is in the order slow, fast",)
    assert in_words(chain("fast", "slow"), chain("fast")) == ("M.slow is gone",)


WHOLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("memory B { / level a { / } / } / model M { / }", "model M { / }", ("B is gone",)),
    ("model M { / }", "memory B { / level a { / } / } / model M { / }", ("B is new",)),
    ("model M { / x |> B.a / } / memory B { / level a { / } / }", "model M { / } / memory B { / }",
     ("M loses `x |> B.a`", "B.a is gone")),
    ("block L { / x = x + a / x = x + a / }", "block L { / x = x + a / }", ("L loses `x = x + a`",)),
    ("memory M(a = f(1, 2)) { / }", "memory M(a = f(1, 3)) { / }", ("M.a: `f(1, 2)` -> `f(1, 3)`",)),
    ("memory M { / chain nested { / } / }", "memory M { / chain independent { / } / }",
     ("M.chain: `nested` -> `independent`",)),
    ("model M { / x |> a_long_name |> a_long_name |> a_long_name |> b / }", "model M { / }",
     ("M loses `x |> a_long_name |> a_long_name |> ...`",)),
)  # fmt: skip


@pytest.mark.parametrize(("before", "after", "told"), WHOLE)
def test_what_differs_in_whole_declarations(before: str, after: str, told: tuple[str, ...]) -> None:
    assert in_words(before.split(" / "), after.split(" / ")) == told


# --------------------------------------------------------------------------- tables


def test_a_table_keeps_to_its_width() -> None:
    made = plan_of(with_line("vary data.length = [17, 18, 19, 20]"))
    for width in (76, 80, 100, 160):
        assert max(len(line) for line in as_text(made, width=width).splitlines()) <= width


def test_what_the_base_has_none_of_is_new_in_a_table() -> None:
    made = plan_of()
    base, other = (replace(row, state_bytes=size) for row, size in zip(made.rows[:2], (0, 8), strict=True))
    assert as_text(replace(made, rows=(base, other))).splitlines()[4].split()[-1] == "new"


def test_up_to_six_variants_that_are_left_out_are_listed() -> None:
    told = [[(str(n), "not asked for") for n in range(count)] for count in (6, 7)]
    six, seven = (as_text(replace(plan_of(), left_out=tuple(one))) for one in told)
    assert "left out, not asked for: 6 variants (0, 1, 2, 3, 4, 5)\n" in f"{six}\n"
    assert "left out, not asked for: 7 variants\n" in f"{seven}\n"


def test_json_has_the_whole_plan() -> None:
    made = plan_of(with_line("without = [data.lenght]\n  keep parameters within 50%"))
    whole = json.loads(as_json(made))
    assert (whole["name"], whole["base"], whole["seeds"], whole["trials"]) == ("Study", "Run", [0, 1], 10)
    assert whole["keep"] == {"what": "parameters", "within": 0.5, "by": []}
    assert [row["name"] for row in whole["rows"]] == [row.name for row in made.rows]
    assert whole["rows"][1]["amendments"] == ["remove Small_block.store"]
    assert whole["rows"][-1]["problem"] is not None
    assert whole["estimate"] is None


# --------------------------------------------------------------------------- budgets


def test_a_budget_is_held_by_widths_and_told_beside_the_change() -> None:
    made = plan_of(
        with_line("keep parameters within 1%").replace("Small_block.store, ", "Small_block.mixer, ")
    )
    base, row = made.rows[:2]
    assert abs(row.parameters - base.parameters) <= 0.01 * base.parameters
    assert row.matched
    assert [one.action for one in row.amendments] == ["remove", "set"]
    assert row.changes == ("SoftmaxAttention is gone", "Small_block.mixer is gone")
    assert row.matched in as_text(made)
    assert made.spec_of(row).levels().parameters == row.parameters


def test_a_variant_that_says_itself_what_would_hold_its_budget_is_the_same() -> None:
    text = with_line("keep parameters within 1%").replace("Small_block.store, ", "Small_block.mixer, ")
    held = plan_of(text, only=["Small_block.mixer"]).rows[1]
    [width] = held.amendments[1:]
    said = f"set {width.path} = {print_expr(width.value)}" if width.value is not None else ""
    own = f"variant Own of Run {{\n  remove Small_block.mixer\n  {said}\n}}\n"
    own += f"variant Same of Run {{\n  {said}\n  remove Small_block.mixer\n}}\n"
    block = "  variants = [Own, Same]\n  baseline = Same\n  seeds = 2"
    made = plan_of(text.replace("  seeds = 2", block) + own)
    [row] = [row for row in made.rows if row.digest == held.digest]
    assert row.merged == ("Own", "Same")
    assert made.baseline == row.name


def test_a_budget_that_cannot_be_held_is_a_problem_and_a_finding() -> None:
    made = plan_of(with_line("keep parameters within 0.01% by Small.depth"), only=["store"])
    row = made.rows[-1]
    assert row.problem is not None
    assert (row.parameters, row.digest, row.merged) == (0, "", ())
    [finding] = made.findings
    assert (finding.code, finding.severity) == ("NL0605", "warning")


def test_time_is_held_by_steps_once_seconds_are_known() -> None:
    text = with_line("keep time within 5%").replace("steps = 4", "steps = 400")
    assert {row.steps for row in plan_of(text).rows} == {400}
    pace = {"base": 0.2, "without-Small_block.store": 0.1}
    made = plan_of(text, seconds=pace)
    assert [row.steps for row in made.rows[:3]] == [400, 800, 400]
    assert "training time: held within 5%\n" in f"{as_text(made)}\n"
    del pace["base"]
    assert {row.steps for row in plan_of(text, seconds=pace).rows} == {400}
