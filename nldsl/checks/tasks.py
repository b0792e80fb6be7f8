"""Checks of data that come as tasks."""

from __future__ import annotations

from nldsl.checks.subject import Subject, report
from nldsl.resolve.findings import Findings


def tasks_are_reached(subject: Subject, findings: Findings) -> None:
    """The run is long enough for all of its tasks.

    Why: what a run forgets is measured once its last task has been learned.
    Non-goals: whether a task is long enough to be learned; tasks that are learned at once.
    """
    training = subject.training
    if training is None or not training.data.tasks or training.data.order == "joint":
        return
    data = training.data
    missing = len(data.tasks) - training.steps // data.each
    if missing <= 0:
        return
    late = "task is" if missing == 1 else f"{missing} tasks are"
    report(
        subject,
        findings,
        "NL0706",
        f"the last {late} not learned to the end in {training.steps} steps",
        [
            (data.spans.get("each") or data.span, f"{len(data.tasks)} tasks of {data.each} steps"),
            (training.spans.get("steps"), "the run"),
        ],
        help=f"use `steps = {data.each * len(data.tasks)}`",
        severity="warning",
    )
