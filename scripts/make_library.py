"""Write the pages of the standard library, docs/library: `python scripts/make_library.py [--check]`.

A page is made from the `.nl` file of its part (remarks and text), and from the first spec of `specs/` that
is about it, made small: its engines, its cost and its levels.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "library"

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import nldsl  # noqa: E402
from nldsl.api.planned import named, one_chain, one_memory  # noqa: E402
from nldsl.codegen.plan.engines import choose  # noqa: E402
from nldsl.codegen.plan.projections import looped  # noqa: E402
from nldsl.diagnostics.model import Source  # noqa: E402
from nldsl.document import model as doc  # noqa: E402
from nldsl.document.printer import print_expr  # noqa: E402
from nldsl.levels.build import DEFAULT_LENGTH  # noqa: E402
from nldsl.levels.draw import render  # noqa: E402
from nldsl.resolve import spelling  # noqa: E402
from nldsl.resolve.expanded import BlockInstance, ChainInstance, MemoryInstance  # noqa: E402
from nldsl.syntax import read  # noqa: E402

Instance = BlockInstance | ChainInstance | MemoryInstance


@dataclass(frozen=True)
class Part:
    """One file of the library and the spec that shows it."""

    path: Path
    spec_path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def remark(self) -> str:
        """What stands above the declaration of this name."""
        above = self.text.split(f" {self.name}(")[0]
        return " ".join(re.findall(r"^# ?(.*)$", above, re.MULTILINE))

    @cached_property
    def declaration(self) -> doc.Memory | doc.Block:
        document, _ = read(Source(self.path.name, self.text))
        found = (d for d in document.declarations if isinstance(d, doc.Memory | doc.Block))
        return next(d for d in found if d.name == self.name)

    @cached_property
    def spec(self) -> nldsl.Spec:
        return nldsl.load(self.spec_path, variant="Tiny")

    @cached_property
    def instances(self) -> list[Instance]:
        """Where the spec uses this part: itself, or the memories inside a block."""
        every = {i.path: i for i, _ in self.spec.expanded.instances()}
        own = [i for i in every.values() if i.name == self.name]
        below = [i for i in every.values() if any(i.path.startswith(f"{o.path}.") for o in own)]
        return [*own, *below]

    @cached_property
    def memories(self) -> list[MemoryInstance]:
        return [i for i in self.instances if isinstance(i, MemoryInstance)]

    @property
    def source(self) -> str:
        """The works that the remark cites."""
        cited = [c for c in re.findall(r"\(([^()]*)\)", self.remark) if re.match(r"[A-Z][A-Za-z]", c)]
        return "; ".join(dict.fromkeys(one.strip() for c in cited for one in c.split(";")))


def parts() -> list[Part]:
    """Every file of the library, with the spec that imports the least beside it."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").glob("*.nl"))}
    imported = {
        path: re.findall(r"\w+", m[1]) if (m := re.search(r"import \[([^\]]*)\] from std", text)) else []
        for path, text in texts.items()
    }
    found = []
    for path in sorted((ROOT / "nldsl" / "lib").glob("*.nl")):
        users = [spec for spec, names in imported.items() if path.stem in names]
        plain = [s for s in users if f"{path.stem}(dim)" in texts[s]] or users
        found.append(Part(path, min(plain, key=lambda spec: (len(imported[spec]), str(spec)))))
    return found


def signature(declaration: doc.Memory | doc.Block) -> str:
    """A declaration's name and parameters as they are written."""
    shown = [
        p.name if p.default is None else f"{p.name} = {print_expr(p.default)}" for p in declaration.parameters
    ]
    return f"{declaration.name}({', '.join(shown)})"


def engine_words(memory: MemoryInstance) -> str:
    """The engine of a memory, short."""
    if looped(memory):
        return "self-modifying"
    return named(choose(memory.core).engine)


def clock_words(one: Instance) -> str:
    """When what a part holds changes."""
    if isinstance(one, ChainInstance):
        return ", ".join(str(level.clock) for level in one.levels)
    if not isinstance(one, MemoryInstance) or one.core.map.kind == "cache":
        return "always" if isinstance(one, MemoryInstance) else ""
    core = one.core
    words = spelling.every(core.update)
    still = isinstance(core.anchor, int) and core.anchor != core.update
    return f"{words}, gradients every {core.anchor}" if still else words


def row(part: Part) -> str:
    """The line of the index."""
    shown = part.memories or part.instances
    chains = [i for i in shown if isinstance(i, ChainInstance)]
    objectives = [m.core.objective if m.core.map.kind != "cache" else "keeps pairs" for m in part.memories]
    rules = [spelling.spelled(m.core.rule) for m in part.memories]
    cells = [
        f"[{part.name}]({part.name}.md)",
        _listed(objectives + ["task"] * len(chains)),
        _listed(rules + ["gd" if one.scope == "sequence" else "the level's" for one in chains]),
        _listed([clock_words(i) for i in shown]),
        _listed(
            [engine_words(m) for m in part.memories]
            + ["segment by segment" if one.scope == "sequence" else "plain layers" for one in chains]
        ),
        part.source,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _listed(words: list[str]) -> str:
    return "; ".join(dict.fromkeys(w for w in words if w))


def index(every: list[Part]) -> str:
    """The page that lists the others."""
    rows = "\n".join(row(part) for part in every)
    names = "\n".join(part.name for part in every)
    return f"""# The library

`import [Name] from std`. Every part is a short `.nl` file in `nldsl/lib`, to be read, copied and
amended; nothing about them is special to the compiler. Each page has the text, what runs it, what it
costs, and the levels of a small model made of it. Engines and costs are those of the small models.

| part | objective | rule | changes | engine | source |
| --- | --- | --- | --- | --- | --- |
{rows}

Rules for levels outside the sequence are [in the language reference](../language.md#runs).

```{{toctree}}
:hidden:
:maxdepth: 1

{names}
```
"""


def page(part: Part) -> str:
    """The page of one part."""
    spec = part.spec_path.name
    training = part.spec.expanded.training
    length = training.data.length if training is not None else DEFAULT_LENGTH
    chains = [one for one in part.instances if isinstance(one, ChainInstance)]
    explained = "\n".join(
        [one_chain(chain, length) for chain in chains] + [one_memory(m, length) for m in part.memories]
    )
    plain = chains and not part.memories and all(chain.scope == "shared" for chain in chains)
    shared = "Its weights are shared by all sequences and change between steps: it runs as plain layers.\n\n"
    engine = f"""{shared if plain else ""}What `nldsl explain specs/{spec} --variant Tiny` says of it:

```text
{explained.rstrip()}
```
"""
    levels = render(part.spec.levels(), "text", width=100).rstrip()
    kind = "block" if isinstance(part.declaration, doc.Block) else "memory"
    core = _core(part)
    return f"""# {part.name}

{part.remark}

A {kind}, `{signature(part.declaration)}`, from `nldsl/lib/{part.path.name}`:

```nl
{part.text.rstrip()}
```

## Using it

```text
import [{part.name}] from std

block Layer(dim) {{
  mixer: x = x + (x |> rmsnorm |> {part.name}(dim))
}}
```

`specs/{spec}` makes a model of it: `nldsl train specs/{spec} --variant Tiny`.{core}

## Engine and cost

{engine}
## Levels

Everything that learns in that model, from fast to slow (`nldsl graph specs/{spec} --variant Tiny`):

```text
{levels}
```
"""


def _core(part: Part) -> str:
    if not part.memories or isinstance(part.declaration, doc.Block):
        return ""
    reads_itself = any(looped(m) for m in part.memories)
    takes = ("x",) if reads_itself else nldsl.core(part.name, "reference").inputs
    listed = ", ".join(f"`{name}`" for name in takes)
    return f' The part that learns, by itself, is `nldsl.core("{part.name}")`, a function of {listed}.'


def made() -> dict[Path, str]:
    """Every page by its path."""
    every = parts()
    return {PAGES / "index.md": index(every)} | {PAGES / f"{p.name}.md": page(p) for p in every}


def main() -> int:
    """Write the pages; with `--check` only say which are stale, and exit with 1."""
    wanted = made()
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    gone = [p for p in sorted(PAGES.glob("*.md")) if p not in wanted]
    check = "--check" in sys.argv
    for path in (*stale, *gone):
        print(f"{'stale' if check else 'written' if path in wanted else 'removed'}: {path.relative_to(ROOT)}")
        if not check and path in wanted:
            path.write_text(wanted[path], encoding="utf-8", newline="\n")
        elif not check:
            path.unlink()
    return int(bool(stale or gone) and check)


if __name__ == "__main__":
    sys.exit(main())
