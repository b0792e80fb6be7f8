"""A run on the terminal: a bar where there is one, lines in a log file; everything on stderr."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

Event = dict[str, Any]


class Silence:
    """Shows nothing."""

    def __call__(self, event: Event) -> None:
        """Ignore the event."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back."""


class Shown(Silence):
    """Events on stderr: each is shown by the method of its name, after an underscore, where there is one."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.progress: Progress | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        show = getattr(self, "_" + event["event"], None)
        if show is not None:
            show(event)

    def close(self) -> None:
        """Give the terminal back."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class Display(Shown):
    """Progress with rich on stderr; without a terminal, a line for each evaluation."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self.task = TaskID(0)
        self.held_out = float("nan")
        self.changed: dict[str, int] = {}
        self.unit = "byte"

    def _start(self, event: Event) -> None:
        data = event["settings"]["data"]
        self.unit = "byte" if data["tokenizer"] == "bytes" else "token"
        where = f"{event['device']}, {event['precision']}"
        head = f"[bold]{event['name']}[/bold]: {event['parameters']:,} parameters on {where}"
        self.console.print(f"{head}; steps of {data['batch']} x {data['length']} tokens")
        self.console.print(_levels(event["levels"]))
        for line in event["pretrained"]:
            self.console.print(line, markup=False)
        self.held_out = float("nan")
        if self.console.is_terminal:
            self.progress = Progress(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                console=self.console,
            )
            self.progress.start()
            self.task = self.progress.add_task("", total=event["steps"], completed=event["step"], facts="")

    def _step(self, event: Event) -> None:
        for name in event["updated"]:
            self.changed[name] = event["step"]
        if self.progress is None:
            return
        colours = {name: "green" if name in event["updated"] else "dim" for name in self.changed}
        marks = "  ".join(f"[{colour}]{name}[/{colour}]" for name, colour in colours.items())
        losses = f"loss {event['loss']:.3f}  held out {self.held_out:.3f}"
        pace = f"{event['tokens_per_second']:,.0f} tokens/s  {duration(event['seconds_left'])} left"
        facts = f"{losses}  {pace}  {marks}"
        self.progress.update(self.task, completed=event["step"], facts=facts)

    def _evaluate(self, event: Event) -> None:
        self.held_out = event["loss"]
        rest = {k: v for k, v in event.items() if k not in ("event", "step", "loss", "baselines")}
        more = "".join(f"  {name.replace('_', ' ')} {value:.4g}" for name, value in rest.items())
        self.console.print(f"step {event['step']:>6,}  held out {event['loss']:.3f} nats/{self.unit}{more}")

    def _warning(self, event: Event) -> None:
        self.console.print(f"[yellow]warning:[/yellow] {escape(event['text'])}", soft_wrap=True)

    def _sample(self, event: Event) -> None:
        self.close()
        shown = "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in event["text"])
        self.console.print(shown, style="italic", markup=False, soft_wrap=True)

    def _stop(self, event: Event) -> None:
        self.close()
        if event["code"]:
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        rows = {"before": event["loss_before"], "after": event["loss_after"]}
        rows |= {
            f"single {self.unit}s": event["baselines"]["unigram"],
            f"pairs of {self.unit}s": event["baselines"]["bigram"],
        }
        for name, nats in rows.items():
            table.add_row(name, f"{nats:.3f} nats/{self.unit}", f"{nats / math.log(2):.3f} bits/{self.unit}")
        self.console.print(table)
        speed = f"{event['tokens_per_second']:,.0f} tokens a second; "
        self.console.print(f"{speed}{escape(event['folder'])}/report.html", soft_wrap=True)


def _levels(levels: list[Event]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("level", "changes", "rule", "rate", "parameters"):
        table.add_column(title, justify="right" if title in ("rate", "parameters") else "left")
    for level in levels:
        rate = f"{level['rate']['base']:g}"
        table.add_row(level["name"], level["clock"], level["rule"], rate, f"{level['parameters']:,}")
    return table


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(42.3), duration(150)
    ('42 s', '2 min 30 s')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
    )
