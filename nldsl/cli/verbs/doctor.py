"""`nldsl doctor`: what is installed, what the machine has, and what would be missed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Literal

import click

from nldsl.cli.about import version
from nldsl.cli.console import Console
from nldsl.cli.options import with_plain_console

State = Literal["ok", "warning", "error"]
_NEEDED = ("click", "lark", "pydantic", "ruamel.yaml", "networkx", "rich", "matplotlib")


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the report; an `error` makes the verb fail."""

    name: str
    state: State
    detail: str


def doctor(console: Console, *, with_torch: bool = True) -> int:
    """Print the report; 1 where something that nldsl needs is missing."""
    from nldsl.diagnostics.render.paint import paint

    facts = [*_software(), *(_torch() if with_torch else ()), *_machine()]
    width = max(len(fact.name) for fact in facts)
    style = {"ok": "help", "warning": "warning", "error": "error"}
    for fact in facts:
        mark = paint(f"{fact.state:<7}", style[fact.state], console.color_out)
        console.out(f"{mark}  {fact.name:<{width}}  {fact.detail}")
    return int(any(fact.state == "error" for fact in facts))


def _software() -> Iterator[Fact]:
    import nldsl

    where = Path(nldsl.__file__ or "").parent
    yield Fact("nldsl", "ok", f"{version()} in {where}")
    new_enough = sys.version_info >= (3, 11)
    yield Fact(
        "Python", "ok" if new_enough else "error", f"{sys.version.split()[0]}; 3.11 or newer is needed"
    )
    for package in _NEEDED:
        try:
            yield Fact(package, "ok", installed(package))
        except PackageNotFoundError:
            yield Fact(package, "error", f"is not installed: `pip install {package}`")


def _torch() -> Iterator[Fact]:
    try:
        import torch
    except ImportError as error:
        yield Fact("torch", "error", f"cannot be imported ({error}): `pip install torch`")
        return
    yield Fact("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            yield Fact(f"cuda:{i}", "ok", f"{torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    else:
        yield Fact("cuda", "ok", "no device; training runs on the CPU")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler:
        yield Fact("C++ compiler", "ok", compiler)
    else:
        yield Fact("C++ compiler", "warning", "none: torch.compile cannot build for the CPU (`--no-compile`)")


def _machine() -> Iterator[Fact]:
    yield Fact("processors", "ok", f"{os.cpu_count()}")
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        yield Fact("memory", "ok" if memory >= 2 else "warning", f"{memory:.1f} GiB")
    except (ValueError, OSError, AttributeError):
        yield Fact("memory", "ok", "unknown")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Fact("disk", "ok" if free >= 1 else "warning", f"{free:.1f} GiB free here")
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            yield Fact("folder", "ok", f"{Path.cwd()} can be written")
    except OSError:
        yield Fact("folder", "warning", f"{Path.cwd()} cannot be written: use `-o` with another folder")
    encoding = (sys.stdout.encoding or "unknown").lower()
    state: State = "ok" if encoding.startswith("utf") else "warning"
    yield Fact("terminal", state, f"{encoding}{'' if state == 'ok' else ': set PYTHONUTF8=1'}")


@click.command("doctor")
@click.option("--no-torch", is_flag=True, help="Leave out torch, which takes a moment to import.")
@with_plain_console
def command(console: Console, no_torch: bool) -> int:
    """Report on this installation and machine."""
    return doctor(console, with_torch=not no_torch)
