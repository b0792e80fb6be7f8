"""What a build folder's own errors are called among nldsl's findings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nldsl.diagnostics.model import Diagnostic
from nldsl.run.folder import Build, RunError

# By the `kind` of a folder's `UserError` (schedule.py).
CODES = {
    "settings": "NL0803",
    "data": "NL0804",
    "checkpoint": "NL0805",
    "output": "NL0806",
    "device": "NL0807",
    "diverged": "NL0808",
    "pretrained": "NL0580",
}


@contextmanager
def as_run_errors(build: Build) -> Iterator[None]:
    """Turn the `UserError` of `build` into a `RunError` with the code of its kind."""
    try:
        yield
    except build.schedule.UserError as error:
        code = CODES.get(error.kind, CODES["settings"])
        raise RunError(Diagnostic(code, error.message, help=error.help or None), error.code) from error
