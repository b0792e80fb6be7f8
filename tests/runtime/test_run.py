"""What nldsl does with a build folder: load, train, report, evaluate, generate."""

from __future__ import annotations

import html.parser
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from nldsl.run import report
from nldsl.run.evaluate import evaluate
from nldsl.run.folder import ORDER, RunError, load
from nldsl.run.generate import generate
from nldsl.run.progress import Display
from nldsl.run.train import train


def _finding(error: RunError) -> tuple[str, int]:
    return error.diagnostic.code, error.exit_code


def test_loading_leaves_no_plain_names_and_no_byte_code(folder: Path) -> None:
    sys.modules["schedule"] = sys
    try:
        before = set(sys.modules)
        build = load(folder)
        assert sys.modules["schedule"] is sys
        assert {name for name in set(sys.modules) - before if name in ORDER} == set()
        assert build.schedule is not sys
    finally:
        del sys.modules["schedule"]
    assert list(folder.rglob("*.pyc")) == []


def test_a_build_names_its_modules(folder: Path) -> None:
    build = load(folder)
    assert build.model.__file__ == str(folder / "model.py")
    assert build.settings.name == "Toy"
    with pytest.raises(AttributeError):
        _ = build.nonsense


def test_what_is_wrong_with_a_folder_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist") as caught:
        load(tmp_path / "nothing")
    assert _finding(caught.value) == ("NL0801", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="is no build folder"):
        load(tmp_path / "empty")
    (folder / "settings.py").write_text("SETTINGS = \n")
    with pytest.raises(RunError, match=r"`settings.py`, line 1: invalid syntax") as caught:
        load(folder)
    assert _finding(caught.value) == ("NL0802", 2)
    (folder / "settings.py").write_text("1 / 0\n")
    with pytest.raises(RunError, match="ZeroDivisionError"):
        load(folder)
    (folder / "model.py").unlink()
    with pytest.raises(RunError, match=r"it has no `model.py`"):
        load(folder)
    assert not any(name in sys.modules for name in ORDER)


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith("#")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_from_outside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[dict[str, Any]] = []
    assert train(folder, steps=8, device="cpu", set=["data.batch=2"], listen=heard.append) == 0
    out = capsys.readouterr()
    assert out.out == ""
    assert "held out" in out.err
    assert heard[0]["settings"]["data"]["batch"] == 2
    run = folder / "runs" / "001"
    page = _Page()
    page.feed((run / "report.html").read_text(encoding="utf-8"))
    assert page.seen.count("svg") == 3
    assert page.links == []
    assert "nldsl train" in page.text
    assert "--set data.batch=2" in page.text
    assert "pairs of bytes" in page.text

    measured = evaluate(folder)
    assert (measured["step"], measured["tokens"]) == (8, 384)
    assert measured["bits_per_byte"] == pytest.approx(measured["loss"] / 0.693147, rel=1e-5)
    assert set(measured["baselines"]) == {"unigram", "bigram"}
    assert evaluate(folder, whole=False)["tokens"] == 128

    first = "".join(generate(folder, prompt="elm", tokens=12))
    assert first == "".join(generate(folder, prompt="elm", tokens=12, checkpoint=run / "checkpoint.pt"))
    assert len(first) == 12


def test_errors_of_a_run_are_findings(folder: Path, tmp_path: Path) -> None:
    problems: dict[str, dict[str, Any]] = {
        "NL0803": {"set": ["data.bach=2"]},
        "NL0804": {"set": ["data.source=nothing.txt"]},
        "NL0805": {"resume": True},
        "NL0806": {"out": folder / "model.py" / "x"},
        "NL0807": {"device": "tpu"},
        "NL0808": {
            "set": [
                "levels.pretrain.rule=gd",
                "levels.pretrain.decay=0",
                "levels.pretrain.rate=1e25",
                "clip=none",
            ]
        },
    }
    for code, options in problems.items():
        with pytest.raises(RunError) as caught:
            train(folder, progress=False, **options)
        assert caught.value.diagnostic.code == code
        assert caught.value.diagnostic.help
    with pytest.raises(RunError) as caught:
        evaluate(folder, checkpoint=tmp_path / "none.pt")
    assert _finding(caught.value) == ("NL0805", 2)
    with pytest.raises(RunError):
        generate(folder, checkpoint=tmp_path / "none.pt")


def test_an_interrupted_run_says_how_to_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    assert train(folder, progress=False, listen=interrupt) == 130
    assert "--resume --out" in capsys.readouterr().err
    assert train(folder, progress=False, resume=True) == 0
    text = (folder / "runs/001/report.html").read_text(encoding="utf-8")
    assert "6 of 6 steps" in text


def test_a_report_of_a_failed_run_says_so(folder: Path) -> None:
    with pytest.raises(RunError):
        train(folder, progress=False, set=["levels.slow.rate=1e30", "levels.pretrain.rate=1e30", "clip=none"])
    assert "The run failed" in (folder / "runs/001/report.html").read_text(encoding="utf-8")


def test_the_display_shows_a_bar_on_a_terminal(folder: Path) -> None:
    text = io.StringIO()
    display = Display(Console(file=text, force_terminal=True, width=140, color_system=None))
    build = load(folder)
    with display:
        build.train.train(build.settings, device="cpu", listen=display)
    assert "6/6" in text.getvalue()
    assert "pretrain" in text.getvalue()


def test_a_log_with_a_cut_line_and_repeated_steps_is_read(tmp_path: Path) -> None:
    lines = [{"event": "step", "step": 1, "loss": 1.0}, {"event": "step", "step": 1, "loss": 2.0}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "st')
    assert report.read_log(tmp_path / "log.jsonl") == lines[1:]


def _script(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The folder's own program, without nldsl on the path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONSAFEPATH": ""}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_the_folder_runs_alone(folder: Path) -> None:
    done = _script(folder, "train.py", "--steps", "5", "--device", "cpu", "--seed", "3", "--no-compile")
    assert (done.returncode, done.stderr) == (0, "")
    assert "changed: pretrain, slow" in done.stdout
    assert "pairs of bytes:" in done.stdout
    said = _script(folder, "generate.py", "--prompt", "ash ", "--tokens", "5", "--temperature", "0")
    assert said.returncode == 0
    assert said.stdout.startswith("ash ")
    wrong = _script(folder, "train.py", "--set", "levels.slo.rate=1")
    assert wrong.returncode == 2
    assert wrong.stderr == "error: there is no setting `levels.slo.rate`\n  help: did you mean `slow`?\n"


def test_sigterm_ends_the_program_with_a_checkpoint(folder: Path) -> None:
    code = (
        "import os, signal, sys, train\n"
        "from session import Printer\n"
        "show = Printer.show_step\n"
        "def stop(self, event):\n"
        "    show(self, event)\n"
        "    if event['step'] == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "Printer.show_step = stop\n"
        "sys.exit(train.main(['--device', 'cpu']))\n"
    )
    done = _script(folder, "-c", code)
    assert done.returncode == 130, done.stderr
    assert "interrupted after step 2" in done.stdout
    assert torch.load(folder / "runs/001/checkpoint.pt", weights_only=True)["step"] == 2
