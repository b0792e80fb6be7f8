"""What runners on other machines share: the package that each needs, and their options."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from nldsl.diagnostics.model import Diagnostic
from nldsl.diagnostics.suggest import nearest
from nldsl.run.folder import RunError

Reader = Callable[[str], Any]


def need(package: str, extra: str, runner: str) -> None:
    """Make sure that `package` is there; raises `RunError` (NL0930) with the command that installs it."""
    if importlib.util.find_spec(package) is not None:
        return
    raise RunError(
        Diagnostic(
            "NL0930",
            f"`--on {runner}` needs the package `{package}`, and it is not installed",
            help=f"run `pip install 'nldsl[{extra}]'`",
        ),
        exit_code=2,
    )


def read_options(runner: str, given: Mapping[str, object], known: Mapping[str, Reader]) -> dict[str, Any]:
    """The options in `given`, each read by its reader in `known`.

    Raises:
        RunError: an option has no meaning for the runner, or a value that it cannot have (NL0931).
    """
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = nearest(name, known)
            listed = ", ".join(f"`{one}`" for one in known)
            raise _unusable(
                f"`{name}` is no option of `--on {runner}`",
                f"maybe `{near[0]}`" if near else f"it has {listed}",
            )
        try:
            read[name] = known[name](str(value).strip())
        except ValueError as error:
            raise _unusable(f"`{name} = {value}` of `--on {runner}`: {error}", None) from error
    return read


def words(text: str) -> str:
    """One or more words, such as the name of a partition.

    >>> words("gpu")
    'gpu'
    """
    if not text or any(ord(c) < 32 for c in text):
        raise ValueError("a name is wanted")
    return text


def number(text: str) -> float:
    """A share or a number of processors, 0 or more; whole numbers stay whole.

    >>> number("2"), number("0.5")
    (2, 0.5)
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("a number from 0 is wanted")
    return int(value) if value == int(value) else value


def some(text: str) -> float:
    """As `number`, but more than 0."""
    value = number(text)
    if not value:
        raise ValueError("a number above 0 is wanted")
    return value


def whole(text: str) -> int:
    """A whole number from 0."""
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError("a whole number is wanted")
    return int(text)


def counting(text: str) -> int:
    """A whole number from 1."""
    value = whole(text)
    if not value:
        raise ValueError("a whole number above 0 is wanted")
    return value


def minutes(text: str) -> int:
    """A time as Slurm writes it, in minutes, rounded up.

    `MINUTES`, `MINUTES:SECONDS`, `HOURS:MINUTES:SECONDS`, `DAYS-HOURS`, `DAYS-HOURS:MINUTES` and
    `DAYS-HOURS:MINUTES:SECONDS`, as `sbatch --time` takes them.

    >>> minutes("90"), minutes("2:00:00"), minutes("1-12"), minutes("0:30")
    (90, 120, 2160, 1)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        raise ValueError("a time is wanted, such as 90 (minutes), 2:00:00 or 1-12:00:00")
    days, *rest = found.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:
        parts += [0] * (3 - len(parts))  # they begin with hours
    elif len(parts) < 3:
        parts = [0, *parts, *([0] if len(parts) == 1 else [])]  # they begin with minutes
    seconds = int(days or 0) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]
    if not seconds:
        raise ValueError("a time above 0 is wanted")
    return math.ceil(seconds / 60)


def _unusable(message: str, help: str | None) -> RunError:
    return RunError(Diagnostic("NL0931", message, help=help), exit_code=2)
