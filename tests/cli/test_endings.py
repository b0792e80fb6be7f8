"""How verbs end: exit codes and messages."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from nldsl.cli import console, starters, verb_table
from nldsl.cli.app import cli
from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.run.folder import RunError

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def ends_with(stand_in: Any, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    stand_in.module("nldsl.api", check_source=fail, load=fail)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_bug_of_ours(here: Path, nl: Run, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "a.nl").write_text("x")
    ends_with(stand_in, KeyError("alpha"))
    result = nl("check", "a.nl")
    assert result.code == 70
    assert "this is a bug in nldsl: KeyError: 'alpha' at conftest.py" not in result.err
    assert result.err.startswith("error: this is a bug in nldsl: KeyError: 'alpha' at test_endings.py:")
    assert "command: nldsl check a.nl" in result.err
    assert "Traceback" not in result.err
    monkeypatch.setenv("NLDSL_DEBUG", "1")
    assert "Traceback" in nl("check", "a.nl").err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (MemoryError(), 1, "error: the machine has too little memory for this\n"),
        (OSError(28, "No space left on device", "x.bin"), 2, "error: cannot use `x.bin`: the disk is full\n"),
        (RecursionError("deep"), 70, "error: this is a bug in nldsl: RecursionError: deep"),
        (BrokenPipeError(), 0, ""),
        (SystemExit(3), 3, ""),
    ],
)
def test_other_endings(
    here: Path, nl: Run, stand_in: Any, error: BaseException, code: int, message: str
) -> None:
    (here / "a.nl").write_text("x")
    ends_with(stand_in, error)
    result = nl("check", "a.nl")
    assert result.code == code
    assert result.err.startswith(message)


def test_a_problem_of_a_run(here: Path, nl: Run, stand_in: Any, api: Any) -> None:
    problem = Diagnostic("NL9801", "the checkpoint is cut short", help="start again without `--resume`")

    def train(*_: Any, **__: Any) -> int:
        raise RunError(problem, 1)

    (here / "a.nl").write_text("good")
    stand_in.module("nldsl.run.train", train=train)
    result = nl("train", "a.nl")
    assert result.code == 1
    assert (
        "error[NL9801]: the checkpoint is cut short\n = help: start again without `--resume`\n" in result.err
    )
    assert "bug" not in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekc", "a.nl"], "error: no verb is called `chekc`: did you mean `check`?"),
        (["specs/a.nl"], "error: `specs/a.nl` is a file, not a verb: did you mean `nldsl check specs/a.nl`?"),
        (["check", "--nope", "a.nl"], "error: no such option"),
        (["check"], "error: missing argument"),
        (["graph", "a.nl", "--format", "png"], "error: invalid value for '--format'"),
        (["expand", "a.nl", "--set", "dim"], "error: `--set dim` is not of the form `path=value`"),
        (["compile", "a.nl"], "error: no folder to write to"),
        (["expand", "a.nl", "--why", "x", "--yaml"], "error: `--why` explains one value"),
    ],
)
def test_wrong_usage(here: Path, nl: Run, api: Any, arguments: list[str], message: str) -> None:
    (here / "a.nl").write_text("good")
    result = nl(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.lower().startswith(message.lower())
    assert "= help:" in result.err


def test_no_verb_is_wrong_usage_with_help(nl: Run) -> None:
    result = nl()
    assert result.code == 2
    assert result.err.startswith("Usage: nldsl")


@pytest.mark.parametrize(
    ("choice", "terminal", "environment", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
        ("auto", False, {"FORCE_COLOR": "0"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_color(choice: Any, terminal: bool, environment: dict[str, str], expected: bool) -> None:
    assert console.wants_color(choice, terminal, environment) is expected


def test_color_reaches_findings(here: Path, nl: Run, api: Any) -> None:
    (here / "a.nl").write_text("bad")
    assert "\x1b[" in nl("check", "a.nl", "--color", "always").err
    assert "\x1b[" not in nl("check", "a.nl").err
    assert "\x1b[" in nl("check", "b.nl", "--color=always").err


def test_verbs_without_their_modules_are_not_listed(nl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb_table, "present", lambda module: not module.startswith("nldsl.run."))
    listed = list(verb_table.available())
    assert "check" in listed
    assert not {"train", "generate", "eval", "verify"} & set(listed)


def test_every_verb_has_its_file_and_help(nl: Run, api: Any) -> None:
    names = sorted(p.stem for p in (ROOT / "nldsl/cli/verbs").glob("*.py") if p.stem != "__init__")
    assert names == sorted(verb.name for verb in verb_table.VERBS)
    context = click.Context(cli)
    verb_table.present.cache_clear()
    for name in cli.list_commands(context):
        result = nl(name, "--help")
        assert result.code == 0
        assert result.out.startswith(f"Usage: nldsl {name}")


def test_help_loads_nothing_heavy() -> None:
    heavy = "torch networkx lark pydantic ruamel rich matplotlib"
    done = python(
        "import sys\nfrom nldsl.cli import main\ncode = main(['--help'])\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules], code)"
    )
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr


def test_check_loads_no_torch(tmp_path: Path) -> None:
    spec = tmp_path / "a.nl"
    spec.write_text(starters.DELTA)
    done = python(
        f"import sys\nfrom nldsl.cli import main\nmain(['check', {str(spec)!r}])\n"
        "print([m for m in ('torch', 'matplotlib', 'rich') if m in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "bug" not in done.stderr


def test_the_module_runs_and_its_output_may_be_cut_short() -> None:
    done = subprocess.run(
        f"{sys.executable} -m nldsl --help | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines()[0].startswith("Usage: nldsl")
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_a_span_name_with_terminal_codes_is_made_harmless(here: Path, nl: Run, api: Any) -> None:
    result = nl("check", "\x1b[2Jx.nl")
    assert "\x1b" not in result.err
    assert Source("x", "").line_count == 1
