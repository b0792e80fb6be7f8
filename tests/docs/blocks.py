"""The specs in the pages: what a fence's words mean, and how a fragment becomes a whole spec.

```nl                     a whole spec
```nl fields              fields of a memory
```nl memory              memories; the model uses the first
```nl lines               lines of a block
```nl run                 fields, levels and evaluations of a `train`
```nl studies             variants and ablations of the run `Run`, whose memory is `DeltaNet`
```nl ... error: NL0403   gives exactly this finding
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nldsl.diagnostics.model import Source

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")))
FENCE = re.compile(r"^```(nl|yaml spec)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(?:error|warning): (NL\d{4})")

HEAD = "edition 2026\nimport [DeltaNet, SoftmaxAttention, Titans, SelfModifying, Continuum] from std\n"
LEVEL = "  level pretrain { learns = rest, rule = adamw(rate = 1e-3) }\n"
RUN = {
    "model": "  model = M(dim = 32, depth = 2)\n",
    "data": '  data = text("sotu", length = 64, batch = 2)\n',
    "steps": "  steps = 20\n",
}
FIELDS = {
    "key": "  key = x |> linear |> unit\n",
    "value": "  value = x |> linear\n",
    "query": "  query = x |> linear |> unit\n",
}


@dataclass(frozen=True)
class Block:
    """One fence of a page and the line in which it starts."""

    page: str
    line: int
    yaml: bool
    words: str
    text: str

    @property
    def kind(self) -> str:
        return (
            (self.words.split() or ["spec"])[0]
            if not self.words.strip().startswith(("error", "warning"))
            else "spec"
        )

    @property
    def wanted(self) -> list[str]:
        return CODE.findall(self.words)

    @cached_property
    def source(self) -> Source:
        return Source(f"{self.page}-{self.line}.{'yaml' if self.yaml else 'nl'}", self._whole())

    def _whole(self) -> str:
        match self.kind:
            case "spec" | "save":
                return self.text
            case "fields":
                return _model(
                    f"memory Own(dim, heads = 4) {{\n{self.text}{_missing(FIELDS, self.text)}}}\n", "Own(dim)"
                )
            case "memory":
                name = re.search(r"^memory (\w+)", self.text, re.MULTILINE)
                assert name is not None, "a memory fence declares one"
                return _model(self.text, f"{name[1]}(dim)")
            case "lines":
                return _spec("", self.text, _run(""))
            case "run":
                return _spec("", "  mixer: x = x + (x |> rmsnorm |> Continuum(dim))\n", _run(self.text))
            case "studies":
                return _spec("", "  mixer: x = x + (x |> rmsnorm |> DeltaNet(dim))\n", _run("") + self.text)
            case _:
                raise ValueError(f"{self.page}:{self.line}: `{self.kind}` is no kind of fence")


def blocks() -> list[Block]:
    """Every fence of every page that holds a spec."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page.stem, line, match[1] != "nl", match[2], match[3]))
    return found


def _model(declarations: str, part: str) -> str:
    return _spec(declarations, f"  mixer: x = x + (x |> rmsnorm |> {part})\n", _run(""))


def _spec(declarations: str, lines: str, rest: str) -> str:
    flow = "tokens |> embed(256, dim) |> repeat(depth, Own_block(dim)) |> rmsnorm |> unembed(tied)"
    model = f"model M(dim = 32, depth = 2) {{\n  {flow}\n}}\n"
    return f"{HEAD}{declarations}block Own_block(dim) {{\n{lines}}}\n{model}{rest}"


def _run(text: str) -> str:
    level = "" if re.search(r"^\s*level ", text, re.MULTILINE) else LEVEL
    return f"train Run {{\n{_missing(RUN, text)}{level}{text}}}\n"


def _missing(known: dict[str, str], text: str) -> str:
    return "".join(
        line for name, line in known.items() if not re.search(rf"^\s*{name}\s*=", text, re.MULTILINE)
    )
