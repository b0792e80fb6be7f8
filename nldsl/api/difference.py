"""What differs in meaning between two specs."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace

from nldsl.api.spec import Spec, load
from nldsl.levels.graph import Component, LevelGraph
from nldsl.resolve.expanded import Expanded

Subject = Spec | str | os.PathLike[str]


def diff(first: Subject, second: Subject) -> str:
    """What differs in meaning between two specs; the empty string where they mean the same.

    Spelling, comments, the order of imports, and whether a default is stated do not count. The first part is
    a
    unified diff of the complete specs, the second what that does to the level graph.

    Raises `SpecError` or `OSError`, as `load` does, for a path.
    """
    a, b = (s if isinstance(s, Spec) else load(s) for s in (first, second))
    if _nameless(a) == _nameless(b):
        return ""
    text = list(difflib.unified_diff(_lines(a), _lines(b), _title(a), _title(b), lineterm="", n=2))
    graph = list(level_changes(a.levels(), b.levels()))
    parts = [text, ["level graph", *graph]] if graph else [text]
    return "\n\n".join("\n".join(p) for p in parts if p) + ("\n" if text or graph else "")


def _nameless(spec: Spec) -> Expanded:
    """What is expanded, whatever it is called."""
    return replace(spec.expanded, name="", variant=None)


def _title(spec: Spec) -> str:
    settings = "".join(f" --set {a.path}" for a in spec.settings)
    return spec.source.name + (f" ({spec.variant})" if spec.variant else "") + settings


def _lines(spec: Spec) -> list[str]:
    """The complete spec without its remarks, which tell of lines and not of meaning."""
    return [line for line in without_comments(spec.expand()).split("\n") if line.strip()]


def without_comments(text: str) -> str:
    """The text of an `.nl` file without its comments; the layout of what is left does not depend on them.

    >>> without_comments('a = "#1"  # why\\n')
    'a = "#1"\\n'
    """
    from nldsl.syntax.comments import find_comments

    for comment in reversed(find_comments(text)):
        text = text[: comment.start].rstrip(" ") + text[comment.end :]
    return text


def level_changes(a: LevelGraph, b: LevelGraph) -> list[str]:
    """How the numbers of the level graph change, one line each."""
    lines = [_change("parameters", f"{a.parameters:,}", f"{b.parameters:,}")]
    lines += [_change("levels", str(len(a.levels)), str(len(b.levels)))]
    before, after = ({c.path: c for c in g.components} for g in (a, b))
    for path in [*before, *(p for p in after if p not in before)]:
        if path not in after:
            lines.append(f"  - {path}: {_words(before[path])}")
        elif path not in before:
            lines.append(f"  + {path}: {_words(after[path])}")
        else:
            lines += _component(path, before[path], after[path])
    return [line for line in lines if line]


def _component(path: str, a: Component, b: Component) -> list[str]:
    rows = [
        _change(f"{path} {what}", f"{x}", f"{y}")
        for what, x, y in (
            ("clock", a.clock, b.clock),
            ("rule", a.rule, b.rule),
            ("learns from", a.learns_from, b.learns_from),
            ("copies", a.copies, b.copies),
            ("parameters", f"{a.parameters:,}", f"{b.parameters:,}"),
            ("state bytes", f"{a.state_bytes:,}", f"{b.state_bytes:,}"),
            ("FLOPs per token", f"{a.flops_per_token:,}", f"{b.flops_per_token:,}"),
        )
    ]
    return [row for row in rows if row]


def _words(one: Component) -> str:
    return f"{one.kind}, {one.clock}, {one.parameters:,} parameters, {one.state_bytes:,} state bytes"


def _change(what: str, a: str, b: str) -> str:
    return "" if a == b else f"  {what}: {a} -> {b}"
