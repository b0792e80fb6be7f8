"""A plan as text."""

from __future__ import annotations

from nldsl.ablate.plan import Plan
from nldsl.ablate.rows import Row


def as_text(plan: Plan) -> str:
    """The variants of a plan, one line each, with what they cost."""
    cells = [
        ("variant", "parameters", "", "MFLOPs/token", "state/sequence"),
        *(_cells(row, plan.rows[0]) for row in plan.rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    head = f"{plan.name} of {plan.base}: {len(plan.rows) - 1} variants and the base"
    seeds = f"{len(plan.seeds)} seed{'' if len(plan.seeds) == 1 else 's'}"
    return "\n".join([head, "", *lines, "", f"{plan.trials} runs, {seeds} each"])


def _cells(row: Row, base: Row) -> tuple[str, str, str, str, str]:
    words = f"{row.words} (base)" if row is base else row.words
    if row.problem is not None:
        return words, "-", "", "-", row.problem
    same = row.parameters == base.parameters or not base.parameters
    change = "" if same else f"{(row.parameters - base.parameters) / base.parameters:+.1%}"
    state = f"{row.state_bytes / 1024:,.0f} KiB"
    return words, f"{row.parameters:,}", change, f"{row.flops_per_token / 1e6:.2f}", state
