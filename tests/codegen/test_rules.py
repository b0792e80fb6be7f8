"""Compiled rules against their definition: lists and functions, torch's kernels, and the text itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nldsl.api.reading import library, linked
from nldsl.api.rules import bound, compiled, library_rule
from nldsl.codegen.emit.rule_functional import functional
from nldsl.codegen.emit.rule_torch import fused
from nldsl.codegen.emit.rules import Forms, numbers, write
from nldsl.codegen.engines import newton_schulz, rule_parts
from nldsl.diagnostics.model import Source
from nldsl.resolve.algorithm import Algorithm
from tests.codegen.naive_rules import Naive

ROOT = Path(__file__).resolve().parents[2]

torch.set_num_threads(1)
FLUSH_DENORMAL = True


def declared(text: str, name: str = "mine", **options: Any) -> Algorithm:
    """A rule of a text."""
    file = linked(Source("mine.nl", f"edition 2026\n{text}"), None)
    assert not file.read, file.read
    return bound(file.module, name, 0.05, options)


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _optimizer(algorithm: Algorithm, weights: list[nn.Parameter], **group: Any) -> torch.optim.Optimizer:
    module = compiled(algorithm)
    return module.make(algorithm.name, [{"params": weights, **group}], 0.05, **numbers(algorithm))


def _step_function(algorithm: Algorithm) -> Any:
    """The function of one step, executed."""
    made = functional(algorithm)
    engines: dict[str, ModuleType] = {"newton_schulz": newton_schulz, "rule_parts": rule_parts}
    names: dict[str, Any] = {one: getattr(engines[file], one) for one, file in made.kernels.items()}
    names |= {"torch": torch, "Tensor": Tensor, **({"math": math} if made.math else {})}
    exec(made.text, names)
    return names[made.name]


def compare(algorithm: Algorithm, shapes: tuple[tuple[int, ...], ...], steps: int = 6) -> None:
    """The compiled rule over all weights at once, its function, and the definition, weight by weight."""
    weights = [nn.Parameter(_noise(i, *shape)) for i, shape in enumerate(shapes)]
    options = numbers(algorithm)
    naive = [Naive(algorithm, w.detach().clone(), dict(algorithm.options)) for w in weights]
    optimizer = _optimizer(algorithm, weights, **({"matrix": True} if algorithm.matrices else {}))
    function = _step_function(algorithm)
    taken = set(function.__kwdefaults__ or {})
    plain = [w.detach().clone() for w in weights]
    states: list[dict[str, Tensor]] = []
    for step in range(1, steps + 1):
        rate = 0.05 / step
        optimizer.param_groups[0]["lr"] = rate
        for i, weight in enumerate(weights):
            weight.grad = _noise(100 * step + i, *weight.shape)
        if step == 1:
            kind = type(optimizer)
            states = [kind.begin(w.detach()) for w in weights]  # type: ignore[attr-defined]
        optimizer.step()
        for i, (weight, one) in enumerate(zip(weights, naive, strict=True)):
            gradient = _noise(100 * step + i, *weight.shape)
            want = one.step(gradient, rate)
            if (
                not want.isfinite().all() or want.abs().max() > 1e6
            ):  # a rule that diverges: nothing to compare
                return
            torch.testing.assert_close(weight.detach(), want, rtol=1e-9, atol=1e-10)
            given_ = {name: value for name, value in options.items() if name in taken}
            plain[i], states[i] = function(plain[i], gradient, states[i], rate, step, **given_)
            torch.testing.assert_close(plain[i], want, rtol=1e-9, atol=1e-10)


LIBRARY: list[tuple[str, dict[str, Any]]] = [
    ("gd", {"decay": 0.1}),
    ("momentum", {"decay": 0.1}),
    ("nesterov", {"decay": 0.1}),
    ("adagrad", {"decay": 0.1}),
    ("rmsprop", {"decay": 0.1}),
    ("rmsprop", {"momentum": 0.9}),
    ("adam", {"decay": 0.1}),
    ("adamw", {"decay": 0.1}),
    ("muon", {"decay": 0.1}),
    ("muon", {"nesterov": False, "rounds": 3}),
    *(
        ("m3", {"accumulate": a, "divide": d, "shape": s, "period": 2, "decay": 0.1})
        for a, d, s in (("ema", "root", False), ("sum", "relative", True), ("ema", "relative", False))
    ),
    ("delta_momentum", {"form": "implicit", "decay": 0.1}),
    ("delta_momentum", {"form": "explicit", "eta": 0.02}),
    ("delta_momentum_by_number", {"form": "implicit"}),
    ("delta_momentum_by_number", {"form": "explicit"}),
]


@pytest.mark.parametrize(("name", "options"), LIBRARY)
def test_the_librarys_rules_do_what_they_say(name: str, options: dict[str, Any]) -> None:
    algorithm = (
        library_rule("delta_momentum", 0.05, **options).otherwise
        if name == "delta_momentum_by_number"
        else library_rule(name, 0.05, **options)
    )
    assert algorithm is not None
    shapes = ((3, 4), (4, 3), (3, 4), (2, 3, 2)) if algorithm.matrices else ((3, 4), (5,), (2, 3, 2))
    compare(algorithm, shapes)


MATRIX = """
optimizer mine(rate, keep = 0.8) {
  sum = grad + weight
  memory m { map = matrix, key = grad, value = sum, objective = OBJECTIVE, rate = 0.02, retain = keep }
  weight = weight - rate * (times(grad, m) + transposed(transposed(weight)) * norm(grad))
}
"""


@pytest.mark.parametrize("objective", ["l2", "dot"])
def test_matrices_of_keys_and_values(objective: str) -> None:
    compare(declared(MATRIX.replace("OBJECTIVE", objective)), ((3, 4), (4, 2), (3, 4)))


ASKED = """
optimizer mine(rate) {
  memory m { map = matrix, key = grad, value = -grad, objective = l2, rate = 0.02 }
  memory v { map = vector, key = grad, value = 0.5, objective = OBJECTIVE, rate = 0.1 }
  weight = weight + rate * (m(grad) + v * weight)
}
"""


@pytest.mark.parametrize("objective", ["l2", "dot"])
def test_memories_that_answer(objective: str) -> None:
    compare(declared(ASKED.replace("OBJECTIVE", objective)), ((3, 4), (5, 2)))


OLD = """
optimizer mine(rate, beta = 0.7) {
  near = grad - held
  memory held { map = vector, value = grad, objective = l2, rate = 1 - beta, read = boundary }
  memory late { map = vector, value = near * near, objective = dot, rate = beta, retain = 0.9 }
  size   = 1 + abs(held) + sqrt(abs(late))
  weight = weight * 0.9 - rate * (near + late) * sign(weight) - rate * weight / size
}
"""


def test_memories_read_as_they_were_and_values_used_twice() -> None:
    compare(declared(OLD), ((3, 4), (5,)))


# --------------------------------------------------------------------------- random rules


@pytest.mark.parametrize("asked", ["slow", "-slow", "0.5 + slow", "slow * slow", "sqrt(abs(slow))"])
def test_what_a_slow_memory_is_turned_to_stands_still_with_it_alone(asked: str) -> None:
    text = f"""
optimizer mine(rate, c = 0.3) {{
  memory slow {{ value = grad, objective = dot, rate = c, update = every 3 steps, reduce = sum }}
  weight = weight - rate * orthogonal({asked})
  otherwise gd(rate)
}}
"""
    compare(declared(text), ((3, 5), (5, 3)), steps=8)


@st.composite
def formulas(draw: st.DrawFn, names: tuple[str, ...], depth: int = 2) -> str:
    """A formula over tensors, with nothing below a fraction that could vanish."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(names))
    one = draw(formulas(names, depth - 1))
    kind = draw(st.sampled_from(["+", "-", "*", "/", "scaled", "power", "call", "bound", "whole", "minus"]))
    if kind in ("+", "-", "*"):
        return f"({one} {kind} {draw(formulas(names, depth - 1))})"
    if kind == "/":
        return f"({one}) / (abs({draw(formulas(names, depth - 1))}) + 0.5)"
    number = draw(st.sampled_from(["0.3", "rate", "alpha", "(1 - alpha)", "alpha ^ step", "2"]))
    return {
        "scaled": f"{number} * ({one})",
        "power": f"({one}) ^ {draw(st.sampled_from(['2', '3']))}",
        "call": f"{draw(st.sampled_from(['abs', 'sign']))}({one})",
        "bound": f"{draw(st.sampled_from(['min', 'max']))}({one}, {number})",
        "whole": f"({one}) / (norm({draw(st.sampled_from(names))}) + 1)",
        "minus": f"-({one})",
    }[kind]


@st.composite
def rules(draw: st.DrawFn) -> str:
    """A rule of one to three memories, which may read each other."""
    names: tuple[str, ...] = ("grad", "weight")
    lines: list[str] = []
    if draw(st.booleans()):
        lines.append(f"  first = {draw(formulas(names))}")
        names = (*names, "first")
    for number in range(draw(st.integers(1, 3))):
        fields = [
            "map = vector",
            f"value = {draw(formulas(names))}",
            f"objective = {draw(st.sampled_from(['l2', 'dot']))}",
            f"rate = {draw(st.sampled_from(['0.2', 'alpha', '1 - alpha', 'alpha / step']))}",
        ]
        if draw(st.booleans()):
            fields.append(f"retain = {draw(st.sampled_from(['0.8', 'alpha']))}")
        if draw(st.integers(0, 3)) == 0:
            fields += ["update = every period", f"reduce = {draw(st.sampled_from(['mean', 'sum']))}"]
            fields.append("read = boundary")
        elif draw(st.integers(0, 3)) == 0:
            fields.append("read = boundary")
        lines.append(f"  memory m{number} {{ {', '.join(fields)} }}")
        names = (*names, f"m{number}")
    used = " + ".join(name for name in names if name.startswith("m"))
    lines.append(f"  weight = weight * 0.9 - rate * ({draw(formulas(names))}) - 0.01 * ({used})")
    return "optimizer mine(rate, alpha = 0.6, period = 2 steps) {\n" + "\n".join(lines) + "\n}\n"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rules())
def test_random_rules_do_what_they_say(text: str) -> None:
    try:
        algorithm = declared(text)
    except ValueError:
        assume(False)
        raise
    compare(algorithm, ((3, 2), (4,), (3, 2)), steps=5)


# --------------------------------------------------------------------------- what torch has as a kernel


@pytest.mark.parametrize(
    ("name", "options", "function"),
    [
        ("gd", {}, None),
        ("momentum", {}, "sgd"),
        ("nesterov", {}, "sgd"),
        ("adagrad", {}, "adagrad"),
        ("rmsprop", {}, None),
        ("adam", {}, "adam"),
        ("adamw", {}, "adamw"),
        ("muon", {}, None),
    ],
)
def test_what_torch_has_is_recognised(name: str, options: dict[str, Any], function: str | None) -> None:
    found = fused(library_rule(name, 0.1, **options))
    assert (found.function if found else None) == function


UNNAMED = """
optimizer mine(rate, a = 0.8, b = 0.99, tiny = 1e-6, fade = 0.1) {
  size = sqrt(p / (1 - b ^ step)) + tiny
  memory p { map = vector, value = grad * grad, objective = l2, rate = 1 - b }
  memory q { map = vector, value = grad, objective = l2, rate = 1 - a }
  weight = weight - rate * fade * weight - q * rate / (size * (1 - a ^ step))
}
"""


def test_it_is_recognised_by_algebra() -> None:
    """Other names, another order, another way to write it; and nothing else is."""
    algorithm = declared(UNNAMED)
    found = fused(algorithm)
    assert found is not None
    assert found.function == "adamw"
    compare(algorithm, ((3, 4), (5,)))
    for old, new in (("+ tiny", "- tiny"), ("rate = 1 - b", "rate = b"), ("grad * grad", "grad * weight")):
        other = declared(UNNAMED.replace(old, new, 1))
        assert fused(other) is None, new


def test_averages_are_momentum_with_dampening() -> None:
    text = """
optimizer mine(rate, beta = 0.8) {
  memory m { map = vector, value = grad, objective = l2, rate = 1 - beta }
  weight = weight - rate * m
}
"""
    found = fused(declared(text))
    assert found is not None
    assert found.function == "sgd"
    compare(declared(text), ((3, 4), (5,)))


# --------------------------------------------------------------------------- the text


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "muon", "m3", "dgd", "delta_momentum", "deep_momentum"])
def test_text(name: str, golden: Any) -> None:
    text = write([library_rule(name, 0.05)], f"The rule `{name}`.")
    golden(Path(__file__).parent / "golden" / "rules" / f"{name}.py.txt", text)


def test_style(tmp_path: Path) -> None:
    """The formatter, the linter and the type checker have nothing to say about any rule."""
    every = [library_rule(name, 0.05) for name in library().rules]
    more = [
        library_rule("m3", 0.1, divide="relative", shape=True),
        library_rule("deep_momentum", 0.1, by="input"),
    ]
    (tmp_path / "rules.py").write_text(write([*every, *more], "All rules."), encoding="utf-8")
    (tmp_path / "ruff.toml").write_text("line-length = 110\n", encoding="utf-8")
    settings_ = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["basedpyright"]
    reports = {key: value for key, value in settings_.items() if key.startswith("report")}
    config = {"typeCheckingMode": settings_["typeCheckingMode"], "pythonVersion": "3.11", **reports}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    for command in (
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "--select", "E,F,I,B,UP", "--output-format", "concise", "."],
        ["basedpyright", "--pythonpath", sys.executable, "."],
    ):
        tool = str(Path(sys.executable).parent / command[0])
        done = subprocess.run([tool, *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_rules_of_one_form_are_one_class() -> None:
    made = [
        library_rule("adamw", 0.1, decay=0.1),
        library_rule("adamw", 0.2, beta1=0.5),
        library_rule("m3", 0.1),
        library_rule("m3", 0.1, divide="relative"),
    ]
    forms = Forms(made)
    assert [forms.name(one) for one in made] == ["adamw", "adamw", "m3", "m3_2"]
    assert list(forms.named) == ["adamw", "m3", "m3_2"]
    text = write(made, "Rules.")
    assert text == write(made, "Rules.")
    assert text.count("class Adamw(") == 1


def test_a_function_can_be_differentiated() -> None:
    function = _step_function(library_rule("muon", 0.1))
    weight, grad = _noise(0, 3, 4).requires_grad_(), _noise(1, 3, 4).requires_grad_()
    held = _noise(2, 3, 4).requires_grad_()

    def moved(w: Tensor, g: Tensor, m: Tensor) -> Tensor:
        new, state = function(w, g, {"momentum": m}, 0.1, 3, decay=0.2)
        return new + state["momentum"]

    assert torch.autograd.gradcheck(moved, (weight, grad, held))


def test_every_rule_of_the_library_compiles() -> None:
    for name in library().rules:
        write([library_rule(name, 0.1)], "Rules.")
        functional(library_rule(name, 0.1))
