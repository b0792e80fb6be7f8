"""Places, false alarms, budgets and studies."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from nldsl import checks
from nldsl.checks.budget import estimate
from nldsl.checks.gates import Interval, at_start, bounds, has_unit_length
from nldsl.diagnostics import codes
from nldsl.diagnostics.model import Source
from nldsl.document import model as doc
from nldsl.resolve import Resolution, link, memory, resolve
from nldsl.resolve.ablations import count, variants
from nldsl.resolve.expanded import MemoryInstance
from nldsl.resolve.modules import Module
from nldsl.resolve.primitives import PRIMITIVES
from nldsl.syntax import read

from .harness import find, library, no_files, placed

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").glob("*.nl"))
EXAMPLE = ROOT / "tests" / "specs" / "language_example.nl"


def linked(text: str) -> Module:
    source = Source("spec.nl", text)
    document, found = read(source)
    assert not [d for d in found if d.severity == "error"], found
    return link("spec.nl", source, document, no_files, read, library())[0]


def instance(fields: str) -> MemoryInstance:
    text = f"edition 2026\nmemory M(dim, heads = 4) {{\n{fields}\n}}\n"
    one, found = memory(linked(text), "M")
    assert one is not None, found
    return one


KEYED = "key = x |> linear |> unit\nvalue = x |> linear\nquery = x |> linear\n"


# --------------------------------------------------------------------------- no false alarm


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_gallery_is_clean(path: Path) -> None:
    assert find(Source(path.name, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_small_runs_of_the_gallery_have_no_errors(path: Path) -> None:
    """At most the slow momentum of `m3` is not due in a run that short."""
    found = find(Source(path.name, path.read_text(encoding="utf-8")), variant="Tiny")
    assert {(d.severity, d.code) for d in found} <= {("warning", "NL0315")}


def test_the_language_example_has_no_errors() -> None:
    """Its rate is too large for its period, as a warning says: a small model of it is soon NaN."""
    found = find(Source("language_example.nl", EXAMPLE.read_text(encoding="utf-8")))
    steps = [d for d in found if d.code == "NL0514"]
    assert placed(steps) == [(8, "warning", "NL0514")]
    found = [d for d in found if d not in steps]
    assert found == []


@pytest.mark.parametrize("name", library().names)
def test_the_library_is_clean(name: str) -> None:
    assert find(library().read(name)) == []


# --------------------------------------------------------------------------- places

PLACES = """edition 2026
import [Titans, GatedDeltaNet] from std

memory Mine(dim, speed = 3) {
  key   = x |> linear |> unit
  value = x |> linear
  query = x |> linear
  rate  = speed
}

model Small(dim = 64) {
  tokens |> embed(100, dim) |> Titans(dim, period = 24 tokens) |> GatedDeltaNet(dim)
    |> Mine(dim) |> Mine(dim, speed = 4) |> unembed(tied)
}

train Run {
  model = Small
  data  = text("sotu", length = 10_000)
  steps = 100
  level all { learns = [Small.embed, Titanns], rule = adamw(rate = 1e-3 |> warmup(100)) }
  eval every 101 steps { perplexity }
}
"""

WANTED = [
    ("NL0320", "Titanns", []),
    ("NL0812", "100", ['text("sotu", length = 10_000)']),
    ("NL0314", "24 tokens", ["every period", "10_000"]),
    ("NL0513", "3", ["speed"]),
    ("NL0513", "4", ["speed"]),
    (
        "NL0512",
        "GatedDeltaNet(dim)",
        ["x |> linear(heads) |> sigmoid(start = 0.99)", "10_000"],
    ),
    ("NL0516", "adamw(rate = 1e-3 |> warmup(100))", ["100"]),
]


@pytest.mark.parametrize(("code", "primary", "others"), WANTED)
def test_labels_stand_at_the_text_claimed(code: str, primary: str, others: list[str]) -> None:
    found = [d for d in find(Source("spec.nl", PLACES)) if d.code == code]
    labels = [[label.span.text for label in d.labels] for d in found]
    assert [primary, *others] in labels
    assert all(d.labels[0].span.source.name == "spec.nl" for d in found)


def test_every_finding_has_words() -> None:
    for one in find(Source("spec.nl", PLACES)):
        assert one.message
        assert not one.message.endswith(".")
        assert one.help
        assert all(label.text for label in one.labels), one


# --------------------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("gate", "always", "first"),
    [
        ("0.9", (0.9, 0.9), (0.9, 0.9)),
        ("x |> linear(heads) |> sigmoid", (0, 1), (0.5, 0.5)),
        ("x |> linear(heads) |> sigmoid(start = 0.99)", (0, 1), (0.99, 0.99)),
        ("x |> linear(heads) |> softplus", (0, math.inf), (math.log(2), math.log(2))),
        ("x |> linear(heads)", (-math.inf, math.inf), (0, 0)),
        ("(x |> linear(heads) |> tanh) * 2 + 1", (-1, 3), (1, 1)),
        ("1 - (x |> linear(heads) |> sigmoid) / 2", (0.5, 1), (0.75, 0.75)),
        ("1 - 2 ^ (-5 - head)", (1 - 2**-5, 1 - 2**-8), (1 - 2**-5, 1 - 2**-8)),
        ("x |> linear(heads) |> relu |> scale(-1)", (-math.inf, 0), (0, 0)),
        ("(x |> linear(heads)) / (x |> linear(heads))", (-math.inf, math.inf), (-math.inf, math.inf)),
        ("x |> linear(heads) |> exp", (0, math.inf), (1, 1)),
    ],
)
def test_intervals(gate: str, always: tuple[float, float], first: tuple[float, float]) -> None:
    one = instance(f"{KEYED}rate = {gate}")
    for interval, wanted in (
        (bounds(one.flows["rate"], one), always),
        (at_start(one.flows["rate"], one), first),
    ):
        assert (interval.low, interval.high) == pytest.approx(wanted)


def test_interval_within() -> None:
    assert Interval(0, 1).within(0, 1)
    assert not Interval(0, 1.1).within(0, 1)


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("x |> linear |> unit", True),
        ("x |> linear |> unit |> rope", True),
        ("x |> linear", False),
        ("x |> unit |> linear", False),
    ],
)
def test_unit_length(key: str, unit: bool) -> None:
    one = instance(f"key = {key}\nvalue = x |> linear\nquery = x |> linear")
    assert has_unit_length(one.flows["key"], one) is unit


def test_whatever_mixes_tokens_is_causal() -> None:
    """No finding speaks of a future token, because nothing in the language can read one."""
    assert {p.name for p in PRIMITIVES.values() if p.mixes_tokens} == {"conv"}


# --------------------------------------------------------------------------- budgets


def hope() -> tuple[Resolution, Module]:
    """Hope without its variants, which need memory of their own."""
    module = linked((ROOT / "specs" / "hope.nl").read_text(encoding="utf-8").split("\nvariant ")[0])
    return resolve(module), module


def test_memory_is_compared_where_the_machine_is_known() -> None:
    resolution, module = hope()
    subject = checks.subject_of(resolution, original=module)
    assert subject is not None
    need = estimate(subject)
    assert need.total == sum(dataclasses.astuple(need))
    assert need.weights == 4 * subject.graph.parameters
    assert checks.run(resolution, original=module, memory_bytes=need.total) == []
    (one,) = checks.run(resolution, original=module, memory_bytes=need.total - 1)
    assert (one.code, one.severity) == ("NL0810", "error")
    assert one.span is not None
    assert one.span.text == "8"


def test_broken_specs_have_nothing_to_check() -> None:
    resolution = resolve(linked("edition 2026\nmemory M(dim) { key = x }\n"))
    assert resolution.expanded is None
    assert checks.run(resolution) == []


def test_a_file_of_memories_alone_is_checked() -> None:
    module = linked(f"edition 2026\nmemory M(dim) {{\n{KEYED}rate = 9\n}}\n")
    assert [d.code for d in checks.run(resolve(module), original=module)] == ["NL0513"]


# --------------------------------------------------------------------------- studies

STUDY = """edition 2026
model Small(dim = 64) { tokens |> embed(256, dim) |> linear |> unembed(tied) }
train Run {
  model = Small
  data  = text("sotu", length = 128)
  level all { learns = rest, rule = adamw(rate = 1e-3) }
}
ablate Study of Run {
  without = [data.length]
  vary steps = [1, 2]
  grid [seed, steps] = [[1, 2], [3, 4, 5]]
  zip [seed, steps] = [[7, 8], [9, 10]]
}
"""


def test_variants_of_a_study() -> None:
    module = linked(STUDY)
    study = module.document.find("Study")
    assert isinstance(study, doc.Ablate)
    planned = list(variants(study, module.document))
    assert len(planned) == count(study) == 1 + 2 + 6 + 2
    assert [p.words for p in planned[:3]] == ["without data.length", "steps = 1", "steps = 2"]
    assert [p.words for p in planned[-2:]] == ["seed = 7, steps = 9", "seed = 8, steps = 10"]
    assert [s.text for s in planned[-1].spans] == ["seed", "steps", "8", "10"]
    assert len({p.words for p in planned}) == len(planned)


def test_the_registry_of_checks_is_one_tuple() -> None:
    every = (*checks.CHECKS, *checks.STUDIES)
    assert len(set(every)) == len(every)
    for check in checks.CHECKS:
        assert check.__doc__ is not None
        assert "Why" in check.__doc__
        assert "Non-goals" in check.__doc__


# --------------------------------------------------------------------------- the page

INTRO = """# What is checked

Every finding has a stable code. `nldsl explain NL0306` shows its page: what it means, the smallest
spec that gives it, and how to mend it. Errors stop; warnings do not.

A memory is checked before any model uses it. Variants and ablations are resolved and checked as if
each had been asked for, and their errors are reported at the change that brings them.

Nothing in the language can let a future token reach the past: each part that mixes tokens is causal
by definition. So there is no code for it; `nldsl verify` probes the code that was generated.

The figures behind warnings of the group *learning* are those before training: a linear map of the
input counts as zero, a gate with `start` as its start.
"""


def test_the_page_lists_every_code(golden) -> None:
    groups: dict[str, list[codes.Code]] = {}
    for code in codes.registry().values():
        groups.setdefault(code.group, []).append(code)
    text = INTRO
    for group, members in groups.items():
        text += f"\n## {group.capitalize()}\n\n| code | name | severity | what it says |\n|---|---|---|---|\n"
        text += "".join(f"| {c.code} | {c.name} | {c.severity} | {c.summary} |\n" for c in members)
    golden(ROOT / "docs" / "checks.md", text)
