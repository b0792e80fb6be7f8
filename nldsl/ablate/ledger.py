"""`study.db`: the trials of a study and who works on which.

Every change is one transaction that holds the write lock from its start (`BEGIN IMMEDIATE`), so that two
processes never take one trial.  A claim is a token: a process that lost its claim, because it was taken for
dead, changes nothing any more.

The database keeps a rollback journal (`journal_mode = DELETE`).  A write-ahead log would need memory shared
by all that open the database, and processes on several machines that share a folder have none.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nldsl.ablate.owner import QUEUE, Owner, me
from nldsl.ablate.rows import State, Trial
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.folder import RunError

VERSION = 1
PATIENCE = 60.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""
LONG_AGO = 600.0
"""The same by the clocks of both machines, for somebody who has only just begun to look."""
LEASE = 7 * 86400.0
"""Seconds that a job in a queue holds its trial where nobody can ask the queue."""
TRIES = 3
"""Attempts without a new checkpoint after which a trial has failed."""
KILLS = 10
"""The same where its process was killed from outside, which says less about the trial."""
LOCKED = 30.0
"""Seconds that a change waits for others."""
ENDED = frozenset({"done", "diverged", "failed", "stopped"})

_SCHEMA = """
CREATE TABLE trials (
  variant TEXT NOT NULL,
  digest TEXT NOT NULL,
  seed INTEGER NOT NULL,
  place INTEGER NOT NULL,
  asked INTEGER NOT NULL DEFAULT 1,
  state TEXT NOT NULL DEFAULT 'waiting',
  attempts INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  step INTEGER NOT NULL DEFAULT 0,
  kept INTEGER NOT NULL DEFAULT 0,
  steps INTEGER NOT NULL DEFAULT 0,
  seconds REAL NOT NULL DEFAULT 0,
  cpu_seconds REAL NOT NULL DEFAULT 0,
  problem TEXT NOT NULL DEFAULT '',
  token TEXT, host TEXT, pid INTEGER, begun TEXT,
  beat INTEGER NOT NULL DEFAULT 0,
  stamp REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (digest, seed)
)
"""
_FREE = "token = NULL, host = NULL, pid = NULL, begun = NULL"


@dataclass(frozen=True, slots=True)
class Entry:
    """A trial to be there: the row it is of, its seed, how many steps it has, and when its turn is."""

    variant: str
    digest: str
    seed: int
    steps: int
    place: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a trial; `seconds` and `cpu_seconds` were spent on it before."""

    token: str
    trial: Trial
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Ledger:
    """The database at `path`.

    Every method raises `RunError` where it cannot be read or written: NL0903 (disk), NL0906 (damaged),
    NL0907 (locked by somebody for half a minute).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[str, tuple[int, float]] = {}  # by token: its last beat, and when that was seen first

    # ------------------------------------------------------------------ making

    @classmethod
    def create(cls, path: Path) -> Ledger:
        """A ledger without trials at `path`, whole or not at all; one that is there already is kept."""
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        ledger = cls(part)
        try:
            with ledger._opened(mode="rwc") as db:
                db.execute("PRAGMA journal_mode = DELETE")
                with _transaction(db):
                    db.execute(_SCHEMA)
                    db.execute(f"PRAGMA user_version = {VERSION}")
            with contextlib.suppress(FileExistsError):  # somebody else was faster: theirs is as good
                _name_once(part, path)
        finally:
            part.unlink(missing_ok=True)
        return cls(path)

    def damage(self) -> str | None:
        """What is wrong with the file, in words; None if nothing is."""
        if not self.path.is_file():
            return "it is missing"
        try:
            with self._opened() as db:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version != VERSION:
                    return "it is empty" if not version else f"it has version {version}"
                db.execute("SELECT token, stamp FROM trials LIMIT 1").fetchone()
                found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                return None if found == "ok" else str(found)
        except RunError as error:
            if error.diagnostic.code != "NL0906":
                raise
            return error.diagnostic.message

    def add(self, entries: Iterable[Entry]) -> None:
        """Let exactly `entries` be asked for: trials that are new begin, others keep what they have."""
        with self._change() as db:
            db.execute("UPDATE trials SET asked = 0")
            db.executemany(
                "INSERT INTO trials (variant, digest, seed, steps, place) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (digest, seed) DO UPDATE SET asked = 1, place = excluded.place",
                [(e.variant, e.digest, e.seed, e.steps, e.place) for e in entries],
            )

    def recover(self, entry: Entry, state: State, *, step: int, seconds: float, problem: str) -> None:
        """Say how a trial stands that other files tell of."""
        with self._change() as db:
            db.execute(
                f"UPDATE trials SET state = ?, step = ?, seconds = ?, problem = ?, {_FREE} "  # noqa: S608 - words of this file
                "WHERE digest = ? AND seed = ?",
                (state, step, seconds, problem, entry.digest, entry.seed),
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else changes the ledger meanwhile."""
        with self._change():
            yield

    # ------------------------------------------------------------------ reading

    def trials(self, *, everything: bool = False) -> list[Trial]:
        """The trials in the order of their turns; with `everything` also those no longer asked for."""
        with self._opened() as db:
            rows = db.execute(
                "SELECT * FROM trials WHERE asked >= ? ORDER BY asked DESC, place, variant, seed",
                (0 if everything else 1,),
            )
            return [_trial(row) for row in rows.fetchall()]

    def owners(self) -> dict[str, Owner]:
        """Who works on which trial, by the trial's name."""
        with self._opened() as db:
            rows = db.execute("SELECT * FROM trials WHERE token IS NOT NULL").fetchall()
        return {_trial(row).name: _owner(row) for row in rows}

    def free(self) -> list[Trial]:
        """The trials that somebody may take now: those that wait, and those whose process is dead."""
        return [_trial(row) for row in self._free()]

    # ------------------------------------------------------------------ working

    def claim(self, variant: str | None = None, seed: int | None = None) -> Claim | None:
        """Take the next trial whose turn it is, or the one named; None where nobody has to work on it.

        A trial whose process is dead is taken over, unless that has happened too often.
        """
        found = self._free(variant, seed)  # outside the lock: a queue may take its time to answer
        if not found:
            return None
        free = {_mark(row) for row in found}
        with self._change() as db:
            for row in _not_ended(db, variant, seed):
                if _mark(row) in free and (row["state"] == "waiting" or _survives(db, row)):
                    return _take(db, row)
        return None

    def adopt(self, token: str) -> Claim | None:
        """Let this process be the one that works on a claim; None if the claim is lost."""
        owner = me()
        with self._change() as db:
            db.execute(
                "UPDATE trials SET host = ?, pid = ?, begun = ?, beat = beat + 1, stamp = ? WHERE token = ?",
                (owner.host, owner.pid, owner.begun, time.time(), token),
            )
            row = db.execute("SELECT * FROM trials WHERE token = ?", (token,)).fetchone()
            return None if row is None else _claim_of(row)

    def entrust(self, token: str, owner: Owner) -> bool:
        """Hand a claim of this process on to `owner`; False if it is lost or somebody else holds it."""
        mine = me()
        with self._change() as db:
            found = db.execute(
                "UPDATE trials SET host = ?, pid = ?, begun = ?, beat = beat + 1, stamp = ? "
                "WHERE token = ? AND host = ? AND pid = ? AND begun = ?",
                (owner.host, owner.pid, owner.begun, time.time(), token, mine.host, mine.pid, mine.begun),
            )
            return found.rowcount == 1

    def beat(
        self, token: str, *, step: int = 0, kept: int = 0, seconds: float = 0.0, cpu_seconds: float = 0.0
    ) -> bool:
        """A sign of life; False if the claim is lost, and the process has to stop without writing anything.

        `step` is the last one, `kept` the one of the last checkpoint, `seconds` what the trial has taken in
        all its attempts.
        """
        return self._of(
            token,
            "step = max(step, ?), seconds = max(seconds, ?), cpu_seconds = max(cpu_seconds, ?), "
            "failures = CASE WHEN ? > kept THEN 0 ELSE failures END, kept = max(kept, ?), "
            "beat = beat + 1, stamp = ?",
            (step, seconds, cpu_seconds, kept, kept, time.time()),
        )

    def finish(self, token: str, state: State, *, step: int, seconds: float = 0.0, problem: str = "") -> bool:
        """End a trial; False if the claim is lost, and nothing has changed."""
        return self._of(
            token,
            f"state = ?, step = ?, seconds = max(seconds, ?), problem = ?, {_FREE}",
            (state, step, seconds, problem),
        )

    def release(self, token: str, problem: str = "") -> bool:
        """Let the trial wait again, through no fault of its own; False if the claim is lost."""
        return self._of(token, f"state = 'waiting', problem = ?, {_FREE}", (problem,))

    def fail(self, token: str, problem: str, *, killed: bool = False) -> State | None:
        """An attempt ended badly: the trial waits again, or has failed when that was so often.

        `killed`: from outside.  None if the claim is lost.
        """
        with self._change() as db:
            row = db.execute("SELECT * FROM trials WHERE token = ?", (token,)).fetchone()
            return None if row is None else _count_failure(db, row, problem, killed=killed)

    def retry(self) -> int:
        """Let failed trials wait again; returns how many."""
        with self._change() as db:
            return db.execute(
                "UPDATE trials SET state = 'waiting', failures = 0 WHERE state = 'failed' AND asked = 1"
            ).rowcount

    def again(self, variant: str, seed: int, why: str) -> None:
        """Let a trial that has ended wait again: what it left is gone, and how far it was is not known."""
        with self._change() as db:
            db.execute(
                "UPDATE trials SET state = 'waiting', step = 0, kept = 0, failures = 0, "  # noqa: S608 - words of this file
                f"problem = ?, {_FREE} "
                "WHERE variant = ? AND seed = ? AND state != 'running'",
                (why, variant, seed),
            )

    # ------------------------------------------------------------------ inside

    def _free(self, variant: str | None = None, seed: int | None = None) -> list[sqlite3.Row]:
        """What somebody may take now, in the order of turns."""
        with self._opened() as db:
            rows = _not_ended(db, variant, seed)
        return [row for row in rows if row["state"] == "waiting" or self._dead(row)]

    def _dead(self, row: sqlite3.Row) -> bool:
        """Whether nobody works any more on a trial that somebody took."""
        if row["token"] is None:
            return True
        lives = _owner(row).state()
        if lives is not None:
            return not lives
        if row["host"] == QUEUE:  # nobody beats for a job that waits
            return time.time() - row["stamp"] > LEASE
        now = time.monotonic()
        beat, since = self._seen.get(row["token"], (-1, now))
        if beat != row["beat"]:
            since = now
        self._seen[row["token"]] = (row["beat"], since)
        return now - since > PATIENCE or time.time() - row["stamp"] > LONG_AGO

    def _of(self, token: str, changes: str, values: tuple[Any, ...]) -> bool:
        with self._change() as db:
            words = f"UPDATE trials SET {changes} WHERE token = ?"  # noqa: S608 - words of this file
            found = db.execute(words, (*values, token))
            return found.rowcount == 1

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._opened() as db, _transaction(db):
            yield db

    @contextlib.contextmanager
    def _opened(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """A connection for one use: none is ever shared by threads, or by a process and its children."""
        try:
            uri = f"{self.path.resolve().as_uri()}?mode={mode}"
            db = sqlite3.connect(uri, uri=True, timeout=LOCKED, isolation_level=None)
            with contextlib.closing(db):
                db.row_factory = sqlite3.Row
                yield db
        except (sqlite3.Error, OSError) as error:
            raise self._finding(error) from error

    def _finding(self, error: Exception) -> RunError:
        """The finding for what SQLite says."""
        words = str(error)
        closed = "unable to open" in words and self.path.exists()  # permissions, or too many files are open
        if closed or isinstance(error, OSError) or any(w in words for w in ("full", "I/O", "readonly")):
            return unwritable(self.path, words.lower())
        if "locked" in words or "busy" in words:
            return RunError(
                Diagnostic(
                    "NL0907",
                    f"`{self.path}` is locked by another process",
                    help="go on when that process has ended, or look whether it hangs",
                ),
                exit_code=2,
            )
        return RunError(
            Diagnostic(
                "NL0906",
                f"`{self.path}` is damaged: {words}",
                help="run the study again: its database is made anew from its results",
            ),
            exit_code=2,
        )


def unwritable(path: Path, why: str) -> RunError:
    """The finding for a file of a study that cannot be written."""
    return RunError(
        Diagnostic(
            "NL0903",
            f"cannot write `{path}`: {why}",
            help="free some room, or mend its permissions, and run the study again: it goes on where it was",
        ),
        exit_code=2,
    )


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
            db.execute("ROLLBACK")
        raise


def _name_once(part: Path, path: Path) -> None:
    """Give `part` the name `path`; raises `FileExistsError` where that is taken."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        part.replace(path)


def _not_ended(db: sqlite3.Connection, variant: str | None, seed: int | None) -> list[sqlite3.Row]:
    """The trials of a variant and a seed, or of any, that are asked for and have not ended."""
    return db.execute(
        "SELECT * FROM trials WHERE asked = 1 AND state IN ('waiting', 'running') "
        "AND (?1 IS NULL OR variant = ?1) AND (?2 IS NULL OR seed = ?2) ORDER BY place",
        (variant, seed),
    ).fetchall()


def _mark(row: sqlite3.Row) -> tuple[object, ...]:
    """What is another once somebody has taken a trial, let it go, or given a sign of life."""
    return tuple(row[name] for name in ("digest", "seed", "state", "token", "beat"))


def _take(db: sqlite3.Connection, row: sqlite3.Row) -> Claim:
    owner, token = me(), secrets.token_hex(8)
    db.execute(
        "UPDATE trials SET state = 'running', attempts = attempts + 1, token = ?, host = ?, pid = ?, "
        "begun = ?, beat = beat + 1, stamp = ? WHERE digest = ? AND seed = ?",
        (token, owner.host, owner.pid, owner.begun, time.time(), row["digest"], row["seed"]),
    )
    return _claim_of(db.execute("SELECT * FROM trials WHERE token = ?", (token,)).fetchone())


def _claim_of(row: sqlite3.Row) -> Claim:
    return Claim(row["token"], _trial(row), row["seconds"], row["cpu_seconds"])


def _survives(db: sqlite3.Connection, row: sqlite3.Row) -> bool:
    """Note that the process of a trial was killed; whether the trial may be tried again."""
    return _count_failure(db, row, "its process was killed", killed=True) == "waiting"


def _count_failure(db: sqlite3.Connection, row: sqlite3.Row, problem: str, *, killed: bool) -> State:
    """Both kinds count together: `KILLS` of the one weigh as much as `TRIES` of the other."""
    failures = row["failures"] + (TRIES if killed else KILLS)
    state: State = "failed" if failures >= TRIES * KILLS else "waiting"
    db.execute(
        f"UPDATE trials SET state = ?, failures = ?, problem = ?, {_FREE} "  # noqa: S608 - words of this file
        "WHERE digest = ? AND seed = ?",
        (state, failures, problem, row["digest"], row["seed"]),
    )
    return state


def _trial(row: sqlite3.Row) -> Trial:
    return Trial(
        variant=row["variant"],
        seed=row["seed"],
        state=cast("State", row["state"]),
        attempts=row["attempts"],
        step=row["step"],
        steps=row["steps"],
        seconds=row["seconds"],
        problem=row["problem"],
    )


def _owner(row: sqlite3.Row) -> Owner:
    return Owner(row["host"] or "", row["pid"] or 0, row["begun"] or "")
