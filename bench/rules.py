"""A step of each rule against torch's optimizers: the rules of the library, compiled, on lists of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import nldsl
from bench.timing import Timing, interleaved

TOTAL = 3_900_000
LISTS = {"40 tensors": 40, "200 tensors": 200}
Maker = Callable[[list[Tensor]], torch.optim.Optimizer]

RULES: dict[str, tuple[Maker, dict[str, Any]]] = {
    "gd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "rmsprop with momentum": (torch.optim.RMSprop, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "muon": (torch.optim.Muon, {"weight_decay": 0.1, "adjust_lr_fn": "original"}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"decay": 0.1},
    "muon": {"decay": 0.1},
    "rmsprop with momentum": {"momentum": 0.9},
}
OTHERS = ("m3", "delta_momentum")
FORMS = ("foreach", "fused")


def weights(count: int, device: str) -> list[Tensor]:
    """So many square-ish matrices, and gradients on them."""
    side = round((TOTAL / count) ** 0.5)
    made: list[Tensor] = [nn.Parameter(torch.randn(side, side, device=device)) for _ in range(count)]
    for weight in made:
        weight.grad = torch.randn_like(weight)
    return made


def theirs(name: str, form: str, count: int, device: str) -> Callable[[], object] | None:
    """Torch's own step in one of its forms, if there is one."""
    if name not in RULES:
        return None
    kind, options = RULES[name]
    whole = options if name == "muon" else {**options, form: True}
    if (name == "muon" and form == "fused") or (kind is torch.optim.RMSprop and form == "fused"):
        return None
    return kind(weights(count, device), lr=1e-4, **whole).step  # type: ignore[call-arg]


def report(rounds: int = 15, device: str = "") -> str:
    """A Markdown table for each length of list."""
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tables = [_table(title, count, rounds, place) for title, count in LISTS.items()]
    return "\n".join(tables)


def _table(title: str, count: int, rounds: int, device: str) -> str:
    lines = [
        f"### Rules: {TOTAL / 1e6:.1f} million weights in {title}, {device}",
        "",
        "| rule | step | torch foreach | torch fused | step over foreach |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in (*RULES, *OTHERS):
        rule = name.split(" ")[0]
        variants: dict[str, Callable[[], object]] = {
            "rule": nldsl.rule(rule, weights(count, device), 1e-4, **OPTIONS.get(name, {})).step
        }
        for form in FORMS:
            step = theirs(name, form, count, device)
            if step is not None:
                variants[form] = step
        if device == "cuda":
            variants = {n: _waited(step) for n, step in variants.items()}
        few = max(3, rounds // 4) if rule in ("muon", "m3", "delta_momentum") else rounds
        lines.append(_row(name, interleaved(variants, few, wall=device == "cuda")))
    return "\n".join([*lines, ""])


def _waited(step: Callable[[], object]) -> Callable[[], object]:
    """A step and the wait for the device."""

    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


def _row(name: str, times: dict[str, Timing]) -> str:
    def cell(key: str) -> str:
        return f"{times[key].median * 1e3:.2f} ms" if key in times else ""

    ratio = f"{times['rule'].median / times['foreach'].median:.2f}" if "foreach" in times else ""
    return f"| {name} | {cell('rule')} | {cell('foreach')} | {cell('fused')} | {ratio} |"
