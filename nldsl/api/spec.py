"""A checked spec, and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nldsl.api.reading import (
    Analysis,
    Linked,
    Settings,
    amendments,
    analyse,
    linked,
    read_source,
    reader_beside,
)
from nldsl.diagnostics.model import Diagnostic, Source, SpecError
from nldsl.document import model as doc

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from nldsl.ablate.plan import Plan as StudyPlan
    from nldsl.api.builds import Build
    from nldsl.levels.graph import LevelGraph
    from nldsl.resolve import Module
    from nldsl.resolve.expanded import Expanded

PASSES = ("document", "expand", "levels", "plan")
"""The stages whose value `Spec.print_after` shows."""


class Spec:
    """One spec, as amended by a variant and settings, that passes every check.

    Attributes:
        diagnostics: what the checks found; warnings and notes only.
        settings: the amendments of `set`, in order.
        variant: the variant's name, or None.
    """

    def __init__(
        self, analysis: Analysis, *, variant: str | None = None, settings: tuple[doc.Amendment, ...] = ()
    ) -> None:
        self._analysis = analysis
        self.variant = variant
        self.settings = settings
        self.diagnostics: tuple[Diagnostic, ...] = analysis.findings
        self._text: str | None = None

    # ------------------------------------------------------------------ values

    @property
    def name(self) -> str:
        """The name of the variant, else of the `train` block or model."""
        return self.expanded.name

    @property
    def source(self) -> Source:
        """The text of the spec and its name."""
        return self._analysis.source

    @property
    def document(self) -> doc.Document:
        """What the file says, before any variant or setting."""
        return self._analysis.module.document

    @property
    def module(self) -> Module:
        """The file with all it imports, before any variant or setting."""
        return self._analysis.module

    @property
    def amended(self) -> Module:
        """The file with all it imports, the variant and settings applied."""
        return self._analysis.resolution.module

    @property
    def expanded(self) -> Expanded:
        """Every parameter bound, every part an instance with known shapes."""
        found = self._analysis.resolution.expanded
        assert found is not None, "a spec without errors is expanded"
        return found

    @property
    def variants(self) -> list[str]:
        """The names of the variants that the file declares."""
        return [d.name for d in self.document.declarations if isinstance(d, doc.Variant)]

    def levels(self) -> LevelGraph:
        """The level graph: everything that learns, fast to slow, and what flows between."""
        graph = self._analysis.graph
        assert graph is not None, "a spec without errors has a level graph"
        return graph

    # ------------------------------------------------------------------ texts

    def expand(self) -> str:
        """The complete spec as `.nl` text: imports in line, variant and settings applied, every default
        stated.

        Each value's remark says where it came from. The text parses again and compiles to the same thing.
        """
        from nldsl.api.expand import expand

        if self._text is None:
            self._text = expand(self._analysis.resolution)
        return self._text

    def why(self, path: str) -> str:
        """The history of one value: what it was first, and who changed it.

        Raises:
            SpecError: the path matches nothing; the finding names what is near.
        """
        from nldsl.api.history import why

        return why(self._analysis, path)

    def schedule(self) -> str:
        """What a run will change when: outer levels, their updates and costs, the first steps, what never
        happens.
        """
        from nldsl.levels.draw.schedule import as_text
        from nldsl.levels.outer import assign
        from nldsl.levels.schedule import schedule

        if self.expanded.training is None:
            return f"{self.expanded.name} has no `train` block, and so no schedule.\n"
        return as_text(schedule(self.expanded, assign(self.expanded), self.levels()))

    def plan(self) -> str:
        """For each memory its engine, why that fits, and what kept the others away."""
        from nldsl.api.planned import plan

        return plan(self.expanded)

    def memory(self) -> str:
        """Three layers of memory: what weights, cache and context hold, and when that changes."""
        from nldsl.levels.layers import as_text

        return as_text(self.expanded, self.levels())

    def print_after(self, name: str) -> str:
        """The value after one stage of `PASSES`, as text.

        Raises:
            ValueError: there is no such stage.
        """
        match name:
            case "document":
                return self.document.model_dump_json(indent=2)
            case "expand":
                return self.expand()
            case "levels":
                from nldsl.levels.draw import render

                return render(self.levels(), "text")
            case "plan":
                return self.plan()
            case _:
                raise ValueError(
                    f"there is no stage `{name}`; known are {', '.join(f'`{p}`' for p in PASSES)}"
                )

    def rule(
        self,
        name: str,
        model_or_params: nn.Module | Iterable[Tensor] | Iterable[dict[str, Any]],
        rate: float,
        **options: Any,
    ) -> Optimizer:
        """A learning rule that the spec declares or imports, or one of the library's, as an optimizer.

        Arguments and errors are those of `nldsl.rule`.
        """
        from nldsl.api.rules import rule_of

        return rule_of(self.module, name, model_or_params, rate, options)

    def study(
        self,
        name: str | None = None,
        *,
        auto: bool = False,
        families: Sequence[str] | None = None,
        only: Sequence[str] = (),
        most: int | None = None,
        seeds: int | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> StudyPlan:
        """The plan of an `ablate` block of the spec, or with `auto` of proposals for it.

        Arguments and errors are those of `nldsl.study`; the spec's settings change every variant.
        """
        from nldsl.ablate.plan import plan

        return plan(
            self, name, auto=auto, families=families, only=only, most=most, seeds=seeds, seconds=seconds
        )

    # ------------------------------------------------------------------ builds

    def shortage(self, memory_bytes: int) -> list[Diagnostic]:
        """A finding (NL0810) where training needs more than `memory_bytes`; else nothing."""
        from nldsl import checks
        from nldsl.checks.budget import fits_the_machine
        from nldsl.resolve.findings import Findings

        found = Findings()
        subject = checks.subject_of(self._analysis.resolution, memory_bytes=memory_bytes)
        if subject is not None:
            fits_the_machine(subject, found)
        return found.items

    @property
    def training_bytes(self) -> int:
        """Bytes that training needs at least: weights, gradients, rules, states and activations in fp32."""
        from nldsl import checks
        from nldsl.checks.budget import estimate

        subject = checks.subject_of(self._analysis.resolution)
        return estimate(subject).total if subject is not None else 0

    def compile(self, folder: str | os.PathLike[str], *, force: bool = False) -> Build:
        """Write the folder of PyTorch code that runs without nldsl.

        The same spec and version give the same bytes.  Files that were edited by hand, and folders that hold
        something else, are left alone unless `force` is true.

        Raises:
            SpecError: the spec has no model, or its own text file cannot be read.
            nldsl.run.files.FileProblem: the folder cannot be written, or holds what is not ours.
        """
        from nldsl.api.builds import write

        return write(self, folder, force=force)

    def stale(self, folder: str | os.PathLike[str]) -> list[str]:
        """The files of a build folder that `compile` would now write differently; empty where it is up to
        date.
        """
        from nldsl.api.builds import stale

        return stale(self, folder)

    # ------------------------------------------------------------------ showing itself

    def __repr__(self) -> str:
        graph = self.levels()
        levels = f"{len(graph.levels)} level{'s' * (len(graph.levels) != 1)}"
        return f"<Spec {self.name} of {self.source.name}: {graph.parameters:,} parameters, {levels}>"

    def _repr_html_(self) -> str:
        from nldsl.levels.draw import render

        return render(self.levels(), "svg")


def load(
    path: str | os.PathLike[str] | Source,
    *,
    variant: str | None = None,
    set: Settings | None = None,
) -> Spec:
    """Read, resolve and check a spec.

    Args:
        path: an `.nl` or YAML file, whose imports are read below its folder; or a `Source`, which imports
            only `std`.
        variant: the variant (or `train` block) to use; the first `train` block by default.
        set: values to change, after the variant: `{"model.dim": 64, "steps": 100, "DeltaNet.rate": "x |>
            linear(heads)"}`.
            A value is a number, a boolean, or the text of an expression. Findings point at it as `--set
            model.dim`.

    Raises:
        SpecError: the spec has errors; `.diagnostics` holds every finding.
        OSError: the file cannot be read (`FileNotFoundError` where it is missing); the message names what is
            near.
        ValueError: a setting is not of the form `path=value`.
    """
    source = path if isinstance(path, Source) else read_source(path)
    reader = None if isinstance(path, Source) else reader_beside(path)
    extra, wrong = amendments(set)
    analysis = analyse(linked(source, reader), variant=variant, extra=tuple(extra))
    found = [*analysis.findings, *wrong]
    if any(d.severity == "error" for d in found):
        raise SpecError(found)
    return Spec(analysis, variant=variant, settings=tuple(extra))


def of_module(
    module: Module, *, variant: str | None = None, settings: tuple[doc.Amendment, ...] = ()
) -> Spec:
    """A variant of a file that has been read and linked, amended by `settings`; raises `SpecError`."""
    analysis = analyse(Linked(module.source, module, (), ()), variant=variant, extra=settings)
    if analysis.has_errors:
        raise SpecError(analysis.findings)
    return Spec(analysis, variant=variant, settings=settings)
