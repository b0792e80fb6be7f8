"""Run the training loop of a build folder, show its progress, and write a report beside its checkpoint."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nldsl.run.errors import as_run_errors
from nldsl.run.folder import RunError, load

Event = dict[str, Any]


def train(
    folder: Path | str,
    *,
    steps: int | None = None,
    device: str | None = None,
    resume: bool = False,
    set: Iterable[str] = (),
    out: Path | str | None = None,
    progress: bool = True,
    compile: bool | None = None,
    seed: int | None = None,
    listen: Callable[[Event], None] | None = None,
) -> int:
    """Train the model of `folder` and return 0, or 130 if a signal ended the run.

    What the run does goes to stderr (`progress`), to `listen`, and to `log.jsonl` and `report.html` in the
    folder of the run.  Raises `RunError` for everything that the user can mend.
    """
    build = load(folder)
    changes = (*set, *(() if seed is None else (f"seed={seed}", f"data.seed={seed}")))
    command = _command(build.folder, changes, steps=steps, device=device)
    shown = _display(progress)
    seen: list[Event] = []

    def tell(event: Event) -> None:
        seen.append(event)
        shown(event)
        if listen is not None:
            listen(event)

    with as_run_errors(build), shown:
        settings = build.amend.amend(build.settings, changes, steps=steps, regions=compile)
        try:
            result = build.train.train(
                settings,
                device=device or "auto",
                out=Path(out) if out is not None else None,
                resume=resume,
                listen=tell,
            )
        finally:
            shown.close()
            _report(seen, build.folder, command)
    if result.code:
        again = f"nldsl train {shlex.quote(str(folder))} --resume --out {shlex.quote(str(result.folder))}"
        sys.stderr.write(f"interrupted after step {result.step}; go on with: {again}\n")
    return result.code


def plan(folder: Path | str, *, steps: int | None = None, set: Iterable[str] = ()) -> str:
    """What a run of `folder` would change when, as text; raises `RunError`."""
    build = load(folder)
    with as_run_errors(build):
        return build.train.schedule_of(build.amend.amend(build.settings, tuple(set), steps=steps))


def _command(folder: Path, changes: Iterable[str], **flags: object) -> str:
    """The command line that starts the same run again."""
    words = ["nldsl", "train", str(folder)]
    for name, value in flags.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    for change in changes:
        words += ["--set", change]
    return shlex.join(words)


def _report(events: list[Event], folder: Path, command: str) -> None:
    """Write `report.html` for the run that `events` tell of; a run that never started has none."""
    start = next((event for event in events if event["event"] == "start"), None)
    if start is None:
        return
    from nldsl.run import report

    target = Path(start["folder"]) / "report.html"
    try:
        report.write(target, command=command, folder=folder)
    except OSError as error:
        sys.stderr.write(f"warning: cannot write {target}: {error.strerror}\n")


def _display(progress: bool) -> Any:
    from nldsl.run.progress import Display, Silence

    return Display() if progress else Silence()


__all__ = ["RunError", "plan", "train"]
