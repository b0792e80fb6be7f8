"""Folders of studies: made, gone on with, damaged, and those of somebody else."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nldsl
from nldsl.ablate import asked, status
from nldsl.ablate import study as studies
from nldsl.ablate.ledger import Entry
from nldsl.ablate.plan import plan
from nldsl.ablate.rows import Trial
from nldsl.ablate.study import Study
from nldsl.run.folder import RunError

from .studies import SPEC, make

BASE, RATE, DIM = "base", "DeltaNet.rate=0.5", "model.dim=16"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that nobody changes."""
    return make(tmp_path_factory.mktemp("fresh") / "study")


@pytest.fixture
def study(fresh: Study, tmp_path: Path) -> Study:
    """A copy of it, with its spec and text beside it."""
    shutil.copytree(fresh.folder.parent, tmp_path, dirs_exist_ok=True)
    return Study(tmp_path / "study", fresh.asked)


def end(study: Study, trial: Trial, state: str = "done", **more: Any) -> None:
    """Let a trial have a result that the database does not know of."""
    content = {"format": 1, "digest": study.row(trial.variant).digest, "seed": trial.seed, "state": state}
    content |= {"steps": 40, "seconds": 2.5, "problem": "", **more}
    folder = study.folder_of(trial)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(content))


def code_of(error: pytest.ExceptionInfo[RunError]) -> str:
    return error.value.diagnostic.code


def names(study: Study) -> list[str]:
    return [one.name for one in study.trials()]


def test_few_seeds_of_everything_come_before_many_of_anything(study: Study) -> None:
    assert [(one.variant, one.seed) for one in study.trials()] == [
        (name, seed) for seed in (0, 1) for name in (BASE, RATE, DIM)
    ]
    assert {one.steps for one in study.trials()} == {40}


def test_a_study_that_is_opened_says_what_was_asked(study: Study) -> None:
    opened = Study.open(study.folder)
    assert opened.asked == study.asked
    assert [row.name for row in opened.rows] == [BASE, RATE, DIM]
    assert opened.asked.sets == {
        BASE: [],
        RATE: ["set DeltaNet.rate = 0.5"],
        DIM: ["set model.dim = 16"],
    }
    assert (opened.name, opened.base, opened.seeds) == ("Parts", "Run", (0, 1))
    assert opened.asked.bytes[DIM] > opened.asked.bytes[BASE] > 0
    assert nldsl.load(study.folder / "spec.nl").expanded.name == "Run"


def test_builds_share_their_text_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    study = make(tmp_path / "study", spec=SPEC.replace('"own.txt"', '"sotu"'))
    builds = [study.build_of(row.name) for row in study.rows]
    shared = {one.stat().st_ino for one in (b / "sotu.txt.xz" for b in builds)}
    assert len(shared) == 1
    assert len({(b / "train.py").stat().st_ino for b in builds}) == 3
    text = builds[0] / "sotu.txt.xz"
    whole = text.read_bytes()
    text.write_bytes(whole[:-1])  # of all three: they are one file
    more = make(
        study.folder, spec=SPEC.replace('"own.txt"', '"sotu"').replace("dim = [16]", "dim = [16, 24]")
    )
    assert (more.build_of("model.dim=24") / "sotu.txt.xz").read_bytes() == whole


def test_seeds_and_variants_that_are_added_leave_the_rest_alone(study: Study) -> None:
    before = study.trials()[0]
    end(study, before)
    study.mend()
    built = (study.build_of(BASE) / "model.py").stat().st_mtime_ns
    more = make(study.folder, spec=SPEC.replace("dim = [16]", "dim = [16, 24]"), seeds=3)
    assert len(more.trials()) == 4 * 3
    assert more.trials()[0].state == "done"
    assert (study.build_of(BASE) / "model.py").stat().st_mtime_ns == built
    assert not more.warnings


def test_seeds_that_are_no_longer_asked_for_are_told(study: Study) -> None:
    more = make(study.folder, seeds=4)
    assert not more.warnings
    fewer = make(study.folder)
    assert [(found.code, found.message) for found in fewer.warnings] == [
        ("NL0911", "no longer asked for: seed 2, seed 3")
    ]
    assert {one.seed for one in fewer.trials()} == {0, 1}
    assert len(make(study.folder, seeds=4).trials()) == 3 * 4


def test_a_study_that_was_not_made_to_its_end_says_so_until_it_is(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.replace("dim = [16]", "dim = [16, 24]")
    with monkeypatch.context() as patch:
        patch.setattr(Study, "entries", _full)
        with pytest.raises(RunError) as caught:
            make(study.folder, spec=spec)
    assert caught.value.diagnostic.code == "NL0903"
    (found,) = Study.open(study.folder).warnings
    assert (found.code, found.severity) == ("NL0910", "warning")
    assert found.message.endswith("it has no trial `model.dim=24/seed-0`, `model.dim=24/seed-1`")
    assert str(study.folder) in (found.help or "")
    whole = make(study.folder, spec=spec)
    assert not whole.warnings
    assert not Study.open(study.folder).warnings


def _full(_study: Study) -> list[Entry]:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_told_to_be_typed_can_be(study: Study) -> None:
    place = study.folder.rename(study.folder.with_name("my study"))
    assert f"nldsl ablate '{place}' --run" in status.as_text(Study.open(place))
    shutil.rmtree(place / "variants")
    (place / "study.db").unlink()
    empty = Study.open(place)
    assert [found.code for found in empty.warnings] == ["NL0908", "NL0910"]
    assert f"--run -o '{place}'`" in (empty.warnings[1].help or "")
    assert "no trials;" in status.as_text(empty)
    assert "ended" not in status.as_text(empty)


def test_what_is_no_longer_asked_for_stays_and_is_marked(study: Study) -> None:
    end(study, study.trials()[1])
    study.mend()
    fewer = make(study.folder, spec=SPEC.replace("  vary DeltaNet.rate = [0.5]\n", ""))
    assert [found.code for found in fewer.warnings] == ["NL0911"]
    assert [row.name for row in fewer.rows] == [BASE, DIM]
    assert all(one.variant != RATE for one in fewer.trials())
    assert fewer.row(RATE).digest == study.row(RATE).digest
    assert fewer.build_of(RATE).is_dir()
    again = make(study.folder)
    assert not again.warnings
    states = {one.name: one.state for one in again.trials()}
    assert states[f"{RATE}/seed-0"] == "done"
    assert states[f"{RATE}/seed-1"] == "waiting"


def test_a_variant_that_is_called_otherwise_keeps_its_runs(study: Study) -> None:
    wanted = plan(nldsl.load(study.folder.parent / "tiny.nl"))
    renamed = replace(
        wanted,
        rows=tuple(
            replace(row, name="wide", words="wide") if row.name == DIM else row for row in wanted.rows
        ),
        baseline="wide",
    )
    same = Study.make(study.folder, renamed)
    assert names(same) == names(study)
    assert same.row(DIM).words == "wide"
    assert same.baseline == DIM


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 40", "steps = 41", "`base` is not the same spec as there"),
        ("ablate Parts", "ablate Others", "it is called `Parts`, and this one `Others`"),
        ("Run", "Ran", "its base is `Run`, and here it is `Ran`"),
    ],
)
def test_the_study_of_another_spec_is_left_alone(study: Study, old: str, new: str, words: str) -> None:
    before = {p: p.read_bytes() for p in study.folder.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match=words) as error:
        make(study.folder, spec=SPEC.replace(old, new))
    assert code_of(error) == "NL0901"
    assert f"`nldsl diff {study.folder / 'spec.nl'} SPEC`" in (error.value.diagnostic.help or "")
    assert {p: p.read_bytes() for p in study.folder.rglob("*") if p.is_file()} == before


def test_a_folder_that_lost_its_study_is_refused(study: Study) -> None:
    (study.folder / "study.json").unlink()
    with pytest.raises(RunError, match=r"holds `spec.nl`, and no `study.json`") as error:
        make(study.folder, spec=SPEC.replace("steps = 40", "steps = 41"))
    assert code_of(error) == "NL0902"
    assert not (study.folder / "study.json").exists()


def test_what_is_asked_for_while_a_study_is_made_is_not_dropped(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = studies._build

    def slow(one: Study, wanted: Any, row: Any) -> None:
        build(one, wanted, row)
        if row.name == DIM:
            monkeypatch.undo()
            make(study.folder, seeds=3)

    monkeypatch.setattr(studies, "_build", slow)
    assert len(make(study.folder).trials()) == 9
    assert Study.open(study.folder).seeds == (0, 1, 2)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"holds `thesis.tex`") as error:
        make(tmp_path / "study")
    assert code_of(error) == "NL0902"
    assert sorted(p.name for p in (tmp_path / "study").iterdir()) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["missing", "file", "empty"])
def test_what_is_no_study_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError) as error:
        Study.open(tmp_path / name)
    assert code_of(error) == "NL0902"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 2}', '{"format": 1, "name": "x", "rows": 3}']
)
def test_a_damaged_study_is_left_as_it_is(study: Study, content: str) -> None:
    (study.folder / "study.json").write_text(content)
    with pytest.raises(RunError) as error:
        Study.open(study.folder)
    assert code_of(error) == "NL0904"
    with pytest.raises(RunError) as error:
        make(study.folder)
    assert code_of(error) == "NL0904"
    assert (study.folder / "study.json").read_text() == content


def test_a_folder_that_cannot_be_written(study: Study) -> None:
    with pytest.raises(RunError) as error:
        Study.make("/proc/study", plan(nldsl.load(study.folder.parent / "tiny.nl")))
    assert code_of(error) == "NL0903"


def test_another_version_is_told_and_changes_no_build(study: Study) -> None:
    path = study.folder / "study.json"
    path.write_text(path.read_text().replace('"nldsl": "', '"nldsl": "9.'))
    later = make(study.folder, seeds=3)
    assert [found.code for found in later.warnings] == ["NL0905"]
    assert later.asked.version.startswith("9.")
    assert len(later.trials()) == 9


# ---------------------------------------------------------------------- the database is lost


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage", "other"])
def test_a_database_that_is_lost_is_made_from_the_results(study: Study, damage: str) -> None:
    first, second, third, *_ = study.trials()
    end(study, first)
    end(study, second, "diverged", problem="the loss is inf", steps=7)
    end(study, third, seed=9)  # of another trial: it does not count
    path = study.folder / "study.db"
    content = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "garbage":
            path.write_bytes(bytes(range(256)) * 48)
        case _:
            path.write_bytes(content[:4096].replace(b"token", b"tokex") + content[4096:])
    opened = Study.open(study.folder)
    assert [found.code for found in opened.warnings] == ["NL0908"]
    states = {one.name: one.state for one in opened.trials()}
    assert states.pop(first.name) == "done"
    assert states.pop(second.name) == "diverged"
    assert set(states.values()) == {"waiting"}
    assert opened.trials()[1].problem == "the loss is inf"
    kept = list(study.folder.glob("study.db.damaged-*"))
    assert len(kept) == (damage not in ("missing", "empty"))
    assert not Study.open(study.folder).warnings
    assert not list(study.folder.glob(".study*"))


def test_a_database_is_made_anew_once_and_is_never_missing(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study.folder / "study.db"
    path.write_bytes(b"nonsense" * 1024)
    there: list[bool] = []
    keep = studies._keep

    def looked(one: Path) -> None:
        keep(one)
        there.append(path.is_file())

    def faster(one: Study) -> None:
        assert not Study.open(one.folder).ledger.damage()  # another runner, to its end
        claim = one.ledger.claim()
        assert claim is not None

    with monkeypatch.context() as patch:
        patch.setattr(Study, "mend", lambda _one: patch.undo() or faster(study))
        Study.open(study.folder)
    assert [one.state for one in study.trials()].count("running") == 1, "a claim was lost"
    path.write_bytes(b"nonsense" * 1024)
    with monkeypatch.context() as patch:
        patch.setattr(studies, "_keep", looked)
        Study.open(study.folder)
    assert there == [True, True]


def test_what_was_to_be_undone_in_a_lost_database_is_not_undone_in_the_new_one(study: Study) -> None:
    path = study.folder / "study.db"
    journal = path.with_name("study.db-journal")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE trials SET problem = hex(zeroblob(100000))")  # more than fits: pages are written
        left = journal.read_bytes()
        db.execute("ROLLBACK")
    end(study, study.trials()[0])
    path.unlink()
    journal.write_bytes(left)
    assert [found.code for found in Study.open(study.folder).warnings] == ["NL0908"]
    assert Study.open(study.folder).ledger.damage() is None
    assert [one.state for one in study.trials()] == ["done", *["waiting"] * 5]
    assert not journal.exists()
    assert journal.with_name("study.db-journal.damaged-1").read_bytes() == left


def test_making_a_study_again_mends_its_database_as_well(study: Study) -> None:
    end(study, study.trials()[0])
    (study.folder / "study.db").write_bytes(b"")
    again = make(study.folder, seeds=3)
    assert [found.code for found in again.warnings] == ["NL0908"]
    assert [one.state for one in again.trials()].count("done") == 1
    assert len(again.trials()) == 9


def test_files_and_database_are_brought_together(study: Study) -> None:
    first, second, *_ = study.trials()
    end(study, first)
    claim = study.ledger.claim(second.variant, second.seed)
    assert claim is not None
    study.ledger.finish(claim.token, "done", step=40)
    study.mend()
    states = {one.name: one for one in study.trials()}
    assert (states[first.name].state, states[first.name].seconds) == ("done", 2.5)
    assert (states[second.name].state, states[second.name].problem) == ("waiting", "its result is lost")
    assert states[second.name].step == 0


def test_a_result_that_somebody_removed_is_not_told_as_done(study: Study) -> None:
    ends = ("done", "diverged", "stopped", "done", "diverged", "stopped")
    for one, state in zip(study.trials(), ends, strict=True):
        end(study, one, state)
    study.mend()
    assert "every trial has ended" in status.as_text(study)
    for one in study.trials()[:3]:
        shutil.rmtree(study.folder_of(one))
    (study.folder_of(study.trials()[5]) / "result.json").unlink()
    before = study.ledger.path.read_bytes()
    told = status.as_text(study, width=200)
    assert told.startswith("Parts of Run: 1 done, 4 waiting, 1 diverged of 6; ")
    assert (
        f"4 results are lost, of `{BASE}/seed-0`, `{RATE}/seed-0`, `{DIM}/seed-0`, `{DIM}/seed-1`: "
        "the next `--run` makes them anew, from a checkpoint where one is there\n"
    ) in told
    assert told.endswith(f"it goes on with: nldsl ablate {study.folder} --run")
    whole = json.loads(status.as_json(study))
    assert whole["states"]["waiting"] == 4
    assert [one["problem"] for one in whole["trials"]] == ["its result is lost"] * 3 + [
        "",
        "",
        "its result is lost",
    ]
    assert study.ledger.path.read_bytes() == before, "a look changes nothing"
    study.mend()
    assert [one.problem for one in study.trials()].count("its result is lost") == 4
    assert "4 results are lost" in status.as_text(study), "it is told until they are made"


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 2, "digest": "d", "seed": 0}'])
def test_results_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    assert studies.read_result(tmp_path / "result.json", "d", 0) is None


@pytest.mark.parametrize(
    "other", [{"digest": "e"}, {"seed": 1}, {"state": "running"}, {"steps": "all"}, {"format": 2}], ids=str
)
def test_results_of_something_else(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "result.json"
    whole = {"format": 1, "digest": "d", "seed": 0, "state": "done", "steps": 4, "seconds": 1.5}
    path.write_text(json.dumps(whole))
    assert studies.read_result(path, "d", 0) == whole
    path.write_text(json.dumps(whole | other))
    assert studies.read_result(path, "d", 0) is None


def test_a_build_that_was_half_written_is_none(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(studies, "_share", full)
        with pytest.raises(RunError, match="the disk is full") as error:
            make(study.folder, spec=SPEC.replace("dim = [16]", "dim = [16, 24]"))
    assert code_of(error) == "NL0903"
    assert sorted(p.name for p in (study.folder / "variants").iterdir()) == sorted([BASE, RATE, DIM])
    more = make(study.folder, spec=SPEC.replace("dim = [16]", "dim = [16, 24]"))
    assert len(more.trials()) == 8


def test_what_is_asked_survives_the_file(study: Study) -> None:
    asked.write(study.folder, study.asked)
    assert asked.read(study.folder) == study.asked
