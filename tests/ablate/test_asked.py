"""What a study asks, as `study.json` keeps it and as it is joined with what was asked before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nldsl.ablate.asked import Asked, join, read, write
from nldsl.ablate.rows import Keep, Row

BASE = Row("base", "Run", digest="0", parameters=1, flops_per_token=2, state_bytes=3, steps=4)
HELD = replace(
    BASE,
    name="a",
    words="without A",
    question="does it need A?",
    digest="1",
    matched="B.hidden 4 -> 6 holds parameters: 0.0%",
    merged=("A = 0",),
    changes=("A is gone",),
)
BROKEN = Row("b", "without B", problem="the path `B` matches nothing")
ASKED = Asked(
    "Study",
    "Run",
    (BASE, HELD, BROKEN),
    block="ablate Study of Run { }",
    seeds=(3, 5),
    measures=("loss", "needle"),
    baseline="a",
    keep=Keep("flops", 0.0125, ("B.hidden",)),
    sets={"base": [], "a": ["remove A"], "b": ["remove B"]},
    bytes={"base": 7, "a": 8, "b": 0},
    version="1.0",
)


def test_all_that_is_asked_survives_the_file(tmp_path: Path) -> None:
    write(tmp_path, ASKED)
    assert read(tmp_path) == ASKED


def test_what_is_asked_no_longer_stays_and_what_never_was_a_variant_does_not() -> None:
    wide = replace(BASE, name="wide", words="wide", digest="2")
    now = replace(ASKED, rows=(BASE, wide), baseline="wide", sets={"wide": ["set d = 2"]}, bytes={"wide": 9})
    joined = join(ASKED, replace(now, version="2.0"))
    assert [row.name for row in joined.rows] == ["base", "wide", "a"]
    assert (joined.left, joined.baseline, joined.version) == (("a",), "wide", "1.0")
    assert (joined.sets["a"], joined.sets["wide"]) == (["remove A"], ["set d = 2"])
    assert (joined.bytes["a"], joined.bytes["wide"]) == (8, 9)


def test_what_is_called_otherwise_keeps_its_name_and_its_figures() -> None:
    other = replace(HELD, name="c", words="c")
    sets, sizes = {"base": [], "c": ["set c = 1"]}, {"base": 7, "c": 9}
    now = replace(ASKED, rows=(BASE, other), baseline="c", sets=sets, bytes=sizes)
    joined = join(ASKED, now)
    assert [(row.name, row.words) for row in joined.rows] == [("base", "Run"), ("a", "c")]
    assert (joined.left, joined.baseline) == ((), "a")
    assert (joined.sets["a"], joined.bytes["a"]) == (["set c = 1"], 9)


def test_variants_that_could_not_be_made_are_not_one_another() -> None:
    again = replace(BROKEN, name="c", words="without C")
    joined = join(ASKED, replace(ASKED, rows=(BASE, HELD, again), sets={}, bytes={}))
    assert [row.name for row in joined.rows] == ["base", "a", "c"]
