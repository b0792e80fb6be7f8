"""Starts from files, and memories of one path that are meant to differ.

Source: Nested Learning, section 7.3 (ad-hoc level stacking); REF d.7.
"""

from __future__ import annotations

from nldsl.checks.subject import Subject, report
from nldsl.resolve.expanded import ChainInstance, ChainLevel
from nldsl.resolve.findings import Findings


def one_start_for_each_block(subject: Subject, findings: Findings) -> None:
    """A level that stands in several blocks takes different weights in each.

    Why: without a star in its path, all blocks would begin as the same block of the file.
    Non-goals: whether the file has that many blocks; the run says so when it reads it.
    """
    for instance, copies in subject.expanded.instances():
        for level in instance.levels if isinstance(instance, ChainInstance) else ():
            start = level.pretrained
            if start is None or copies == 1 or "*" in (start.path or ""):
                continue
            report(
                subject,
                findings,
                "NL0570",
                f"`{level.path}` stands in {copies} blocks, and all of them would start from `{start.path}`",
                [(start.span, "no star for the number of the block")],
                help=f"write for instance `{_starred(start.path or '')}`",
            )


def _starred(path: str) -> str:
    """A path with its first number as a star.

    >>> _starred("model.layers.0.mlp")
    'model.layers.*.mlp'
    """
    parts = path.split(".")
    place = next((n for n, part in enumerate(parts) if part.isdigit()), None)
    return "model.layers.*.mlp" if place is None else ".".join([*parts[:place], "*", *parts[place + 1 :]])


def one_clock_for_each_path(subject: Subject, findings: Findings) -> None:
    """Levels of one path agree in when they change and where they start.

    Why: a path names weights, and one level of the run learns all that it names; levels of one memory that is
    used with different periods have one path and could not be told apart.
    Non-goals: weights of different sizes; they are free to differ.
    """
    known: dict[str, ChainLevel] = {}
    said: set[str] = set()
    for instance, _ in subject.expanded.instances():
        for level in instance.levels if isinstance(instance, ChainInstance) else ():
            other = known.setdefault(level.path, level)
            words = _difference(other, level)
            if words is None or level.path in said:
                continue
            said.add(level.path)
            report(
                subject,
                findings,
                "NL0572",
                f"`{level.path}` is {words[0]} in one place and {words[1]} in another",
                [(level.where("update"), "one level, two meanings")],
                help="declare one memory for each: the levels of a run tell weights apart by their names",
            )


def _difference(one: ChainLevel, other: ChainLevel) -> tuple[str, str] | None:
    """How two levels differ in what the run needs to know, in words; None if they do not."""
    pairs = (
        (f"changed {one.clock}", f"changed {other.clock}"),
        (f"reduced by `{one.reduce}`", f"reduced by `{other.reduce}`"),
        (f"started `{_start(one)}`", f"started `{_start(other)}`"),
    )
    return next(((a, b) for a, b in pairs if a != b), None)


def _start(level: ChainLevel) -> str:
    if level.pretrained is not None:
        return f'pretrained("{level.pretrained.file}", "{level.pretrained.path}")'
    return f"{level.start} {level.teacher}" if level.teacher else level.start
