"""`nldsl check`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def bad(here: Path, api: Any) -> Path:
    (here / "a.nl").write_text("one good\ntwo bad\nthree odd\n")
    return here


def test_a_fine_file(here: Path, nl: Run, api: Any) -> None:
    (here / "a.nl").write_text("good\n")
    result = nl("check", "a.nl")
    assert (result.code, result.out) == (0, "")
    assert result.err == "1 file checked, nothing found\n"


def test_findings(bad: Path, nl: Run, golden: Callable[[Path, str], None]) -> None:
    result = nl("check", "a.nl")
    assert (result.code, result.out) == (1, "")
    golden(Path(__file__).parent / "golden" / "check.txt", result.err)


def test_concise_for_several_files(bad: Path, nl: Run) -> None:
    (bad / "b.nl").write_text("worse\n")
    result = nl("check", "b.nl", "a.nl", "--format", "concise")
    assert result.err.splitlines() == [
        "b.nl:1:1: error[NL9901]: `worse` is no word",
        "a.nl:2:5: error[NL9901]: `bad` is no word",
        "a.nl:3:7: warning[NL9901]: `odd` is no word",
        "Found 2 errors, 1 warning in 2 files (1 fixable with `--fix`)",
    ]


def test_formats_for_programs_are_the_result(bad: Path, nl: Run) -> None:
    result = nl("check", "a.nl", "--format", "json")
    assert result.code == 1
    assert len(json.loads(result.out)["diagnostics"]) == 2
    assert result.err == ""
    assert json.loads(nl("check", "a.nl", "--format", "sarif").out)["version"] == "2.1.0"
    assert nl("check", "a.nl", "--format", "github").out.startswith("::error ")
    (bad / "a.nl").write_text("good")
    assert json.loads(nl("check", "a.nl", "--format", "json").out)["diagnostics"] == []


def test_warnings_stop_only_when_asked(here: Path, nl: Run, api: Any) -> None:
    (here / "a.nl").write_text("odd")
    assert nl("check", "a.nl").code == 0
    assert nl("check", "a.nl", "--warn-as-error").code == 1


def test_fix_writes_the_file_and_reports_the_rest(bad: Path, nl: Run) -> None:
    (bad / "a.nl").write_bytes(b"bad\r\nworse bad\r\n")
    result = nl("check", "a.nl", "--fix")
    assert result.code == 1
    assert (bad / "a.nl").read_bytes() == b"good\r\nworse good\r\n"
    assert "`worse` is no word" in result.err
    assert "`bad`" not in result.err
    assert "Mended 2 findings" in result.err


def test_fix_of_standard_input_is_printed(here: Path, nl: Run, api: Any) -> None:
    result = nl("check", "-", "--fix", "--stdin-filename", "x.nl", stdin="bad\n")
    assert (result.code, result.out) == (0, "good\n")
    assert not (here / "x.nl").exists()


def test_standard_input(here: Path, nl: Run, api: Any) -> None:
    result = nl("check", "-", "--stdin-filename", "x.yaml", "--format", "concise", stdin="bad\n")
    assert result.code == 1
    assert result.err.startswith("x.yaml:1:1: error")


def test_a_folder_means_the_specs_below_it(bad: Path, nl: Run, api: Any) -> None:
    for name, text in {
        "sub/b.nl": "good",
        "sub/c.yaml": "edition: 2026\n",
        "sub/ci.yml": "steps: bad\n",
        ".hidden/d.nl": "bad",
        "build/e.nl": "bad",
        "out/model.py": "",
        "out/levels.json": "",
        "out/spec.nl": "bad",
    }.items():
        (bad / name).parent.mkdir(exist_ok=True)
        (bad / name).write_text(text)
    nl("check", ".", "a.nl")
    assert [call[1][0] for call in api.calls] == ["a.nl", "sub/b.nl", "sub/c.yaml"]


def test_imports_are_read_from_beside_the_file_and_found_once(here: Path, nl: Run, api: Any) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "lib.nl").write_text("worse")
    for name in ("a.nl", "b.nl"):
        (here / "sub" / name).write_text('import "lib.nl"')
    result = nl("check", "sub/a.nl", "sub/b.nl", "--format", "concise")
    assert result.err.count("sub/lib.nl:1:1: error") == 1


def test_the_variant_is_handed_on(here: Path, nl: Run, api: Any) -> None:
    (here / "a.nl").write_text("good")
    nl("check", "a.nl", "--variant", "Tiny")
    assert api.calls == [("check_source", ("a.nl",), {"variant": "Tiny"})]


def test_an_unreadable_file_does_not_hide_the_others(bad: Path, nl: Run) -> None:
    result = nl("check", "aa.nl", "a.nl", "--format", "concise")
    assert result.code == 2
    assert "error: `aa.nl` does not exist\n  = help: did you mean `a.nl`?\n" in result.err
    assert "a.nl:2:5: error" in result.err
