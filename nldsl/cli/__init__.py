"""The command line, a thin shell over the Python API."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `nldsl` with these arguments (default: those of the process) and return the exit code."""
    import gc

    # What a start allocates lives to the end, and looking for garbage in it takes a tenth of a check.
    gc.set_threshold(50_000, 20, 50)
    from nldsl.cli.guard import run

    return run(list(sys.argv[1:] if argv is None else argv))
