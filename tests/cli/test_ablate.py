"""`nldsl ablate`: every option, and every way in which it can be asked wrongly."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ablate.studies import fork, warm

Run = Callable[..., Any]

SMALL = """edition 2026
import [SoftmaxAttention] from std
block Small_block(dim) {
  mixer: x = x + (x |> rmsnorm |> SoftmaxAttention(dim, heads = 2))
  store: x = x + (x |> rmsnorm |> mlp(2 * dim))
}
model Small(dim = 16, depth = 1, vocab = 256) {
  tokens |> embed(vocab, dim) |> repeat(depth, Small_block(dim)) |> rmsnorm |> unembed(tied)
}
train Run {
  model = Small
  data  = text("sotu", tokenizer = bytes, length = 16, batch = 8, split = manifest)
  steps = 2
  level all { learns = rest, rule = adamw(rate = 1e-3) }
  eval every 2 steps { perplexity }
}
variant Wide of Run { set model.dim = 32 }
ablate Study of Run {
  without = [Small_block.store, Small_block.mixer.rmsnorm]
  vary all.rule = [adamw(rate = 1e-3), adamw(rate = 1e-2)]
  seeds = 2
}
"""


@pytest.fixture
def small(here: Path) -> Path:
    (here / "small.nl").write_text(SMALL)
    return here


def amend(folder: Path, old: str, new: str) -> None:
    text = (folder / "small.nl").read_text()
    assert old in text
    (folder / "small.nl").write_text(text.replace(old, new))


# --------------------------------------------------------------------------- plans


def test_a_plan_says_what_changes_and_costs(small: Path, nl: Run) -> None:
    result = nl("ablate", "small.nl", "--no-calibrate")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "Study of Run: the base and 3 variants, 2 seeds each: 8 trials\n"
        "\n"
        "variant                               parameters    FLOPs/token  state/sequence\n"
        "base                               6,192          13.1k           2 KiB\n"
        "without Small_block.store          5,152  -16.8%    11k  -16.1%   2 KiB       =\n"
        "without Small_block.mixer.rmsnorm  6,176   -0.3%    13k   -0.5%   2 KiB       =\n"
        "all.rule = adamw(rate = 1e-2)      6,192       =  13.1k       =   2 KiB       =\n"
        "    Run.all.rule: `... rate = 1e-3, ...` -> `... rate = 1e-2, ...`\n"
        "\n"
        "the same spec as the base: all.rule = adamw(rate = 1e-3)\n"
    )


def test_a_plan_loads_no_torch(small: Path) -> None:
    code = (
        "import sys; from nldsl.cli import main; "
        "code = main(['ablate', 'small.nl', '--no-calibrate']); "
        "code += main(['ablate', 'small.nl', '--write', 'out']); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    root = str(Path(__file__).resolve().parents[2])
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert found.returncode == 0, found.stderr


def test_a_calibration_tells_times(small: Path, nl: Run) -> None:
    result = nl("ablate", "small.nl", "--only", "store", "--calibrate", "60", "--jobs", "2")
    assert result.code == 0
    assert "timing a few steps of each variant, for 60 s at most" in result.err
    assert "  a trial\n" in result.out
    assert "\ntime: about " in result.out
    assert "with 2 trials at a time\ntold from " in result.out


def test_json_for_programs(small: Path, nl: Run) -> None:
    result = nl("ablate", "small.nl", "--json", "--seeds", "3")
    whole = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert (whole["version"], whole["trials"], whole["seeds"]) == (1, 12, [0, 1, 2])
    assert whole["rows"][1]["name"] == "without-Small_block.store"


def test_settings_only_and_max(small: Path, nl: Run) -> None:
    whole = json.loads(nl("ablate", "small.nl", "--json", "--set", "steps=7", "--max", "1").out)
    assert [row["steps"] for row in whole["rows"]] == [7, 7]
    assert [one["why"] for one in whole["left_out"]] == ["more than 1"] * 3
    whole = json.loads(nl("ablate", "small.nl", "--json", "--only", "store", "--only", "*1e-2*").out)
    assert [row["words"] for row in whole["rows"][1:]] == [
        "without Small_block.store",
        "all.rule = adamw(rate = 1e-2)",
    ]


def test_settings_are_those_of_the_base_that_is_ablated(small: Path, nl: Run) -> None:
    amend(small, "ablate Study of Run", "train Other { model = Small, steps = 1 }\nablate Study of Run")
    assert nl("ablate", "small.nl", "--no-calibrate", "--set", "all.rule.rate=0.1").code == 0


def test_a_broken_variant_is_told_in_the_table_and_as_a_finding(small: Path, nl: Run) -> None:
    amend(small, "Small_block.store,", "Small_block.storr,")
    result = nl("ablate", "small.nl", "--no-calibrate")
    assert result.code == 1
    assert "cannot be run: without Small_block.storr: the path `Small_block.storr` matches" in result.out
    assert "error[NL0601]" in result.err
    assert nl("ablate", "small.nl", "--run").code == 1
    assert not (small / "studies").exists()


def test_a_budget_that_cannot_be_held_is_a_warning_in_a_plan_and_an_error_in_a_run(
    small: Path, nl: Run
) -> None:
    amend(small, "  seeds = 2\n", "  seeds = 2\n  keep parameters within 0.01% by Small.depth\n")
    result = nl("ablate", "small.nl", "--no-calibrate", "--only", "store")
    assert (result.code, "warning[NL0605]" in result.err) == (0, True)
    result = nl("ablate", "small.nl", "--run", "--only", "store")
    assert (result.code, "error[NL0605]" in result.err) == (1, True)
    assert not (small / "studies").exists()


def test_proposals(small: Path, nl: Run) -> None:
    result = nl("ablate", "small.nl", "--auto", "--no-calibrate", "--only", "store", "--max", "2")
    assert result.code == 0
    assert result.out.startswith("Auto of Run: the base and ")
    assert "?" in result.out
    named = json.loads(nl("ablate", "small.nl", "--auto", "--name", "Study", "--json", "--max", "1").out)
    assert (named["name"], named["seeds"]) == ("Study", [0, 1])
    wide = json.loads(nl("ablate", "small.nl", "--auto", "--variant", "Wide", "--json", "--max", "0").out)
    assert wide["base"] == "Wide"
    assert wide["rows"][0]["parameters"] > named["rows"][0]["parameters"]


def test_proposals_as_a_block_are_a_spec_again(small: Path, nl: Run) -> None:
    result = nl("ablate", "small.nl", "--auto", "--block", "--family", "parts")
    assert (result.code, result.err) == (0, "")
    block = result.out
    plain = [line for line in block.splitlines() if not line.startswith("import")]
    (small / "auto.nl").write_text(SMALL + "\n".join(plain) + "\n")
    again = json.loads(nl("ablate", "auto.nl", "--name", "Auto", "--json").out)
    proposed = json.loads(nl("ablate", "small.nl", "--auto", "--family", "parts", "--json").out)
    assert [row["digest"] for row in again["rows"]] == [row["digest"] for row in proposed["rows"]]


def test_a_block_of_proposals_has_what_the_plan_has(small: Path, nl: Run) -> None:
    held = SMALL.replace(
        "  seeds = 2\n",
        "  seeds = [3, 5]\n  measure = [loss, perplexity]\n  keep flops within 2.125% by [model.dim]\n",
    )
    (small / "held.nl").write_text(held)
    options = ("--auto", "--name", "Study", "--only", "norm", "--max", "2")
    block = nl("ablate", "held.nl", *options, "--block").out
    assert block.count("?") == 2
    (small / "again.nl").write_text(held[: held.index("ablate Study")] + block)
    plans = [json.loads(nl("ablate", *one, "--json").out) for one in (("held.nl", *options), ("again.nl",))]
    for name in ("name", "base", "seeds", "measures", "keep"):
        assert plans[0][name] == plans[1][name]
    assert [row["digest"] for row in plans[0]["rows"]] == [row["digest"] for row in plans[1]["rows"]]
    seeded = nl("ablate", "held.nl", "--auto", "--seeds", "3", "--max", "0", "--block").out
    assert seeded == "ablate Auto of Run {\n  seeds = 3\n}\n"


# --------------------------------------------------------------------------- files


def test_written_variants_stand_alone(small: Path, nl: Run, tmp_path: Path) -> None:
    result = nl("ablate", "small.nl", "--write", "out")
    assert (result.code, result.out, result.err) == (0, "", "wrote out: 5 files\n")
    names = sorted(p.name for p in (small / "out").iterdir())
    assert names[0].startswith("all.rule=adamw-rate=1e-2-")
    assert names[1:] == [
        "base.nl",
        "plan.json",
        "without-Small_block.mixer.rmsnorm.nl",
        "without-Small_block.store.nl",
    ]
    text = (small / "out" / "without-Small_block.store.nl").read_text()
    assert text.startswith("# Study of Run: without Small_block.store\n# Small_block.store is gone\nedition")
    (small / "small.nl").unlink()
    for name in names:
        if name.endswith(".nl"):
            assert nl("check", f"out/{name}").code == 0
    whole = json.loads((small / "out" / "plan.json").read_text())
    assert len(whole["files"]) == 4


def test_written_files_are_never_written_over_unless_they_are_its_own(small: Path, nl: Run) -> None:
    assert nl("ablate", "small.nl", "--write", "out").code == 0
    assert nl("ablate", "small.nl", "--write", "out", "--only", "store").code == 0
    assert sorted(p.stem for p in (small / "out").glob("*.nl")) == ["base", "without-Small_block.store"]
    edited = small / "out" / "base.nl"
    edited.write_text("# mine\n")
    result = nl("ablate", "small.nl", "--write", "out", "--set", "steps=5")
    assert (result.code, "was edited by hand" in result.err) == (2, True)
    assert edited.read_text() == "# mine\n"
    (small / "other").mkdir()
    (small / "other" / "base.nl").write_text("# mine\n")
    result = nl("ablate", "small.nl", "--write", "other")
    assert (result.code, "was not written by this verb" in result.err) == (2, True)
    assert [p.name for p in (small / "other").iterdir()] == ["base.nl"]


def test_what_is_left_of_an_earlier_plan_is_removed_only_where_it_was_written(small: Path, nl: Run) -> None:
    assert nl("ablate", "small.nl", "--write", "out").code == 0
    out, precious = small / "out", small / "precious.txt"
    edited = out / "without-Small_block.mixer.rmsnorm.nl"
    edited.write_text("# mine\n")
    precious.write_text("words")
    whole = json.loads((out / "plan.json").read_text())
    whole["files"]["../precious.txt"] = hashlib.sha256(b"words").hexdigest()
    (out / "plan.json").write_text(json.dumps(whole))
    assert nl("ablate", "small.nl", "--write", "out", "--only", "store").code == 0
    assert sorted(out.glob("*.nl")) == [out / "base.nl", edited, out / "without-Small_block.store.nl"]
    assert (edited.read_text(), precious.read_text()) == ("# mine\n", "words")
    (out / "plan.json").unlink()
    assert (
        nl("ablate", "small.nl", "--write", "out", "--only", "store").code == 0
    )  # they are as they would be


def test_own_texts_travel_with_written_variants(small: Path, nl: Run) -> None:
    (small / "mine.txt").write_text("some words to learn from, again and again. " * 200)
    amend(
        small,
        'text("sotu", tokenizer = bytes, length = 16, batch = 8, split = manifest)',
        'text("mine.txt", tokenizer = bytes, length = 16, batch = 8)',
    )
    assert nl("ablate", "small.nl", "--write", "out").code == 0
    assert (small / "out" / "mine.txt").read_bytes() == (small / "mine.txt").read_bytes()
    assert nl("compile", "out/base.nl", "-o", "built").code == 0
    (small / "mine.txt").rename(small.parent / "mine.txt")
    amend(small, "mine.txt", "../mine.txt")
    result = nl("ablate", "small.nl", "--write", "deep/er")
    assert (result.code, "error[NL0704]" in result.err) == (1, True)
    assert not (small / "deep").exists()


@pytest.mark.parametrize("place", ["small.nl", "small.nl/x"])
def test_a_place_that_cannot_be_written(small: Path, nl: Run, place: str) -> None:
    result = nl("ablate", "small.nl", "--write", place)
    assert result.code == 2
    assert result.err.startswith("error: ")


def test_a_damaged_plan_is_left_alone(small: Path, nl: Run) -> None:
    (small / "out").mkdir()
    (small / "out" / "plan.json").write_text("{")
    result = nl("ablate", "small.nl", "--write", "out")
    assert (result.code, "is no plan that was written here" in result.err) == (2, True)


# --------------------------------------------------------------------------- what does not go together

WRONG = [
    (["--block"], "`--block` needs `--auto`"),
    (["--family", "parts"], "`--family` needs `--auto`"),
    (["--variant", "Wide"], "`--variant` needs `--auto`"),
    (["--auto", "--variant", "Wide", "--name", "Study"], "`--name` and `--variant` both say"),
    (["--auto", "--block", "--json"], "`--block` does not go with `--json`"),
    (["-o", "x"], "`-o` needs `--run`"),
    (["--on", "ray"], "`--on` needs `--run`"),
    (["--option", "cpus=2"], "`--option` needs `--run`"),
    (["--stop-early"], "`--stop-early` needs `--run`"),
    (["--run", "--write", "x"], "`--write` does not go with `--run`"),
    (["--run", "--json"], "`--json` does not go with `--run`"),
    (["--run", "--option", "cpus=2"], "a run on this machine has no options"),
    (["--run", "--stop-early"], "only Ray stops trials early"),
    (["--run", "--on", "ray", "--option", "cpus"], "`--option cpus` is not of the form `key=value`"),
    (["--report"], "a report is of a study that was run"),
    (["--format", "latex"], "`--format latex` is for reports"),
    (["--calibrate", "5", "--no-calibrate"], "`--calibrate` does not go with `--no-calibrate`"),
    (["--calibrate", "0"], "is not in the range"),
    (["--seeds", "0"], "is not in the range"),
    (["--max", "-1"], "is not in the range"),
    (["--set", "steps"], "`--set steps` is not of the form `path=value`"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_options_that_do_not_go_together(small: Path, nl: Run, options: list[str], said: str) -> None:
    result = nl("ablate", "small.nl", *options)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert not (small / "studies").exists()


BAD = [
    (["--name", "Studdy"], "NL0610"),
    (["--only", "stoer"], "NL0650"),
    (["--auto", "--family", "part"], "NL0641"),
    (["--set", "model.dimm=3"], "NL0601"),
    (["--auto", "--variant", "Wid"], "NL0602"),
]


@pytest.mark.parametrize(("options", "code"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else v)
def test_bad_input_is_a_finding(small: Path, nl: Run, options: list[str], code: str) -> None:
    for more in ([], ["--run"]):
        result = nl("ablate", "small.nl", *options, *more)
        assert (result.code, result.out) == (1, "")
        assert f"[{code}]" in result.err
    assert not (small / "studies").exists()


def test_findings_in_a_format_for_programs(small: Path, nl: Run) -> None:
    result = nl("ablate", "small.nl", "--only", "stoer", "--format", "json")
    assert json.loads(result.err)["diagnostics"][0]["code"] == "NL0650"


def test_a_spec_without_a_block(small: Path, nl: Run) -> None:
    (small / "small.nl").write_text(SMALL.partition("ablate")[0])
    result = nl("ablate", "small.nl")
    assert (result.code, "[NL0610]" in result.err) == (1, True)
    assert nl("ablate", "small.nl", "--auto", "--json", "--max", "1").code == 0


def test_a_spec_that_cannot_be_read(small: Path, nl: Run) -> None:
    assert nl("ablate", "smal.nl").code == 2
    (small / "small.nl").write_text("edition 2026\nablate S of T {")
    result = nl("ablate", "small.nl")
    assert (result.code, "[NL0610]" in result.err) == (1, False)


def test_a_million_variants_are_refused_at_once(small: Path, nl: Run) -> None:
    values = ", ".join(str(n) for n in range(1, 101))
    amend(small, "  seeds = 2\n", f"  grid [seed, data.seed, steps] = [[{values}], [{values}], [{values}]]\n")
    result = nl("ablate", "small.nl")
    assert (result.code, "[NL0606]" in result.err) == (1, True)


def test_a_model_alone_is_planned_and_not_run(small: Path, nl: Run) -> None:
    text = SMALL.partition("train Run")[0]
    (small / "small.nl").write_text(text + "ablate Study of Small { without = [Small_block.store] }\n")
    assert nl("ablate", "small.nl").code == 0
    result = nl("ablate", "small.nl", "--run")
    assert (result.code, "error[NL0651]: `Small` is no run" in result.err) == (1, True)


# --------------------------------------------------------------------------- studies

KEPT = ("--only", "store", "--seeds", "1")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are copies of this process, which need not load torch again."""
    from nldsl.ablate import local

    warm()
    monkeypatch.setattr(local.run, "__kwdefaults__", {**(local.run.__kwdefaults__ or {}), "start": fork})


@pytest.mark.usefixtures("forked")
def test_a_study_is_run_looked_at_reported_and_gone_on_with(small: Path, nl: Run) -> None:
    result = nl("ablate", "small.nl", "--run", *KEPT, "--jobs", "2")
    assert result.code == 0
    assert "2 done; studies/study" in result.err
    assert result.out.startswith("Study: ")  # the report
    folder = small / "studies" / "study"
    assert (folder / "report" / "report.html").is_file()

    status = nl("ablate", "studies/study")
    assert (status.code, status.err) == (0, "")
    assert status.out == (
        "Study of Run: 2 done; studies/study\n"
        "\n"
        "base                       1 done\n"
        "without Small_block.store  1 done\n"
        "\n"
        "every trial has ended; the report: nldsl ablate studies/study --report\n"
    )
    whole = json.loads(nl("ablate", "studies/study", "--json").out)
    assert whole["states"]["done"] == 2
    assert Path(whole["trials"][0]["folder"], "result.json").is_file()

    for form, piece in {
        "markdown": "| ",
        "latex": "\\begin{table}",
        "csv": "variant,",
        "html": "<html",
    }.items():
        result = nl("ablate", "studies/study", "--report", "--format", form)
        assert (result.code, piece in result.out) == (0, True), form

    other = nl("ablate", "small.nl", "--run", *KEPT, "--set", "steps=3")
    assert (other.code, "error[NL0901]" in other.err) == (2, True)
    assert nl("ablate", "small.nl", "--run", *KEPT).code == 0  # nothing is left to do

    wrong = nl("ablate", "small.nl", "--report")
    assert (wrong.code, "as in `nldsl ablate studies/study --report`" in wrong.err) == (2, True)
    wrong = nl("ablate", "studies/study", "--only", "store")
    assert (wrong.code, "`--only` belongs to a spec" in wrong.err) == (2, True)
    wrong = nl("ablate", "studies/study", "--run", "-o", "x")
    assert (wrong.code, "`-o` names a study's folder" in wrong.err) == (2, True)


def test_a_study_that_waits_says_how_it_goes_on(small: Path, nl: Run) -> None:
    from nldsl import study
    from nldsl.ablate.study import Study

    Study.make("mine", study("small.nl", only=["store"]))
    result = nl("ablate", "mine", "--jobs", "1")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Study of Run: 4 waiting; mine\n")
    assert result.out.endswith("\nit goes on with: nldsl ablate mine --run\n")
    assert json.loads(nl("ablate", "mine", "--json").out)["seconds_left"] is None
    assert nl("ablate", "mine", "--report").code == 0


@pytest.mark.parametrize("more", [(), ("--run",), ("--report",)])
def test_a_folder_that_is_no_study(small: Path, nl: Run, more: tuple[str, ...]) -> None:
    (small / "empty").mkdir()
    result = nl("ablate", "empty", *more)
    assert (result.code, "error[NL0902]" in result.err) == (2, True)
    assert list((small / "empty").iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(small: Path, nl: Run) -> None:
    (small / "full").mkdir()
    (small / "full" / "mine.txt").write_text("mine")
    result = nl("ablate", "small.nl", "--run", "-o", "full", *KEPT)
    assert (result.code, "error[NL0902]" in result.err) == (2, True)
    assert [p.name for p in (small / "full").iterdir()] == ["mine.txt"]


def test_time_that_is_to_be_held_needs_a_calibration(small: Path, nl: Run) -> None:
    amend(small, "  seeds = 2\n", "  seeds = 2\n  keep time within 5%\n")
    result = nl("ablate", "small.nl", "--run", "--no-calibrate")
    assert (result.code, "error[NL0652]" in result.err) == (1, True)
    assert not (small / "studies").exists()
    plan = nl("ablate", "small.nl", "--no-calibrate")
    assert "training time: held within 5% by the steps, once they are timed" in plan.out


@pytest.mark.usefixtures("forked")
def test_time_is_held_by_what_was_measured_when_the_study_was_made(small: Path, nl: Run) -> None:
    amend(small, "steps = 2\n", "steps = 10\n")
    amend(small, "  seeds = 2\n", "  seeds = 2\n  keep time within 10%\n")
    (small / "mine").mkdir()
    kept = {"base": 0.2, "without-Small_block.store": 0.1}
    (small / "mine" / "calibration.json").write_text(json.dumps(kept))
    result = nl("ablate", "small.nl", "--run", *KEPT, "-o", "mine", "--no-calibrate", "--jobs", "2")
    assert result.code == 0
    whole = json.loads(nl("ablate", "mine", "--json").out)
    assert [trial["steps"] for trial in whole["trials"]] == [10, 20]
    (small / "mine" / "calibration.json").write_text("[")
    result = nl("ablate", "small.nl", "--run", *KEPT, "-o", "mine")
    assert (result.code, "is damaged" in result.err) == (2, True)
