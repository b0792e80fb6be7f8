"""Around a run: its device and folder, signals, the log, the pace, and plain lines for people."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from checkpoint import NAME
from data import bits
from generate import printable
from schedule import Settings, UserError

HERE = Path(__file__).resolve().parent
Event = dict[str, Any]


def pick_device(name: str) -> torch.device:
    """`cpu`, `cuda` or, for `auto`, the better of what is there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":", maxsplit=1)[0] not in ("cpu", "cuda"):
        raise UserError(
            f"there is no device `{name}`", help="use `cpu`, `cuda` or `auto`", code=2, kind="device"
        )
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("no CUDA device can be reached", help="use `--device cpu`", code=2, kind="device")
    return torch.device(name)


def pick_precision(settings: Settings, device: torch.device) -> str:
    """`float32` or `bfloat16`; for `auto`, bfloat16 where the device has it."""
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def compile_regions(model: nn.Module, settings: Settings, device: torch.device) -> str | None:
    """Compile each module whose class says `compile_region = True`; returns why not if it cannot.

    Blocks are compiled one by one: modules of one class share their code, so its compilation is paid once.
    """
    wanted = device.type == "cuda" if settings.compile is None else settings.compile
    if not wanted:
        return None
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "nothing is compiled: torch.compile needs a C++ compiler, and none is installed"
    if getattr(type(model), "compile_region", None) is False:
        return "nothing is compiled: levels learn inside the sequence, by gradients from within blocks"
    regions = [module for module in model.modules() if getattr(type(module), "compile_region", False)]
    for module in regions or [model]:
        module.compile()
    return None


def pick_folder(out: Path | None, resume: bool) -> Path:
    """The folder of the run: `out`, or the newest (`resume`) or the next free one under `runs/`."""
    if out is not None:
        if (out / NAME).is_file() and not resume:
            raise UserError(
                f"{out} holds a run already",
                help="go on with it (--resume), or choose another --out",
                kind="output",
            )
        return out
    taken = sorted(p for p in (HERE / "runs").glob("[0-9]*") if p.is_dir())
    if resume:
        begun = [p for p in taken if (p / NAME).is_file()]
        if not begun:
            raise UserError(
                f"there is no run to resume in {HERE / 'runs'}", help="leave --resume out", kind="checkpoint"
            )
        return begun[-1]
    return HERE / "runs" / f"{int(taken[-1].name) + 1 if taken else 1:03d}"


@contextlib.contextmanager
def surroundings(settings: Settings) -> Iterator[None]:
    """Repeatable arithmetic, and denormal numbers flushed: they slow a CPU down and carry nothing."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its switch is a property that type checkers do not see
    fill = memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(settings.deterministic, warn_only=True)
    memory.fill_uninitialized_memory = False
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def interruptions() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second one ends the program as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Journal:
    """Events of a run: told to a listener and kept, a line each, in `log.jsonl`."""

    def __init__(self, folder: Path, step: int, listen: Callable[[Event], None]) -> None:
        """Open the journal of `folder`; what an earlier run wrote after `step` happens again."""
        self.listen = listen
        path = folder / "log.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in _lines(path) if line["step"] <= step] if step else []
            part = path.with_name(path.name + ".part")
            part.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            part.replace(path)  # what was kept is there whole, whenever this process is killed
            self.file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}",
                help="choose a folder that can be written with --out",
                code=2,
                kind="output",
            ) from error

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost."""
        with contextlib.suppress(OSError):
            self.file.close()

    def tell(self, event: str, step: int, **facts: Any) -> None:
        """Keep one event and pass it on."""
        line = {"event": event, "step": step, **facts}
        try:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self.file.name}: {error.strerror}; the last checkpoint is still there",
                help="free some space and run again with --resume",
                code=2,
                kind="output",
            ) from error
        self.listen(line)


def _lines(path: Path) -> list[Event]:
    """The events in a journal; a line that was cut off is left out."""
    events: list[Event] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
    return events


class Pace:
    """How fast steps go by.  The first is left out once there are others: it holds one-off costs."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens  # of one step
        self.steps = 0
        self.first = 0.0
        self.rest = 0.0

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self.begun
        self.steps += 1
        if self.steps == 1:
            self.first = seconds
        else:
            self.rest += seconds

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds of a step."""
        return self.rest / (self.steps - 1) if self.steps > 1 else self.first

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all streams a second."""
        return self.tokens / self.seconds_per_step if self.steps else 0.0

    def left(self, steps: int) -> float:
        """Seconds that `steps` more take at this pace."""
        return steps * self.seconds_per_step


class Printer:
    """Events as plain lines."""

    def __init__(self, settings: Settings, every: int | None = None) -> None:
        self.steps = settings.steps
        self.unit = "byte" if settings.data.tokenizer == "bytes" else "token"
        self.every = every or max(1, min(50, settings.steps // 20))

    def __call__(self, event: Event) -> None:
        """Print one event, unless it is one of many steps."""
        name = "show_" + event["event"]
        if hasattr(self, name):
            getattr(self, name)(event)

    def show_start(self, event: Event) -> None:
        """The run and its levels."""
        data = event["settings"]["data"]
        where = f"{event['device']} ({event['precision']})"
        print(
            f"{event['name']}: {event['parameters']:,} parameters on {where}, "
            f"steps {event['step']:,} to {event['steps']:,} of {data['batch']} x {data['length']} tokens"
        )
        width = max(len(level["name"]) for level in event["levels"])
        for level in event["levels"]:
            rule = f"{level['rule']} at {level['rate']['base']:g}"
            head = f"  {level['name']:<{width}}  {level['clock']:<16}"
            print(f"{head}  {rule}, {level['parameters']:,} parameters")
        for line in event["pretrained"]:
            print(f"  {line}")
        counted = event["baselines"]
        print(f"  counting {self.unit}s gives {self._both(counted['unigram'])}; pairs, ", end="")
        print(self._both(counted["bigram"]))

    def show_warning(self, event: Event) -> None:
        """A fact worth knowing."""
        print(f"warning: {event['text']}", file=sys.stderr)

    def show_step(self, event: Event) -> None:
        """One step."""
        if event["step"] % self.every and event["step"] not in (1, self.steps):
            return
        pace = f"{event['tokens_per_second']:>9,.0f} tokens/s  {duration(event['seconds_left'])} left"
        changed = ", ".join(event["updated"]) or "nothing"
        if event["reset"]:
            changed += f"; at their start: {', '.join(event['reset'])}"
        print(f"step {event['step']:>6,}  loss {event['loss']:.4f}  {pace}  changed: {changed}", flush=True)

    def show_evaluate(self, event: Event) -> None:
        """A measurement on held-out text."""
        rest = {k: v for k, v in event.items() if k not in ("event", "step", "loss", "baselines")}
        measures = "".join(f"  {name} {value:.4g}" for name, value in rest.items())
        print(f"step {event['step']:>6,}  held out {self._both(event['loss'])}{measures}", flush=True)

    def show_sample(self, event: Event) -> None:
        """A text by the model."""
        print(f"\n{printable(event['text'])}\n")

    def show_stop(self, event: Event) -> None:
        """The end."""
        if event["code"]:
            print(f"interrupted after step {event['step']:,}; to go on:")
            print(f"  python {HERE / 'train.py'} --resume --out {event['folder']}")
            return
        print(f"held out before: {self._both(event['loss_before'])}")
        print(f"held out after:  {self._both(event['loss_after'])}")
        for name, which in ((f"single {self.unit}s:", "unigram"), (f"pairs of {self.unit}s:", "bigram")):
            print(f"{name:<16} {self._both(event['baselines'][which])}")
        print(f"{event['tokens_per_second']:,.0f} tokens a second; {event['folder']}")

    def _both(self, nats: float) -> str:
        return f"{nats:.3f} nats/{self.unit} ({bits(nats):.3f} bits)"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(42.3), duration(150), duration(9000)
    ('42 s', '2 min 30 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
