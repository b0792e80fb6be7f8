"""How long the tool itself takes: `nldsl check` beside importing the libraries that it stands on."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7
LIBRARIES = "from pydantic import BaseModel; import lark"


def _seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def long_spec(lines: int) -> str:
    """A spec of about so many lines: one model of many memories."""
    parts = ["edition 2026", "import [DeltaNet] from std", ""]
    count = lines // 12
    for n in range(count):
        parts += [
            f"memory Own{n}(dim, heads = 4) {{",
            "  key       = x |> linear |> conv(4) |> silu |> unit",
            "  value     = x |> linear |> conv(4) |> silu",
            "  query     = x |> linear |> conv(4) |> silu |> unit",
            "  rate      = x |> linear(heads) |> sigmoid",
            "  objective = l2",
            "  out       = read |> rmsnorm |> linear",
            "}",
            f"block B{n}(dim) {{",
            f"  mixer: x = x + (x |> rmsnorm |> Own{n}(dim))",
            "}",
            "",
        ]
    blocks = " |> ".join(f"repeat(1, B{n}(dim))" for n in range(count))
    parts += [
        "model M(dim = 64, vocab = 256) {",
        f"  tokens |> embed(vocab, dim) |> {blocks} |> unembed(tied)",
        "}",
    ]
    return "\n".join(parts) + "\n"


def report(spec: str = "specs/hope.nl") -> str:
    """A Markdown table; all three commands take turns."""
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.nl"
        large.write_text(long_spec(1000), encoding="utf-8")
        lines = len(large.read_text(encoding="utf-8").splitlines())
        commands = {
            "import pydantic and lark": ("-c", LIBRARIES),
            f"check {spec}": ("-m", "nldsl", "check", spec),
            f"check a spec of {lines} lines": ("-m", "nldsl", "check", str(large)),
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name, command in commands.items():
                seconds = _seconds(*command)
                if turn:  # the first round compiles bytecode
                    taken[name].append(seconds)
    rows = ["### The tool", "", "| command | median ms | least ms |", "| --- | ---: | ---: |"]
    rows += [f"| {n} | {statistics.median(t) * 1e3:.0f} | {min(t) * 1e3:.0f} |" for n, t in taken.items()]
    return "\n".join(rows) + "\n"
