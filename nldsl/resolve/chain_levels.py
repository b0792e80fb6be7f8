"""One level of a chain: what it computes, when it changes, where it starts, and when it returns there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.levels.graph import Clock
from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.calls import Bound, function_name
from nldsl.resolve.expanded import ChainLevel, Map, MemoryInstance, Num, Pretrained, Rule
from nldsl.resolve.fields import FIELDS, LEVEL_FIELDS, RULES, SEQUENCE_FIELDS, Called, Fields
from nldsl.resolve.inner_rules import bound_rule, declared_rule, for_weights
from nldsl.resolve.pretrained import pretrained
from nldsl.resolve.recognised import Recognised, recognised
from nldsl.resolve.scope import Amount

REDUCES = {"shared": ("mean", "sum", "last"), "sequence": ("sum", "mean")}
"""What can become of the gradients of a period, by whose weights they are; the default first."""


class LevelFields:
    """A level on its way to an instance.  `shared` holds what the memory says for all its levels.

    `slower` is the next level of a nested chain, where this one starts from unless it says otherwise.
    """

    def __init__(
        self,
        owner: Fields,
        level: doc.Level,
        shared: dict[str, e.Expr],
        path: str,
        scope: str,
        slower: str | None,
    ) -> None:
        self.owner, self.scope, self.findings = owner, owner.scope, owner.findings
        self.declared, self.path, self.kind, self.slower = level, path, scope, slower
        self.fields = {name: self._through(value) for name, value in (shared | level.fields).items()}
        self.where = level.where()
        self.pretrained: Pretrained | None = None

    def _through(self, value: e.Expr) -> e.Expr:
        """What a parameter stands for, where it stands for an expression."""
        bound = self.scope.values.get(value.text) if isinstance(value, e.Name) else None
        return bound if isinstance(bound, e.Expr) else value

    def level(self, local: Callable[[Called], MemoryInstance]) -> ChainLevel:
        """The level with every field evaluated; raises `Unresolved` after recording what is wrong."""
        if self._own_objective():
            return self._local(local)
        self._known()
        clock, span = self._clock()
        start, teacher = self._start()
        reset, reset_with = self._reset()
        made = ChainLevel(
            self.declared.name,
            self.path,
            self._map(),
            clock,
            self._word("reduce", "how gradients add up", REDUCES[self.kind]),
            start,
            teacher,
            reset,
            reset_with,
            self._plastic(),
            span=self.where,
            clock_span=span,
            fields={name: value.span for name, value in self.fields.items()},
            pretrained=self.pretrained,
        )
        still = clock.unit == "never"  # its start is all that it is, and learned like any other weights
        return self._learning(made) if self.kind == "sequence" and not still else made

    # ------------------------------------------------------------------ which fields there are

    def _known(self) -> None:
        known = LEVEL_FIELDS + SEQUENCE_FIELDS if self.kind == "sequence" else LEVEL_FIELDS
        for name, value in self.fields.items():
            if name in known:
                continue
            if name in (*SEQUENCE_FIELDS, *FIELDS):
                raise self.findings.stop(
                    "NL0507",
                    f"`{name}` means nothing to a level whose weights all sequences share",
                    value.span,
                    "not used",
                    others=((self.where, "the level"),),
                    help="a level of a `train` block says by which rule and rate it learns; with "
                    "`scope = sequence` beside the chain, this level says so itself",
                )
            near = nearest(name, list(known))
            raise self.findings.stop(
                "NL0214",
                f"a level has no field `{name}`",
                self.declared.field_spans.get(name) or value.span,
                "unknown field",
                help=f"maybe `{near[0]}`" if near else f"it has {', '.join(f'`{k}`' for k in known)}",
            )

    def _own_objective(self) -> bool:
        objective = self.declared.fields.get("objective")
        return objective is not None and function_name(objective) != "task"

    def _local(self, local: Callable[[Called], MemoryInstance]) -> ChainLevel:
        """A level that learns from keys and values: a memory in its own right, in the place of the level."""
        owner, level = self.owner, self.declared
        if self.kind != "sequence":
            raise self.findings.stop(
                "NL0517",
                f"the level `{level.name}` has an objective of its own, and its weights are shared",
                level.fields["objective"].span,
                "not the task",
                others=((owner.declaration.where(), "a memory of the task"),),
                help="write `scope = sequence` beside the chain: what learns from keys and values has "
                "weights of each sequence",
            )
        given = {"query": e.Name(("key",))} if "query" not in level.fields else {}
        declaration = doc.Memory.model_construct(
            name=f"{owner.declaration.name}{level.name[:1].upper()}{level.name[1:]}",
            parameters=[],
            fields=level.fields | (given if "key" in level.fields else {}),
            field_spans=level.field_spans,
            chain=None,
            span=level.span,
            name_span=level.name_span,
        )
        spelled = {name: Num(n.value, e.Name((name,)), n.span) for name, n in owner.arguments.items()}
        bound = Bound(replace(self.scope, where=declaration.name), spelled)
        called = Called(
            owner.flows, owner.instantiate, owner.call, declaration, bound, owner.width, self.path
        )
        memory = local(called)
        if memory.shape.layout != "flat" or memory.shape.features != int(owner.width):
            raise self.findings.stop(
                "NL0401",
                f"the level `{level.name}` gives {memory.shape.features} features and takes "
                f"{int(owner.width)}",
                self.where,
                "a level of a chain",
                help=f"end it with `out = read |> linear({int(owner.width)})`",
            )
        memory = replace(memory, path=self.path, span=self.where)
        clock = Clock(0, "never") if memory.core.still else Clock(memory.core.update, "token")
        return ChainLevel(
            level.name,
            self.path,
            memory.core.map,
            clock,
            "sum",
            memory.start,
            memory.taught_by,
            plastic=True,
            memory=memory,
            span=self.where,
            clock_span=memory.fields.get("update"),
            fields=dict(memory.fields),
        )

    # ------------------------------------------------------------------ fields of every level

    def _word(self, name: str, what: str, choices: tuple[str, ...]) -> str:
        value = self.fields.get(name)
        return choices[0] if value is None else self.scope.word(value, what, choices)

    def _map(self) -> Map:
        if "map" not in self.fields:
            raise self.findings.stop(
                "NL0206",
                f"the level `{self.declared.name}` has no `map`",
                self.where,
                "nothing to learn",
                help="write `map = mlp(4 * dim)`",
            )
        mapping = self.owner.flows.map(self.fields["map"], self.scope, self.owner.width)
        if mapping.kind in ("mlp", "swiglu", "matrix"):
            return mapping
        raise self.findings.stop(
            "NL0506",
            f"`{mapping.kind}` cannot learn from the task",
            self.fields["map"].span,
            "not a map from features to features",
            help="use `mlp(...)`, `swiglu(...)` or `matrix`",
        )

    def _clock(self) -> tuple[Clock, Span | None]:
        value = self.fields.get("update")
        if value is None and self.kind == "sequence":
            raise self.findings.stop(
                "NL0206",
                f"the level `{self.declared.name}` has no `update`",
                self.where,
                "a field is missing",
                help="write for instance `update = every 64 tokens`",
            )
        if value is None:
            return Clock(1, "step"), self.where
        clock = self.scope.clock(value)
        fits = ("token", "never") if self.kind == "sequence" else ("step", "token", "never")
        if clock.unit in fits:
            return clock, value.span
        inside = self.kind == "sequence"
        raise self.findings.stop(
            "NL0303",
            f"the level `{self.declared.name}` counts in {clock.unit}s",
            value.span,
            "this unit does not fit",
            help="a level inside the sequence counts tokens"
            if inside
            else "a level that learns from the task counts steps or tokens",
        )

    def _start(self) -> tuple[str, str | None]:
        """Where the weights begin, and the level that this names."""
        value = self.fields.get("start")
        if value is None:
            return ("learned in", self.slower) if self.slower is not None else ("learned", None)
        words = [w.text if isinstance(w, e.Name) else "" for w in _words(value)]
        if words[:2] in (["learned", "in"], ["copy", "of"]) and len(words) == 3 and words[2]:
            return f"{words[0]} {words[1]}", words[2]
        if isinstance(value, e.Call) and function_name(value) == "pretrained":
            self.pretrained = pretrained(value, self.scope, of_level=True)
            return "pretrained", None
        choices = ("learned", "learned in", "copy of", "pretrained")
        word = function_name(value) or print_expr(value)
        if word == "learned" and not isinstance(value, e.Call):
            return "learned", None
        near = nearest(word.split()[0], ["learned", "copy", "pretrained"])
        full = next((c for c in choices[1:] if near and c.startswith(near[0])), "")
        raise self.findings.stop(
            "NL0203",
            f"a level cannot start from `{print_expr(value)}`",
            value.span,
            "not a choice",
            help=f"maybe `{full} LEVEL`"
            if full and full != "pretrained"
            else "write `learned`, `learned in LEVEL`, `copy of LEVEL` or `pretrained(file, path)`",
        )

    def _reset(self) -> tuple[Clock | None, str | None]:
        """When the weights return to their start: by a clock, or whenever a level changes."""
        value = self.fields.get("reset")
        if value is None:
            return None, self.slower
        inside = self.kind == "sequence"
        if inside and print_expr(value) == "every sequence":
            return None, None
        if isinstance(value, e.Phrase) and value.head == "with":
            level = value.words[1] if len(value.words) == 2 else None
            if isinstance(level, e.Name):
                return None, level.text
        elif isinstance(value, e.Phrase) or function_name(value) == "never":
            clock = self.scope.clock(value)
            if clock.unit == "never" and not inside:
                return None, None
            units = ("token",) if inside else ("step", "token")
            if clock.unit in units and not clock.offset and not clock.partial:
                return clock, None
            raise self.findings.stop(
                "NL0303",
                f"the resets of `{self.declared.name}` are `{print_expr(value)}`",
                value.span,
                "this clock does not fit",
                help="write `every 256 tokens`, `with LEVEL` or `every sequence`"
                if inside
                else "write `every 64 steps`, `every 4_096 tokens`, `with LEVEL` or `never`",
            )
        raise self.findings.stop(
            "NL0203",
            f"weights cannot return to their start `{print_expr(value)}`",
            value.span,
            "not a choice",
            help="write `with LEVEL`, `every 64 steps` or `never`",
        )

    def _plastic(self) -> bool:
        value = self.fields.get("plastic")
        default = self.kind == "sequence"
        if value is None:
            return default
        word = self.scope.word(value, "`plastic`", ("true", "false", "yes", "no"))
        if default and word in ("false", "no"):
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for weights of each sequence that stand still at test time",
                value.span,
                "not plastic",
                help="leave `plastic` out: what is inside the sequence goes on learning",
            )
        return word in ("true", "yes")

    # ------------------------------------------------------------------ fields inside the sequence

    def _learning(self, level: ChainLevel) -> ChainLevel:
        """The level with how its weights of each sequence change."""
        if "rate" not in self.fields:
            raise self.findings.stop(
                "NL0206",
                f"the level `{level.name}` has no `rate`",
                self.where,
                "a field is missing",
                help="write for instance `rate = 0.01`",
            )
        if level.start not in ("learned", "learned in"):
            written = self.fields["start"]
            raise self.findings.stop(
                "NL0701",
                f"no code can be made yet for `start = {print_expr(written)}` inside the sequence",
                written.span,
                "this start",
                help="leave `start` out: it is then learned",
            )
        rate = self._number("rate", 0.0, "is negative", lambda v: v >= 0)
        rule, known = self._declared_rule(level.map)
        rate *= known.factor if known is not None else 1.0
        momentum = known.momentum if known is not None else self._rule_momentum(rule)
        if momentum is None:
            momentum = self._number("momentum", 0.0, "is not from 0 to 1", lambda v: 0 <= v <= 1)
        return replace(
            level,
            rule=Rule(rule.name if rule is not None else "gd", rate, span=self._span("rule"), algorithm=rule),
            rate=rate,
            retain=self._number("retain", 1.0, "is not from 0 to 1", lambda v: 0 <= v <= 1),
            momentum=momentum,
            gradient=self._word(
                "gradient", "how the outer gradient flows", ("first_order", "stop", "through")
            ),
        )

    def _declared_rule(self, one: Map) -> tuple[Algorithm | None, Recognised | None]:
        """The `optimizer` that the field `rule` names, or the word whose formulas it has."""
        value = self.fields.get("rule")
        found = declared_rule(value, RULES, self.scope) if value is not None else None
        if value is None or found is None:
            return None, None
        made = bound_rule(value, found, self.scope, f"`{self.declared.name}`")
        if "momentum" in self.fields:
            raise self.findings.stop(
                "NL0213",
                "momentum is given twice",
                self._span("momentum"),
                "as a field",
                others=((value.span, "a rule with memories of its own"),),
                help="leave the field out: what a declared rule remembers, it declares",
            )
        if made.of_layers:
            raise self.findings.stop(
                "NL0556",
                f"`{made.name}` reads what layers are given, which `{self.declared.name}` cannot say",
                value.span,
                "the rule",
                others=((made.declared, "reads `input`, `error` or `tokens`"),),
                notes=("the gradients of a period come from many tokens",),
                help="use a rule that reads `grad` alone",
            )
        rule, width = for_weights(made, one), int(self.owner.width)
        known = recognised(made, one.weights(width, width))
        if known is not None and known.rule == "gd":
            return None, known
        return rule, None

    def _rule_momentum(self, rule: Algorithm | None) -> float | None:
        """The momentum that the rule brings: `momentum(0.9)` is `gd` with it."""
        value = self.fields.get("rule")
        if rule is not None:
            return 0.0
        if value is None or print_expr(value) == "gd":
            return None
        number = value.arguments[0].value if isinstance(value, e.Call) and len(value.arguments) == 1 else None
        if function_name(value) == "momentum" and number is not None:
            if "momentum" in self.fields:
                raise self.findings.stop(
                    "NL0213",
                    "momentum is given twice",
                    value.span,
                    "as a rule",
                    others=((self._span("momentum"), "as a field"),),
                    help="keep one of the two",
                )
            return self._checked(number, "momentum", "is not from 0 to 1", lambda v: 0 <= v <= 1)
        raise self.findings.stop(
            "NL0701",
            f"no code can be made yet for `rule = {print_expr(value)}` on weights of each sequence",
            value.span,
            "this rule",
            help="use `gd`, `momentum(0.9)`, or an `optimizer`",
        )

    def _number(self, name: str, default: float, wrong: str, fits: Callable[[float], bool]) -> float:
        value = self.fields.get(name)
        return default if value is None else self._checked(value, name, wrong, fits)

    def _checked(self, node: e.Expr, name: str, wrong: str, fits: Callable[[float], bool]) -> float:
        found = self.scope.value(node)
        if not isinstance(found, Num | Amount) and isinstance(found, e.Expr):
            raise self.findings.stop(
                "NL0701",
                f"no code can be made yet for a `{name}` that depends on the token",
                node.span,
                "a pipeline",
                help=f"give the level one number as its `{name}`",
            )
        number = float(self.scope.number(node))
        if fits(number):
            return number
        raise self.findings.stop(
            "NL0503",
            f"the `{name}` of `{self.declared.name}` is {number:g}, which {wrong}",
            node.span,
            "outside its range",
            help="use a number from 0 to 1" if name != "rate" else "use a number above 0",
        )

    def _span(self, name: str) -> Span | None:
        value = self.fields.get(name)
        return value.span if value is not None else self.where


def _words(value: e.Expr) -> tuple[e.Expr, ...]:
    return value.words if isinstance(value, e.Phrase) else ()
