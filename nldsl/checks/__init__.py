"""What is checked before anything runs.

A check is one small function that looks at a `Subject` and records findings.  `CHECKS` names them all,
in the order in which their findings are reported; `run` runs them.
"""

from __future__ import annotations

from collections.abc import Callable

from nldsl.checks import (
    ablations,
    budget,
    chains,
    clocks,
    gradient_flow,
    inner_rules,
    learning,
    levels,
    plastic,
    pretrained,
    rules,
    steps,
    task,
    tasks,
)
from nldsl.checks.subject import Subject
from nldsl.diagnostics.model import Diagnostic
from nldsl.levels.build import build
from nldsl.levels.graph import LevelGraph
from nldsl.levels.outer import Assignment, assign
from nldsl.resolve import Resolution
from nldsl.resolve.findings import Findings
from nldsl.resolve.modules import Module

__all__ = ["CHECKS", "STUDIES", "Check", "Subject", "run", "subject_of"]

Check = Callable[[Subject, Findings], None]

CHECKS: tuple[Check, ...] = (
    clocks.inside_the_sequence,
    clocks.anchor_and_update,
    clocks.carries_within_reach,
    clocks.nested_levels,
    clocks.divides_the_sequence,
    clocks.segments_within_the_sequence,
    clocks.windows_within_the_sequence,
    clocks.due_in_the_run,
    clocks.evaluation_is_due,
    rules.memories_are_due,
    plastic.plastic_levels_are_due,
    *chains.CHECKS,
    *task.CHECKS,
    levels.paths_of_learns,
    levels.one_rest,
    levels.learned_once,
    levels.weights_nobody_learns,
    levels.one_clock,
    levels.teachers,
    levels.idle_levels,
    pretrained.one_start_for_each_block,
    pretrained.one_clock_for_each_path,
    learning.gates_in_range,
    steps.gates_at_their_ends,
    learning.retention_underflows,
    learning.steps_that_diverge,
    steps.deep_steps,
    learning.delta_gradient_descent,
    learning.objectives_and_maps,
    learning.caches,
    rules.weights_that_are_no_matrices,
    rules.rates_of_memories,
    rules.numbers_have_values,
    rules.weights_that_grow,
    rules.reads_gradients,
    inner_rules.rules_of_memories,
    learning.schedules,
    gradient_flow.stopped_gradients,
    gradient_flow.values_nobody_reads,
    gradient_flow.tied_widths,
    budget.batches,
    tasks.tasks_are_reached,
    budget.vocabulary,
    budget.state_of_a_sequence,
    budget.fits_the_machine,
)
"""Checks of one spec."""


def _judge(subject: Subject, findings: Findings) -> None:
    for check in CHECKS:
        check(subject, findings)


def _variants(subject: Subject, findings: Findings) -> None:
    ablations.declared_variants(subject, findings, _judge)


def _other_runs(subject: Subject, findings: Findings) -> None:
    ablations.other_runs(subject, findings, _judge)


def _ablations(subject: Subject, findings: Findings) -> None:
    ablations.ablations(subject, findings, _judge)


STUDIES: tuple[Check, ...] = (
    ablations.bases,
    _other_runs,
    _variants,
    _ablations,
)
"""Checks of the variants and ablations beside a spec; each variant has to pass `CHECKS`, too."""


def subject_of(
    resolution: Resolution,
    *,
    original: Module | None = None,
    assignment: Assignment | None = None,
    graph: LevelGraph | None = None,
    memory_bytes: int | None = None,
) -> Subject | None:
    """What the checks look at, or None where nothing was expanded."""
    expanded = resolution.expanded
    if expanded is None:
        return None
    assignment = assignment or assign(expanded)
    graph = graph or build(expanded, assignment)
    return Subject(
        expanded, assignment, graph, resolution.module, original or resolution.module, memory_bytes
    )


def run(
    resolution: Resolution,
    assignment: Assignment | None = None,
    graph: LevelGraph | None = None,
    findings: Findings | None = None,
    *,
    original: Module | None = None,
    memory_bytes: int | None = None,
    studies: bool = True,
) -> list[Diagnostic]:
    """All findings of a resolved spec.

    Args:
        resolution: what `nldsl.resolve.resolve` gave; after errors in it there is nothing to check.
        assignment: which outer level learns what; made here where it is not given.
        graph: the level graph; made here where it is not given.
        findings: where to record them; those already in it are not repeated.
        original: the module as linked, from which variants and ablations start.
        memory_bytes: what the machine has; without it nothing is said about memory.
        studies: whether variants and ablations are checked, too.

    Returns:
        The findings of the checks alone, in the order of `CHECKS` and `STUDIES`.
    """
    findings = findings if findings is not None else Findings()
    before = len(findings.items)
    subject = subject_of(
        resolution, original=original, assignment=assignment, graph=graph, memory_bytes=memory_bytes
    )
    if subject is None:
        return []
    for check in (*CHECKS, *STUDIES) if studies else CHECKS:
        check(subject, findings)
    return findings.items[before:]
