"""Run a study on Slurm: submitit submits its trials as one array job, and each job does one trial.

The jobs need nothing of the process that submitted them.  A job that waits in the queue holds the claim on
its trial, so that nobody else takes it as long as Slurm knows the job; once it runs, the process of its
trial holds it.  Slurm warns a job before it ends it (`--signal`): the trial then writes a checkpoint, and the
job goes back into the queue.
"""

# submitit is an extra, which need not be there where types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

import math
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nldsl.ablate.attempt import GRACE, Attempt
from nldsl.ablate.elsewhere import counting, minutes, need, read_options, some, whole, words
from nldsl.ablate.ledger import ENDED, Claim, unwritable
from nldsl.ablate.owner import Owner, began, queued, this_host
from nldsl.ablate.rows import Trial
from nldsl.ablate.running import Tell, begin, leave, signals
from nldsl.ablate.study import Study
from nldsl.ablate.trial import INTERRUPTED, TAKEN, UNWRITABLE
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.files import reason
from nldsl.run.folder import RunError

CLUSTERS = ("slurm", "local")


def _cluster(text: str) -> str:
    if text not in CLUSTERS:
        raise ValueError("`slurm` or `local` is wanted")
    return text


OPTIONS = {
    "partition": words,
    "account": words,
    "time": minutes,
    "cpus": counting,
    "gpus": whole,
    "memory": some,
    "cluster": _cluster,
}
"""What each job asks for; `memory` in GB.  `cluster = local` runs the jobs on this machine, without Slurm."""
DEFAULTS = {"time": 60, "cpus": 1, "gpus": 0, "cluster": "slurm"}
WARNING = math.ceil(GRACE) + 30
"""Seconds before its time is over that a job is told."""
SUBMISSIONS = 3
"""How often one run submits a trial whose jobs end and leave it at the step where it was."""
TIMEOUTS = 1000
"""How often a job may go back into the queue: each time the trial goes on where it was."""
LOOK = {"slurm": 5.0, "local": 0.5}


def run(
    study: Study,
    *,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
    jobs: int | None = None,
    options: Mapping[str, object] | None = None,
) -> int:
    """Submit the trials of `study` that wait, at most `jobs` to run at once, and watch until all have ended.

    `options`: see `OPTIONS`.  `stop`, Ctrl-C and a lost connection end the watching only: jobs go on.  `tell`
    is as for `nldsl.ablate.local.run`, and so is what is returned.

    Raises:
        RunError: submitit is not installed (NL0930), an option is unusable (NL0931), there is no Slurm or it
            refuses the jobs (NL0934), jobs end before their trials begin (NL0935), or as `local.run`.
    """
    wanted = DEFAULTS | read_options("slurm", options or {}, OPTIONS)
    need("submitit", "slurm", "slurm")
    if wanted["cluster"] == "slurm" and shutil.which("sbatch") is None:
        raise RunError(
            Diagnostic(
                "NL0934",
                "there is no Slurm on this machine: `sbatch` is not found",
                help="run it where jobs are submitted, or with `cluster = local` to try it without Slurm",
            ),
            exit_code=2,
        )
    stop = stop or threading.Event()
    say = tell or (lambda _event: None)
    begin(study, say)
    with signals(stop):
        _watch(study, stop, say, wanted, jobs)
    return leave(study, say, "detached")


def _watch(
    study: Study, stop: threading.Event, say: Tell, wanted: Mapping[str, Any], jobs: int | None
) -> None:
    """Submit what is free, and tell how the study stands, until every trial has ended or `stop` is set."""
    times: dict[tuple[str, int], int] = {}
    before: dict[str, Trial] = {}
    while not stop.is_set():
        claims = _claims(study)
        if claims:
            _count(study, claims, times)
            _submit(study, claims, wanted, jobs)
            say({"event": "jobs", "jobs": min(len(claims), jobs or len(claims))})
        trials = study.trials()
        say({"event": "state", "trials": trials})
        for trial in trials:
            known = before.get(trial.name)
            if known is not None and known.state not in ENDED and trial.state in ENDED:
                say({"event": "end", "trial": trial, "code": 0})
        before = {trial.name: trial for trial in trials}
        if all(trial.state in ENDED for trial in trials):
            return
        stop.wait(LOOK[wanted["cluster"]])


def _claims(study: Study) -> list[Claim]:
    """A claim on everything that nobody works on."""
    claims: list[Claim] = []
    while (claim := study.ledger.claim()) is not None:
        claims.append(claim)
    return claims


def _count(study: Study, claims: Sequence[Claim], times: dict[tuple[str, int], int]) -> None:
    """Raise `RunError` (NL0935) for a trial that was submitted too often and never came further.

    `times` says how often each was submitted at each step.
    """
    for claim in claims:
        name, step = claim.trial.name, claim.trial.step
        times[name, step] = times.get((name, step), 0) + 1
        if times[name, step] <= SUBMISSIONS:
            continue
        for other in claims:
            study.ledger.release(other.token)
        why = f": {claim.trial.problem}" if claim.trial.problem else ""
        raise RunError(
            Diagnostic(
                "NL0935",
                f"the jobs of the trial `{name}` end, and it does not{why}",
                help=f"see what they wrote in `{study.folder / 'slurm'}`",
            )
        )


def _submit(study: Study, claims: Sequence[Claim], wanted: Mapping[str, Any], jobs: int | None) -> None:
    """One array job for `claims`, which its jobs hold from then on."""
    import submitit
    from submitit.core.utils import FailedJobError

    folder = study.folder.resolve() / "slurm"
    try:
        folder.mkdir(exist_ok=True)
        executor = submitit.AutoExecutor(folder, cluster=wanted["cluster"], slurm_max_num_timeout=TIMEOUTS)
        executor.update_parameters(**_parameters(study, wanted, jobs))
        with executor.batch():
            submitted = [executor.submit(Job(str(study.folder.resolve()), claim)) for claim in claims]
    except BaseException as error:
        for claim in claims:
            study.ledger.release(claim.token)
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise unwritable(folder, reason(error)) from error
        if isinstance(error, FailedJobError | subprocess.CalledProcessError | OSError):
            said = str(error).strip().splitlines()
            raise RunError(
                Diagnostic("NL0934", f"Slurm refuses the jobs: {said[-1] if said else 'it says no more'}"),
                exit_code=2,
            ) from error
        raise
    for claim, job in zip(claims, submitted, strict=True):
        study.ledger.entrust(claim.token, holder(wanted["cluster"], str(job.job_id)))


def holder(cluster: str, job: str) -> Owner:
    """Who holds the claim of a job that has not begun: on this machine, its process; else the queue."""
    if cluster == "local":
        return Owner(this_host(), int(job), began(int(job)) or "")
    return queued(job)


def _parameters(study: Study, wanted: Mapping[str, Any], jobs: int | None) -> dict[str, Any]:
    """What submitit is told; names that begin with `slurm_` are for Slurm alone."""
    given: dict[str, Any] = {
        "name": f"nldsl-{study.name}",
        "timeout_min": wanted["time"],
        "cpus_per_task": wanted["cpus"],
        "slurm_signal_delay_s": min(WARNING, 30 * wanted["time"]),
        "slurm_additional_parameters": {"requeue": True},
    }
    if wanted["gpus"]:
        given["gpus_per_node"] = wanted["gpus"]
    if "memory" in wanted:
        given["mem_gb"] = wanted["memory"]
    if jobs is not None:
        given["slurm_array_parallelism"] = jobs
    return given | {f"slurm_{name}": wanted[name] for name in ("partition", "account") if name in wanted}


class Job:
    """What a job does: the trial of `claim`, in a process beside it.

    Called by submitit, which calls `checkpoint` from its handler of signals when the job's time is over or
    the job is pre-empted, and then puts the job back into the queue.
    """

    def __init__(self, folder: str, claim: Claim) -> None:
        self.folder, self.claim = folder, claim
        self.attempt: Attempt | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "claim": self.claim, "attempt": None}

    def __call__(self) -> str:
        """The trial's state when the job is through with it."""
        study = Study.open(self.folder)
        while True:
            claim = self._take(study)
            if claim is None:
                return self._now(study).state
            self.claim, self.attempt = claim, Attempt(study, claim)
            while (code := self.attempt.code()) is None:
                time.sleep(0.2)
            trial = self.attempt.settle(code)
            if code == INTERRUPTED:
                _wait_for_the_end()
            if code == UNWRITABLE:
                raise unwritable(study.folder, self.attempt.last_words())
            if trial.state in ENDED or code == TAKEN:
                return trial.state

    def checkpoint(self) -> Any:
        """Let the trial write a checkpoint and wait with this job in the queue."""
        from submitit import JobEnvironment
        from submitit.helpers import DelayedSubmission

        study = Study.open(self.folder)
        if self.attempt is not None:
            self.attempt.interrupt()
            study.ledger.release(self.claim.token)
        environment = JobEnvironment()
        trial = self.claim.trial
        claim = study.ledger.claim(trial.variant, trial.seed)
        if claim is not None:
            self.claim = claim
            study.ledger.entrust(claim.token, holder(environment.cluster, environment.job_id))
        return DelayedSubmission(self)

    def _take(self, study: Study) -> Claim | None:
        """The claim that was taken for this job; where it is lost, another if the trial is free."""
        claim = study.ledger.adopt(self.claim.token)
        return claim or study.ledger.claim(self.claim.trial.variant, self.claim.trial.seed)

    def _now(self, study: Study) -> Trial:
        return next((t for t in study.trials() if t.name == self.claim.trial.name), self.claim.trial)


def _wait_for_the_end() -> None:
    """A signal reached the trial before this process was told: Slurm is about to end the job.

    A job that ended by itself now would count as complete, and would not come back into the queue.
    """
    time.sleep(10 * GRACE)
    raise RuntimeError("the trial was interrupted, and the job was not ended")
