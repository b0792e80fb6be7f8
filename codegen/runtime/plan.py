"""What a run will do, before it does it: which level changes when, and what never happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from schedule import Clock, Level, Settings, cuts, due, parents_first, segment_lengths, updates

SHOWN = 64  # steps of a time line


def plan(settings: Settings, weights: Mapping[str, int]) -> str:
    """The schedule as text; `weights` counts the numbers that each level learns."""
    data = settings.data
    head = f"{settings.name}: {settings.steps:,} steps of {data.batch} x {data.length} tokens"
    before = [head, _segments(settings), *_measured(settings)]
    said = [*before, "", *_table(settings, weights), "", *timeline(settings)]
    never = [f"never: {words}" for words in never_happens(settings)]
    return "\n".join([*said, *(["", *never] if never else [])]) + "\n"


def _segments(settings: Settings) -> str:
    least, most = segment_lengths(settings)
    if least == settings.data.length:
        return f"gradients flow back over whole sequences of {least} tokens"
    span = f"{most}" if least == most else f"{least} to {most}"
    return f"token clocks cut the sequences: gradients flow back over {span} tokens"


def _measured(settings: Settings) -> list[str]:
    """What an evaluation measures, where that is not what every run measures."""
    asked, data = settings.evaluate_windows, settings.data
    if asked == Settings.evaluate_windows:
        return []
    texts = {task.kind == "text" for task in data.tasks}
    what = "windows" if False not in texts else "items" if True not in texts else "windows or items"
    many = "all" if asked == "all" else f"at most {asked:,}"
    every = settings.evaluate_every
    when = "every step" if every == 1 else f"every {every:,} steps"
    return [f"measures {many} held-out {what}{' of each task' if data.tasks else ''} {when}"]


def _table(settings: Settings, weights: Mapping[str, int]) -> list[str]:
    rows = [("level", "changes", "first", "updates", "rule", "weights")]
    for level in settings.levels:
        clock, count = level.clock, updates(level.clock, settings)
        first = _place(settings, level) if count else "never"
        rows.append((level.name, str(clock), first, f"{count:,}", level.rule, f"{weights[level.name]:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    aligned: list[Callable[[str, int], str]] = [
        str.ljust,
        str.ljust,
        str.ljust,
        str.rjust,
        str.ljust,
        str.rjust,
    ]
    lines = [
        "  ".join(
            align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return lines + [f"{level.name}: {facts}" for level in settings.levels if (facts := _facts(level))]


def _place(settings: Settings, level: Level) -> str:
    """The first update of a level that has one."""
    clock, length = level.clock, settings.data.length
    first = clock.offset or clock.period
    if clock.unit == "step":
        return f"step {min(first, settings.steps)}"
    if clock.partial == "flush":
        first = min(first, length)
    step, token = divmod(first, length)
    return f"step {step + 1}, token {token}" if token else f"step {step}"


def _facts(level: Level) -> str:
    reduced = {"sum": "the sum of its gradients", "last": "the gradient of the step in which it is due"}
    said = [reduced.get(level.reduce, ""), f"starts {level.start}" if level.start else ""]
    said.append(f"returns to its start {level.reset}" if level.reset else "")
    return "; ".join(words for words in said if words)


def timeline(settings: Settings) -> list[str]:
    """A column for each of the first steps: `|` where a level changes once, a number where it does so often
    (`+` above 9), `r` where it returns to its start, `.` where it only gathers.
    """
    shown = min(SHOWN, settings.steps)
    if not shown:
        return []
    changes, back = simulate(settings, shown)
    width = max(len("steps"), *(len(level.name) for level in settings.levels))
    ruler = "".join(f"{step:<8}" for step in range(1, shown + 1, 8))[: shown + 3].rstrip()
    marks = {level.name: "" for level in settings.levels}
    for name in marks:
        marks[name] = "".join(map(_mark, changes[name], back[name]))
    every = "".join(marks.values())
    signs = {"|": "changes", ".": "gathers", "r": "returns to its start"}
    used = [f"{sign} {word}" for sign, word in signs.items() if sign in every]
    used += ["2 changes so often in a step"] if any(c.isdigit() or c == "+" for c in every) else []
    lines = [f"{'steps':<{width}}  {ruler}", *(f"{name:<{width}}  {line}" for name, line in marks.items())]
    return [*lines, f"{'':<{width}}  {', '.join(used)}"]


def _mark(changes: int, returned: bool) -> str:
    if returned:
        return "r"
    return "." if not changes else "|" if changes == 1 else str(changes) if changes < 10 else "+"


def simulate(settings: Settings, steps: int) -> tuple[dict[str, list[int]], dict[str, list[bool]]]:
    """How often each level changes in each of the first `steps`, and whether it returns to its start."""
    length = settings.data.length
    changes = {level.name: [0] * steps for level in settings.levels}
    back = {level.name: [False] * steps for level in settings.levels}
    for step in range(steps):
        for end in cuts(settings, step):
            position, ends = step * length + end, step + 1 == settings.steps
            changed = {one.name for one in settings.levels if due(one.clock, position, length, ends=ends)}
            for name in changed:
                changes[name][step] += 1
            for level in parents_first(settings.levels):
                by_clock = level.resets is not None and due(level.resets, position, length)
                if by_clock or level.parent in changed:
                    changed.add(level.name)
                    back[level.name][step] = True
    return changes, back


def never_happens(settings: Settings) -> list[str]:
    """What the run leaves out: updates that are not due in it, returns to starts, and frozen weights."""
    said = []
    for level in settings.levels:
        if not updates(level.clock, settings):
            said.append(f"{level.name} changes {level.clock}, and the run ends before")
        if level.reset and not _returns(settings, level):
            said.append(f"{level.name} returns to its start {level.reset}, and the run ends before")
    return said + [f"{pattern} stands still" for pattern in settings.frozen]


def _returns(settings: Settings, level: Level) -> bool:
    if level.resets is not None:
        return updates(level.resets, settings) > 0
    parent = settings.level(level.parent)
    return updates(parent.clock, settings) > 0 or bool(parent.reset and _returns(settings, parent))


def new_clocks(settings: Settings, written: str) -> list[str]:
    """What is worth a line when a run goes on: the levels that had another clock in the settings `written`
    with its checkpoint, as JSON.
    """
    before = {level["name"]: level["clock"] for level in json.loads(written)["levels"]}
    changed = [one for one in settings.levels if before.get(one.name, asdict(one.clock)) != asdict(one.clock)]
    return [
        f"level `{one.name}` changes {one.clock} from here on, and did so {Clock(**before[one.name])} before"
        for one in changed
    ]
