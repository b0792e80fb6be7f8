"""Rules under a hostile user: numbers without a value, schedules of options, rules that name one another."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nldsl.cli import main

SPEC = """edition 2026

{declared}

model Small(dim = 8, vocab = 256) {{ tokens |> embed(vocab, dim) |> linear |> unembed(tied) }}

train Run {{
  model = Small
  data  = text("own.txt", length = 16, batch = 2)
  steps = 4
  level all {{ learns = rest, rule = {rule} }}
}}
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Train with a rule of one's own; the exit code, and all that was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    torch.set_num_threads(1)
    Path("own.txt").write_text("A text of my own. " * 60)

    def call(body: str, rule: str, declared: str = "") -> tuple[int, str]:
        own = f"optimizer own(rate, b = 0.5, half = rate / 2) {{\n  {body}\n}}" if body else ""
        Path("a.nl").write_text(SPEC.format(declared=declared or own, rule=rule))
        code = main(["train", "a.nl", "--steps", "2"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


OWN = "own(rate = 1e-3)"


@pytest.mark.parametrize(
    ("body", "rule", "words"),
    [
        ("weight = weight - rate * grad / 0", OWN, "`rate * grad / 0` in `own` has no finite value"),
        ("weight = weight - rate * grad * sqrt(b - 1)", OWN, "`sqrt(b - 1)` in `own` has no finite value"),
        ("scale = b - 0.5\n  weight = weight - rate * grad / scale", OWN, "`rate * grad / scale` in `own`"),
        ("weight = weight - grad / rate", "own(rate = 0)", "`grad / rate` in `own` has no finite value"),
        ("", "delta_momentum(rate = 1e-3, eta = 0)", "`-identity(rows) / eta` in `delta_momentum`"),
        ("weight = weight - rate * grad / (step - 2)", OWN, "`own` of level `all` has no value at step 2"),
        ("weight = weight - rate * grad * log(2 - step)", OWN, "of level `all` has no value at step 2"),
    ],
)
def test_numbers_without_a_value(train: Run, body: str, rule: str, words: str) -> None:
    code, said = train(body, rule)
    assert (code, words in said) == (1, True), said


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("adamw(rate = 1e-3, decay = 0.1 |> cosine)", "only `rate` follows a schedule"),
        ("adamw(1e-3 |> cosine, decay = 1e-3 |> cosine)", "only `rate` follows a schedule"),
        ("m3(rate = 1e-3, period = 4 tokens)", "write for instance `period = 16 steps`"),
    ],
)
def test_options_say_what_they_take(train: Run, rule: str, words: str) -> None:
    code, said = train("", rule)
    assert (code, words in said) == (1, True), said


@pytest.mark.parametrize(
    ("otherwise", "words"),
    [
        ("dgd(rate)", "write `otherwise gd(rate)`"),
        ("muon(rate)", "write `otherwise adamw(rate)`"),
        ("own(rate)", "rules that `otherwise` names depend on each other in a circle"),
    ],
)
def test_otherwise_is_for_weights_of_any_shape(train: Run, otherwise: str, words: str) -> None:
    code, said = train(f"weight = weight - rate * orthogonal(grad)\n  otherwise {otherwise}", OWN)
    assert (code, words in said) == (1, True), said


@pytest.mark.parametrize(
    "body", ["weight = weight - half * b * grad", "weight = (1 - half) * weight + half * grad"]
)
def test_defaults_that_follow_the_rate(train: Run, body: str) -> None:
    code, said = train(body, OWN)
    assert code == 0, said


@pytest.mark.parametrize("body", ["weight = weight", "weight = weight - 0 * grad", "weight = 0 * weight"])
def test_rules_that_do_nothing_are_code_too(train: Run, body: str) -> None:
    code, said = train(body, OWN)
    assert code == 0, said


@pytest.mark.parametrize(
    "name", ["memory", "group", "parameters", "none", "class", "rule", "sequence", "own_step"]
)
def test_rules_with_names_of_python(train: Run, name: str) -> None:
    code, said = train(
        "", f"{name}(rate = 1e-3)", f"optimizer {name}(rate) {{ weight = weight - rate * grad }}"
    )
    assert code == 0, said


def test_options_and_values_with_names_of_python(train: Run) -> None:
    names = "lr = 1, params = 1, self = 1, group = 1, matrix = 1, memory = 1, lambda = 1, torch = 1"
    held = "memory zip { value = grad, rate = 1 - 0.5 * lr }\n  grads = zip * params * self * group"
    body = f"{held}\n  list = orthogonal(grads) * matrix * memory\n  weight = weight - rate * lambda * list"
    rule = f"optimizer mine(rate, {names}) {{\n  {body}\n  otherwise gd(rate)\n}}"
    code, said = train("", "mine(rate = 1e-3)", rule)
    assert code == 0, said


def test_an_option_is_no_function(train: Run) -> None:
    rule = "optimizer mine(rate, norm = 2) { weight = weight - rate * grad / norm(grad) }"
    code, said = train("", "mine(rate = 1e-3)", rule)
    assert (code, "`norm` is not a function" in said) == (1, True), said


def test_two_rules_whose_classes_would_have_one_name(train: Run) -> None:
    declared = "\n".join(
        f"optimizer {name}(rate) {{ weight = weight - {factor} * rate * grad }}"
        for name, factor in (("my_rule", 1), ("MyRule", 2))
    )
    levels = "my_rule(rate = 1e-3) }\n  level b { learns = linear, rule = MyRule(rate = 1e-3)"
    code, said = train("", levels, declared.replace("\nlevel", ""))
    assert code == 0, said
    text = next(Path("build").glob("*/rules.py")).read_text()
    assert [text.count(f"class {name}(Rule)") for name in ("MyRule", "MyRule2")] == [1, 1]


@pytest.mark.parametrize(
    "divisor", ["1 + norm(grad)", "norm(grad) + 1", "b + mean(abs(weight))", "1 + norm(grad) + norm(weight)"]
)
def test_numbers_of_a_matrix_may_begin_a_sum(train: Run, divisor: str) -> None:
    code, said = train(f"weight = weight - rate * grad / ({divisor})\n  otherwise gd(rate)", OWN)
    assert code == 0, said
