"""What stops a verb without being a finding in a spec."""

from __future__ import annotations


class Problem(Exception):
    """A fact that ends the verb: wrong usage or input (exit code 2, the default), or a failed run (1)."""

    def __init__(self, message: str, help: str | None = None, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.exit_code = exit_code
