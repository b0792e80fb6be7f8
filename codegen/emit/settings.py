"""`settings.py`: the run as literal values, and which parameters each level learns."""

from __future__ import annotations

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import origin
from nldsl.codegen.emit.model import ModelFile
from nldsl.codegen.emit.numbers import literal
from nldsl.codegen.emit.pretrained import starts
from nldsl.codegen.emit.printer import file
from nldsl.codegen.emit.rules import Forms, algorithms
from nldsl.codegen.emit.rules import numbers as rule_numbers
from nldsl.levels.graph import Clock
from nldsl.levels.outer import Assignment, OuterLevel
from nldsl.resolve.expanded import WINDOWS, Expanded, Pretrained, Rule, Task, Training


def text(value: str) -> c.Atom:
    return c.Atom('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"')


def strings(values: list[str] | tuple[str, ...]) -> c.Several:
    return c.Several(tuple(text(v) for v in values))


def write(expanded: Expanded, assignment: Assignment, made: ModelFile, header: str) -> str:
    """The text of `settings.py`."""
    training, patterns, stacked = expanded.training, made.patterns, made.stacked
    assert training is not None
    learned = [level for level in assignment.levels if level.clock.unit != "never"]
    rules = Forms(algorithms(assignment))
    frozen = [
        p for level in assignment.levels if level.clock.unit == "never" for p in _patterns(level, patterns)
    ]
    frozen += [p for one in assignment.unlearned for p in patterns.get(one.path, [])]
    named: list[tuple[str, c.Code]] = [
        ("name", text(expanded.name)),
        ("model", c.Mapping(tuple((k, literal(v)) for k, v in made.sizes.items()))),
        ("data", _data(training)),
        ("levels", c.Several(tuple(_level(level, patterns, learned, rules) for level in learned))),
        ("steps", literal(training.steps)),
    ]
    if training.seed:
        named.append(("seed", literal(training.seed)))
    if training.clip != 1.0:
        named.append(("clip", literal(training.clip) if training.clip is not None else c.Atom("None")))
    if training.precision != "float32":
        named.append(("precision", text(training.precision)))
    named += _evaluation(training)
    if training.checkpoint_every is not None:
        named.append(("checkpoint_every", literal(training.checkpoint_every)))
    named.append(("no_decay", strings(["*norm*", "*bias", "*_start", "*_gain"])))
    if stacked:
        named.append(("stacked", strings(stacked)))
    if frozen:
        named.append(("frozen", strings(frozen)))
    if training.compile:
        named.append(("compile", c.Atom("True")))
    begun = starts(expanded, patterns, made.customary)
    if begun:
        named.append(("pretrained", c.Several(tuple(_pretrained(*one) for one in begun))))
    body = (c.Assign(c.name("SETTINGS"), c.Invoke("Settings", (), tuple(named))),)
    uses = [
        "Clock",
        "Data",
        "Level",
        *(["Measure"] if any(k == "measures" for k, _ in named) else []),
        *(["Pretrained"] if begun else []),
        "Rate",
        "Settings",
        *(["Task"] if training.data.tasks else []),
    ]
    return file(
        c.File(
            header,
            ("from __future__ import annotations", "", f"from schedule import {', '.join(uses)}"),
            body,
        )
    )


def _option(value: float | int | str) -> c.Code:
    return text(value) if isinstance(value, str) else literal(value)


def _data(training: Training) -> c.Code:
    data = training.data
    named: list[tuple[str, c.Code]] = [("length", literal(data.length)), ("batch", literal(data.batch))]
    if data.tokenizer != "bytes":
        named.append(("tokenizer", text(data.tokenizer)))
    named.append(("split", text(data.split)))
    if data.seed:
        named.append(("seed", literal(data.seed)))
    if data.tasks:
        named.append(("tasks", c.Several(tuple(_task(task) for task in data.tasks))))
        named.append(("each", literal(data.each)))
    if data.order != "sequence":
        named.append(("order", text(data.order)))
    if data.counts != "all":
        named.append(("counts", text(data.counts)))
    return c.Invoke("Data", (text(data.source),), tuple(named))


def _task(task: Task) -> c.Code:
    named: list[tuple[str, c.Code]] = []
    if task.kind != "text":
        named.append(("kind", text(task.kind)))
    if task.years is not None:
        named.append(("years", c.Several(tuple(c.Atom(str(year)) for year in task.years))))
    if task.labels:
        named.append(("labels", strings(task.labels)))
    return c.Invoke("Task", (text(task.name), text(task.source)), tuple(named))


def _patterns(level: OuterLevel, patterns: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(p for w in level.weights for p in patterns.get(w.path, [])))


def _level(
    level: OuterLevel, patterns: dict[str, list[str]], all_levels: list[OuterLevel], rules: Forms
) -> c.Code:
    takes_rest = "rest" in level.declared.learns and level.name == level.declared.name
    only = (
        len([one for one in all_levels if "rest" in one.declared.learns and one.name == one.declared.name])
        <= 1
    )
    learns = ["rest"] if takes_rest and only else _patterns(level, patterns)
    rule = level.declared.rule
    assert rule.algorithm is not None
    named: list[tuple[str, c.Code]] = [
        ("learns", strings(learns)),
        ("rule", text(rules.name(rule.algorithm))),
        ("clock", _clock(level.clock)),
        ("rate", _rate(rule)),
    ]
    options = rule_numbers(rule.algorithm)
    if options:
        named.append(
            (
                "options",
                c.Mapping(tuple((k, _option(v)) for k, v in options.items())),
            )
        )
    if level.reduce != "mean":
        named.append(("reduce", text(level.reduce)))
    present = {one.name for one in all_levels}
    for key, said in (("start", level.start), ("reset", level.reset)):
        leans = said.startswith(("learned in ", "copy of ", "with "))
        if said and (not leans or said.split()[-1] in present):  # a level that never changes is not there
            named.append((key, text(said)))
    if level.plastic:
        named.append(("plastic", c.Atom("True")))
    return c.Invoke("Level", (text(level.name),), tuple(named))


def _pretrained(start: Pretrained, table: dict[str, str]) -> c.Code:
    """A start from a file: what it takes, and from where."""
    named: list[tuple[str, c.Code]] = [("tensors", c.Mapping(tuple((k, text(v)) for k, v in table.items())))]
    if start.path is not None:
        named.append(("path", text(start.path)))
    if start.partial:
        named.append(("partial", c.Atom("True")))
    return c.Invoke("Pretrained", (text(start.file),), tuple(named))


def _clock(clock: Clock) -> c.Code:
    arguments = [literal(clock.period), text(clock.unit)]
    named: list[tuple[str, c.Code]] = [("offset", literal(clock.offset))] if clock.offset else []
    if clock.partial not in ("", "carry"):
        named.append(("partial", text(clock.partial)))
    return c.Invoke("Clock", tuple(arguments), tuple(named))


def _rate(rule: Rule) -> c.Code:
    named: list[tuple[str, c.Code]] = []
    for name, numbers in rule.stages:
        if name == "warmup":
            named.append(("warmup", literal(int(numbers[0]) if numbers else 100)))
        else:
            named.append(("shape", text(name)))
            if numbers:
                named.append(("floor", literal(numbers[0])))
    return c.Invoke("Rate", (literal(rule.rate),), tuple(named))


def _evaluation(training: Training) -> list[tuple[str, c.Code]]:
    windows: list[tuple[str, c.Code]] = []
    if training.evaluate_windows != WINDOWS:
        windows = [("evaluate_windows", _option(training.evaluate_windows))]
    if not training.evaluations:
        return windows
    measures = list({m[0]: m for one in training.evaluations for m in one.measures}.values())
    found: list[tuple[str, c.Code]] = [
        ("evaluate_every", literal(min(one.every for one in training.evaluations))),
        *windows,
    ]
    if measures:
        made = [
            c.Invoke(
                "Measure",
                (
                    text(name),
                    *((c.Mapping(tuple((k, _option(v)) for k, v in options.items())),) if options else ()),
                ),
            )
            for name, options in measures
        ]
        found.append(("measures", c.Several(tuple(made))))
    return found


__all__ = ["origin", "write"]
