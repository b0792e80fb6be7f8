"""The other verbs."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nldsl.cli import starters
from nldsl.diagnostics import codes

Run = Callable[..., Any]
UGLY = "edition 2026\nlet   width=4 # wide\n\n\n\nlet b = 2*width\n"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def spec(here: Path, api: Any) -> Path:
    (here / "a.nl").write_text("good odd\n")
    return here


def test_fmt_rewrites_once(here: Path, nl: Run) -> None:
    (here / "a.nl").write_text(UGLY)
    result = nl("fmt", "a.nl")
    assert (result.code, result.out, result.err) == (0, "", "1 file was reformatted\n")
    text = (here / "a.nl").read_text()
    assert text != UGLY
    assert "# wide" in text
    assert nl("fmt", "a.nl").err == ""
    assert nl("fmt", "a.nl", "--check").code == 0


def test_fmt_check_and_diff_write_nothing(here: Path, nl: Run) -> None:
    (here / "a.nl").write_text(UGLY)
    check, diff = nl("fmt", "a.nl", "--check"), nl("fmt", "a.nl", "--diff")
    assert (check.code, check.out, check.err) == (1, "a.nl\n", "1 file would be reformatted\n")
    assert diff.code == 1
    assert diff.out.startswith("--- a.nl\n+++ a.nl (formatted)\n@@")
    assert (
        "\n\x1b[1;31m-let   width=4 # wide\x1b[0m\n" in nl("fmt", "a.nl", "--diff", "--color", "always").out
    )
    assert (here / "a.nl").read_text() == UGLY


def test_fmt_of_standard_input(nl: Run) -> None:
    result = nl("fmt", "-", stdin=UGLY)
    assert result.code == 0
    assert result.out == nl("fmt", "-", stdin=result.out).out


def test_fmt_leaves_broken_files_and_yaml(here: Path, nl: Run) -> None:
    (here / "a.nl").write_text("memory A {\n")
    (here / "b.yaml").write_text("edition:    2026\n")
    result = nl("fmt", "a.nl", "b.yaml")
    assert result.code == 1
    assert "error[NL01" in result.err
    assert "b.yaml: YAML is left as it is" in result.err
    assert (here / "a.nl").read_text() == "memory A {\n"
    assert (here / "b.yaml").read_text() == "edition:    2026\n"


def test_fmt_never_writes_another_meaning(here: Path, nl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "a.nl").write_text(UGLY)
    monkeypatch.setattr("nldsl.syntax.fmt.format_body", lambda body: "edition 2026\n")
    result = nl("fmt", "a.nl")
    assert result.code == 70
    assert "would change the meaning of a.nl" in result.err
    assert (here / "a.nl").read_text() == UGLY


def test_fmt_of_a_folder_and_windows_line_ends(here: Path, nl: Run) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "a.nl").write_bytes(b"\xef\xbb\xbf" + UGLY.replace("\n", "\r\n").encode())
    assert nl("fmt", ".").code == 0
    assert (here / "sub" / "a.nl").read_bytes() == nl("fmt", "-", stdin=UGLY).out.encode()


def test_convert_goes_both_ways(here: Path, nl: Run) -> None:
    (here / "a.nl").write_text(nl("fmt", "-", stdin=UGLY).out)
    there = nl("convert", "a.nl", "-o", "a.yaml")
    assert (there.code, there.out, there.err) == (0, "", "wrote a.yaml\n")
    back = nl("convert", "a.yaml")
    assert (back.code, back.out) == (0, (here / "a.nl").read_text())
    assert nl("convert", "a.nl", "--to", "yaml").out == (here / "a.yaml").read_text()
    assert nl("convert", "-", "--to", "yaml", stdin=back.out).out == (here / "a.yaml").read_text()


def test_convert_overwrites_nothing_unasked(here: Path, nl: Run) -> None:
    (here / "a.nl").write_text(UGLY)
    (here / "b.yaml").write_text("mine")
    refused = nl("convert", "a.nl", "-o", "b.yaml")
    assert (refused.code, (here / "b.yaml").read_text()) == (2, "mine")
    assert "`--force` overwrites it" in refused.err
    assert nl("convert", "a.nl", "-o", "b.yaml", "--force").code == 0
    assert nl("convert", "a.nl", "-o", "a.nl", "--to", "nl", "--force").code == 2
    assert nl("convert", "a.nl", "-o", "c.yaml", "--to", "nl").code == 2


def test_convert_of_a_broken_spec(here: Path, nl: Run) -> None:
    (here / "a.nl").write_text("memory A {\n")
    result = nl("convert", "a.nl")
    assert (result.code, result.out) == (1, "")
    assert "error[NL01" in result.err


def test_expand(spec: Path, nl: Run, api: Any) -> None:
    result = nl("expand", "a.nl", "--set", "model.dim=64", "--variant", "Tiny")
    assert (result.code, result.out) == (0, "# defaults stated\ngood odd\n")
    assert "warning[NL9901]" in result.err
    assert api.calls == [("load", ("a.nl",), {"set": ("model.dim=64",), "variant": "Tiny"})]
    assert nl("expand", "a.nl", "--why", "x.y").out == "x.y was set in line 1\n"
    (spec / "b.nl").write_text("edition 2026\nlet width = 4\n")
    assert nl("expand", "b.nl", "--yaml").out.startswith("# defaults stated\nedition: 2026\n")


def test_findings_of_any_verb_are_reported_in_the_format_asked_for(spec: Path, nl: Run) -> None:
    (spec / "a.nl").write_text("worse")
    result = nl("expand", "a.nl", "--format", "json")
    assert (result.code, result.out) == (1, "")
    assert json.loads(result.err)["diagnostics"][0]["code"] == "NL9901"


def test_explain_a_code(nl: Run) -> None:
    for code in list(codes.registry().values())[:3]:
        result = nl("explain", code.code.lower())
        assert result.code == 0
        assert result.out.startswith(f"{code.code}: {code.name}\n")
        assert "```" not in result.out
        assert nl("explain", code.name).out == result.out
        assert nl("explain", code.name + "x").err.count(code.name) == 2


def test_explain_lists_every_code(nl: Run) -> None:
    listed = re.findall(r"^  (NL\d{4})  ", nl("explain").out, re.MULTILINE)
    assert listed == list(codes.registry())


def test_explain_what_is_unknown(nl: Run) -> None:
    result = nl("explain", "zzz")
    assert (result.code, result.out) == (2, "")
    assert (
        result.err
        == "error: no finding has the code or name `zzz`\n  = help: `nldsl explain` lists them all\n"
    )


def test_explain_a_spec(spec: Path, nl: Run) -> None:
    assert nl("explain", "a.nl").out == "Fast: E3, by its algebra\n"


def test_schema(nl: Run) -> None:
    schema = json.loads(nl("schema").out)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "declarations" in schema["properties"]
    assert "Memory" in schema["$defs"]


def test_graph(spec: Path, nl: Run) -> None:
    assert nl("graph", "a.nl").code == 0
    assert json.loads(nl("graph", "a.nl", "--format", "json").out)
    assert nl("graph", "a.nl", "-o", "g.svg").err.endswith("wrote g.svg\n")
    assert "<svg" in (spec / "g.svg").read_text()
    assert "digraph" in nl("graph", "a.nl", "--format", "dot").out


def test_compile(spec: Path, nl: Run, api: Any) -> None:
    stale = nl("compile", "a.nl", "-o", "out", "--check")
    assert (stale.code, stale.out) == (1, "model.py\n")
    assert not (spec / "out").exists()
    done = nl("compile", "a.nl", "-o", "out", "--force")
    assert (done.code, done.out) == (0, "")
    assert "wrote out: " in done.err
    assert api.calls[-1] == ("compile", ("out",), {"force": True})
    assert nl("compile", "a.nl", "-o", "out", "--check").code == 0
    assert nl("compile", "a.nl", "--print-after", "levels").out == "after levels\n"
    assert nl("compile", "a.nl", "-o", "a.nl").code == 2


def test_compile_and_verify(spec: Path, nl: Run, stand_in: Any) -> None:
    results = [
        SimpleNamespace(name="future", ok=True, detail=""),
        SimpleNamespace(name="dead", ok=False, detail="w"),
    ]
    stand_in.module("nldsl.run.verify", verify=stand_in.recorder("verify", results))
    stand_in.module("nldsl.run.promises", promises=stand_in.recorder("promises", results))
    result = nl("compile", "a.nl", "-o", "out", "--verify")
    assert (result.code, result.out) == (1, "ok     future\nfailed dead: w\n")
    assert "1 of 2 probes passed" in result.err
    assert nl("verify", "out").code == 1
    assert "is a file, and a compiled folder is needed" in nl("verify", "a.nl").err


def test_train_compiles_a_spec_first(spec: Path, nl: Run, stand_in: Any) -> None:
    stand_in.module("nldsl.run.train", train=stand_in.recorder("train", 0))
    result = nl("train", "a.nl", "--variant", "Tiny", "--set", "x=1", "--steps", "3", "--no-compile")
    assert result.code == 0
    assert "compiled a.nl to build/a-tiny" in result.err
    name, args, options = stand_in.calls[-1]
    assert (name, Path(args[0]).as_posix()) == ("train", "build/a-tiny")
    assert options == {
        "steps": 3,
        "device": None,
        "resume": False,
        "set": (),
        "out": None,
        "compile": False,
    }
    nl("train", "build/a-tiny", "--set", "steps=5", "--resume", "--out", "runs/x")
    assert stand_in.calls[-1][2]["set"] == ("steps=5",)
    assert stand_in.calls[-1][2]["resume"] is True
    assert nl("train", "build/a-tiny", "--variant", "Tiny").code == 2


def test_train_hands_on_the_code_of_the_run(spec: Path, nl: Run, stand_in: Any) -> None:
    stand_in.module("nldsl.run.train", train=stand_in.recorder("train", 130))
    assert nl("train", "a.nl").code == 130


def test_train_plan_runs_nothing(spec: Path, nl: Run, stand_in: Any) -> None:
    stand_in.module("nldsl.run.train", train=stand_in.recorder("train", 0))
    result = nl("train", "a.nl", "--plan")
    assert result.code == 0
    assert result.out.endswith("200 steps\nFast: E3, by its algebra\n")
    assert [call[0] for call in stand_in.calls] == ["load"]


def test_train_plan_of_a_folder_asks_the_folder(built: Path, nl: Run, stand_in: Any) -> None:
    stand_in.module("nldsl.run.train", plan=stand_in.recorder("plan", "200 steps\n"))
    result = nl("train", "out", "--plan", "--steps", "7", "--set", "data.batch=2")
    assert (result.code, result.out) == (0, "200 steps\n")
    assert stand_in.calls[-1][2] == {"set": ("data.batch=2",), "steps": 7}


@pytest.fixture
def built(here: Path) -> Path:
    (here / "out").mkdir()
    for name in ("model.py", "levels.json"):
        (here / "out" / name).write_text("")
    return here


def test_eval(built: Path, nl: Run, stand_in: Any) -> None:
    stand_in.module("nldsl.run.evaluate", evaluate=stand_in.recorder("evaluate", {"loss": 1.23456789}))
    assert nl("eval", "out").out == "loss  1.23457\n"
    assert json.loads(nl("eval", "out", "--json", "--checkpoint", "c.pt").out) == {"loss": 1.23456789}
    plain = {"checkpoint": "c.pt", "learn": None, "rates": {}, "learn_tokens": None}
    assert stand_in.calls[-1][2] == plain
    nl("eval", "out", "--learn", "--rate", "slow=1e-3", "--learn-tokens", "500")
    assert stand_in.calls[-1][2] == {
        "checkpoint": None,
        "learn": True,
        "rates": {"slow": 1e-3},
        "learn_tokens": 500,
    }
    wrong = nl("eval", "out", "--no-learn", "--rate", "slow")
    assert (wrong.code, "`--rate slow` is not of the form" in wrong.err) == (2, True)


def test_generate_streams(built: Path, nl: Run, stand_in: Any) -> None:
    stand_in.module("nldsl.run.generate", generate=stand_in.recorder("generate", lambda: iter(["a", "b"])))
    result = nl("generate", "out", "--prompt", "My fellow ", "--tokens", "2", "--top-k", "5", "--seed", "7")
    assert (result.code, result.out) == (0, "My fellow ab\n")
    assert stand_in.calls[-1][2]["top_k"] == 5
    assert nl("generate", "out", "--tokens", "0").code == 2
    nl("generate", "out", "--learn", "--load-state", "a.pt", "--load-state", "b.pt", "--save-state", "c.pt")
    given = stand_in.calls[-1][2]
    assert (given["learn"], given["learn_own"], given["new_sequence"]) == (True, False, False)
    assert (given["load_state"], given["save_state"]) == (("a.pt", "b.pt"), "c.pt")


def test_diff(spec: Path, nl: Run) -> None:
    (spec / "b.nl").write_text("# a comment\n\ngood odd\n")
    (spec / "c.nl").write_text("good other odd\n")
    assert nl("diff", "a.nl", "b.nl").code == 0
    differ = nl("diff", "a.nl", "c.nl")
    assert differ.code == 1
    assert differ.out == "--- a.nl\n+++ c.nl\n@@ -1 +1 @@\n-good odd\n+good other odd\n"


def test_init(here: Path, nl: Run, api: Any) -> None:
    result = nl("init", "new")
    assert result.code == 0
    assert (here / "new" / "delta.nl").read_text() == starters.DELTA
    assert "nldsl train new/delta.nl" in result.err
    again = nl("init", "new")
    assert again.code == 2
    assert "exists already" in again.err
    assert nl("init", "new", "--template", "attention").code == 0


@pytest.mark.parametrize("name", starters.STARTERS)
def test_starters_are_canonical_text(name: str, nl: Run) -> None:
    result = nl("fmt", "-", stdin=starters.STARTERS[name])
    assert result.out == starters.STARTERS[name]


def test_doctor(nl: Run) -> None:
    result = nl("doctor", "--no-torch")
    assert result.code == 0
    assert re.search(r"^ok +Python +3\.", result.out, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(nl: Run, shell: str) -> None:
    result = nl("completion", shell)
    assert result.code == 0
    assert "_NLDSL_COMPLETE" in result.out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=result.out, text=True, check=False).returncode == 0


def test_version(nl: Run) -> None:
    assert nl("version").out == nl("--version").out
    assert nl("version").out.startswith("nldsl ")


def test_the_page_of_the_command_line_lists_every_verb() -> None:
    from nldsl.cli import verb_table

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `nldsl ([a-z]+)", text, re.MULTILINE) == [verb.name for verb in verb_table.VERBS]
    for code in ("0", "1", "2", "70", "130"):
        assert f"| {code} |" in text
