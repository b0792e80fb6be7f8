"""Compiled folders against their level graph: promises are kept, and broken ones are found."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import nldsl
from nldsl.run import promises as module
from nldsl.run.promises import (
    INNER,
    LAYERS,
    MEMORIES_WITHIN,
    PROMISES,
    Promised,
    arithmetic,
    layer_work,
    memory_work,
    promises,
)
from nldsl.run.subject import open_folder

GALLERY = ("deltanet", "hope", "hope_attention", "retnet", "titans", "transformer")
SPECS = [
    pytest.param(path.stem, marks=() if path.stem in GALLERY else pytest.mark.slow)
    for path in sorted((Path(__file__).parents[2] / "specs").glob("*.nl"))
]

Built = Callable[[str], Path]
Broken = Callable[..., Path]


def failed(folder: Path) -> dict[str, str]:
    return {probe.name: probe.detail for probe in promises(folder) if not probe.ok}


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_compiled_keeps_its_promises(spec: str, built: Built) -> None:
    found = promises(built(spec))
    assert [probe.name for probe in found] == ["traces", *(name for name, _ in PROMISES)]
    assert [probe for probe in found if not probe.ok] == []


@pytest.mark.parametrize("width", [1, 2])
def test_heads_of_one_number_may_work_as_tiles_do(width: int, tmp_path: Path) -> None:
    small = {"model.dim": width, "model.depth": 8, "MomentumDelta.heads": 1}
    spec = Path(__file__).parents[2] / "specs" / "momentum_delta.nl"
    nldsl.load(spec, variant="Tiny", set=small).compile(tmp_path / "built")
    promised = Promised(open_folder(tmp_path / "built"))
    inner, layers = promised.flops(INNER), promised.flops(LAYERS)
    assert promised.worked.memories > MEMORIES_WITHIN * (inner + layers)
    assert memory_work(promised)[0]
    assert layer_work(promised)[0]


GAIN = "nn.RMSNorm(dim // heads, eps=1e-6)"
WIDE = "        x = x + self.ffn_swiglu(self.ffn_norm(x))"

BOTH = "    both = torch.cat((queries, keys), dim=3)\n"
SPARE = """\
    spare = torch.zeros_like(values)
    spare[..., 0].add_(values[..., 0])
"""
CUT = """\
    spare = torch.zeros_like(values)
    spare[..., 0].add_(values[..., 0].detach())
    spare[..., 1:].copy_(values[..., 1:].detach())
    values = spare
"""
SHAPES = "        count, memories, size = rates.shape\n"
UNUSED = "        torch.mul(values, 2.0, out=torch.empty_like(values))\n"

FAULTS = {
    "a wider map": (
        "transformer",
        "model.py",
        [("query_linear = nn.Linear(dim, dim, bias=False)", "query_linear = nn.Linear(dim, dim, bias=True)")],
        {"parameters of each component"},
    ),
    "a parameter nobody promised": (
        "transformer",
        "model.py",
        [("        initialise(self)", "        self.extra = nn.Linear(3, 3)\n        initialise(self)")],
        {"parameters of each component", "the loss reaches each level", "nothing dead"},
    ),
    "two levels for one parameter": (
        "hope_attention",
        "settings.py",
        [('learns=("blocks.*.store.slow",)', 'learns=("blocks.*.store.slow", "blocks.*.store.middle")')],
        {"one level for each parameter"},
    ),
    "another level than promised": (
        "hope_attention",
        "settings.py",
        [("blocks.*.store.slow", "blocks.*.store.swap"), ("blocks.*.store.middle", "blocks.*.store.slow"),
         ("blocks.*.store.swap", "blocks.*.store.middle")],
        {"one level for each parameter"},
    ),
    "an outer period of half the length": (
        "hope_attention",
        "settings.py",
        [("clock=Clock(16, ", "clock=Clock(8, ")],
        {"outer clocks"},
    ),
    "a projection cut off": (
        "titans",
        "model.py",
        [("* 0.9).transpose(1, 2)", "* 0.9).transpose(1, 2).detach()")],
        {"the loss reaches each level", "gradients stop where promised"},
    ),
    "a gate cut off before a kernel": (
        "deltanet",
        "model.py",
        [("rate=rate, state=", "rate=rate.detach(), state=")],
        {"the loss reaches each level", "gradients stop where promised"},
    ),
    "values cut off in a buffer": ("deltanet", "kernels.py", [(BOTH, BOTH + CUT)],
        {"the loss reaches each level", "gradients stop where promised"},
    ),
    "a buffer written for nothing": (
        "deltanet",
        "kernels.py",
        [(BOTH, BOTH + SPARE), (SHAPES, SHAPES + UNUSED)],
        {"nothing dead"},
    ),
    "a frozen parameter": (
        "titans",
        "model.py",
        [(f"self.out_norm = {GAIN}", f"self.out_norm = {GAIN}.requires_grad_(False)")],
        {"the loss reaches each level"},
    ),
    "work for nothing": (
        "transformer",
        "model.py",
        [("        x = self.embed(tokens)", "        x = self.embed(tokens)\n        (x @ x.mT).exp()")],
        {"nothing dead"},
    ),
    "twice the work": (
        "transformer",
        "model.py",
        [(WIDE, f"        for _ in range(6):\n    {WIDE}")],
        {"work of layers"},
    ),
    "more state than promised": (
        "retnet",
        "model.py",
        [('"core": core}', '"core": core, "kept": x}')],
        {"state of a sequence"},
    ),
    "a model that looks at the numbers": (
        "transformer",
        "model.py",
        [("        x = self.embed(tokens)", "        x = self.embed(tokens) * float(tokens.sum())")],
        {"traces"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_found(fault: str, broken: Broken) -> None:
    spec, file, edits, expected = FAULTS[fault]
    found = failed(broken(spec, file, *edits))
    assert expected <= set(found), found


def test_what_is_dead_in_buffers_is_counted(broken: Broken) -> None:
    spec, file, edits, _ = FAULTS["a buffer written for nothing"]
    told = failed(broken(spec, file, *edits))
    assert told == {"nothing dead": "6 operations compute what nothing needs: 2 zeros_like, 2 add_, 2 mul"}


def test_a_wrong_clock_is_told_with_both_numbers(broken: Broken) -> None:
    found = failed(broken("hope_attention", "settings.py", ("clock=Clock(16, ", "clock=Clock(8, ")))
    assert found == {"outer clocks": "level `slow` changes 25 times in 200 steps; 16 steps promise 12"}


def test_what_stops_must_be_promised(built: Built, broken: Broken) -> None:
    folder = broken("retnet", "levels.json")
    graph = json.loads((folder / "levels.json").read_text(encoding="utf-8"))
    graph["gradients"] = dict.fromkeys(graph["gradients"], "stop")
    (folder / "levels.json").write_text(json.dumps(graph), encoding="utf-8")
    told = failed(folder)["gradients stop where promised"]
    assert told.startswith("nothing is detached, though `")


@pytest.mark.parametrize("period", [1, 3, 8])
@pytest.mark.parametrize("offset", [0, 1, 5, 8, 40])
@pytest.mark.parametrize("unit", ["step", "token"])
@pytest.mark.parametrize("partial", ["carry", "drop", "flush"])
def test_arithmetic_agrees_with_the_schedule(
    period: int, offset: int, unit: str, partial: str, built: Built
) -> None:
    from nldsl.run.folder import load

    schedule = load(built("transformer"), ("schedule",)).schedule
    steps, length = 21, 24
    clock = schedule.Clock(period, unit, offset, partial)
    end = steps * length
    due = sum(schedule.due(clock, position, length, ends=position == end) for position in range(1, end + 1))
    told = {"period": period, "unit": unit, "offset": offset, "partial": partial, "words": str(clock)}
    assert arithmetic(told, steps, length) == due


def test_the_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
