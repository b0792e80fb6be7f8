"""Trials measure as many held-out windows as their run says."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.ablate import trial

from .studies import SPEC, make


@pytest.mark.parametrize(("windows", "measured"), [("3", 3), ("all", 12)])
def test_a_trial_measures_the_windows_of_its_run(tmp_path: Path, windows: str, measured: int) -> None:
    """Of 198 bytes held out, 12 windows of 16 have a next byte each."""
    given = f"  evaluate_windows = {windows}\n"
    spec = SPEC.replace("  steps = 40\n", f"  steps = 1\n{given}").replace("every 8 steps", "every 1 step")
    study = make(tmp_path / "study", spec=spec, seeds=1)
    found = trial.work(study.folder, "base", 0)
    assert len(found["documents"]) == measured
    assert sum(one["tokens"] for one in found["documents"]) == 16 * measured
