"""Laws over generated trees: both surfaces spell every tree, and the formatter changes none."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.document import model as m
from nldsl.document.printer import print_expr
from nldsl.syntax.elaborate import elaborate
from nldsl.syntax.fmt import format_body, format_expr
from nldsl.syntax.parse import parse_expression, parse_statements
from nldsl.syntax.yaml import parse_yaml, to_yaml
from tests.strategies import ablations, all_comments, bodies, expressions

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(bodies())
def test_text_spells_every_tree(body: e.Body) -> None:
    text = format_body(body)
    again, findings = parse_statements(Source("a.nl", text))
    assert findings == []
    assert again == body
    assert all_comments(again) == all_comments(body)
    assert format_body(again) == text


@QUICK
@given(bodies())
def test_yaml_spells_every_tree(body: e.Body) -> None:
    text = to_yaml(body)
    if not body.statements:
        return
    again, findings = parse_yaml(Source("a.yaml", text))
    assert findings == []
    assert again == body
    assert all_comments(again) == all_comments(body)


@QUICK
@given(expressions(bodies=False))
def test_layout_on_one_line_is_what_the_printer_says(value: e.Expr) -> None:
    assert format_expr(value) == print_expr(value)


@QUICK
@given(expressions(bodies=False))
def test_a_value_alone_reads_back(value: e.Expr) -> None:
    again, findings = parse_expression(Source("a", print_expr(value)))
    assert (again, findings) == (value, [])


@QUICK
@given(ablations())
def test_ablations_are_one_in_both_surfaces(body: e.Body) -> None:
    text, yaml = format_body(body), to_yaml(body)
    again, findings = parse_statements(Source("a.nl", text))
    there, problems = parse_yaml(Source("a.yaml", yaml))
    assert (findings, problems) == ([], [])
    assert again == there == body
    assert all_comments(again) == all_comments(there) == all_comments(body)
    assert format_body(again) == text
    (one, said), (other, heard) = (elaborate(tree, Source("a.nl", text)) for tree in (again, there))
    assert [d.message for d in said] == [d.message for d in heard]
    assert {d.code for d in said} <= {"NL0001", "NL0002", "NL0127"}  # no edition; a value such as `x (1, 2)`
    assert one == other
    (block,) = one.declarations
    assert isinstance(block, m.Ablate)
    lines = sum(1 for n in body.walk() if isinstance(n, e.Statement)) - 1
    assert len(block.axes) + len(block.fields) + (block.keep is not None) == lines
