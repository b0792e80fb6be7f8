"""What all tests share: golden files, the examples of properties, and one thread for torch where loaded."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The suite draws the same examples every time: what fails here fails everywhere.  New ones are looked for by
# `make explore`.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("suite")

HINT = "run pytest with --update-golden if the new text is right"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`."""
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew instead of comparing"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """`golden(path, text)`: the file at `path` holds exactly `text`; with `--update-golden` it is made to."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        if not path.exists():
            pytest.fail(f"{path} does not exist; {HINT}")
        expected = path.read_text(encoding="utf-8")
        if expected != text:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), "expected", "actual", lineterm=""
            )
            pytest.fail("\n".join([f"{path} differs; {HINT}", *lines]))

    return check


@pytest.fixture(autouse=True)
def _torch_as_asked(request: pytest.FixtureRequest) -> None:
    """One thread, as tests run side by side; tiny numbers are 0 where a module says `FLUSH_DENORMAL = True`.

    Both are settings of the process, which a test before may have changed.  torch is never imported for this.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        torch.set_flush_denormal(getattr(request.module, "FLUSH_DENORMAL", False))
