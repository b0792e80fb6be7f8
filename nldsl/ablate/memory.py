"""How many trials the memory of this machine has room for."""

from __future__ import annotations

import os
from pathlib import Path

from nldsl.ablate.study import Study
from nldsl.checks.budget import in_words
from nldsl.diagnostics.model import Diagnostic

PROCESS = 400 << 20
"""Bytes of a process that has torch and a text, measured on Linux."""


def fitting(study: Study, jobs: int) -> tuple[int, Diagnostic | None]:
    """`jobs`, or as many fewer as main memory has room for, with a finding that says so."""
    free = available()
    each = PROCESS + max((study.asked.bytes.get(row.name, 0) for row in study.runnable), default=0)
    if free is None or free >= jobs * each:
        return jobs, None
    fits = max(1, free // each)
    if fits == jobs:  # one that is too large is tried: the estimate is no measurement
        return jobs, None
    return fits, Diagnostic(
        "NL0909",
        f"{fits} trial{'s' if fits != 1 else ''} at once instead of {jobs}: memory has {in_words(free)} left",
        notes=(f"the largest variant takes about {in_words(each)} for each trial",),
        severity="warning",
    )


def available() -> int | None:
    """Bytes of main memory that processes begun now can have; None where the system does not say."""
    free = [size for size in (_machine(), _group()) if size is not None]
    return min(free) if free else None


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return found["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _group() -> int | None:
    """What a container may still have: its limit less what it uses, but for files that are only cached."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text("ascii"))
        used = int((folder / "memory.current").read_text("ascii"))
        facts = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        return max(0, limit - used + int(facts.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
