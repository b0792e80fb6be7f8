"""Learning rules as optimizers of any PyTorch model."""

from __future__ import annotations

import difflib
import itertools
import linecache
import math
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve import Module
from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.scope import Scope

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

_numbers = itertools.count(1)
_compiled: list[tuple[Algorithm, ModuleType]] = []


def rule(
    name: str,
    model_or_params: nn.Module | Iterable[Tensor] | Iterable[dict[str, Any]],
    rate: float,
    **options: Any,
) -> Optimizer:
    """The learning rule `name` of the library as a `torch.optim.Optimizer`, compiled from its declaration.

    Args:
        name: `gd`, `momentum`, `nesterov`, `adagrad`, `rmsprop`, `adam`, `adamw`, `muon`, `delta_momentum`,
            `deep_momentum`, `dgd` or `m3` (Nested Learning, sections 4 and 7), as in a spec's
            `rule = m3(rate = 1e-3)`.
        model_or_params: a module, parameters, or parameter groups. Of a module, all parameters that need a
            gradient are taken, and rules for matrices leave its embeddings (and a head tied to one) to
            the rule that they name for what is no matrix. Rules that read what layers are given (`dgd`,
            `deep_momentum(by = input)`) need the module.
        rate: the step size, a number of at least 0; a scheduler may change it.
        options: the rule's own, by the names they have in a spec, such as `beta`, `decay` or `period`.

    Raises:
        ValueError: an unknown rule or option (the nearest are named), a bad rate, nothing to learn, or a rule
            that needs the inputs of each layer and was not given a module.
        TypeError: neither a module nor parameters.

    >>> import torch
    >>> type(rule("muon", torch.nn.Linear(4, 4), rate=0.02)).__name__
    'Muon'
    """
    return rule_of(_library_module(), name, model_or_params, rate, options)


def rule_of(
    module: Module,
    name: str,
    model_or_params: Any,
    rate: float,
    options: Mapping[str, Any],
) -> Optimizer:
    """As `rule`, with the rules that a file knows: its own, imported ones, and the library's."""
    import torch
    from torch import nn

    from nldsl.codegen.emit.rules import numbers

    given: Any = rate  # callers without a type checker may give anything
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(rate) or rate < 0:
        raise ValueError(f"the rate is {rate!r}; give a finite number of at least 0")
    groups: list[Any]
    if isinstance(model_or_params, nn.Module):
        groups = _groups(model_or_params)
    elif isinstance(model_or_params, torch.Tensor):
        raise TypeError("one tensor was given where parameters are taken; write `[parameter]`")
    elif isinstance(model_or_params, Iterable):
        groups = list(model_or_params)
    else:
        raise TypeError(f"a `{type(model_or_params).__name__}` is neither a module nor parameters")
    if not groups:
        raise ValueError("there is nothing to learn: no parameter needs a gradient")
    algorithm = bound(module, name, rate, options)
    if algorithm.of_layers and not isinstance(model_or_params, nn.Module):
        raise ValueError(f"`{name}` reads what linear layers are given: give the module, not its parameters")
    made = compiled(algorithm).make(algorithm.name, groups, rate, **numbers(algorithm))
    if isinstance(model_or_params, nn.Module):
        made.watch(model_or_params)
    return made


def library_rule(name: str, rate: float, **options: Any) -> Algorithm:
    """A rule of the library with its numbers bound.  Raises `ValueError` as `rule` does.

    >>> library_rule("momentum", 0.1, beta=0.8).options
    {'beta': 0.8, 'decay': 0.0}
    """
    return bound(_library_module(), name, rate, options)


def bound(module: Module, name: str, rate: float, options: Mapping[str, Any]) -> Algorithm:
    """The rule `name` that `module` knows, with `options`.  Raises `ValueError` for what does not exist."""
    from nldsl.resolve.optimizers import algorithm, known_rules

    found = module.rule(name)
    if found is None:
        raise ValueError(f"there is no rule `{name}`; {_near(name, known_rules(module))}")
    declaration, where = found
    parameters = {p.name: p for p in declaration.parameters if p.name != "rate"}
    for option in options:
        if option not in parameters:
            raise ValueError(f"rule `{name}` has no option `{option}`; {_near(option, parameters)}")
    arguments = tuple(
        e.Argument(_expression(value, parameters[option]), option) for option, value in options.items()
    )
    findings = Findings()
    call = e.Call(e.Name((declaration.name,)), (e.Argument(e.Number(rate), "rate"), *arguments))
    try:
        made = algorithm(call, declaration, where, Scope(module, findings), rate)
    except Unresolved as unresolved:
        said = findings.items[0]
        help_ = f"; {said.help}" if said.help else ""
        raise ValueError(f"{said.message}{help_}") from unresolved
    errors = [one for one in findings.items if one.severity == "error"]
    if errors:
        raise ValueError(errors[0].message)
    return made


def compiled(algorithm: Algorithm) -> ModuleType:
    """The module of a rule, as `rules.py` of a build has it; made once for each form."""
    from nldsl.codegen.emit.rules import write

    form = algorithm.form
    for known, module in _compiled:
        if known == form:
            return module
    text = write([algorithm], f"The rule `{algorithm.name}`, written by nldsl.")
    name = f"_nldsl_rules_{next(_numbers)}"
    file = f"<nldsl rule {algorithm.name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module  # copies of optimizers look their classes up by module
    exec(compile(text, file, "exec"), module.__dict__)  # noqa: S102 - our own text
    _compiled.append((form, module))
    return module


@cache
def _library_module() -> Module:
    """A file that says nothing: it knows the library's rules."""
    from nldsl.api.reading import linked

    return linked(Source("rule.nl", "edition 2026\n"), None).module


def _expression(value: Any, parameter: doc.Parameter) -> e.Expr:
    """An option as a spec has it; a plain number takes the unit of the option's default."""
    from nldsl.syntax.parse import parse_expression

    if isinstance(value, bool):
        return e.Name(("true" if value else "false",))
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"`{parameter.name}` is {value}; give a finite number")
        number: e.Expr = e.Number(abs(value))
        if isinstance(parameter.default, e.Quantity):
            number = e.Quantity(number, parameter.default.unit)
        return e.Unary("-", number) if value < 0 else number
    made, found = parse_expression(Source(parameter.name, str(value)))
    if made is None or found:
        raise ValueError(f"`{parameter.name}` is {value!r}; give a number or a word of the rule")
    return made


def _near(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(f"`{n}`" for n in near) + "?"
    return "known: " + (", ".join(f"`{n}`" for n in names) or "none")


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Embeddings apart from the rest; each parameter once."""
    from torch import nn

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    learned = [p for p in model.parameters() if p.requires_grad]
    plain = [p for p in learned if id(p) not in embeddings]
    looked_up = [p for p in learned if id(p) in embeddings]
    groups: list[dict[str, Any]] = [{"params": plain}] if plain else []
    return [*groups, {"params": looked_up, "matrix": False}] if looked_up else groups
