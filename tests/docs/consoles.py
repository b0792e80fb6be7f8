"""The commands in the pages, with what they print.

```console                lines after `$ ` are run in order, in one folder a page; the rest is output
```console once           shown as it was; too slow to run again
```nl save own.nl         saved under this name before the commands that follow it
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .blocks import ROOT

PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("tutorial", "new-memory", "clocks", "learning-on", "rules")),
]
FENCE = re.compile(r"^```(console|nl save (\S+)[^\n]*|console once)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (.*(?:\\\n.*)*)$", re.MULTILINE)
SHELL = f'nldsl() {{ "{sys.executable}" -m nldsl "$@"; }}; set -o pipefail; '


def commands(text: str) -> list[str]:
    """Every command of every console fence of a page."""
    return [
        c
        for match in FENCE.finditer(text)
        if match[1].startswith("console")
        for c in COMMAND.findall(match[3])
    ]


def replayed(text: str, folder: Path) -> str:
    """A page with every console run again in `folder`."""
    shutil.copytree(ROOT / "specs", folder / "specs")

    def again(match: re.Match[str]) -> str:
        if match[2]:
            (folder / match[2]).write_text(match[3], encoding="utf-8")
        if match[1] != "console":
            return match[0]
        shown = [f"$ {command}\n{run(command, folder)}" for command in COMMAND.findall(match[3])]
        return "```console\n" + "".join(shown) + "```"

    return FENCE.sub(again, text)


def run(command: str, folder: Path) -> str:
    """What one command prints, both streams as they come."""
    environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "COLUMNS")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "LC_ALL": "C",
    }
    done = subprocess.run(
        ["bash", "-c", SHELL + command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "".join(f"{line}\n" for line in lines)
