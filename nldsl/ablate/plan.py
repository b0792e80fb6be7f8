"""The plan of an ablation: which variants it makes, what each changes, and what it costs.  Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nldsl.diagnostics.model import Diagnostic, SpecError
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.levels.build import build
from nldsl.resolve import resolve
from nldsl.resolve.ablations import MOST, Planned, count, variants
from nldsl.resolve.modules import Module

__all__ = ["MOST", "Plan", "Planned", "Row", "count", "find_block", "plan", "plan_module", "variants"]


class HasModule(Protocol):
    """A loaded spec: `module` is the file with its imports, as linked; `settings` amend every variant."""

    settings: tuple[doc.Amendment, ...]

    @property
    def module(self) -> Module: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One variant and what it costs; `problem` says why it cannot be made, and the figures are 0 then."""

    words: str
    parameters: int = 0
    flops_per_token: int = 0
    state_bytes: int = 0
    problem: str | None = None
    planned: Planned | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The variants of one `ablate` block, its base first, and how often each is run."""

    name: str
    base: str
    seeds: int
    rows: tuple[Row, ...]

    @property
    def runs(self) -> int:
        """Trainings in all; variants that cannot be made are left out."""
        return self.seeds * sum(row.problem is None for row in self.rows)

    def __str__(self) -> str:
        cells = [
            ("variant", "parameters", "", "MFLOPs/token", "state/sequence"),
            *map(self._cells, self.rows),
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(5)]
        lines = [
            "  ".join(
                c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        head = f"{self.name} of {self.base}: {len(self.rows) - 1} variants and the base"
        seeds = f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"
        return "\n".join([head, "", *lines, "", f"{self.runs} runs, {seeds} each"])

    def _cells(self, row: Row) -> tuple[str, str, str, str, str]:
        if row.problem is not None:
            return row.words, "-", "", "-", row.problem
        base = self.rows[0].parameters
        change = f"{(row.parameters - base) / base:+.1%}" if base and row.parameters != base else ""
        state = f"{row.state_bytes / 1024:,.0f} KiB"
        return row.words, f"{row.parameters:,}", change, f"{row.flops_per_token / 1e6:.2f}", state


def plan(spec: HasModule, name: str | None = None) -> Plan:
    """The plan of the `ablate` block called `name` of a loaded spec, or of its only one.

    Raises:
        SpecError: there is no such block (NL0610), or it makes too many variants (NL0606).
    """
    return plan_module(spec.module, name, spec.settings)


def plan_module(module: Module, name: str | None = None, settings: tuple[doc.Amendment, ...] = ()) -> Plan:
    """As `plan`, for a linked module; `settings` come before what each variant changes."""
    block = find_block(module, name)
    total = count(block)
    if total > MOST:
        raise SpecError(
            [Diagnostic("NL0606", f"`{block.name}` makes {total} variants", help="split the study")]
        )
    rows = [_row(module, block.base, f"{block.base} (base)", settings, None)]
    rows += [_row(module, block.base, one.words, settings, one) for one in variants(block)]
    seeds = block.fields.get("seeds")
    number = seeds.value if isinstance(seeds, e.Number) and isinstance(seeds.value, int) else 1
    return Plan(block.name, block.base, number, tuple(rows))


def find_block(module: Module, name: str | None = None) -> doc.Ablate:
    """The `ablate` block called `name`, or the only one; raises `SpecError` (NL0610) otherwise."""
    blocks = [d for d in module.document.declarations if isinstance(d, doc.Ablate)]
    if name is None and len(blocks) == 1:
        return blocks[0]
    for block in blocks:
        if block.name == name:
            return block
    known = [block.name for block in blocks]
    if not known:
        message, hint = "the spec has no `ablate` block", "write `ablate Study of Run { without = [...] }`"
    elif name is None:
        message, hint = f"the spec has {len(known)} `ablate` blocks", f"name one of {', '.join(known)}"
    else:
        near = nearest(name, known)
        message = f"there is no `ablate` block called `{name}`"
        hint = f"maybe `{near[0]}`" if near else f"the spec has {', '.join(f'`{k}`' for k in known)}"
    raise SpecError([Diagnostic("NL0610", message, help=hint)])


def _row(
    module: Module, base: str, words: str, settings: tuple[doc.Amendment, ...], planned: Planned | None
) -> Row:
    own = planned.amendments if planned is not None else ()
    resolution = resolve(module, variant=base, extra=[*settings, *own])
    if resolution.expanded is None:
        problems = [d.message for d in resolution.findings if d.severity == "error"]
        return Row(words, problem=problems[0] if problems else "cannot be made", planned=planned)
    graph = build(resolution.expanded)
    flops = sum(c.flops_per_token * c.copies for c in graph.components)
    state = sum(c.state_bytes * c.copies for c in graph.components if c.per_sequence)
    return Row(words, graph.parameters, flops, state, None, planned)
