"""The history of one value of a spec."""

from __future__ import annotations

from contextlib import suppress

from nldsl.api.defaults import UNSTATED
from nldsl.api.provenance import Provenance
from nldsl.api.reading import Analysis, linked
from nldsl.diagnostics.model import Source, SpecError
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve import Module, amend
from nldsl.resolve.findings import Findings


def why(analysis: Analysis, path: str) -> str:
    """Where the value at `path` came from: its first value, each change, and what it comes to.

    Raises `SpecError` where the path matches nothing.
    """
    resolution, findings = analysis.resolution, Findings()
    if resolution.base is None:
        findings.add(
            "NL0601",
            f"the path `{path}` matches nothing",
            None,
            help="the file has no `train` block or model to begin at",
        )
        raise SpecError(findings.items)
    try:
        values = _history(analysis, path)
    except amend.NoSuchPath as problem:
        amend.no_such_path(path, problem, findings)
        raise SpecError(findings.items) from problem
    origins = Provenance(resolution.module)
    rows = [(print_expr(v), origins.remark(v)) for v in values if v is not None]
    if values[-1] is None:
        rows.append(_default(analysis, path, origins))
    width = max(len(text) for text, _ in rows)
    lines = [
        f"{path} = {rows[-1][0]}",
        *(f"  {text:<{width}}  {remark}" for text, remark in rows),
        *_amounts(analysis, path),
    ]
    return "\n".join(lines) + "\n"


def _history(analysis: Analysis, path: str) -> list[e.Expr | None]:
    """Its values, oldest first; None where it is left out."""
    base = analysis.resolution.base
    assert base is not None
    module = amend.copied(analysis.module)
    root = _root(base.name, module)
    try:
        values: list[e.Expr | None] = [amend.value_at(path, root, module)]
    except amend.NoSuchPath:
        values = []  # an amendment may make it
    for amendment in analysis.resolution.amendments:
        amend.amend(amendment, root, module, Findings())
        try:
            value = amend.value_at(path, root, module)
        except amend.NoSuchPath:
            value = None
        if not values or value is not values[-1]:
            values.append(value)
    if not values or values == [None]:
        return [amend.value_at(path, root, module)]
    return values


def _root(name: str, module: Module) -> doc.Train | doc.Model:
    """The declaration that a spec expands from."""
    found = module.document.find(name)
    assert isinstance(found, doc.Train | doc.Model), "a copy declares what its original does"
    return found


def _default(analysis: Analysis, path: str, origins: Provenance) -> tuple[str, str]:
    """The default of a value that is left out, from the complete spec."""
    from nldsl.api.expand import expand

    base = analysis.resolution.base
    assert base is not None
    module = linked(Source("<expanded>.nl", expand(analysis.resolution)), None).module
    of, _, name = path.rpartition(".")
    value = UNSTATED.get(name) if isinstance(base, doc.Train) and of in ("", "train", base.name) else None
    with suppress(amend.NoSuchPath):
        value = amend.value_at(path, _root(base.name, module), module) or value
    return ("(left out)", "nothing states it") if value is None else (print_expr(value), origins.default.text)


def _amounts(analysis: Analysis, path: str) -> list[str]:
    """What a parameter comes to wherever its declaration is used."""
    name, _, parameter = path.partition(".")
    expanded = analysis.resolution.expanded
    found: dict[str, str] = {}
    for instance, _ in expanded.instances() if expanded is not None else ():
        if instance.name == name:
            amount = instance.arguments.get(parameter)
            if amount is not None:
                found[instance.path] = f"  is {amount.value} in {instance.path}"
    return list(found.values())
