"""Run a study on a Ray cluster: Ray Tune places its trials, tries them again, and stops some early if asked.

What Tune keeps (`STUDY/ray`) is for its own use.  Checkpoints, results and states are the study's: each trial
is a process of `nldsl.ablate.trial` beside a worker of Ray, with a claim of its own, so that any runner goes
on where a killed one was.  The study's folder has to be on storage that all nodes see.
"""

# Ray is an extra, which need not be there where types are checked.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nldsl.ablate import memory
from nldsl.ablate.elsewhere import need, number, read_options, some, words
from nldsl.ablate.ledger import ENDED, KILLS, unwritable
from nldsl.ablate.local import cores
from nldsl.ablate.ray_worker import behind, look, versions, worker
from nldsl.ablate.rows import Trial
from nldsl.ablate.running import Tell, begin, leave, signals
from nldsl.ablate.study import Study
from nldsl.diagnostics.model import Diagnostic
from nldsl.run.files import reason
from nldsl.run.folder import RunError

OPTIONS = {"cpus": some, "gpus": number, "address": words}
"""What each trial gets, and which cluster: `address` as Ray has it (`auto`, `HOST:PORT`)."""
SHOW = 1.0
"""Seconds between looks at the ledger."""
REDUCTION = 3
"""ASHA: of the trials that come to a rung, one in so many goes on; rungs are so many times apart."""
_STORE = 100 * 1024**2
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the study has its own display
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # most reports only say that a trial lives
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}


def run(
    study: Study,
    *,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
    jobs: int | None = None,
    options: Mapping[str, object] | None = None,
    stop_early: bool = False,
) -> int:
    """Do the trials of `study` that wait on a Ray cluster, `jobs` at once (default: as many as have room).

    `options`: `cpus` (1) and `gpus` (0) of each trial, and `address`; without it a cluster of this machine's
    cores is started, and ends with the run.  `stop_early` lets ASHA (Li et al., A System for Massively
    Parallel Hyperparameter Tuning, 2020, algorithm 2) end trials whose held-out loss is behind that of others
    at the same share of their steps; those of the baseline run to their end.  `stop` and `tell` are as for
    `nldsl.ablate.local.run`, and so is what is returned.

    Raises:
        RunError: Ray is not installed (NL0930), an option is unusable (NL0931), a node cannot work on the
            study (NL0932), there is no cluster (NL0934), Ray cannot begin a trial (NL0935), or as
            `local.run`.
    """
    wanted = {"cpus": 1, "gpus": 0} | read_options("ray", options or {}, OPTIONS)
    need("ray", "ray", "ray")
    need("pyarrow", "ray", "ray")
    stop = stop or threading.Event()
    say = tell or (lambda _event: None)
    findings = [_early(study)] if stop_early else []
    if "address" not in wanted:
        jobs, short = memory.fitting(study, jobs or cores())
        findings += [short] if short is not None else []
    begin(study, say, findings)
    if any(trial.state not in ENDED for trial in study.trials()):
        with _cluster(wanted, jobs) as room, signals(stop):  # Ray sets a handler of its own as it starts
            _check_nodes(study, wanted)
            say({"event": "jobs", "jobs": jobs or room})
            _until_all_have_ended(study, stop, say, wanted, jobs, stop_early)
    return leave(study, say)


def _early(study: Study) -> Diagnostic:
    return Diagnostic(
        "NL0933",
        "trials that are stopped early have no final measurement, and no effect is told from them",
        notes=(f"trials of the baseline `{study.baseline}` run to their end",),
        severity="warning",
    )


def _until_all_have_ended(
    study: Study, stop: threading.Event, say: Tell, wanted: Mapping[str, Any], jobs: int | None, asha: bool
) -> None:
    """Hand to Tune what nobody works on, again and again: what others leave is taken over."""
    while not stop.is_set():
        trials = study.trials()
        say({"event": "state", "trials": trials})
        if all(trial.state in ENDED for trial in trials):
            return
        free = study.ledger.free()
        if free:
            _Sweep(study, free, stop, say).fit(wanted, jobs, asha)
        else:
            stop.wait(SHOW)


# ---------------------------------------------------------------------- the cluster


@contextlib.contextmanager
def _cluster(wanted: Mapping[str, Any], jobs: int | None) -> Iterator[int]:
    """A connection to the cluster that is asked for; how many trials it has room for."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import logging

    import ray
    from ray.exceptions import RayError

    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = wanted.get("address")
    own: dict[str, Any] = {
        "object_store_memory": _STORE,
        "num_cpus": max(1, math.ceil((jobs or 1) * wanted["cpus"])),
    }
    try:
        _knock(address)
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=False,
            **({} if address else own),
        )
    except (RayError, ConnectionError, RuntimeError, OSError, ValueError) as error:
        where = f"no Ray cluster answers at `{address}`" if address else "Ray cannot start on this machine"
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise RunError(
            Diagnostic(
                "NL0934",
                f"{where}: {first.strip().rstrip('.')}" if first else where,
                help="look with `ray status` whether it runs" if address else None,
            ),
            exit_code=2,
        ) from error
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1) // wanted["cpus"]))
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise `OSError` where nobody listens at `HOST:PORT`: Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?([^:/]+):(\d{1,5})", address or "")
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()


def _check_nodes(study: Study, wanted: Mapping[str, Any]) -> None:
    """Make sure that some node has room for a trial, and that each sees the study and has these versions."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not any(_has_room(node["Resources"], wanted) for node in nodes):
        raise _unusable(f"no node has {wanted['cpus']:g} processors and {wanted['gpus']:g} GPUs for a trial")
    word = secrets.token_hex(8)
    place = study.folder.resolve() / "ray" / f"look-{word}"
    try:
        place.mkdir(parents=True)
        (place / "driver").write_text(word, encoding="utf-8")
    except OSError as error:
        raise unwritable(place, reason(error)) from error
    try:
        task = ray.remote(num_cpus=0, max_retries=0)(look)
        asked = {
            node["NodeManagerHostname"]: task.options(
                scheduling_strategy=On(node["NodeID"], soft=False)
            ).remote(str(place), word, node["NodeID"])
            for node in nodes
            if node["Resources"].get("CPU", 0)
        }
        for host, answer in asked.items():
            try:
                seen = ray.get(answer, timeout=120)
            except (RayError, ImportError) as error:
                last = str(error).strip().splitlines()[-1]
                raise _unusable(f"the node `{host}` cannot work on the study: {last}") from error
            _compare(host, seen, place, study)
    finally:
        for file in place.glob("*"):
            file.unlink(missing_ok=True)
        place.rmdir()


def _has_room(resources: Mapping[str, float], wanted: Mapping[str, Any]) -> bool:
    return resources.get("CPU", 0) >= wanted["cpus"] and resources.get("GPU", 0) >= wanted["gpus"]


def _compare(host: str, seen: Mapping[str, Any], place: Path, study: Study) -> None:
    """Raise what is in the way of the trials of a node."""
    if not seen["sees"] or not (place / seen["file"]).is_file():
        raise _unusable(
            f"the node `{host}` does not see `{study.folder}` as this machine does",
            "keep the study in a folder that all nodes share, by one path",
        )
    for package, here in versions().items():
        if seen[package] != here:
            there = f"has {package} {seen[package]}" if seen[package] else f"lacks {package}"
            raise _unusable(
                f"the node `{host}` {there}, and this machine has {here}", "install one version everywhere"
            )


def _unusable(message: str, help: str | None = None) -> RunError:
    return RunError(Diagnostic("NL0932", message, help=help), exit_code=2)


# ---------------------------------------------------------------------- Tune


class _Sweep:
    """One run of Tune over trials of a study; Tune sees what it needs of it as callbacks."""

    def __init__(self, study: Study, trials: Sequence[Trial], stop: threading.Event, say: Tell) -> None:
        self.study, self.trials, self.stop, self.say = study, list(trials), stop, say
        self.halt = study.folder.resolve() / "ray" / f"halt-{secrets.token_hex(4)}"
        self.running: set[int] = set()
        self.leaving: set[int] = set()
        self.errors: dict[int, str] = {}
        self.full: str | None = None
        self._shown = 0.0
        self._asked: float | None = None

    def fit(self, wanted: Mapping[str, Any], jobs: int | None, asha: bool) -> None:
        """Hand the trials to Tune and wait until it is through with them.

        Raises `RunError` where nothing can be written (NL0903) or a trial cannot be begun (NL0935).
        """
        from ray import tune

        storage = self.halt.parent
        names = [trial.name for trial in self.trials]
        given = [(trial.variant, trial.seed) for trial in self.trials]
        kept = {i for i, t in enumerate(self.trials) if t.variant == self.study.baseline}
        actor = worker(str(self.study.folder.resolve()), given, str(self.halt))
        tuner = tune.Tuner(
            tune.with_resources(actor, {"cpu": wanted["cpus"], "gpu": wanted["gpus"]}),
            param_space={"trial": tune.grid_search(list(range(len(given))))},
            tune_config=tune.TuneConfig(
                scheduler=_asha(self.halt, kept) if asha else None,
                max_concurrent_trials=jobs,
                reuse_actors=True,
                trial_name_creator=lambda one: names[one.config["trial"]],
                trial_dirname_creator=lambda one: f"trial-{one.config['trial']}",
            ),
            run_config=tune.RunConfig(
                name=f"run-{self.halt.name.removeprefix('halt-')}",
                storage_path=str(storage),
                verbose=0,
                stop=_halting(self),
                callbacks=[_hearing(self)],
                failure_config=tune.FailureConfig(max_failures=KILLS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        finally:
            self.halt.unlink(missing_ok=True)
        self._show()
        if self.full is not None:
            raise unwritable(self.study.folder, self.full)
        left = {trial.name for trial in self.study.trials() if trial.state == "waiting"}
        for index, error in self.errors.items():
            if self.trials[index].name in left and not self.stop.is_set():
                raise RunError(
                    Diagnostic("NL0935", f"Ray cannot begin the trial `{self.trials[index].name}`: {error}")
                )

    # what Tune says; `index` counts `trials`

    def began(self, index: int) -> None:
        self.running.add(index)
        self.say({"event": "begin", "trial": self.trials[index]})

    def reported(self, result: Mapping[str, Any]) -> None:
        if result.get("full"):
            self.full = str(result["full"])
            self.stop.set()

    def ended(self, index: int, error: str | None = None) -> None:
        self.running.discard(index)
        if error is not None:
            self.errors[index] = error
        self.leaving.add(index)

    def look(self) -> None:
        """Now and then: tell how the study stands, and pass on that everything is to stop."""
        if self.stop.is_set() and self._asked is None:
            self._asked = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk: the workers end with Tune
                self.halt.write_text("", encoding="utf-8")
        if time.monotonic() - self._shown > SHOW:
            self._shown = time.monotonic()
            self._show()

    def _show(self) -> None:
        """Tell how the study stands, and of trials that have left Tune and the database knows how."""
        trials = self.study.trials()
        self.say({"event": "state", "trials": trials})
        known = {trial.name: trial for trial in trials}
        for index in sorted(self.leaving):
            now = known.get(self.trials[index].name)
            if now is not None and now.state != "running":
                self.leaving.discard(index)
                self.say({"event": "end", "trial": now, "code": 0 if now.state in ENDED else 1})

    def over(self) -> bool:
        """Whether Tune is to end: asked to, with every trial stopped or its time for that gone."""
        return self._asked is not None and (not self.running or time.monotonic() - self._asked > PATIENCE)


PATIENCE = 75.0
"""Seconds that trials have for their last checkpoints when a run is stopped: `attempt.GRACE` and more."""


def _halting(sweep: _Sweep) -> Any:
    from ray import tune

    class Halting(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return sweep.over()

        def __reduce__(self) -> tuple[Any, ...]:
            return (
                dict,
                (),
            )  # Tune writes down how it was called, to be restored; studies go on by themselves

    return Halting()


def _hearing(sweep: _Sweep) -> Any:
    from ray import tune

    class Hearing(tune.Callback):
        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            sweep.look()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            sweep.began(trial.config["trial"])

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            sweep.ended(trial.config["trial"])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            sweep.reported(result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            sweep.ended(trial.config["trial"])

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            file = trial.error_file
            text = Path(file).read_text(encoding="utf-8") if file and Path(file).is_file() else ""
            sweep.ended(trial.config["trial"], (text.strip().splitlines() or ["its workers end"])[-1])

        def __reduce__(self) -> tuple[Any, ...]:
            return (dict, ())

    return Hearing()


def _asha(halt: Path, kept: set[int]) -> Any:
    """ASHA over shares of the steps, in percent, from a ninth of them on; the trials in `kept` go on.

    Workers see by a file beside `halt` that they were stopped early: Tune ends them for other reasons too.
    """
    from ray.tune.schedulers import ASHAScheduler

    class Asha(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            action = super().on_trial_result(tune_controller, trial, result)
            index = trial.config["trial"]
            if action != self.STOP or index in kept:
                return self.CONTINUE
            try:
                behind(halt, index).touch()
            except OSError:  # a full disk, of which the trial has more to say
                return self.CONTINUE
            return self.STOP

    earliest: Any = 100 / REDUCTION**2  # of a share; it need not be whole
    return Asha(
        time_attr="share",
        metric="loss",
        mode="min",
        max_t=100,
        grace_period=earliest,
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )
