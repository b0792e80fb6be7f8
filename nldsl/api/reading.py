"""From text to a resolved spec with all its findings: the one path that `check`, `load` and `diff` share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from nldsl.diagnostics.model import Diagnostic, Source, Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.levels.graph import LevelGraph
from nldsl.records import record
from nldsl.resolve import Library, Module, Resolution, amend, link, resolve
from nldsl.syntax import read

Reader = Callable[[str], Source]
"""The text of an imported file by its path from the spec's folder; raises `OSError` or `UnicodeError`."""

Settings = Mapping[str, object] | Iterable[str]
"""`{"model.dim": 64}`, or `["model.dim=64"]` as on the command line."""

_LIBRARY = Path(__file__).resolve().parents[1] / "lib"
_LOST_WITH_TEXT = ("NL0200", "NL0206", "NL0211", "NL0406", "NL0602")  # may only echo a mistake of syntax


@record
class Analysis:
    """One variant of one file: what it resolves to, its level graph (None after errors), all findings."""

    source: Source
    module: Module
    resolution: Resolution
    graph: LevelGraph | None
    findings: tuple[Diagnostic, ...]

    @property
    def has_errors(self) -> bool:
        return any(d.severity == "error" for d in self.findings)


# --------------------------------------------------------------------------- files


@cache
def library() -> Library:
    """The standard library, each file read when it is first imported."""
    parts, rules = _declared(_LIBRARY), _declared(_LIBRARY / "rules")

    def read_part(name: str) -> Source:
        folder = _LIBRARY / "rules" if name in rules else _LIBRARY
        return Source(f"std/{name}.nl", (folder / f"{name}.nl").read_text("utf-8"))

    return Library((*parts, *rules), read_part, rules)


def _declared(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name[:-3] for entry in os.scandir(folder) if entry.name.endswith(".nl")))


def reader_beside(path: str | os.PathLike[str]) -> Reader:
    """A reader of the files that the spec at `path` imports.

    It reads below the spec's folder only: a link that leads out of it is an `OSError`, as a missing file is.
    """
    from nldsl.run.files import read_import

    return lambda name: Source(*read_import(path, name))


def read_source(path: str | os.PathLike[str]) -> Source:
    """The text of a spec.

    Raises `FileNotFoundError` or another `OSError` whose message says what is wrong and what is there
    instead.
    """
    from nldsl.run.files import FileProblem, read_text

    try:
        return Source(str(path), read_text(path))
    except FileProblem as problem:
        kind = type(problem.__cause__) if isinstance(problem.__cause__, OSError) else OSError
        raise kind(problem.message + (f"; {problem.help}" if problem.help else "")) from problem


# --------------------------------------------------------------------------- settings


def amendments(settings: Settings | None) -> tuple[list[doc.Amendment], list[Diagnostic]]:
    """What `set=` and `--set` ask for, as amendments whose spans lie in a source of their own."""
    made: list[doc.Amendment] = []
    findings: list[Diagnostic] = []
    pairs = settings.items() if isinstance(settings, Mapping) else (_pair(text) for text in settings or ())
    for path, value in pairs:
        source = Source(f"--set {path}", f"{path} = {_spelled(path, value)}")
        target, expression, found = _assignment(source)
        findings += found
        if expression is not None:
            made.append(replace_span(amend.amendment("set", path, expression, expression.span), target))
    return made, findings


def replace_span(amendment: doc.Amendment, span: Span | None) -> doc.Amendment:
    """The amendment with its path at `span`."""
    return amendment.model_copy(update={"path_span": span})


def _pair(text: str) -> tuple[str, object]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip() or not value.strip():
        raise ValueError(f"the setting `{text}` is not of the form `path=value`, such as `model.dim=64`")
    return path.strip(), value.strip()


def _spelled(path: str, value: object) -> str:
    if not path or path.strip() != path:
        raise ValueError(f"`{path}` is not the path of a value; write for instance `model.dim`")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return value
    kind = type(value).__name__
    raise TypeError(
        f"the value of `{path}` is a `{kind}`; give a number, a boolean or the text of an expression"
    )


def _assignment(source: Source) -> tuple[Span | None, e.Expr | None, list[Diagnostic]]:
    """The path's span and the value of `path = value`; every finding that is wrong with the text."""
    from nldsl.syntax.parse import parse_expression, parse_statements

    body, findings = parse_statements(source)
    if not findings and len(body.statements) == 1:
        statement = body.statements[0]
        if statement.label is None and isinstance(statement.target, e.Name):
            return statement.target.span, statement.value, []
    value = Source(source.name, source.text.partition("= ")[2])
    expression, alone = parse_expression(value)
    if (
        expression is not None and not alone
    ):  # the path is no name: the amendment will say that it matches nothing
        return expression.span, expression, []
    return None, None, alone or findings


# --------------------------------------------------------------------------- the path itself


@cache
def _library_document(source: Source) -> tuple[doc.Document, list[Diagnostic]]:
    return read(source)


def _parse(source: Source) -> tuple[doc.Document, list[Diagnostic]]:
    return _library_document(source) if source.name.startswith("std/") else read(source)


@record
class Linked:
    """A file read and linked, before any variant is chosen."""

    source: Source
    module: Module
    read: tuple[Diagnostic, ...]
    linked: tuple[Diagnostic, ...]


def linked(source: Source, read_file: Reader | None) -> Linked:
    """Read a spec and what it imports."""
    document, found = read(source)
    name = source.name.replace(os.sep, "/").rpartition("/")[2]
    module, more = link(name, source, document, read_file, _parse, library())
    return Linked(source, module, tuple(found), tuple(more))


def analyse(
    file: Linked, *, variant: str | None = None, extra: tuple[doc.Amendment, ...] = (), studies: bool = False
) -> Analysis:
    """Resolve one variant of a linked file, build its level graph and run the checks.

    With `studies`, the variants and ablations of the file are checked, too.
    """
    resolution = resolve(file.module, variant=variant, extra=list(extra))
    found = [*file.read, *file.linked]
    found += _trusted(resolution.findings, file) if _errors(file.read) else resolution.findings
    graph, more = (None, []) if _errors(found) else _checked(file.module, resolution, studies)
    return Analysis(file.source, file.module, resolution, graph, tuple(distinct([*found, *more]).values()))


def _checked(
    module: Module, resolution: Resolution, studies: bool
) -> tuple[LevelGraph | None, list[Diagnostic]]:
    """The level graph of a resolved spec and what the checks find in it."""
    from nldsl import checks
    from nldsl.codegen.plan.findings import findings
    from nldsl.levels.build import build
    from nldsl.levels.outer import assign

    if resolution.expanded is None:
        return None, []
    assignment = assign(resolution.expanded)
    graph = build(resolution.expanded, assignment)
    found = checks.run(resolution, assignment, graph, original=module, studies=studies)
    return graph, [*found, *findings(resolution.expanded)]


def _errors(found: Iterable[Diagnostic]) -> bool:
    return any(d.severity == "error" for d in found)


def distinct(found: Iterable[Diagnostic]) -> dict[Any, Diagnostic]:
    """Findings by code, message and place: each once, in the order in which they came."""
    kept: dict[Any, Diagnostic] = {}
    for one in found:
        kept.setdefault((one.code, one.message, _place(one)), one)
    return kept


def _place(found: Diagnostic) -> tuple[str, int, int]:
    span = found.span
    return (span.source.name, span.start, span.end) if span is not None else ("", 0, 0)


def _trusted(found: list[Diagnostic], file: Linked) -> list[Diagnostic]:
    """Findings that do not merely echo a mistake of syntax: those about declarations that were read whole."""
    declarations = [d.span for d in file.module.document.declarations if d.span is not None]
    broken: list[Span] = []
    lost = False
    for mistake in file.read:
        around = [s for s in declarations if mistake.span is not None and _inside(mistake.span, s)]
        broken += around
        lost |= mistake.severity == "error" and not around
    return [
        d
        for d in found
        if not (lost and d.code in _LOST_WITH_TEXT)
        and not any(_inside(label.span, span) for label in d.labels for span in broken)
    ]


def _inside(inner: Span, outer: Span) -> bool:
    return inner.source == outer.source and outer.start <= inner.start <= outer.end


# --------------------------------------------------------------------------- check


def check_source(
    source: Source,
    *,
    read_file: Reader | None = None,
    variant: str | None = None,
    set: Settings | None = None,
) -> list[Diagnostic]:
    """Every finding in a spec's text; nothing is read but through `read_file`.

    Args:
        source: the text and its name; a name that ends in `.yaml` or `.yml` is read as YAML.
        read_file: hands over imported files; without it, importing one is a finding.
        variant: None checks the base, and that each variant and ablation can be made; a name checks that
            variant
            (or `train` block) alone; `"all"` adds to None the warnings that only a variant has.
        set: values to change first, as in `load`.

    Returns:
        Findings in the order of the stages, each once. What `"all"` adds says in a note which variant it is
        of.

    Raises:
        ValueError: a setting is not of the form `path=value`.

    >>> from nldsl.diagnostics.model import Source
    >>> [
    ...     d.code
    ...     for d in check_source(Source("a.nl", "edition 2026\\nlet width = 2 * wide\\nmemory A(dim) { }"))
    ... ]
    ['NL0206', 'NL0206', 'NL0206']
    """
    extra, wrong = amendments(set)
    file, settings = linked(source, read_file), tuple(extra)
    if variant not in (None, "all"):
        return list(distinct([*analyse(file, variant=variant, extra=settings).findings, *wrong]).values())
    seen = distinct([*analyse(file, extra=settings, studies=True).findings, *wrong])
    declared = (
        [d for d in file.module.document.declarations if isinstance(d, doc.Variant)]
        if variant == "all"
        else []
    )
    for one in declared:
        known = {(code, place) for code, _, place in seen}
        for key, found in distinct(analyse(file, variant=one.name, extra=settings).findings).items():
            if (key[0], key[2]) not in known:
                note = f"in the variant `{one.name}`"
                seen[key] = found if _inside_of(found, one) else replace(found, notes=(*found.notes, note))
    return list(seen.values())


def _inside_of(found: Diagnostic, declared: doc.Variant) -> bool:
    return found.span is not None and declared.span is not None and _inside(found.span, declared.span)


def check(
    path: str | os.PathLike[str] | Source,
    *,
    variant: str | None = None,
    set: Settings | None = None,
) -> list[Diagnostic]:
    """Every finding in a spec: a file, with what it imports beside it, or a `Source`, which imports only
    `std`.

    See `check_source` for `variant` and `set`. An empty list means that nothing is wrong.

    Raises:
        OSError: the file cannot be read; the message says why.
        ValueError: a setting is not of the form `path=value`.
    """
    if isinstance(path, Source):
        return check_source(path, variant=variant, set=set)
    source = read_source(path)
    return check_source(source, read_file=reader_beside(path), variant=variant, set=set)
