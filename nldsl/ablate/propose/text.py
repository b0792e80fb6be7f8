"""Proposals as an `ablate` block that somebody could have written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nldsl.ablate.propose.proposal import Proposal
from nldsl.ablate.rows import Keep
from nldsl.diagnostics.model import Source
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.amend import in_words

NAME = "Auto"


def block_text(
    proposals: Iterable[Proposal],
    base: str,
    name: str = NAME,
    seeds: Sequence[int] = (0,),
    measures: Sequence[str] = ("loss",),
    keep: Keep | None = None,
) -> str:
    """An `ablate` block that makes the proposals, in canonical form, each below its question.

    What takes several kinds of amendment is a `variant` of its own before the block; what has to be imported
    is imported at the beginning.
    """
    from nldsl.syntax import parse_body
    from nldsl.syntax.fmt import format_body

    chosen = list(proposals)
    imports = sorted({one for proposal in chosen for one in proposal.imports})
    mixed = {id(p): f"{name}{number}" for number, p in enumerate((p for p in chosen if _mixed(p)), 1)}
    lines = [f"import [{', '.join(imports)}] from std", ""] if imports else []
    for proposal in chosen:
        if id(proposal) in mixed:
            lines += [f"# {proposal.question}", f"variant {mixed[id(proposal)]} of {base} {{"]
            lines += [f"  {in_words(item)}" for item in proposal.amendments]
            lines += ["}", ""]
    lines.append(f"ablate {name} of {base} {{")
    for proposal in chosen:
        axis = f"variants = [{mixed[id(proposal)]}]" if id(proposal) in mixed else _axis(proposal.amendments)
        lines += [f"  # {proposal.question}", f"  {axis}"]
    lines += [f"  {line}" for line in _fields(tuple(seeds), tuple(measures), keep)]
    body, findings = parse_body(Source("proposals.nl", "\n".join([*lines, "}", ""])))
    assert not findings, findings
    return format_body(body)


def _fields(seeds: tuple[int, ...], measures: tuple[str, ...], keep: Keep | None) -> Iterator[str]:
    """The lines of a block that make no variants, without those that say what is so anyway."""
    if keep is not None:
        by = f" by [{', '.join(keep.by)}]" if keep.by else ""
        yield f"keep {keep.what} within {100 * keep.within:.12g}%{by}"
    if measures != ("loss",):
        yield f"measure = [{', '.join(measures)}]"
    if seeds == tuple(range(len(seeds))):
        yield from (f"seeds = {len(seeds)}",) if len(seeds) > 1 else ()
    else:
        yield f"seeds = [{', '.join(str(seed) for seed in seeds)}]"


def _mixed(proposal: Proposal) -> bool:
    actions = {item.action for item in proposal.amendments}
    return len(actions) > 1 or (actions == {"replace"} and len(proposal.amendments) > 1)


def _axis(amendments: tuple[doc.Amendment, ...]) -> str:
    """The line of a block that makes one variant."""
    first = amendments[0]
    paths = [item.path for item in amendments]
    values = [print_expr(item.value) for item in amendments if item.value is not None]
    if first.action == "remove":
        return f"without = [{paths[0]}]" if len(paths) == 1 else f"without = [[{', '.join(paths)}]]"
    if first.action == "replace":
        return f"replace {paths[0]} = [{values[0]}]"
    if len(paths) == 1:
        return f"vary {paths[0]} = [{values[0]}]"
    return f"zip [{', '.join(paths)}] = [{', '.join(f'[{value}]' for value in values)}]"
