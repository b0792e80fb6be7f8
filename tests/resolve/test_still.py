"""What is left of a memory inside the sequence that is never written."""

from __future__ import annotations

import pytest

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.resolve.expanded import MemoryInstance

SPEC = """edition 2026
memory Rich(dim) {{
  map    = {map}
  start  = learned
  key    = seen |> unit
  value  = x |> linear
  query  = seen |> unit
  out    = read |> linear
  seen   = narrow |> linear
  narrow = x |> linear(3)
  doubt  = x |> linear(1)
  rate   = doubt |> sigmoid
  {line}
  {update}
}}
model Small(dim = 8) {{ tokens |> embed(256, dim) |> Rich(dim) |> rmsnorm |> unembed(tied) }}
"""


def rich(line: str = "", update: str = "update = never", map: str = "matrix") -> MemoryInstance:
    """The memory `Rich` with another line in it."""
    source = Source("a.nl", SPEC.format(line=line, update=update, map=map))
    assert not [d for d in nldsl.check_source(source) if d.severity == "error"]
    instances = (one for one, _ in nldsl.load(source).expanded.instances())
    return next(one for one in instances if isinstance(one, MemoryInstance))


@pytest.mark.parametrize(
    "line",
    [
        "retain = 1 - 0.1 * sigmoid(doubt)",
        "momentum = 0.9",
        "erase = seen |> unit",
        "rule = dgd",
        "constrain = norm(1)",
        "anchor = current",
        "window = 4 tokens",
        "read = before",
    ],
)
def test_how_it_would_be_written_is_left_out_of_a_memory_that_stands_still(line: str) -> None:
    still = rich(line)
    assert (still.core, still.flows.keys()) == (rich().core, rich().flows.keys())
    moving = rich(line, "")
    assert (moving.core, moving.flows.keys()) != (rich("", "").core, rich("", "").flows.keys())


def test_a_memory_that_stands_still_keeps_what_it_is_read_by() -> None:
    """Its map, its start and each pipeline that a read needs, however far away; none for writes alone."""
    still, moving = rich(map="mlp(dim)"), rich(update="", map="mlp(dim)")
    assert still.core.map.kind == "mlp"
    assert still.core.map == moving.core.map
    assert still.core.start == moving.core.start == "learned"
    assert {name for name, _ in moving.locals} == {"seen", "narrow", "doubt"}
    assert {name for name, _ in still.locals} == {"seen", "narrow"}
    assert {"key", "query", "out"} <= still.flows.keys()
