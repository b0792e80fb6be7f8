"""Studies whose processes are killed at random: what is found is the same, and little is done twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from nldsl.ablate import local
from nldsl.ablate.study import Study

from .studies import (
    EVERY,
    STEPS,
    Forked,
    attempts,
    findings,
    fork,
    make,
    output_of,
    over,
    progress_of,
    runner,
)


class Killer:
    """Kills the processes of trials, or of runners, and keeps what had been done by then."""

    def __init__(self, study: Study, seed: int) -> None:
        self.study = study
        self.chance = random.Random(seed)
        self.runners = 0  # killed
        self.killed: list[
            tuple[str, int, int, int]
        ] = []  # trial, its attempts before, last step and checkpoint

    def worker(self, runners: list[Forked], *, trains: bool) -> bool:
        """SIGKILL some process that works on a trial now; with `trains` one that has made a step."""
        known = {one.pid for one in runners}
        owners = {name: one for name, one in self.study.ledger.owners().items() if one.pid not in known}
        working = {
            name: one.pid
            for name, one in owners.items()
            if one.state() and not (trains and progress_of(self.study, name)[0] in (0, STEPS))
        }
        if not working:
            return False
        name = self.chance.choice(sorted(working))
        before = output_of(self.study, name).count("from step")
        try:
            os.kill(working[name], signal.SIGKILL)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
        self.killed.append((name, before, *progress_of(self.study, name)))
        return True

    def pause(self, longest: float) -> None:
        time.sleep(self.chance.uniform(0.0, longest))


def storm(study: Study, *, kills: int, runner_kills: int, runners: int, seed: int) -> Killer:
    """Run `study` by several runners, kill its processes at random moments, and wait for the end."""
    killer = Killer(study, seed)
    pool = [runner(study.folder) for _ in range(runners)]
    moments = ["worker"] * kills + ["runner"] * runner_kills
    killer.chance.shuffle(moments)
    try:
        for what in moments:
            killer.pause(0.5)
            if over(study):
                break
            if what == "worker":
                trains = not killer.killed or killer.chance.random() < 0.7
                while not killer.worker(pool, trains=trains) and not over(study):
                    time.sleep(0.02)
                continue
            victim = killer.chance.randrange(len(pool))
            pool[victim].send_signal(signal.SIGKILL)
            pool[victim].wait()
            killer.runners += 1
            pool[victim] = runner(study.folder)
        codes = [one.wait(900.0) for one in pool]
    finally:
        for one in pool:
            one.send_signal(signal.SIGKILL)
    assert codes == [0] * runners
    return killer


def check(study: Study, undisturbed: Study, killer: Killer) -> None:
    assert {one.state for one in study.trials()} == {"done"}
    assert findings(study) == findings(undisturbed)
    for name, begun in attempts(study).items():
        ends = [step for step, done in begun if done and step < STEPS]
        assert len(ends) <= 1, f"{name} ran to its end more than once"
    for name, before, step, kept in killer.killed:
        again = attempts(study)[name][before:]
        if again:  # else the kill came after its result was written
            assert again[0][0] >= kept
            assert step - again[0][0] <= EVERY


def test_workers_and_runners_that_are_killed(tmp_path: Path, done: Study) -> None:
    study = make(tmp_path / "study")
    killer = storm(study, kills=5, runner_kills=2, runners=2, seed=1)
    assert any(step for _, _, step, _ in killer.killed), "no kill came while a trial was trained"
    check(study, done, killer)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.usefixtures("done")
def test_many_kills(tmp_path: Path, seed: int) -> None:
    study = make(tmp_path / "study", seeds=6)
    killer = storm(study, kills=30, runner_kills=6, runners=2, seed=seed)
    assert len(killer.killed) >= 10
    # Attempts that had begun to train: a later kill that finds no more met the next one before its training.
    trained = {(name, before): (step, kept) for name, before, step, kept in killer.killed if before}
    begun = sum(len(one) for one in attempts(study).values())
    print(
        f"\n{len(killer.killed)} workers ({len(trained)} in training) and {killer.runners} runners killed;"
        f" {begun} attempts of {len(study.trials())} trials trained;"
        f" {sum(step - kept for step, kept in trained.values())} steps of"
        f" {STEPS * len(study.trials())} made again"
    )
    undisturbed = make(tmp_path / "undisturbed" / "study", seeds=6)
    assert local.run(undisturbed, jobs=2, start=fork) == 0
    check(study, undisturbed, killer)
