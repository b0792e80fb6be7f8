"""Polynomial features in a spec: how many there are, what they cost, and what is refused."""

from __future__ import annotations

import math

import pytest

import nldsl
from nldsl.syntax import Source


def text(stages: str, more: str = "") -> Source:
    return Source(
        "odd.nl",
        "edition 2026\nmemory Odd(dim, heads = 2, degree = 2) {\n"
        f"  key = x |> linear |> {stages}\n  value = x |> linear\n  query = x |> linear |> {stages}\n"
        f"  rate = 0.1\n{more}}}\n"
        "model M(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Odd(dim) |> unembed(tied) }\n",
    )


def codes(source: Source) -> list[str]:
    return [d.code for d in nldsl.check(source) if d.severity == "error"]


@pytest.mark.parametrize(("heads", "degree"), [(1, 1), (2, 2), (4, 3), (8, 4)])
def test_keys_are_as_wide_as_there_are_monomials(heads: int, degree: int) -> None:
    change = {"Odd.heads": heads, "Odd.degree": degree}
    found = nldsl.core(nldsl.load(text("polynomial(degree)"), set=change))
    assert isinstance(found, nldsl.Core)
    assert int(found.memory.key_width) == math.comb(8 // heads + degree, degree)


@pytest.mark.parametrize(
    "stages", ["polynomial(1)", "unit |> polynomial(3) |> unit", "polynomial(2) |> conv(2)"]
)
def test_what_may_stand_beside_it(stages: str) -> None:
    assert codes(text(stages)) == []


@pytest.mark.parametrize(
    ("stages", "code", "said"),
    [
        ("linear(2048) |> polynomial(2)", "NL0411", "makes 525,825 features of each 1024"),
        ("linear(2048) |> polynomial(1_000_000)", "NL0411", "more than 65,536"),
        ("polynomial(1_000_000_000)", "NL0411", "features of each 4"),
        ("polynomial(0)", "NL0205", "the degree of a polynomial is 0"),
        ("polynomial(1.5)", "NL0205", "the degree of a polynomial is 1.5"),
        ("polynomial", "NL0201", "degree"),
    ],
)
def test_what_is_refused(stages: str, code: str, said: str) -> None:
    (found,) = [d for d in nldsl.check(text(stages)) if d.severity == "error"][:1]
    assert found.code == code
    assert said in found.message


def test_keys_and_queries_need_the_same_features() -> None:
    source = Source(
        "odd.nl",
        text("polynomial(2)").text.replace("query = x |> linear |> polynomial(2)", "query = x |> linear"),
    )
    assert codes(source) == ["NL0401"]
