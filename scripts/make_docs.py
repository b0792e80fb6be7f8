"""Write the tables of docs/ that are made from the code: `python scripts/make_docs.py [--check]`.

A page holds `<!-- made: NAME -->` and `<!-- end -->`; what stands between them is written anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(<!-- made: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from nldsl.api.reading import library, linked  # noqa: E402
from nldsl.codegen.plan.engines import ENGINES, TOKEN_LOOP  # noqa: E402
from nldsl.diagnostics.model import Source  # noqa: E402
from nldsl.document import expr as e  # noqa: E402
from nldsl.document.printer import print_expr  # noqa: E402
from nldsl.resolve.algorithm import FUNCTIONS, SIGNALS  # noqa: E402
from nldsl.resolve.findings import Findings  # noqa: E402
from nldsl.resolve.flows import MAP_TAKES  # noqa: E402
from nldsl.resolve.optimizers import algorithm  # noqa: E402
from nldsl.resolve.primitives import INF, PRIMITIVES, Primitive, Takes  # noqa: E402
from nldsl.resolve.rules import SCHEDULES  # noqa: E402
from nldsl.resolve.scope import Scope  # noqa: E402
from nldsl.resolve.training import MEASURES  # noqa: E402

Row = tuple[str, ...]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; `|` within cells is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"
    )


def code(text: str) -> str:
    """`text` as code, or nothing where there is nothing."""
    return f"`{text}`" if text else ""


def argument(take: Takes) -> str:
    """One argument as it is written, with its default."""
    if take.kind == "flag":
        return take.name
    if take.kind == "word":
        return f"{take.name} = {take.default}"
    return take.name if take.required or take.default is None else f"{take.name} = {take.default}"


def takes(found: tuple[Takes, ...]) -> str:
    """The arguments of a primitive or map; those in brackets may be left out."""
    required = [argument(t) for t in found if t.required]
    others = [f"[{argument(t)}]" for t in found if not t.required]
    return code(", ".join([*required, *others]))


def span(one: Primitive) -> str:
    """Where the values of a primitive lie, where that is known."""
    if one.range is None:
        return ""
    low, high = (f"{x:g}" for x in one.range)
    return f"{low} to {high}" if INF not in one.range else f"{low} and more"


def primitives() -> str:
    """Every stage of a pipeline."""
    works = {"merged": "all features", "head": "each head", "any": "either"}
    rows = [(code(p.name), p.summary, takes(p.takes), works[p.layout], span(p)) for p in PRIMITIVES.values()]
    return table(("stage", "gives", "arguments", "works on", "range"), rows)


def maps() -> str:
    """Every map."""
    said = {
        "matrix": "`W z`",
        "linear": "the same as `matrix`",
        "vector": "`w * z`, number by number",
        "mlp": "`W2 act(W1 z)`; with `residual`, `z +` that; `norm`: see the semantics",
        "swiglu": "`W3 (silu(W1 z) * W2 z)`",
        "cache": "the pairs of the last `window` tokens and of the first `sinks`, or of all: no weights",
    }
    return table(
        ("map", "computes", "arguments"), [(code(n), said[n], takes(t)) for n, t in MAP_TAKES.items()]
    )


def rules() -> str:
    """Every rule of a run's levels: what it is, its parameters, and what it keeps as they stand."""
    module = linked(Source("rules.nl", "edition 2026\n"), None).module
    rows = []
    for name in library().rules:
        found = module.rule(name)
        assert found is not None
        declaration, where = found
        call = e.Call(e.Name((name,)), (e.Argument(e.Number(0.01), "rate"),))
        made = algorithm(call, declaration, where, Scope(module, Findings()), 0.01)
        given = [p for p in declaration.parameters if p.default is not None]
        options = ", ".join(f"{p.name} = {print_expr(p.default)}" for p in given if p.default is not None)
        keeps = ", ".join(memory.name for memory in made.memories)
        remark = re.findall(r"^# (.*)$", library().read(name).text.split("optimizer ")[0], re.MULTILINE)
        said = re.split(r" \(|[.:] ", " ".join(remark) + " ")[0]
        said = said if said.startswith(("Nest", "Adam")) else said[0].lower() + said[1:]
        said += ", for matrices" if made.matrices else ""
        rows.append((code(name), said, code(options), keeps or "nothing"))
    return table(("rule", "is", "options beside `rate`", "keeps for each weight"), rows)


def schedules() -> str:
    """Every stage behind a rate."""
    said = {
        "warmup": "rises in a straight line over the first `steps`",
        "cosine": "falls along half a cosine to `floor` times the rate (0 if left out)",
        "linear": "falls in a straight line to `floor` times the rate (0 if left out)",
        "constant": "stays",
    }
    rows = [(code(f"{n}({', '.join(a)})" if a else n), said[n]) for n, a in SCHEDULES.items()]
    return table(("stage", "the rate"), rows)


def signals() -> str:
    """What the formulas of a rule are given."""
    return table(("name", "is"), [(code(name), said) for name, (said, _, _) in SIGNALS.items()])


def functions() -> str:
    """The functions of a rule's formulas."""
    return table(("function", "gives"), [(code(form), said) for form, said in FUNCTIONS.values()])


def rule_texts() -> str:
    """The declarations of the library's rules, without the line of their edition."""
    texts = [library().read(name).text.removeprefix("edition 2026\n\n").strip() for name in library().rules]
    return "\n".join(f"```text\n{text}\n```\n" for text in texts)


def measures() -> str:
    """Every measure of `eval`."""
    said = {
        "loss": "nats per token; always there",
        "perplexity": "`exp` of the loss",
        "bits_per_byte": "the loss in bits",
        "accuracy": "share of tokens that are the likeliest",
        "needle": "share of digits of a number, said once in `length` tokens, that are recalled at the end",
    }
    rows = [(code(f"{n}({', '.join(a)})" if a else n), said[n]) for n, a in MEASURES.items()]
    return table(("measure", "is"), rows)


def engines() -> str:
    """Every engine, in the order in which they are tried."""
    rows = [
        (str(n), e.name, e.reference, code(f"{e.file}.{e.function}"), e.summary)
        for n, e in enumerate((*ENGINES, TOKEN_LOOP), start=1)
    ]
    return table(("tried", "engine", "REF", "function", "in a line"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "primitives": primitives,
    "maps": maps,
    "rules": rules,
    "signals": signals,
    "functions": functions,
    "rule texts": rule_texts,
    "schedules": schedules,
    "measures": measures,
    "engines": engines,
}
MEASURED = {"continual"}  # `make continual ARGS=--docs` writes these


def made(text: str) -> str:
    """A page with its tables written anew."""
    return MARKED.sub(lambda m: m[0] if m[2] in MEASURED else f"{m[1]}\n{TABLES[m[2]]()}\n{m[3]}", text)


def pages() -> list[Path]:
    """The pages that hold tables made from the code."""
    return [p for p in sorted((ROOT / "docs").rglob("*.md")) if MARKED.search(p.read_text(encoding="utf-8"))]


def main() -> int:
    """Write the tables; with `--check` only say which pages are stale, and exit with 1."""
    stale = []
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = made(old)
        if new != old:
            stale.append(page)
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8", newline="\n")
    for page in stale:
        print(f"{'stale' if '--check' in sys.argv else 'written'}: {page.relative_to(ROOT)}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
