"""A study on the terminal: a bar with the time left where there is one, else a line for each trial."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from shlex import quote
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from nldsl.ablate.ledger import ENDED
from nldsl.ablate.rows import Trial
from nldsl.ablate.study import Study
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.progress import Shown, duration

Event = dict[str, Any]
_COLOURS = {"done": "green", "diverged": "yellow", "failed": "red", "stopped": "yellow"}


def seconds_left(trials: Sequence[Trial], flops: Mapping[str, float], jobs: int) -> float | None:
    """Seconds until all trials have ended, from the seconds that steps have taken; None before any has.

    `flops` of a token by variant stand in for variants that have not been measured: they take the median time
    of a FLOP of those that have.  `jobs` trials are done at once.
    """
    spent: dict[str, list[float]] = {}
    for trial in trials:
        if trial.step and trial.seconds:
            spent.setdefault(trial.variant, []).append(trial.seconds / trial.step)
    if not spent:
        return None
    step = {variant: statistics.median(found) for variant, found in spent.items()}
    each = statistics.median(seconds / max(1.0, flops.get(variant, 1.0)) for variant, seconds in step.items())
    left = [
        (trial.steps - trial.step) * step.get(trial.variant, each * max(1.0, flops.get(trial.variant, 1.0)))
        for trial in trials
        if trial.state not in ENDED
    ]
    if not left:
        return 0.0
    return max(sum(left) / max(1, min(jobs, len(left))), *left)


class Display(Shown):
    """Hears the events of a runner (`nldsl.ablate.local.run`) and shows them on stderr."""

    def __init__(
        self, study: Study, console: Console | None = None, warn: Callable[[Diagnostic], None] | None = None
    ) -> None:
        """`warn` shows findings; by default each is a line."""
        super().__init__(console)
        self.study = study
        self.warn = warn or self._warn
        self.flops = {row.name: float(row.flops_per_token) for row in study.rows}
        self.jobs = 1
        self.whole = TaskID(0)
        self.bars: dict[str, TaskID] = {}
        self.said: set[str] = set()  # trials whose end was said, or came before
        self.trials: Sequence[Trial] = ()
        self.begun = False

    def _warning(self, event: Event) -> None:
        self.warn(event["diagnostic"])

    def _warn(self, found: Diagnostic) -> None:
        self.console.print(f"[yellow]warning:[/yellow] {escape(found.message)}", soft_wrap=True)

    def _jobs(self, event: Event) -> None:
        self.jobs = event["jobs"]

    def _state(self, event: Event) -> None:
        self.trials = event["trials"]
        if not self.begun:
            self.begun = True
            self.said = {trial.name for trial in self.trials if trial.state in ENDED}
            waiting = sum(trial.state not in ENDED for trial in self.trials)
            more = f", {self.jobs} at once" if self.jobs > 1 else ""
            begun = f" of {len(self.trials)}" if waiting < len(self.trials) else ""
            self.console.print(
                f"[bold]{escape(self.study.name)}[/bold]: {waiting}{begun} trials to do{more}; "
                f"{escape(str(self.study.folder))}",
                soft_wrap=True,
            )
            self._open()
        self._draw()

    def _open(self) -> None:
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[facts]}"),
            )
            self.progress = Progress(*columns, console=self.console, transient=True)
            self.progress.start()
            self.whole = self.progress.add_task("all trials", total=1.0, facts="")

    def _draw(self) -> None:
        if self.progress is None:
            return
        steps = sum(trial.steps for trial in self.trials)
        done = sum(trial.steps if trial.state in ENDED else trial.step for trial in self.trials)
        ended = sum(trial.state in ENDED for trial in self.trials)
        facts = f"{ended} of {len(self.trials)} ended{self._left()}"
        self.progress.update(self.whole, total=max(1, steps), completed=done, facts=facts)
        running = {trial.name: trial for trial in self.trials if trial.state == "running"}
        for name in [name for name in self.bars if name not in running]:
            self.progress.remove_task(self.bars.pop(name))
        for name, trial in running.items():
            if name not in self.bars:
                self.bars[name] = self.progress.add_task(escape(name), total=max(1, trial.steps), facts="")
            self.progress.update(
                self.bars[name], completed=trial.step, facts=f"step {trial.step:,} of {trial.steps:,}"
            )

    def _left(self) -> str:
        left = seconds_left(self.trials, self.flops, self.jobs)
        return f", {duration(left)} left" if left else ""

    def _end(self, event: Event) -> None:
        trial: Trial = event["trial"]
        self.trials = [trial if trial.name == other.name else other for other in self.trials]
        name = escape(trial.name)
        if trial.state in ENDED:
            self.said.add(trial.name)
            number = len(self.said)
            colour = _COLOURS[trial.state]
            why = f": {escape(trial.problem)}" if trial.problem else ""
            took = f" in {duration(trial.seconds)}" if trial.state == "done" else ""
            self.console.print(
                f"{number:>4} of {len(self.trials)}  [{colour}]{trial.state}[/{colour}] {name}{took}{why}"
                f"{self._left()}",
                soft_wrap=True,
            )
        elif trial.problem:
            self.console.print(f"      again: {name}: {escape(trial.problem)}", soft_wrap=True)
        self._draw()

    def _stopping(self, _event: Event) -> None:
        self.console.print("stopping: trials write their checkpoints (Ctrl-C again ends them at once)")

    def _stopped(self, event: Event) -> None:
        self.close()
        ended = sum(trial.state in ENDED for trial in event["trials"])
        self.console.print(
            f"stopped after {ended} of {len(event['trials'])} trials; "
            f"go on with: nldsl ablate {escape(quote(str(self.study.folder)))} --run",
            soft_wrap=True,
        )

    def _detached(self, event: Event) -> None:
        """The jobs of a queue go on without the runner that submitted them."""
        self.close()
        running = sum(trial.state == "running" for trial in event["trials"])
        self.console.print(
            f"{running} trials stay with their jobs; see how they are with: "
            f"nldsl ablate {escape(quote(str(self.study.folder)))}",
            soft_wrap=True,
        )

    def _over(self, event: Event) -> None:
        self.close()
        states = [trial.state for trial in event["trials"]]
        counts = ", ".join(f"{states.count(s)} {s}" for s in _COLOURS if s in states)
        self.console.print(f"{counts or 'no trials'}; {escape(str(self.study.folder))}", soft_wrap=True)
