"""Names of variants: folders of any file system, stable and distinct."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nldsl.ablate.names import LONGEST, file_safe, names_of

ODD = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="aA. -=,_/\\:é", max_size=12),
    st.sampled_from(("base", "Base", "NUL", "con.x", "aux", "..", ".", "", "-", "a/b", "ſ", "ß", "ẞ")),
)
SAFE = re.compile(r"[A-Za-z0-9_+=,][A-Za-z0-9._=,+-]*[A-Za-z0-9_=,+]|[A-Za-z0-9_=,+]")
RESERVED = {"base", "con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


@given(st.lists(ODD, max_size=12))
@example(["CON.0", "aux." + "a" * 200])
@example(["a" * 200, "a" * 201, "A" * 200])
@example(["Nested", "nested", file_safe("x/y"), "x/y"])
def test_names_are_folders_and_differ_where_words_do(words: list[str]) -> None:
    names = names_of(words)
    assert len({name.casefold() for name in names}) == len(set(words))
    for name in names:
        assert SAFE.fullmatch(name), name
        assert len(name) <= LONGEST
        assert name.lower().split(".")[0] not in RESERVED
    assert names == names_of(words)


@given(st.lists(ODD, max_size=6), st.permutations(range(6)))
def test_a_name_does_not_depend_on_the_order(words: list[str], order: list[int]) -> None:
    turned = [words[i] for i in order if i < len(words)]
    assert dict(zip(words, names_of(words), strict=True)) == dict(zip(turned, names_of(turned), strict=True))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("without Layer.ffn", "without-Layer.ffn"),
        ("without A.b, C.d", "without-A.b,C.d"),
        ("steps = 40, seed = 1", "steps=40,seed=1"),
        ("replace A.b by mlp(4 * dim)", "replace-A.b-by-mlp-4-dim-1386fd"),
        ("Nested", "Nested"),
        ("base", "variant-base-cae662"),
        ("a" * LONGEST, "a" * LONGEST),
    ],
)
def test_names_stay_what_they_were(words: str, name: str) -> None:
    """Folders of studies are called so: another name would train a variant again."""
    assert names_of([words]) == [name]
    assert names_of([words, "another", f"{words} more"])[0] == name


def test_names_with_the_same_digits_get_more_of_them() -> None:
    """The digests of these two begin with the same six."""
    assert names_of(["/" * 8815, "/" * 9801]) == ["variant-5d389fa2", "variant-5d389fe1"]
