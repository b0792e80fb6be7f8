"""One trial: train a variant with a seed, measure it on held-out text, and write `result.json`.

`python -m nldsl.ablate.trial STUDY VARIANT SEED` does the same in a process of its own.  Exit status: 0 it
has ended, 1 this attempt failed, 2 usage or files, 74 nothing can be written, 75 somebody else works on it,
130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from nldsl import __version__
from nldsl.ablate.ledger import Claim, Ledger, unwritable
from nldsl.ablate.study import Study
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.errors import as_run_errors
from nldsl.run.files import FileProblem, reason, write_text
from nldsl.run.folder import Build, RunError, load

Event = dict[str, Any]

BEAT = 2.0
"""Seconds between signs of life."""
FAILED, USAGE, UNWRITABLE, TAKEN, INTERRUPTED = 1, 2, 74, 75, 130
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DISK = frozenset({"NL0806", "NL0903"})


class Taken(Exception):
    """Somebody else works on the trial, or took it over because this process was taken for dead."""


class Interrupted(Exception):
    """A signal ended the attempt; a checkpoint was written, and the trial waits."""


def work(
    folder: Path | str,
    variant: str,
    seed: int,
    listen: Callable[[Event], None] | None = None,
    *,
    token: str | None = None,
) -> dict[str, Any]:
    """Do the trial of `variant` and `seed` of the study in `folder`, or what is left of it; its result.

    The events of the run (`train.train` in the build folder) go to `listen`; an error that it raises ends the
    attempt, which has failed then.  `token` is a claim that somebody took for this process; without one it
    takes its own.  A trial that has ended already gives its result and does nothing.

    Raises:
        Taken: somebody else works on it.
        Interrupted: SIGINT or SIGTERM came (in the main thread); what was done is in a checkpoint.
        RunError: the attempt failed, which the study's database knows, or nothing can be written (NL0806,
            NL0903), and the trial waits.
    """
    study = Study.open(folder)
    ended = _result_there(study, variant, seed)
    if ended is not None and token is None:
        return ended
    claim = _claim(study, variant, seed, token)
    if ended is not None:
        _finish(study.ledger, claim, ended)
        return ended
    heart = _Heart(study.ledger, claim)
    try:
        with heart:
            result = _attempt(study, claim, heart, listen)
            heart.check()
            _write_result(study, claim, result)
    except RunError as error:
        if error.diagnostic.code in _DISK:
            _release(study.ledger, claim, error.diagnostic.message)
        else:
            study.ledger.fail(claim.token, error.diagnostic.message)
        raise
    except (Taken, Interrupted, KeyboardInterrupt, SystemExit):
        _release(study.ledger, claim, "")
        raise
    except MemoryError as error:
        study.ledger.fail(claim.token, "the machine has too little memory for it")
        raise RunError(Diagnostic("NL0807", f"out of memory in trial `{claim.trial.name}`")) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            _release(study.ledger, claim, reason(error))
            raise unwritable(study.folder_of(claim.trial), reason(error)) from error
        study.ledger.fail(claim.token, f"{type(error).__name__}: {error}")
        raise
    _finish(study.ledger, claim, result)
    return result


# ---------------------------------------------------------------------- the claim


def _result_there(study: Study, variant: str, seed: int) -> dict[str, Any] | None:
    trial = next((t for t in study.trials() if (t.variant, t.seed) == (variant, seed)), None)
    if trial is None:
        raise RunError(
            Diagnostic(
                "NL0912",
                f"the study has no trial of `{variant}` with seed {seed}",
                help=f"it has the variants {', '.join(f'`{row.name}`' for row in study.runnable)}",
            ),
            exit_code=USAGE,
        )
    return study.result_of(trial)


def _claim(study: Study, variant: str, seed: int, token: str | None) -> Claim:
    if token is None:
        claim = study.ledger.claim(variant, seed)
        if claim is None:
            raise Taken(f"somebody else works on {variant}/seed-{seed}, or it has ended")
        return claim
    claim = study.ledger.adopt(token)
    if claim is None or (claim.trial.variant, claim.trial.seed) != (variant, seed):
        raise Taken(f"the claim on {variant}/seed-{seed} is lost")
    return claim


def _release(ledger: Ledger, claim: Claim, problem: str) -> None:
    """Let the trial wait again; where even that cannot be written it does so once this process is gone."""
    with contextlib.suppress(RunError):
        ledger.release(claim.token, problem)


def _finish(ledger: Ledger, claim: Claim, result: dict[str, Any]) -> None:
    ledger.finish(
        claim.token,
        result["state"],
        step=result["steps"],
        seconds=result["seconds"],
        problem=result["problem"],
    )


class _Heart:
    """Tells the ledger every few seconds that the trial is worked on, and how far it is."""

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        self.ledger, self.claim = ledger, claim
        self.step = self.kept = 0
        self.lost = False
        self._over = threading.Event()
        self.begin()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def seconds(self) -> float:
        """What all attempts have taken together."""
        return self.claim.seconds + time.perf_counter() - self._begun

    @property
    def cpu_seconds(self) -> float:
        """The same of processors."""
        return self.claim.cpu_seconds + time.process_time() - self._cpu

    def begin(self) -> None:
        """Count seconds from now on."""
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def check(self) -> None:
        """Raise `Taken` if the claim was lost; look now."""
        self.beat()
        self.tell()

    def tell(self) -> None:
        """Raise `Taken` if the claim was seen to be lost."""
        if self.lost:
            raise Taken(f"the claim on {self.claim.trial.name} is lost")

    def beat(self) -> None:
        """A sign of life."""
        known = self.ledger.beat(
            self.claim.token,
            step=self.step,
            kept=self.kept,
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
        )
        self.lost = self.lost or not known

    def _run(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(RunError):  # a beat that is missed: the next one may be heard
                self.beat()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


# ---------------------------------------------------------------------- the attempt


def _attempt(
    study: Study, claim: Claim, heart: _Heart, listen: Callable[[Event], None] | None
) -> dict[str, Any]:
    """Train from the last checkpoint on, and measure: the result, which is not written yet."""
    trial = claim.trial
    out = study.folder_of(trial)
    build = load(study.build_of(trial.variant))
    heart.begin()  # loading torch is no work on the trial
    seen: Event = {"parameters": 0, "tokens_per_second": 0.0}

    def hear(event: Event) -> None:
        heart.step = event["step"]
        if event["event"] == "checkpoint":
            heart.kept = event["step"]
        for name in seen:
            seen[name] = event.get(name, seen[name])
        heart.tell()
        if listen is not None:
            listen(event)

    result: dict[str, Any] = {
        "format": 1,
        "variant": trial.variant,
        "digest": study.row(trial.variant).digest,
        "seed": trial.seed,
        "state": "done",
        "problem": "",
        "steps": 0,
        "measures": {},
        "documents": [],
        "unit": "document",
        "tasks": None,
    }
    with as_run_errors(build):
        settings = build.amend.amend(build.settings, (), seed=trial.seed)
        try:
            ended = _train(build, settings, out, hear)
        except build.schedule.UserError as error:
            if error.kind != "diverged":
                raise
            result |= {"state": "diverged", "problem": error.message, "steps": heart.step}
        else:
            if ended.code:
                raise Interrupted
            units = ended.documents
            result |= {"steps": ended.step, "measures": ended.measures, "tasks": _tasks(build, out)}
            result |= {"documents": list(units.units), "unit": units.unit}
    _report(build, out, trial.seed)
    import torch

    return result | {
        "parameters": seen["parameters"],
        "seconds": heart.seconds,
        "cpu_seconds": heart.cpu_seconds,
        "tokens_per_second": seen["tokens_per_second"],
        "torch": torch.__version__,
        "nldsl": __version__,
    }


def _train(build: Build, settings: Any, out: Path, hear: Callable[[Event], None]) -> Any:
    """Train in `out`, going on from its checkpoint; one that cannot be read is put aside."""
    kept = out / build.checkpoint.NAME
    if kept.is_file():
        try:
            return build.train.train(settings, out=out, resume=True, listen=hear)
        except build.schedule.UserError as error:
            if error.kind != "checkpoint":
                raise
            _say(f"warning: {error.message}; beginning anew")
            kept.replace(kept.with_name(f"{kept.name}.damaged"))
    return build.train.train(settings, out=out, listen=hear)


def _tasks(build: Build, out: Path) -> dict[str, Any] | None:
    """The matrix of a run of tasks."""
    path = out / build.tasks.Record.NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _report(build: Build, out: Path, seed: int) -> None:
    """Write the page about the run; a trial is no worse without one."""
    from nldsl.run import report

    command = f"nldsl train {build.folder} --set seed={seed} --set data.seed={seed}"
    try:
        report.write(out / "report.html", command=command, folder=build.folder)
    except OSError as error:
        _say(f"warning: cannot write {out / 'report.html'}: {reason(error)}")


def _write_result(study: Study, claim: Claim, result: dict[str, Any]) -> None:
    path = study.folder_of(claim.trial) / "result.json"
    try:
        write_text(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    except FileProblem as problem:
        raise unwritable(path, problem.message) from problem


# ---------------------------------------------------------------------- a process of its own


def main(arguments: list[str] | None = None) -> int:
    """Do one trial; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nldsl.ablate.trial", description="Do one trial.")
    parser.add_argument("study", type=Path)
    parser.add_argument("variant")
    parser.add_argument("seed", type=int)
    parser.add_argument("--claim", metavar="TOKEN", help="what the runner took for this process")
    parser.add_argument("--leave-with-parent", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    with _signals():
        if options.leave_with_parent:
            threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
        try:
            _one_thread()
            work(options.study, options.variant, options.seed, _lines(), token=options.claim)
        except (Interrupted, KeyboardInterrupt):
            _say("interrupted")
            return INTERRUPTED
        except Taken as taken:
            _say(str(taken))
            return TAKEN
        except RunError as error:
            found = error.diagnostic
            _say(f"error: {found.message}")
            return UNWRITABLE if found.code in _DISK else error.exit_code
    return 0


def _one_thread() -> None:
    """Trials run side by side, and a sum in one thread has one order."""
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends the attempt as Ctrl-C does, also where no run is there yet to write a checkpoint."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_parent() -> None:
    """Stop, with a checkpoint, when the runner that holds the other end of standard input is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _say(line: str) -> None:
    """A line for `output.txt`; where a full disk does not take it, the run itself has more to say."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _lines() -> Callable[[Event], None]:
    """What `output.txt` has of a run: where it began, its measurements, checkpoints and end."""

    def show(event: Event) -> None:
        match event["event"]:
            case "start":
                _say(f"from step {event['step']} to {event['steps']}")
            case "warning":
                _say(f"warning: {event['text']}")
            case "evaluate":
                _say(f"step {event['step']}: held out {event['loss']:.4f}")
            case "stop":
                _say(f"step {event['step']}: {event['text']}")
            case _:
                pass

    return show


def _leave(code: int) -> NoReturn:
    """End the process with `code`, also where the last lines cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    _leave(main())
