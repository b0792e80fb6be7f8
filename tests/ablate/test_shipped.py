"""The study that is shipped, at minute size: every row is trained, reported, and put into a page."""

from __future__ import annotations

import csv
from pathlib import Path

import nldsl
from nldsl.ablate import local
from nldsl.ablate.study import Study
from nldsl.cli import main
from scripts.ablation_page import put, section

from .studies import brief, fork, warm

SPEC = Path(__file__).parents[2] / "specs" / "ablations" / "hope_table6.nl"
TINY = {"model.dim": 8, "model.depth": 1, "data.length": 32, "data.batch": 8, "steps": 4}
ROWS = (
    "SelfModifying.rule = gd",
    "without SelfModifying.momentum",
    "without SelfModifying.retain",
    "without HopeBlock.store",
    "without SelfModifying.key.adaptive",
    "without SelfModifying.value.adaptive",
    "without SelfModifying.query.adaptive",
    "replace HopeBlock.store.Continuum by mlp(6 * dim)",
)


def test_every_row_of_the_shipped_study_is_trained_and_reported(tmp_path: Path) -> None:
    plan = nldsl.study(SPEC, set=TINY, seeds=1)
    assert tuple(row.words for row in plan.rows[1:]) == ROWS
    assert plan.runnable == plan.rows
    study = brief(Study.make(tmp_path / "study", plan))
    warm()
    assert local.run(study, jobs=2, start=fork) == 0
    assert main(["ablate", str(study.folder), "--report"]) == 0
    rows = list(csv.DictReader((study.folder / "report" / "runs.csv").open(encoding="utf-8")))
    assert [(row["words"], row["state"]) for row in rows[1:]] == [(words, "done") for words in ROWS]
    assert len({row["loss"] for row in rows}) == len(rows), "a row does what another does"
    text, pictures = section(study.folder, "small")
    page = put("before\n<!-- made: small -->\n<!-- end -->\nafter\n", "small", text)
    assert page.startswith("before\n<!-- made: small -->\n\n### ")
    assert "](../" not in page
    assert all(f"(pictures/{name})" in page for name in pictures)
