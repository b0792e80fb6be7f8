"""The algebra of a memory: what its core is chosen by."""

from __future__ import annotations

from typing import Literal, cast

from nldsl.diagnostics.model import Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.calls import function_name
from nldsl.resolve.expanded import (
    Arithmetic,
    Constant,
    Core,
    Expression,
    Flow,
    Map,
    Num,
    Shape,
)
from nldsl.resolve.fields import READINGS, RULES, Fields
from nldsl.resolve.inner_rules import bound_rule, declared_rule, for_weights, meaningless
from nldsl.resolve.optimizers import rules_named
from nldsl.resolve.recognised import Recognised, recognised
from nldsl.resolve.scope import Word

Shapes = tuple[tuple[int, int], ...]
"""Rows and columns of the weights of a map."""


class Algebra(Fields):
    """The fields that say how a memory learns, apart from its pipelines."""

    expression: Expression | None = None
    optimizer: Algorithm | None = None
    recognised: Recognised | None = None
    written_rule = ""

    def _core(self, mapping: Map, flows: dict[str, Flow]) -> Core:
        rule, strength = self._rule(mapping, flows)
        update = self._update()
        anchor = self._anchor(update)
        boundary = update > 1
        read = self._word(
            "read", "what is read", ("after", "before", "boundary"), "boundary" if boundary else "after"
        )
        if boundary and read != "boundary":
            raise self.findings.stop(
                "NL0308",
                f"reads see what was written every {update} tokens, so they cannot be `{read}`",
                self._span("read"),
                "contradicts the clock",
                others=((self._span("update"), "the clock"),),
                help="leave `read` out, or use `anchor = every N tokens` with `update = every 1 token`",
            )
        gradient, tokens = self._gradient()
        return Core(
            mapping,
            self.objective,
            self.objective_parameter,
            self.expression,
            *self._target(),
            rule,
            strength,
            self.optimizer,
            self.written_rule,
            rate=self._gate_kind(flows.get("rate")),
            retain=self._gate_kind(flows.get("retain")),
            momentum=self._gate_kind(flows.get("momentum")),
            erase="erase" in flows,
            erase_into="erase_into" in flows,
            update=update,
            anchor=anchor,
            read=cast('Literal["after", "before", "boundary"]', read),
            partial=self._partial(),
            window=self._window(),
            weighted="window_weight" in flows,
            thresholds=self._threshold() is not None,
            normalise=self._word("normalise", "what reads are divided by", ("none", "sum"), "none") == "sum",
            constrain=self._constrain(),
            gradient=gradient,
            gradient_tokens=tokens,
        )

    def _target(self) -> tuple[Literal["value", "self"], bool]:
        """What is regressed to: `value`, `self` (the memory's own answer to the value), or `self |> unit`."""
        value = self._field("target")
        if isinstance(value, e.Pipe) and print_expr(value) == "self |> unit":
            return "self", True
        word = self._word("target", "the target", ("value", "self"), "value")
        return ("self" if word == "self" else "value"), False

    def _rule(self, mapping: Map, flows: dict[str, Flow]) -> tuple[str, float | None]:
        """The rule with its reading, such as `gd_implicit`, and its number, where it has one."""
        if self.optimizer is not None:
            return "optimizer", None
        if self.recognised is not None:
            return self.recognised.rule, None
        word, call = self._called("rule", RULES, "softmax" if self._map_word() == "cache" else "gd")
        if word == "momentum":
            return "gd", None
        if word == "ridge":
            return word, self._strength(call, mapping, flows)
        if call is None or not call.arguments:
            return word, None
        reading = self.scope.word(call.arguments[0].value, f"the reading of `{word}`", READINGS[word])
        return f"{word}_{reading}", None

    def _declared_rule(self) -> e.Expr | None:
        """The field `rule`, where it names an `optimizer`."""
        value = self._field("rule")
        if value is None:
            return None
        bound = self.scope.value(value)
        value = bound if isinstance(bound, e.Expr) else value
        name = bound.text if isinstance(bound, Word) else function_name(value)
        if isinstance(value, e.Name) and name is not None:
            value = e.Name(tuple(name.split(".")), span=value.span)
        return value if declared_rule(value, RULES, self.scope) is not None else None

    def _learned_by(self, mapping: Map, flows: dict[str, Flow], shapes: Shapes) -> dict[str, Flow]:
        """Bind the `optimizer` that is the rule, or the word that it is in other words, with its gates."""
        value = self._declared_rule()
        found = declared_rule(value, RULES, self.scope) if value is not None else None
        if value is None or found is None:
            self._word_of_a_rule()
            return flows
        name = f"`{self.declaration.name}`"
        rule = for_weights(made := bound_rule(value, found, self.scope, name), mapping)
        if rule is None:
            raise self.findings.stop(
                "NL0515",
                f"`{made.name}` is for matrices, and the map of {name} has vectors",
                value.span,
                "the rule",
                others=((self._span("map"), "the map"), (made.declared, "has no `otherwise` for all of it")),
                help="use a map of matrices alone, or another rule",
            )
        if (why := meaningless(rule, mapping, lambda field: field in self.fields)) is not None:
            raise self.findings.stop(
                "NL0556",
                f"`{rule.name}` reads what layers are given, which {name} cannot say",
                value.span,
                "the rule",
                others=((rule.declared, "reads `input`, `error` or `tokens`"),),
                notes=(why,),
                help="use a rule that reads `grad` alone",
            )
        if "momentum" in flows:
            raise self.findings.stop(
                "NL0213",
                "momentum is given twice",
                self._span("momentum"),
                "as a field",
                others=((value.span, "a rule with memories of its own"),),
                help="leave the field out: what a declared rule remembers, it declares",
            )
        known, rate = recognised(rule, shapes), flows.get("rate")
        if known is not None and not (known.one_rate and rate is not None and not isinstance(rate, Constant)):
            self.recognised, self.written_rule = known, rule.name
            return flows | _gates(known, rate, value.span)
        if self._gate_kind(rate) == "channel":
            raise self.findings.stop(
                "NL0701",
                f"no code can be made yet for a rate for each channel with the rule `{rule.name}`",
                self._span("rate"),
                "a rate for each channel",
                others=((value.span, "the rule"),),
                help="give one number for each head, such as `x |> linear(heads) |> sigmoid`",
            )
        self.optimizer = rule
        return flows

    def _word_of_a_rule(self) -> None:
        """Warn where the rule is a word and the file declares an `optimizer` of its name for nothing else."""
        value = self._field("rule")
        name = function_name(value) if value is not None else None
        declared = self.scope.module.lookup(name) if name is not None else None
        others = (d for d in self.scope.module.document.declarations if not isinstance(d, doc.Memory))
        if name in set().union(*map(rules_named, others)):
            return
        if value is not None and declared is not None and isinstance(declared[0], doc.Optimizer):
            self.findings.add(
                "NL0558",
                f"`{name}` is a word inside the sequence, not the `optimizer` of that name",
                value.span,
                "the word",
                others=((declared[0].where(), "not used here"),),
                severity="warning",
                help="give the `optimizer` another name",
            )

    def _strength(self, call: e.Call | None, mapping: Map, flows: dict[str, Flow]) -> float:
        """The number of `ridge(a)`, which leaves no room for fields that shape single steps."""
        if call is None or len(call.arguments) != 1:
            raise self.findings.stop(
                "NL0201",
                "the rule `ridge` needs a number",
                self._span("rule"),
                help="write `ridge(1)`: the larger, the closer to 0 the solution stays",
            )
        strength = float(self.scope.number(call.arguments[0].value))
        if strength <= 0:
            raise self.findings.stop(
                "NL0205",
                f"the strength of `ridge` is {strength:g}",
                call.arguments[0].value.span,
                "not above 0",
                help="give a number above 0: it keeps the system that is solved regular",
            )
        if mapping.kind != "matrix" or self.objective != "l2":
            raise self.findings.stop(
                "NL0515",
                f"`ridge` solves for a matrix under `l2`, not for `{mapping.kind}` under "
                f"`{self._objective_text()}`",
                self._span("rule"),
                "the rule",
                help="use `map = matrix` and `objective = l2`, or a rule that takes steps, such as `gd`",
            )
        for name in ("anchor", "momentum", "erase", "window", "constrain", "normalise"):
            if name in self.fields:
                self.findings.add(
                    "NL0507",
                    f"`{name}` means nothing to `ridge`, which takes no steps",
                    self._span(name),
                    "not used",
                    others=((self._span("rule"), "the rule"),),
                    help=f"remove `{name}`",
                )
        for name in ("rate", "retain"):
            if self._gate_kind(flows.get(name)) == "channel":
                raise self.findings.stop(
                    "NL0701",
                    f"no code can be made yet for a `{name}` for each channel with `ridge`",
                    self._span(name),
                    "a gate for each channel",
                    help="give one number for each head, such as `x |> linear(heads) |> sigmoid`",
                )
        return strength

    def _gate_kind(self, flow: Flow | None) -> Literal["none", "head", "channel"]:
        if flow is None:
            return "none"
        return "channel" if flow.shape.layout == "heads" else "head"

    def _update(self) -> int:
        value = self._field("update")
        if value is None:
            return 1
        clock = self.scope.clock(value)
        if clock.unit != "token":
            raise self.findings.stop(
                "NL0303",
                f"a memory inside the sequence is counted in {clock.unit}s",
                value.span,
                "this unit does not fit",
                help="count it in tokens, or learn from the task (`objective = task`) to count steps",
            )
        if clock.offset:
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for an offset inside the sequence",
                value.span,
                "an offset",
                help="leave the offset out",
            )
        return clock.period

    def _stands_still(self) -> bool:
        """Whether the memory is never written; it has to begin with something to read then."""
        value = self._field("update")
        if value is None or self.scope.clock(value).unit != "never":
            return False
        if self._start()[0] == "learned":
            return True
        raise self.findings.stop(
            "NL0309",
            "a memory that is never written reads nothing but zeros",
            value.span,
            "never written",
            others=((self._span("start"), "begins with zeros"),) if "start" in self.fields else (),
            help="write `start = learned`: what it reads is then learned by the outer levels",
        )

    def _partial(self) -> str:
        value = self._field("update")
        return (self.scope.clock(value).partial or "drop") if value is not None else "drop"

    def _anchor(self, update: int) -> str | int:
        value = self._field("anchor")
        if value is None:
            return update if update > 1 else "retained"
        found = self.scope.value(value)
        if isinstance(found, Word):
            return self.scope.word(value, "the anchor", ("retained", "current"))
        if isinstance(value, e.Phrase):
            clock = self.scope.clock(value)
            if clock.unit != "token":
                raise self.findings.stop(
                    "NL0303",
                    f"an anchor is counted in {clock.unit}s",
                    value.span,
                    "this unit does not fit",
                    help="count it in tokens",
                )
            return "current" if clock.period == 1 else clock.period
        raise self.findings.stop(
            "NL0203",
            f"the anchor cannot be `{print_expr(value)}`",
            value.span,
            "not a choice",
            help="use `retained`, `current` or `every N tokens`",
        )

    def _window(self) -> int | None:
        value = self._field("window")
        if value is None:
            return None
        if isinstance(value, e.Phrase) and self._window_weight() is not None:
            value = value.words[0]
        number, _ = self.scope.amount(value, ("token",), "a window")
        self.scope.counted(number, "a window", value.span)
        return int(number)

    def _window_weight(self) -> e.Expr | None:
        """P of `window = N tokens weighted by P`."""
        value = self._field("window")
        if not isinstance(value, e.Phrase) or [getattr(w, "text", "") for w in value.words[1:3]] != [
            "weighted",
            "by",
        ]:
            return None
        if len(value.words) == 4:
            return value.words[3]
        raise self.findings.stop(
            "NL0208",
            f"`{print_expr(value)}` names no single pipeline behind `by`",
            value.span,
            "one number for each token and head is wanted",
            help="write `window = 16 tokens weighted by (x |> linear(heads) |> sigmoid)`",
        )

    def _constrain(self) -> tuple[tuple[str, float | None, int], ...]:
        value = self._field("constrain")
        if value is None:
            return ()
        phrase = value.words if isinstance(value, e.Phrase) else (value,)
        name = function_name(phrase[0])
        if name not in ("lq", "softmax", "norm"):
            raise self.findings.stop(
                "NL0203",
                f"weights cannot be constrained by `{print_expr(value)}`",
                value.span,
                "not a choice",
                help="use `lq(q)`, `softmax` or `norm`, with `every N tokens` if not after each write",
            )
        number = (
            float(self.scope.number(phrase[0].arguments[0].value))
            if isinstance(phrase[0], e.Call) and phrase[0].arguments
            else None
        )
        if name == "lq":
            self._power_of_lq(number, phrase[0])
        every = 1
        if len(phrase) > 1:
            clock = self.scope.clock(e.Phrase(phrase[1:], span=value.span))
            if clock.unit != "token":
                raise self.findings.stop(
                    "NL0303",
                    f"a constraint is counted in {clock.unit}s",
                    value.span,
                    "this unit does not fit",
                    help="count it in tokens",
                )
            every = clock.period
        return ((name, number, every),)

    def _power_of_lq(self, number: float | None, written: e.Expr) -> None:
        """Refuse `lq` without a number, and a power that has no dual (Miras: p = q / (q - 1))."""
        if number is None:
            raise self.findings.stop(
                "NL0201", "the constraint `lq` needs `q`", written.span, "no number", help="write `lq(4)`"
            )
        if number <= 1:
            raise self.findings.stop(
                "NL0205",
                f"the power of `lq` is {number:g}",
                written.span,
                "not above 1",
                help="give a number above 1; 2 changes nothing, and 4 is what Moneta uses",
            )

    def _gradient(self) -> tuple[str, int | None]:
        value = self._field("gradient")
        if value is None:
            return "through", None
        if isinstance(value, e.Phrase) and value.head == "through" and len(value.words) == 2:
            number, _ = self.scope.amount(value.words[1], ("token",), "how far gradients flow")
            self.scope.counted(number, "how far gradients flow", value.span)
            return "through", int(number)
        return self.scope.word(
            value, "how the outer gradient flows", ("through", "first_order", "stop")
        ), None

    def _start(self) -> tuple[str, str | None]:
        value = self._field("start")
        if value is None:
            return ("zeros" if self._map_word() in ("matrix", "vector", "cache", "") else "learned"), None
        if isinstance(value, e.Phrase) and value.head == "learned" and len(value.words) == 3:
            return "learned", print_expr(value.words[2])
        if isinstance(value, e.Phrase | e.Call):
            raise self.findings.stop(
                "NL0701",
                f"no code can be made yet for `start = {print_expr(value)}`",
                value.span,
                "this start",
                help="use `zeros` or `learned`",
            )
        return self.scope.word(value, "a start", ("zeros", "learned")), None

    def _reset(self) -> str:
        value = self._field("reset")
        if value is None or print_expr(value) == "every sequence":
            return "every sequence"
        raise self.findings.stop(
            "NL0701",
            f"no code can be made yet for `reset = {print_expr(value)}`",
            value.span,
            "this reset",
            help="leave it out: the memory returns to its start with every sequence",
        )

    def _map_word(self) -> str:
        value = self.fields.get("map")
        return (function_name(value) or "") if value is not None else "matrix"


def _gates(known: Recognised, rate: Flow | None, span: Span | None) -> dict[str, Flow]:
    """The gates of a rule that is a word: its momentum, and the rate by the rule's factor."""
    gates: dict[str, Flow] = {}
    if known.momentum:
        gates["momentum"] = _constant(known.momentum, span)
    if known.factor == 1:
        return gates
    if rate is None or isinstance(rate, Constant):
        number = float(rate.number.value) if isinstance(rate, Constant) else 1.0
        return gates | {"rate": _constant(number * known.factor, span)}
    return gates | {"rate": Arithmetic(rate.shape, "*", rate, _constant(known.factor, span), span=span)}


def _constant(value: float, span: Span | None) -> Constant:
    return Constant(Shape("scalar", Num(1)), Num(value, e.Number(value)), span=span)
