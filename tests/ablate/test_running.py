"""What every runner does, wherever a study is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nldsl.ablate import running
from tests.ablate.studies import make


def test_a_study_with_one_failed_trial_ends_with_1_and_begins_again_with_it(tmp_path: Path) -> None:
    study = make(tmp_path / "study", seeds=1)
    heard: list[str] = []
    for state in ("failed", "done", "done"):
        claim = study.ledger.claim()
        assert claim is not None
        study.ledger.finish(claim.token, state, step=40)
    assert running.leave(study, lambda event: heard.append(event["event"])) == 1
    assert heard == ["state", "over"]
    running.begin(study, lambda _: None)
    assert study.trials()[0].state == "waiting"
    assert running.leave(study, lambda event: heard.append(event["event"])) == 130
    assert heard[2:] == ["state", "stopped"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"on": "moon"}, "a study cannot be run on `moon`; there are `local`, `ray`, `slurm`"),
        ({"jobs": 0}, "`jobs` is 0; at least 1 trial is done at once"),
        ({"stop_early": True}, "only Ray stops trials early"),
        ({"on": "slurm", "stop_early": True}, "only Ray stops trials early"),
        ({"options": {"cpus": 2}}, "a run on this machine has no options"),
    ],
)
def test_what_no_runner_does_is_refused_before_anything_begins(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    study = make(tmp_path / "study", seeds=1)
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        running.run(study, **asked)
    assert {trial.state for trial in study.trials()} == {"waiting"}
