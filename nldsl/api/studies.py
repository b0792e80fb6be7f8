"""Studies from specs: the plan of an `ablate` block, or of proposals, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nldsl.api.reading import Settings, amendments, analyse, linked, read_source, reader_beside
from nldsl.api.spec import Spec
from nldsl.diagnostics.model import Source, SpecError

if TYPE_CHECKING:
    from nldsl.ablate.plan import Plan
    from nldsl.ablate.study import Study


def study(
    spec: Spec | str | os.PathLike[str] | Source,
    name: str | None = None,
    *,
    variant: str | None = None,
    set: Settings | None = None,
    auto: bool = False,
    families: Sequence[str] | None = None,
    only: Sequence[str] = (),
    most: int | None = None,
    seeds: int | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Plan:
    """The plan of a study: variants of a run, with what each changes and costs. Nothing is run.

    Args:
        spec: a loaded spec, or the path or text of one.
        name: of the `ablate` block; the only one by default.
        variant: what proposals are made for, for a path or text; by default the first `train` block.
        set: values to change in all variants, as in `load`, for a path or text.
        auto: plan what a careful researcher would try, in place of what a block asks for.
        families: of proposals: "parts", "controls", "swaps", "levels", "clocks", "readings"; all by default.
        only: pieces or globs of names, words and questions of variants; all by default.
        most: so many variants at most, the first ones.
        seeds: so many of them, in place of the block's.
        seconds: of a step by the name of a variant, for `keep time`, as `plan.calibrate().per_step` has them.

    Raises:
        SpecError: the spec or block has errors, there is no such block, or a word of `only` means nothing.
        OSError, ValueError: as `load` does; and where `seeds` or `most` is no number of them.
    """
    from nldsl.ablate.plan import plan

    if not isinstance(spec, Spec):
        spec = load_for_study(spec, name, variant=variant, set=set, auto=auto)
    elif variant is not None or set is not None:
        raise ValueError("`variant` and `set` are for a path or text, and a loaded spec has its own")
    return plan(spec, name, auto=auto, families=families, only=only, most=most, seeds=seeds, seconds=seconds)


def open_study(folder: str | os.PathLike[str]) -> Study:
    """The study in `folder`, finished or not: its rows, its trials and where each has its files.

    Raises:
        nldsl.run.folder.RunError: there is no study, or it is damaged.
    """
    from nldsl.ablate.study import Study

    return Study.open(Path(folder))


def load_for_study(
    path: str | os.PathLike[str] | Source,
    name: str | None = None,
    *,
    variant: str | None = None,
    set: Settings | None = None,
    auto: bool = False,
) -> Spec:
    """The run that the study called `name` changes, read and checked as `load` does.

    What `set` changes need be there in that run only.  With `auto` and without `name` it is `variant`, or the
    first `train` block.
    """
    from nldsl.ablate.plan import find_block
    from nldsl.resolve.ablations import has_base
    from nldsl.resolve.findings import Findings

    source = path if isinstance(path, Source) else read_source(path)
    file = linked(source, None if isinstance(path, Source) else reader_beside(path))
    extra, wrong = amendments(set)
    readable = not any(d.severity == "error" for d in (*file.read, *file.linked))
    if readable and not (auto and name is None):
        block, missing = find_block(file.module, name), Findings()
        if not has_base(block, file.module.document, missing):
            raise SpecError(missing.items)
        variant = block.base
    analysis = analyse(file, variant=variant, extra=tuple(extra))
    found = [*analysis.findings, *wrong]
    if any(d.severity == "error" for d in found):
        raise SpecError(found)
    return Spec(analysis, variant=variant, settings=tuple(extra))
