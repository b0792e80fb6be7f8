"""The number at which a gate begins, from what is written of it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from nldsl.ablate.propose.begins import begins_at
from nldsl.ablate.propose.proposal import expression

WRITTEN = [
    ("0.25", 0.25),
    ("-0.25", -0.25),
    ("x", 0.0),
    ("n", 4.0),  # a number of the memory
    ("line", 0.5),  # a line of its own
    ("nothing", None),
    ("1 + n", 5.0),
    ("1 - n", -3.0),
    ("3 * n", 12.0),
    ("1 / n", 0.25),
    ("1 / x", None),
    ("n ^ 3", 64.0),
    ("(1 - n) ^ 2", None),
    ("exp(1)", math.e),
    ("exp(-1)", 1 / math.e),
    ("exp(-60)", None),
    ("exp(1000)", None),
    ("exp(nothing)", None),
    ("sqrt(n)", 2.0),
    ("sqrt(1 - n)", None),
    ("log(n)", math.log(4)),
    ("log(x)", None),
    ("learned", None),
    ("learned(4)", 0.0),
    ("learned(start = 0.5)", 0.5),
    ("x |> linear |> sigmoid", 0.5),
    ("x |> linear |> sigmoid(start = 0.9)", 0.9),
    ("x |> linear |> sigmoid(0.9)", 0.9),
    ("n |> sigmoid", 1 / (1 + math.exp(-4))),
    ("x |> linear |> softplus", math.log(2)),
    ("x |> linear |> softplus(start = 0.02)", 0.02),
    ("n |> softplus", math.log1p(math.exp(4))),
    ("1000 |> softplus", 1000.0),
    ("-1000 |> sigmoid", 0.0),
    ("n |> tanh", math.tanh(4)),
    ("n |> scale(1 / 2)", 2.0),
    ("n |> scale(nothing)", None),
    ("n |> linear", 0.0),
    ("n |> conv(4)", 0.0),
    ("x |> gelu", 0.0),
    ("n |> gelu", None),  # its stage is not known there
    ("x |> exp", None),
]


@pytest.mark.parametrize(("text", "number"), WRITTEN)
def test_a_gate_begins_where_what_is_written_says(text: str, number: float | None) -> None:
    fields = {"line": expression("x |> linear |> sigmoid")}
    part: Any = SimpleNamespace(fields=fields, number=lambda name: 4 if name == "n" else None)
    assert begins_at(part, expression(text)) == (number if number is None else pytest.approx(number))
