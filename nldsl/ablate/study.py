"""The folder of a study: what is asked, a build of each variant, and what its trials left.

    study.json            what is asked: the plan as plain values
    study.db              the trials and who works on them (`nldsl.ablate.ledger`)
    spec.nl               the base, complete
    variants/NAME/        the build folder of a variant
    runs/NAME/seed-N/     what the trial of a variant and a seed left

A trial belongs to the digest of its variant and its seed.  Making a study again with more seeds or variants
adds theirs and leaves all else as it is; what is no longer asked for stays, and is marked.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from nldsl import __version__
from nldsl.ablate import asked
from nldsl.ablate.asked import Asked
from nldsl.ablate.ledger import Entry, Ledger, unwritable
from nldsl.ablate.rows import BASE, Keep, Row, Trial
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.files import FileProblem, make_folder, reason, write_text
from nldsl.run.folder import RunError

if TYPE_CHECKING:
    from nldsl.ablate.plan import Plan

LARGE = 1 << 16
"""Bytes from which on equal files of variants are kept once: texts are, code is not."""
_BEFORE = ("study.db", "calibration.json")
"""What a study that was killed while it was made may have without its `study.json`."""
MOST_LISTED = 6
LOST = "its result is lost"
"""The problem of a trial that has ended, and whose result is not there any more."""
WITH_RESULT = frozenset({"done", "diverged", "stopped"})
"""States of trials that have a `result.json`."""


@dataclass(frozen=True)
class Study:
    """A study in `folder`.

    Attributes:
        asked: what `study.json` says.
        warnings: what was found when it was opened or made.
    """

    folder: Path
    asked: Asked
    warnings: tuple[Diagnostic, ...] = field(default=(), compare=False)
    ledger: Ledger = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", Ledger(self.folder / "study.db"))

    # ------------------------------------------------------------------ what is asked

    @property
    def name(self) -> str:
        """Of the `ablate` block."""
        return self.asked.name

    @property
    def base(self) -> str:
        """The run that every variant changes."""
        return self.asked.base

    @property
    def rows(self) -> tuple[Row, ...]:
        """The variants that are asked for, the base first; their amendments are words in `asked.sets`."""
        return tuple(row for row in self.asked.rows if row.name not in self.asked.left)

    @property
    def runnable(self) -> tuple[Row, ...]:
        """The rows that can be run."""
        return tuple(row for row in self.rows if row.problem is None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of weights and data order; every variant is trained once with each."""
        return self.asked.seeds

    @property
    def measures(self) -> tuple[str, ...]:
        """What is compared, the first above all."""
        return self.asked.measures

    @property
    def baseline(self) -> str:
        """The name of the row with which the others are compared."""
        return self.asked.baseline

    @property
    def keep(self) -> Keep | None:
        """What all variants share."""
        return self.asked.keep

    def row(self, name: str) -> Row:
        """The row called `name`, asked for or not; raises `KeyError`."""
        return {row.name: row for row in self.asked.rows}[name]

    # ------------------------------------------------------------------ places

    def trials(self) -> list[Trial]:
        """The trials that are asked for, in the order of their turns."""
        return self.ledger.trials()

    def folder_of(self, trial: Trial) -> Path:
        """Where a trial leaves what it makes."""
        return self.folder / "runs" / trial.variant / f"seed-{trial.seed}"

    def build_of(self, variant: str) -> Path:
        """The build folder of a variant."""
        return self.folder / "variants" / variant

    def result_of(self, trial: Trial) -> dict[str, Any] | None:
        """What a trial found; None where it has not ended, or its file is missing or damaged."""
        digest = self.row(trial.variant).digest
        return read_result(self.folder_of(trial) / "result.json", digest, trial.seed)

    # ------------------------------------------------------------------ opening and making

    @classmethod
    def open(cls, folder: Path | str) -> Study:
        """The study in `folder`; its database is made anew if it is lost.

        Raises:
            RunError: there is no study (NL0902), it is damaged (NL0904) or cannot be used (NL0903, NL0907).
        """
        study = cls._opened(Path(folder))
        known = {(trial.variant, trial.seed) for trial in study.trials()}
        wanted = [(row.name, seed) for seed in study.seeds for row in study.runnable]
        lacking = [f"{name}/seed-{seed}" for name, seed in wanted if (name, seed) not in known]
        if not lacking:
            return study
        said = Diagnostic(
            "NL0910",
            f"the study is not made to its end: it has no trial {listed(lacking)}",
            help=f"make it whole: `nldsl ablate SPEC --run -o {quote(str(folder))}`, SPEC its spec",
            severity="warning",
        )
        return replace(study, warnings=(*study.warnings, said))

    @classmethod
    def _opened(cls, folder: Path) -> Study:
        study = cls(folder, asked.read(folder))
        damage = study.ledger.damage()
        if damage is None:
            return study
        _remake(study)
        said = Diagnostic(
            "NL0908",
            f"the database of the study `{folder}` was made anew from its results: {damage}",
            severity="warning",
        )
        return replace(study, warnings=(*study.warnings, said))

    @classmethod
    def make(cls, folder: Path | str, plan: Plan) -> Study:
        """Make a study of `plan` in `folder`, or go on with the one that is there.

        Raises:
            RunError: the folder holds something else (NL0902) or another study (NL0901), or cannot be
                written (NL0903).
            SpecError: a variant cannot be compiled.
        """
        folder = Path(folder)
        with _findings(folder):
            _protect(folder)
            make_folder(folder)
            begun = (folder / "study.json").exists()
            warnings = cls._opened(folder).warnings if begun else ()  # a database that is lost is made anew
            wanted = asked.of_plan(plan)
            with Ledger.create(folder / "study.db").alone():
                joined, said = _joined(folder, wanted)
                asked.write(folder, joined)
            study = cls(folder, joined, (*warnings, *said))
            if not (folder / "spec.nl").exists():
                write_text(folder / "spec.nl", plan.spec_of(_base(plan.rows)).expand())
            for row in plan.runnable:
                _build(study, plan, row)
            study = replace(study, asked=asked.read(folder))  # somebody may have asked for more meanwhile
            study.ledger.add(study.entries())
        return study

    def entries(self) -> list[Entry]:
        """The trials that are to be there: seed by seed over all variants that are built."""
        built = [row for row in self.runnable if self.build_of(row.name).is_dir()]
        pairs = [(row, seed) for seed in self.seeds for row in built]
        return [Entry(row.name, row.digest, seed, row.steps, i) for i, (row, seed) in enumerate(pairs)]

    def mend(self) -> None:
        """Let the database say what the files say: a result without an end ends, an end without one begins.

        A process that is killed between its last two writes leaves the one, and a file that is removed by
        hand the other.
        """
        for trial in self.trials():
            found = self.result_of(trial)
            if found is not None and trial.state == "waiting":
                self._recover(trial, found)
            elif found is None and trial.state in WITH_RESULT:
                self.ledger.again(trial.variant, trial.seed, LOST)

    def _recover(self, trial: Trial, found: dict[str, Any]) -> None:
        entry = Entry(trial.variant, self.row(trial.variant).digest, trial.seed, trial.steps, 0)
        self.ledger.recover(
            entry,
            found["state"],
            step=int(found["steps"]),
            seconds=float(found["seconds"]),
            problem=str(found["problem"]),
        )


def read_result(path: Path, digest: str, seed: int) -> dict[str, Any] | None:
    """The result of the trial of a variant's digest and a seed; None where the file holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("format") != 1:
        return None
    same = found.get("digest") == digest and found.get("seed") == seed
    ended = found.get("state") in WITH_RESULT
    numbers = isinstance(found.get("steps"), int) and isinstance(found.get("seconds"), int | float)
    return found if same and ended and numbers else None


# ---------------------------------------------------------------------- making


@contextlib.contextmanager
def _findings(folder: Path) -> Iterator[None]:
    """Turn what a file system refuses into findings."""
    try:
        yield
    except FileProblem as problem:
        raise RunError(Diagnostic("NL0903", problem.message, help=problem.help), exit_code=2) from problem
    except OSError as error:
        raise unwritable(Path(error.filename or folder), reason(error)) from error


def _protect(folder: Path) -> None:
    """Refuse a folder that holds something else."""
    if not folder.exists() or (folder / "study.json").exists():
        return
    if not folder.is_dir():
        raise no_study(folder, "is a file")
    others = [p.name for p in folder.iterdir() if p.name not in _BEFORE and not p.name.startswith(".study")]
    if others:
        raise no_study(folder, f"holds `{min(others)}`, and no `study.json`")


def no_study(folder: Path, why: str) -> RunError:
    """The finding for a folder in which there is no study."""
    return RunError(
        Diagnostic(
            "NL0902",
            f"`{folder}` {why}",
            help="name the folder of a study, or a new or empty one to make a study in",
        ),
        exit_code=2,
    )


def _joined(folder: Path, wanted: Asked) -> tuple[Asked, list[Diagnostic]]:
    """What the study asks once `wanted` is added to what is there; raises `RunError` for another study."""
    if not (folder / "study.json").exists():
        return wanted, []
    before = asked.read(folder)
    if differences := _differences(before, wanted):
        raise RunError(
            Diagnostic(
                "NL0901",
                f"`{folder}` holds a study of another spec: {differences[0]}",
                notes=tuple(differences[1:4]),
                help="choose another folder; this one has been left as it is, and "
                f"`nldsl diff {quote(str(folder / 'spec.nl'))} SPEC` shows what differs",
            ),
            exit_code=2,
        )
    joined = asked.join(before, wanted)
    said: list[Diagnostic] = []
    if before.version != __version__:
        said.append(
            Diagnostic(
                "NL0905",
                f"the study was made by nldsl {before.version}, and this is {__version__}",
                notes=("variants that are there stay as they were built",),
                severity="warning",
            )
        )
    gone = [name for name in joined.left if name not in before.left]
    unasked = [f"seed {seed}" for seed in before.seeds if seed not in wanted.seeds]
    if gone or unasked:
        said.append(
            Diagnostic(
                "NL0911",
                f"no longer asked for: {', '.join([listed(gone)] * bool(gone) + unasked)}",
                notes=("the runs stay in the folder, and reports leave them out",),
                severity="warning",
            )
        )
    return joined, said


def listed(names: Sequence[str]) -> str:
    """The first few of names, and how many more there are.

    >>> listed(["a", "b"]), listed("abcdefgh")
    ('`a`, `b`', '`a`, `b`, `c`, `d`, `e`, `f` and 2 more')
    """
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(f"`{name}`" for name in names[:MOST_LISTED]) + more


def _differences(before: Asked, wanted: Asked) -> list[str]:
    """How a study that is there is another one than the one that is wanted, in words."""
    if before.name != wanted.name:
        return [f"it is called `{before.name}`, and this one `{wanted.name}`"]
    if before.base != wanted.base:
        return [f"its base is `{before.base}`, and here it is `{wanted.base}`"]
    known = {row.name: row for row in before.rows}
    return [
        f"`{row.name}` is not the same spec as there"
        for row in wanted.rows
        if row.name in known and known[row.name].digest and row.digest not in ("", known[row.name].digest)
    ]


def _base(rows: Sequence[Row]) -> Row:
    return next((row for row in rows if row.name == BASE), rows[0])


def _build(study: Study, plan: Plan, row: Row) -> None:
    """Compile a row into its folder, whole or not at all, unless it is there."""
    name = next(known.name for known in study.rows if known.digest == row.digest)
    target = study.build_of(name)
    if target.is_dir():
        return
    make_folder(target.parent)
    part = target.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        plan.spec_of(row).compile(part)
        _share(part, target.parent)
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():  # else somebody else was faster: theirs is as good
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _share(part: Path, variants: Path) -> None:
    """Keep large files of `part` that another variant has as well only once, where the system can."""
    record = _record(part)
    others = [folder for folder in variants.iterdir() if not folder.name.startswith(".")]
    for name in (n for n in record if (part / n).stat().st_size >= LARGE):
        twin = next((f / name for f in others if _record(f).get(name) == record[name]), None)
        if twin is None or twin.read_bytes() != (part / name).read_bytes():
            continue
        link = part / f".{name}.link"
        with contextlib.suppress(OSError):  # no hard links here: the copy stays
            link.hardlink_to(twin)
            link.replace(part / name)
        link.unlink(missing_ok=True)


def _record(folder: Path) -> dict[str, str]:
    """The hashes of a build's files by name."""
    try:
        return dict(json.loads((folder / "build.json").read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remake(study: Study) -> None:
    """A new database from what is in the folder; the old one is kept beside it.

    The old one is there until the new one takes its name: who finds none makes one of his own.
    """
    with _findings(study.folder):
        path = study.ledger.path
        fresh = path.with_name(f".study.{secrets.token_hex(4)}.db")
        try:
            made = Ledger.create(fresh)
            made.add(study.entries())
            other = replace(study)
            object.__setattr__(other, "ledger", made)
            other.mend()
            if study.ledger.damage() is None:  # somebody else was faster
                return
            journal = path.with_name(f"{path.name}-journal")
            _keep(path)
            _keep(journal)
            journal.unlink(missing_ok=True)  # it would be applied to the new one
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Give a file another name as well, unless it is empty."""
    if not path.is_file() or not path.stat().st_size:
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        aside.hardlink_to(path)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, aside)
