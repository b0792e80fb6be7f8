"""Where a study is run: this machine, a Ray cluster or Slurm; and what every runner does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, get_args

from nldsl.ablate.ledger import ENDED
from nldsl.ablate.trial import INTERRUPTED
from nldsl.diagnostics.model import Diagnostic, Label, SpecError

if TYPE_CHECKING:
    from nldsl.ablate.plan import Plan
    from nldsl.ablate.study import Study

Place = Literal["local", "ray", "slurm"]
PLACES: tuple[Place, ...] = get_args(Place)
Tell = Callable[[dict[str, Any]], None]
"""Hears the events of a runner, which `nldsl.ablate.local.run` lists."""


def ready(plan: Plan) -> None:
    """Make sure that a study can be made of `plan`.

    Raises:
        SpecError: a variant cannot be made, or cannot be held to the budget; nothing trains the base
            (NL0651); or time is to be held, and that of a variant is not known (NL0652).
    """
    if plan.findings:
        raise SpecError([replace(found, severity="error") for found in plan.findings])
    if not plan.rows[0].steps:
        message = f"`{plan.base}` is no run: nothing trains it"
        help = "ablate a `train` block, or a variant of one"
        raise SpecError([Diagnostic("NL0651", message, help=help)])
    unknown = [row for row in plan.runnable if row.name not in plan.seconds]
    if plan.keep is not None and plan.keep.what == "time" and unknown:
        message = f"`keep time` needs the seconds of a step, and those of `{unknown[0].words}` are not known"
        help = "calibrate first, or for longer, as with `--calibrate 120`"
        labels = (Label(plan.keep.span, "to be held"),) if plan.keep.span is not None else ()
        raise SpecError([Diagnostic("NL0652", message, labels, help=help)])


def run(
    study: Study,
    on: Place = "local",
    *,
    jobs: int | None = None,
    options: Mapping[str, object] | None = None,
    stop_early: bool = False,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
) -> int:
    """Do the trials of `study` that wait; 0 when all have ended, 1 when some failed, 130 when it was stopped.

    `options` are those of the place; this machine has none.  `stop_early` ends trials that fall behind, which
    Ray does.  `stop` ends the whole, and `tell` hears events, as for `nldsl.ablate.local.run`.

    Raises:
        ValueError: this machine was given options, or only Ray can do what was asked; there is no such
            place; or `jobs` is no number of trials.
        RunError: as the runners do.
    """
    if on not in PLACES:
        raise ValueError(f"a study cannot be run on `{on}`; there are {', '.join(f'`{p}`' for p in PLACES)}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"`jobs` is {jobs}; at least 1 trial is done at once")
    if on != "ray" and stop_early:
        raise ValueError("only Ray stops trials early")
    if on == "ray":
        from nldsl.ablate import on_ray

        return on_ray.run(
            study, jobs=jobs, stop=stop, tell=tell, options=options or {}, stop_early=stop_early
        )
    if on == "slurm":
        from nldsl.ablate import on_slurm

        return on_slurm.run(study, jobs=jobs, stop=stop, tell=tell, options=options or {})
    if options:
        raise ValueError("a run on this machine has no options")
    from nldsl.ablate import local

    return local.run(study, jobs=jobs, stop=stop, tell=tell)


# ---------------------------------------------------------------------- of every runner


def begin(study: Study, say: Tell, findings: Iterable[Diagnostic] = ()) -> None:
    """Bring the database and the files together, let failed trials wait again, and pass on `findings`."""
    study.mend()
    study.ledger.retry()
    for finding in (*study.warnings, *findings):
        say({"event": "warning", "diagnostic": finding})


def leave(study: Study, say: Tell, otherwise: str = "stopped") -> int:
    """Tell how the study stands at the end, an event `over` or `otherwise`; what a runner returns."""
    trials = study.trials()
    say({"event": "state", "trials": trials})
    if any(trial.state not in ENDED for trial in trials):
        say({"event": otherwise, "trials": trials})
        return INTERRUPTED
    say({"event": "over", "trials": trials})
    return 1 if any(trial.state == "failed" for trial in trials) else 0


@contextlib.contextmanager
def signals(stop: threading.Event, again: Callable[[], None] | None = None) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or hang-up sets `stop`; the next calls `again`, or does what it did before.

    What is ignored stays so, as the hang-up under `nohup`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in numbers if signal.getsignal(one) != signal.SIG_IGN}

    def ask(number: int, _frame: FrameType | None) -> None:
        if again is None:
            signal.signal(number, before[signal.Signals(number)])
        elif stop.is_set():
            again()
        stop.set()

    for one in before:
        signal.signal(one, ask)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
