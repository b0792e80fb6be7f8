"""Statements to variants and ablations: amendments of paths, and the axes along which specs are varied."""

from __future__ import annotations

from typing import Any

from nldsl.document import expr as e
from nldsl.document import model as m
from nldsl.syntax.heads import (
    Elaborating,
    Fields,
    Head,
    first_word,
    head_of,
    is_word,
    leftmost,
    without_leading,
)


class Studies(Elaborating):
    """Reads `variant` and `ablate`."""

    def derived(self, head: Head, word: str) -> tuple[e.Name, e.Name, e.Body] | None:
        match head.words[1:]:
            case (e.Name() as name, e.Name(parts=("of",)), e.Name() as base) if head.body is not None:
                return name, base, head.body
            case _:
                self.malformed(head, word)
                return None

    def variant(self, head: Head) -> m.Variant | None:
        parts = self.derived(head, "variant")
        if parts is None:
            return None
        name, base, body = parts
        amendments: list[m.Amendment] = []
        for statement in body.statements:
            found = self.amendment(statement)
            if found is None:
                continue
            first = next((a for a in amendments if a.path == found.path and a.action == found.action), None)
            if first is not None:
                self.twice(
                    "NL0124", "amendment", f"{found.action} {found.path}", found.path_span, first.path_span
                )
                continue
            amendments.append(found)
        return m.Variant.model_construct(
            name=name.text, base=base.text, base_span=base.span, amendments=amendments,
            span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    def amendment(self, statement: e.Statement) -> m.Amendment | None:
        head = head_of(statement)
        word = head.word if head.word is not None else first_word(statement)
        span = statement.span
        if word in ("set", "add"):
            if head.value is not None and len(head.words) == 2 and isinstance(head.words[1], e.Name):
                path = head.words[1]
                return m.Amendment.model_construct(
                    action=word, path=path.text, value=head.value, path_span=path.span, span=span
                )
        elif word == "remove":
            if head.value is None and len(head.words) == 2 and isinstance(head.words[1], e.Name):
                path = head.words[1]
                return m.Amendment.model_construct(
                    action="remove", path=path.text, path_span=path.span, span=span
                )
        elif word == "replace":
            left = leftmost(statement.value)
            words = left.words if isinstance(left, e.Phrase) else ()
            if (
                statement.target is None
                and len(words) > 3
                and isinstance(words[1], e.Name)
                and is_word(words[2], "by")
            ):
                value = without_leading(statement.value, 3)
                return m.Amendment.model_construct(
                    action="replace", path=words[1].text, value=value, path_span=words[1].span, span=span
                )
        else:
            self.unknown(head, "a variant", ("set", "add", "remove", "replace"))
            return None
        self.malformed(head, word, "NL0129")
        return None

    def ablate(self, head: Head) -> m.Ablate | None:
        parts = self.derived(head, "ablate")
        if parts is None:
            return None
        name, base, body = parts
        fields, axes = Fields(), list[m.Axis]()
        keep: e.Expr | None = None
        for statement in body.statements:
            inner = head_of(statement)
            word = inner.word if inner.word is not None else first_word(statement)
            if word in m.AXES:
                axis = self.axis(inner, word)
                if axis is not None:
                    axes.append(axis)
            elif word == "keep" and statement.target is None:
                rest = without_leading(statement.value, 1)
                if rest is None:
                    self.malformed(inner, "keep")
                elif keep is not None:
                    self.twice("NL0124", "field", "keep", statement.span, keep.span)
                else:
                    keep = rest
            else:
                self.assign(inner, fields, "an ablate", (*m.AXES, "keep"))
        return m.Ablate.model_construct(
            name=name.text, base=base.text, base_span=base.span, axes=axes, keep=keep, fields=fields.values,
            field_spans=fields.spans, span=head.statement.span, name_span=name.span,
        )  # fmt: skip

    def axis(self, head: Head, word: Any) -> m.Axis | None:
        value = head.value
        rest = head.words[1:]
        if not isinstance(value, e.ListOf):
            self.malformed(head, word)
            return None
        together: list[int] = []
        values: list[list[e.Expr]] = []
        names: tuple[e.Expr, ...] | None = None
        if word == "without" and not rest:
            names, together = _groups(value)
        elif word == "variants" and not rest:
            names = value.items
        elif word in ("vary", "replace") and len(rest) == 1:
            names, values = rest, [list(value.items)]
        elif word in ("grid", "zip") and len(rest) == 1 and isinstance(rest[0], e.ListOf):
            names, values = rest[0].items, [list(i.items) for i in value.items if isinstance(i, e.ListOf)]
            names = names if len(names) == len(values) == len(value.items) else None
        paths = [n for n in names or () if isinstance(n, e.Name)]
        if names is None or len(paths) != len(names) or 0 in together:
            self.malformed(head, word)
            return None
        return m.Axis.model_construct(
            action=word,
            paths=[p.text for p in paths],
            path_spans=[p.span for p in paths],
            together=together,
            values=values,
            span=head.statement.span,
        )


def _groups(paths: e.ListOf) -> tuple[tuple[e.Expr, ...], list[int]]:
    """The items of `[A, [B, C]]` in a row, and how many go together; no numbers where each stands alone."""
    groups = [item.items if isinstance(item, e.ListOf) else (item,) for item in paths.items]
    nested = any(isinstance(item, e.ListOf) for item in paths.items)
    return tuple(name for group in groups for name in group), [len(g) for g in groups] if nested else []
