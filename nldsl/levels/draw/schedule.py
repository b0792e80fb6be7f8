"""The schedule of a run as text: its outer levels, a time line of its first steps, what never happens."""

from __future__ import annotations

from nldsl.levels.costs import BYTES
from nldsl.levels.draw.words import count, size
from nldsl.levels.graph import Clock
from nldsl.levels.schedule import Planned, Schedule, moments, returns

SHOWN = 64  # steps of a time line


def as_text(schedule: Schedule) -> str:
    """All that a run will do, in at most 100 columns where names are short; ends in a newline."""
    head = f"{schedule.name}: {schedule.steps:,} steps of {schedule.batch} x {schedule.length} tokens"
    said = [head, _segments(schedule), "", *_table(schedule), "", *timeline(schedule)]
    never = never_happens(schedule)
    return "\n".join([*said, *(["", *never] if never else [])]) + "\n"


def _segments(schedule: Schedule) -> str:
    least, most = schedule.segments
    if least == schedule.length:
        return f"gradients flow back over whole sequences of {schedule.length} tokens"
    span = f"{most}" if least == most else f"{least} to {most}"
    return f"token clocks cut the sequences: gradients flow back over {span} tokens"


def _table(schedule: Schedule) -> list[str]:
    rows = [("level", "changes", "first", "updates", "rule", "weights", "memory", "FLOPs", "of the run")]
    rows += [
        (
            level.name,
            clock_text(level.clock),
            place(level.first, schedule.length),
            f"{level.updates:,}",
            level.rule,
            count(level.weights),
            size(level.memory * BYTES),
            count(level.flops),
            _share(level.share),
        )
        for level in schedule.levels
    ]
    lines = _columns(rows, left=(0, 1, 2, 4))
    for level in schedule.levels:
        if facts := _facts(level):
            lines.append(f"{level.name}: {facts}")
    return lines


def _facts(level: Planned) -> str:
    """What the columns leave out: reduction, start and reset."""
    facts = {"sum": "the sum of its gradients", "last": "the gradient of the step in which it is due"}
    said = [facts[level.reduce]] if level.reduce in facts else []
    said += [f"starts {level.start}"] if level.start else []
    if level.reset:
        times = f"{level.resets:,} time{'' if level.resets == 1 else 's'}"
        said.append(f"returns to its start {level.reset}, {times}")
    return "; ".join(said)


def clock_text(clock: Clock) -> str:
    """A clock as a run spells it.

    >>> clock_text(Clock(4, "step")), clock_text(Clock(96, "token", 32, "flush"))
    ('every 4 steps', 'every 96 tokens offset 32 flush')
    """
    partial = f" {clock.partial}" if clock.partial not in ("", "carry") else ""
    offset = f" offset {clock.offset}" if clock.offset else ""
    return f"every {clock.period} {clock.unit}{'' if clock.period == 1 else 's'}{offset}{partial}"


def place(position: int | None, length: int) -> str:
    """Where a position is.

    >>> place(1024, 512), place(1152, 512), place(None, 512)
    ('step 2', 'step 3, token 128', 'never')
    """
    if position is None:
        return "never"
    step, token = divmod(position, length)
    return f"step {step + 1}, token {token}" if token else f"step {step}"


def timeline(schedule: Schedule) -> list[str]:
    """A column for each of the first steps: `|` where a level changes once, a number where it does so often
    (`+` above 9), `r` where it returns to its start, `.` where it only gathers.
    """
    shown = min(SHOWN, schedule.steps)
    if not shown or not schedule.levels:
        return []
    width = max(len("steps"), *(len(level.name) for level in schedule.levels))
    ruler = "".join(f"{step:<8}" for step in range(1, shown + 1, 8))
    lines = [f"{'steps':<{width}}  {ruler[: shown + 3].rstrip()}"]
    lines += [f"{level.name:<{width}}  {_marks(schedule, level, shown)}" for level in schedule.levels]
    signs = {"|": "changes", ".": "gathers", "r": "returns to its start"}
    used = [
        f"{sign} {word}" for sign, word in signs.items() if any(sign in line[width:] for line in lines[1:])
    ]
    often = any(c.isdigit() or c == "+" for line in lines[1:] for c in line[width:])
    used += ["2 changes so often in a step"] if often else []
    return [*lines, f"{'':<{width}}  {', '.join(used)}"]


def _marks(schedule: Schedule, level: Planned, shown: int) -> str:
    length, ends = schedule.length, shown == schedule.steps
    changes, back = [0] * shown, [False] * shown
    for position in moments(level.clock, 0, shown, length, ends=ends):
        changes[(position - 1) // length] += 1
    for position in returns(level.name, schedule.levels, shown, length):
        if position <= shown * length:
            back[(position - 1) // length] = True
    return "".join(
        "r" if gone else "." if not n else "|" if n == 1 else str(n) if n < 10 else "+"
        for n, gone in zip(changes, back, strict=True)
    )


def never_happens(schedule: Schedule) -> list[str]:
    """What the run leaves out, a line each."""
    said = []
    for level in schedule.levels:
        if not level.updates:
            said.append(f"never: {level.name} changes {clock_text(level.clock)}, and the run ends before")
        if level.reset and not level.resets:
            said.append(f"never: {level.name} returns to its start {level.reset}, and the run ends before")
    said += [f"never: {path} stands still" for path in schedule.frozen]
    return said


def _share(share: float) -> str:
    return "0%" if not share else "<0.1%" if share < 0.001 else f"{100 * share:.1f}%"


def _columns(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


__all__ = ["as_text", "clock_text", "never_happens", "place", "timeline"]
