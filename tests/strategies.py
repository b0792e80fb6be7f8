"""Generated statement trees: everything that canonical text can spell, and nothing it cannot.

A tree is canonical when no other tree prints as the same text: a phrase has two words or more, no number
or name in it stands before a unit, and nothing begins with a word that YAML keys use for themselves.
"""

from __future__ import annotations

import string
from dataclasses import replace

from hypothesis import strategies as st

from nldsl.document import expr as e
from nldsl.syntax.words import NO_AMOUNTS

WORDS = (
    "x",
    "y",
    "key",
    "value",
    "Titans",
    "level",
    "fast",
    "slow",
    "chain",
    "every",
    "mlp",
    "keep",
    "edition",
    "otherwise",
)
COMMENT_TEXT = (
    st.text(alphabet=string.ascii_letters + " `=|>{}:'\"#-", max_size=20)
    .map(str.strip)
    .filter(lambda s: not s.startswith(("#", "!")))
)

words = st.sampled_from(WORDS)
names = st.lists(words, min_size=1, max_size=3).map(lambda parts: e.Name(tuple(parts)))
plain_names = words.map(lambda w: e.Name((w,)))
integers = st.integers(0, 10**6).map(e.Number)
fractions = st.floats(0, 1e6, allow_nan=False).map(e.Number)
numbers = st.one_of(integers, fractions)
texts = st.text(
    alphabet=string.printable.replace("\r", "").replace("\x0b", "").replace("\x0c", "") + "é😀", max_size=8
).map(e.Text)
units = st.sampled_from(sorted(set(e.UNITS.values())))
simple_amounts = st.one_of(integers, names.filter(lambda n: n.text not in NO_AMOUNTS))


def expressions(*, bodies: bool = True, depth: int = 3) -> st.SearchStrategy[e.Expr]:
    """Any value: atoms, calls, lists, operators, pipelines, phrases, and phrases that end in a body."""
    atoms: st.SearchStrategy[e.Expr] = st.one_of(
        numbers, names, texts, st.builds(e.Quantity, simple_amounts, units)
    )
    return st.recursive(atoms, lambda inner: _grown(inner, bodies), max_leaves=4 * depth)


def _grown(inner: st.SearchStrategy[e.Expr], bodies: bool) -> st.SearchStrategy[e.Expr]:
    arguments = st.one_of(inner.map(e.Argument), st.builds(e.Argument, inner, words))
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    operands = inner.filter(lambda x: not isinstance(x, e.Quantity) and _may_count(x))
    grown = [
        st.builds(e.Call, names, st.lists(arguments, max_size=3).map(tuple)),
        st.lists(inner, max_size=3).map(lambda items: e.ListOf(tuple(items))),
        several.map(e.TupleOf),
        st.builds(e.Pipe, inner, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(e.Binary, st.sampled_from("+-*/^"), inner, inner),
        st.builds(e.Unary, st.just("-"), inner),
        st.builds(e.Quantity, operands.filter(lambda x: not isinstance(x, e.TupleOf)), units),
        st.lists(inner, min_size=2, max_size=3).map(lambda ws: e.Phrase(tuple(ws))),
    ]
    if bodies:
        inner_bodies = st.builds(_body, st.lists(_statements_of(inner), max_size=3), st.booleans())
        grown.append(
            st.builds(lambda ws, b: e.Phrase((*ws, b)), st.lists(inner, min_size=1, max_size=2), inner_bodies)
        )
    return st.one_of(grown)


def _may_count(node: e.Expr) -> bool:
    return not isinstance(node, e.Name) or node.text not in NO_AMOUNTS


def _body(statements: list[e.Statement], inline: bool) -> e.Body:
    return e.Body(tuple(statements), inline=inline)


def _statements_of(values: st.SearchStrategy[e.Expr]) -> st.SearchStrategy[e.Statement]:
    heads = st.sampled_from(("set", "add", "let", "vary", "memory"))
    targets = st.one_of(names, st.builds(lambda h, n: e.Phrase((e.Name((h,)), n)), heads, names))
    return st.builds(
        e.Statement,
        values,
        st.one_of(st.none(), targets, values),
        st.one_of(st.none(), plain_names),
        comments=st.lists(COMMENT_TEXT, max_size=2).map(tuple),
        trailing=st.one_of(st.none(), COMMENT_TEXT),
        blank_before=st.booleans(),
    )


def bodies() -> st.SearchStrategy[e.Body]:
    """Whole files, with comments and empty lines."""
    return st.builds(
        lambda statements, closing: e.Body(tuple(statements), closing_comments=tuple(closing)),
        st.lists(_statements_of(expressions()), max_size=4),
        st.lists(COMMENT_TEXT, max_size=2),
    )


paths = st.lists(st.sampled_from(("A", "Store", "slow", "rate", "order")), min_size=2, max_size=3).map(
    lambda parts: e.Name(tuple(parts))
)
shares = st.one_of(st.integers(0, 99), st.floats(0, 99, allow_nan=False)).map(
    lambda share: e.Quantity(e.Number(share), "%")
)


def _lists(items: st.SearchStrategy[e.Expr], most: int = 3) -> st.SearchStrategy[e.ListOf]:
    return st.lists(items, min_size=1, max_size=most).map(lambda found: e.ListOf(tuple(found)))


def _word(*words: str) -> e.Name:
    return e.Name(words)


def _table(word: str, paths: list[e.Name], rows: list[list[e.Expr]]) -> e.Statement:
    target = e.Phrase((_word(word), e.ListOf(tuple(paths))))
    return e.Statement(e.ListOf(tuple(e.ListOf(tuple(row)) for row in rows)), target)


def _tables(values: st.SearchStrategy[e.Expr]) -> st.SearchStrategy[e.Statement]:
    return st.integers(1, 3).flatmap(
        lambda size: st.builds(
            _table,
            st.sampled_from(("grid", "zip")),
            st.lists(paths, min_size=size, max_size=size),
            st.lists(st.lists(values, min_size=1, max_size=3), min_size=size, max_size=size),
        )
    )


def axes() -> st.SearchStrategy[e.Statement]:
    """Lines of an `ablate` block that make variants."""
    values = expressions(bodies=False, depth=1)
    groups = st.one_of(paths, _lists(paths))
    return st.one_of(
        st.builds(lambda items: e.Statement(items, _word("without")), _lists(groups)),
        st.builds(lambda items: e.Statement(items, _word("variants")), _lists(plain_names)),
        st.builds(
            lambda word, path, items: e.Statement(items, e.Phrase((_word(word), path))),
            st.sampled_from(("vary", "replace")), paths, _lists(values),
        ),
        _tables(values),
    )  # fmt: skip


def budgets() -> st.SearchStrategy[e.Statement]:
    """`keep ... within P%`, with and without `by`."""
    by = st.one_of(
        st.just(()), st.one_of(paths, _lists(paths)).map(lambda paths: (_word("by"), paths))
    )  # fmt: skip
    what = st.sampled_from(("parameters", "flops", "time")).map(_word)
    return st.builds(
        lambda what, share, by: e.Statement(e.Phrase((_word("keep"), what, _word("within"), share, *by))),
        what, shares, by,
    )  # fmt: skip


def _fields() -> st.SearchStrategy[list[e.Statement]]:
    seeds = st.one_of(integers, _lists(integers))
    measures = st.sampled_from(("loss", "perplexity")).map(_word)
    known = {
        "seeds": seeds,
        "measure": st.one_of(measures, _lists(measures)),
        "baseline": st.one_of(texts, plain_names),
    }
    return st.lists(st.sampled_from(sorted(known)), unique=True).flatmap(
        lambda names: st.tuples(*(known[n].map(lambda v, n=n: e.Statement(v, _word(n))) for n in names)).map(
            list
        )
    )


def ablations() -> st.SearchStrategy[e.Body]:
    """Files of one `ablate` block, its lines with comments."""
    keeps = st.lists(budgets(), max_size=1)
    lines = st.tuples(st.lists(axes(), max_size=4), keeps, _fields()).map(
        lambda parts: [*parts[0], *parts[1], *parts[2]]
    )
    head = (_word("ablate"), _word("S"), _word("of"), _word("T"))
    return st.builds(
        lambda lines, said, closing: e.Body(
            (e.Statement(e.Phrase((*head, e.Body(_remarked(lines, said), closing_comments=tuple(closing))))),)
        ),
        lines, st.lists(COMMENT_TEXT, max_size=4), st.lists(COMMENT_TEXT, max_size=1),
    )  # fmt: skip


def _remarked(lines: list[e.Statement], said: list[str]) -> tuple[e.Statement, ...]:
    """The lines, the first of them with comments above and behind in turn."""
    remarks = [*said, *[None] * (len(lines) - len(said))]
    return tuple(
        line
        if text is None
        else replace(line, trailing=text)
        if index % 2
        else replace(line, comments=(text,))
        for index, (line, text) in enumerate(zip(lines, remarks, strict=False))
    )


def all_comments(node: e.Expr) -> list[str]:
    """Every comment below `node`, sorted."""
    found: list[str] = []
    for n in node.walk():
        if isinstance(n, e.Statement):
            found += n.comments
            found += [n.trailing] if n.trailing is not None else []
        elif isinstance(n, e.Body):
            found += n.closing_comments
    return sorted(found)
