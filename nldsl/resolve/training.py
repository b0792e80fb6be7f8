"""A `train` block, evaluated: data, outer levels with rules and clocks, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.levels.graph import Clock
from nldsl.resolve.calls import arguments_of, function_name
from nldsl.resolve.data import OBJECTIVES
from nldsl.resolve.data import data as read_data
from nldsl.resolve.expanded import WINDOWS, Evaluate, Num, Pretrained, Rule, Training, TrainLevel
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.modules import Module
from nldsl.resolve.optimizers import algorithm, no_such_rule
from nldsl.resolve.pretrained import pretrained
from nldsl.resolve.rules import SCHEDULES
from nldsl.resolve.scope import Amount, Scope, Word

T = TypeVar("T")
TRAIN_FIELDS = (
    "model",
    "start",
    "data",
    "objective",
    "steps",
    "seed",
    "clip",
    "precision",
    "checkpoint",
    "compile",
    "evaluate_windows",
)
LEVEL_FIELDS = ("learns", "rule", "update", "reduce")
MEASURES = {"loss": (), "perplexity": (), "bits_per_byte": (), "accuracy": (), "needle": ("length",)}


def train(declaration: doc.Train, module: Module, findings: Findings) -> Training:
    """Evaluate everything but the model; raises `Unresolved` after recording what is wrong."""
    return _Train(declaration, Scope(module, findings, {}, declaration.name)).build()


class _Train:
    def __init__(self, declaration: doc.Train, scope: Scope) -> None:
        self.declaration, self.scope, self.findings = declaration, scope, scope.findings
        self.failed = False

    def build(self) -> Training:
        declaration, values = self.declaration, self.declaration.fields
        for name in values:
            if name not in TRAIN_FIELDS:
                self._unknown(
                    name,
                    declaration.field_spans.get(name) or values[name].span,
                    TRAIN_FIELDS,
                    "a `train` block",
                )
        steps = self._try(lambda: self._count("steps", 1000))
        objective = self._try(self._objective)
        data = self._try(
            lambda: read_data(declaration, self.scope, steps or 1000, objective or OBJECTIVES[0])
        )
        levels = [self._try(lambda level=level: self._level(level)) for level in declaration.levels]
        evaluations = [self._try(lambda one=one: self._evaluation(one)) for one in declaration.evaluations]
        seed = self._try(lambda: self._count("seed", 0, least=0))
        clip = self._try(self._clip)
        precision = self._try(lambda: self._word("precision", ("float32", "bfloat16", "auto"), "float32"))
        checkpoint = self._try(self._checkpoint)
        compiled = self._try(lambda: self._word("compile", ("true", "false", "yes", "no"), "false"))
        start = self._try(self._start)
        windows = self._try(self._windows)
        if self.failed or data is None or steps is None:
            raise Unresolved(declaration.name)
        if not declaration.levels:
            raise self.findings.stop(
                "NL0310",
                f"`{declaration.name}` has no level, so nothing learns",
                declaration.where(),
                "no `level`",
                help="write `level pretrain { learns = rest, rule = adamw(rate = 3e-4) }`",
            )
        return Training(
            declaration.name,
            data,
            str(objective),
            steps,
            tuple(x for x in levels if x),
            tuple(x for x in evaluations if x),
            clip,
            str(precision),
            int(seed or 0),
            checkpoint,
            compiled in ("true", "yes"),
            declaration.where(),
            {n: v.span for n, v in values.items()},
            start,
            windows or WINDOWS,
        )

    def _try(self, make: Callable[[], T]) -> T | None:
        """What `make` gives; None where it fails, which is recorded, so that the rest is still looked at."""
        try:
            return make()
        except Unresolved:
            self.failed = True
            return None

    def _unknown(self, name: str, span: Span | None, known: tuple[str, ...], what: str) -> None:
        near = nearest(name, list(known))
        hint = f"maybe `{near[0]}`" if near else f"it has {', '.join(f'`{k}`' for k in known)}"
        self.findings.add("NL0214", f"{what} has no field `{name}`", span, "unknown field", help=hint)

    # ------------------------------------------------------------------ plain fields

    def _count(self, name: str, default: int, least: int = 1) -> int:
        value = self.declaration.fields.get(name)
        if value is None:
            return default
        found = self.scope.value(value)
        if isinstance(found, Amount):
            if found.unit != "step":
                raise self.findings.stop(
                    "NL0303",
                    f"`{name}` is counted in {found.unit}s",
                    value.span,
                    "this unit does not fit",
                    help="count it in steps",
                )
            return int(found.number)
        return int(self.scope.integer(value, f"`{name}`", least=least))

    def _word(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.declaration.fields.get(name)
        return default if value is None else self.scope.word(value, f"`{name}`", choices)

    def _start(self) -> Pretrained | None:
        """The file that the weights of the whole model come from."""
        value = self.declaration.fields.get("start")
        if value is None:
            return None
        if function_name(value) != "pretrained":
            raise self.findings.stop(
                "NL0203",
                f"a model cannot start from `{print_expr(value)}`",
                value.span,
                "not a choice",
                help='write `start = pretrained("model.safetensors")`; without it, weights are drawn',
            )
        return pretrained(value, self.scope, of_level=False)

    def _objective(self) -> str:
        value = self.declaration.fields.get("objective")
        if value is None:
            return OBJECTIVES[0]
        if print_expr(value) not in OBJECTIVES:
            raise self.findings.stop(
                "NL0701",
                f"no code can be made yet for the outer objective `{print_expr(value)}`",
                value.span,
                "this objective",
                help="use `next_token`, or for data with answers `next_token(answer)` or `classify`",
            )
        return print_expr(value)

    def _clip(self) -> float | None:
        value = self.declaration.fields.get("clip")
        if value is None:
            return 1.0
        found = self.scope.value(value)
        if isinstance(found, Word) and found.text in ("none", "never"):
            return None
        number = float(self.scope.number(value))
        if number <= 0:
            raise self.findings.stop(
                "NL0205",
                f"gradients are clipped at {number}",
                value.span,
                "needs a positive number, or `none`",
            )
        return number

    def _checkpoint(self) -> int | None:
        value = self.declaration.fields.get("checkpoint")
        if value is None:
            return None
        clock = self.scope.clock(value)
        if clock.unit != "step":
            raise self.findings.stop(
                "NL0303",
                f"checkpoints are counted in {clock.unit}s",
                value.span,
                "this unit does not fit",
                help="count them in steps",
            )
        return clock.period

    # ------------------------------------------------------------------ levels

    def _level(self, level: doc.Level) -> TrainLevel:
        for name, value in level.fields.items():
            if name not in LEVEL_FIELDS:
                self._unknown(name, level.field_spans.get(name) or value.span, LEVEL_FIELDS, "a `level`")
                self.failed = True
        for name in ("learns", "rule"):
            if name not in level.fields:
                hint = "learns = rest" if name == "learns" else "rule = adamw(rate = 3e-4)"
                raise self.findings.stop(
                    "NL0206",
                    f"the level `{level.name}` has no `{name}`",
                    level.where(),
                    "a field is missing",
                    help=f"write `{hint}`",
                )
        learns = level.fields["learns"]
        items = learns.items if isinstance(learns, e.ListOf) else (learns,)
        paths = tuple(print_expr(i) for i in items)
        clock = self.scope.clock(level.fields["update"]) if "update" in level.fields else None
        reduce = (
            self.scope.word(level.fields["reduce"], "how gradients add up", ("mean", "sum", "last"))
            if "reduce" in level.fields
            else ""
        )
        span = level.fields["update"].span if "update" in level.fields else None
        return TrainLevel(
            level.name,
            paths,
            self.rule(level.fields["rule"]),
            clock or Clock(0, "always"),
            reduce,
            level.where(),
            tuple(i.span for i in items),
            span,
        )

    def rule(self, node: e.Expr) -> Rule:
        """`adamw(rate = 3e-4 |> warmup(100) |> cosine, decay = 0.1)`."""
        name = function_name(node) or print_expr(node)
        found = self.scope.module.rule(name)
        if found is None:
            raise no_such_rule(name, node.span, self.scope.module, self.findings)
        declaration, module = found
        names = [p.name for p in declaration.parameters]
        given = next(
            (
                argument.value
                for index, argument in enumerate(arguments_of(node))
                if (argument.name or (names[index] if index < len(names) else "")) == "rate"
            ),
            None,
        )
        if given is None:
            raise self.findings.stop(
                "NL0201",
                f"`{name}` needs `rate`",
                node.span,
                "not given here",
                help=f"write `{name}(rate = 3e-4)`",
            )
        rate, stages = self._rate(given)
        made = algorithm(node, declaration, module, self.scope, rate)
        return Rule(declaration.name, rate, tuple(stages), made.options | made.words, node.span, made)

    def _rate(self, node: e.Expr) -> tuple[float, list[tuple[str, tuple[float, ...]]]]:
        stages: list[tuple[str, tuple[float, ...]]] = []
        source = node
        if isinstance(node, e.Pipe):
            source = node.source
            for stage in node.stages:
                name = function_name(stage)
                if name not in SCHEDULES:
                    near = nearest(name or "", list(SCHEDULES))
                    raise self.findings.stop(
                        "NL0203",
                        f"`{print_expr(stage)}` is not a schedule",
                        stage.span,
                        "unknown schedule",
                        help=f"maybe `{near[0]}`"
                        if near
                        else f"use {', '.join(f'`{s}`' for s in SCHEDULES)}",
                    )
                values = [
                    self.scope.value(a.value) for a in (stage.arguments if isinstance(stage, e.Call) else ())
                ]
                numbers = tuple(
                    float(v.number if isinstance(v, Amount) else v)
                    for v in values
                    if isinstance(v, Amount | Num)
                )
                self._stage(name, numbers, stage)
                stages.append((name, numbers))
        number = float(self.scope.number(source))
        if number < 0:
            raise self.findings.stop(
                "NL0502",
                f"a rate is {number:g}",
                source.span,
                "negative",
                help="rates are positive; the rule subtracts the gradient",
            )
        return number, stages

    def _stage(self, name: str, numbers: tuple[float, ...], stage: e.Expr) -> None:
        """Refuse what is no number of steps, or no share of the rate."""
        wrong = ""
        if name == "warmup" and any(n < 0 or n != int(n) for n in numbers):
            wrong = "counts whole steps of at least 0"
        elif name in ("cosine", "linear") and any(not 0 <= n <= 1 for n in numbers):
            wrong = "ends at a share of the rate, between 0 and 1"
        elif len(numbers) > len(SCHEDULES[name]):
            takes = SCHEDULES[name]
            wrong = f"takes {f'one number, the {takes[0]}' if takes else 'no numbers'}"
        if wrong:
            raise self.findings.stop(
                "NL0205", f"`{print_expr(stage)}` {wrong}", stage.span, "not a schedule of a rate"
            )

    # ------------------------------------------------------------------ evaluation

    def _windows(self) -> int | Literal["all"]:
        """How many windows of the held-out text are measured; how many there are is known to the run."""
        value = self.declaration.fields.get("evaluate_windows")
        if value is None:
            return WINDOWS
        found = self.scope.value(value)
        if isinstance(found, Amount):
            raise self.findings.stop(
                "NL0303",
                f"`evaluate_windows` is counted in {found.unit}s",
                value.span,
                "this unit does not fit",
                help="write a bare number of windows, or `all`",
            )
        if isinstance(found, Word):
            if found.text == "all":
                return "all"
            raise self.findings.stop(
                "NL0203",
                f"`evaluate_windows` cannot be `{found.text}`",
                value.span,
                "not a choice",
                help="write how many windows, as in `evaluate_windows = 256`, or `all`",
            )
        return int(self.scope.integer(value, "`evaluate_windows`"))

    def _evaluation(self, item: doc.Evaluation) -> Evaluate:
        clock = self.scope.clock(item.clock)
        if clock.unit != "step":
            raise self.findings.stop(
                "NL0303",
                f"evaluation is counted in {clock.unit}s",
                item.clock.span,
                "this unit does not fit",
                help="count it in steps",
            )
        measures = []
        for measure in item.measures:
            name = function_name(measure) or print_expr(measure)
            if name not in MEASURES:
                near = nearest(name, list(MEASURES))
                raise self.findings.stop(
                    "NL0203",
                    f"there is no measure called `{name}`",
                    measure.span,
                    "unknown measure",
                    help=f"maybe `{near[0]}`" if near else f"use {', '.join(f'`{m}`' for m in MEASURES)}",
                )
            options: dict[str, float | int | str] = {}
            for argument in measure.arguments if isinstance(measure, e.Call) else ():
                if argument.name is None or argument.name not in MEASURES[name]:
                    raise self.findings.stop(
                        "NL0202",
                        f"`{name}` has no argument `{argument.name or print_expr(argument.value)}`",
                        argument.span,
                        "unknown argument",
                    )
                options[argument.name] = self.scope.number(argument.value).value
            measures.append((name, options))
        return Evaluate(clock.period, tuple(measures), item.where())
