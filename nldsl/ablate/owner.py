"""Who works on a trial: a process, told apart from a later one with the same number."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: the machine it is on, its number there, and when it began, in the machine's own words."""

    host: str
    pid: int
    begun: str

    def state(self) -> bool | None:
        """Whether the process lives; None where that cannot be seen from here, as on another machine."""
        if self.host == QUEUE:
            return in_queue(self.begun)
        if self.host != this_host():
            return None
        return began(self.pid) == self.begun


QUEUE = "slurm"
"""The host of owners that are jobs of Slurm which have not begun."""


def queued(job: str) -> Owner:
    """A job of Slurm that waits, as the owner of its trial."""
    return Owner(QUEUE, 0, job)


def in_queue(job: str) -> bool | None:
    """Whether Slurm has `job` in its queue; None where that cannot be seen from here."""
    queue = _queue(job.partition("_")[0], int(time.monotonic() / 10))
    return None if queue is None else job in queue


@functools.lru_cache(maxsize=64)
def _queue(array: str, _moment: int) -> frozenset[str] | None:
    """The jobs of an array that wait or run, asked for once in ten seconds."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={array}"]
    try:
        told = subprocess.run(  # noqa: S603 - the number of a job, from the study's database
            command, check=False, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode:  # an array that has ended long ago is unknown to it
        return frozenset() if "Invalid job id" in told.stderr else None
    return frozenset(told.stdout.split())


def me() -> Owner:
    """This process."""
    return Owner(this_host(), os.getpid(), began(os.getpid()) or "")


@functools.cache
def this_host() -> str:
    """This machine; where it runs containers, each counts as one, because each numbers its processes."""
    name = socket.gethostname()
    try:
        return f"{name} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - a link that leads to no file
    except OSError:
        return name


def began(pid: int) -> str | None:
    """When process `pid` of this machine began; None if it does not live.

    A process that has ended is dead although nobody may have waited for it yet.
    """
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            words = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if words[0] in (b"Z", b"X") else f"{_boot()} {words[19].decode()}"
    return _began_by_ps(pid)


@functools.cache
def _boot() -> str:
    """Which start of the machine this is: process numbers and times begin anew with each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _began_by_ps(pid: int) -> str | None:
    """The same on systems without `/proc`."""
    try:
        told = subprocess.run(  # noqa: S603 - a program of the system, and a number
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607
            check=False,
            capture_output=True,
            text=True,
        )
    except OSError:
        return _exists(pid)
    state, _, when = told.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else when.strip()


def _exists(pid: int) -> str | None:
    """Where nothing tells when a process began: "" if there is one of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""
