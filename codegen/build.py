"""A build: all files of the folder that `nldsl compile` writes, as a value."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files as resources
from pathlib import PurePath

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit import kernels as kernel_source
from nldsl.codegen.emit import model as model_file
from nldsl.codegen.emit import rules as rules_file
from nldsl.codegen.emit import settings as settings_file
from nldsl.codegen.emit.chains import in_words
from nldsl.codegen.emit.printer import file
from nldsl.codegen.emit.sequence import learning_levels
from nldsl.codegen.plan.engines import choose
from nldsl.codegen.plan.projections import fold, looped
from nldsl.codegen.runtime import FILES as RUNTIME
from nldsl.levels import layers
from nldsl.levels.draw import render
from nldsl.levels.graph import LevelGraph
from nldsl.levels.outer import Assignment
from nldsl.resolve.expanded import ChainInstance, Expanded, MemoryInstance

RECORD = "build.json"


@dataclass(frozen=True, slots=True)
class Request:
    """What a build is made from: a checked spec, where it came from, and the packed corpora by name."""

    expanded: Expanded
    assignment: Assignment
    graph: LevelGraph
    source: str
    spec_text: str
    version: str
    corpus: Callable[[str], dict[str, bytes] | None] = field(default=lambda name: None)


def own_names() -> frozenset[str]:
    """The names of the files of a build that are its own, whatever its text is called."""
    made = (
        "model.py",
        "kernels.py",
        "rules.py",
        "settings.py",
        "levels.json",
        "spec.nl",
        "ruff.toml",
        "README.md",
        RECORD,
    )
    return frozenset((*made, *RUNTIME))


def files(request: Request) -> dict[str, str | bytes]:
    """Every file of the build by name.  The same request gives the same bytes."""
    expanded = request.expanded
    assert expanded.model is not None
    made = model_file.write(expanded.model, _header(request, "The model"))
    found: dict[str, str | bytes] = {
        "model.py": made.text,
        "kernels.py": kernels(made.kernels, request),
        "levels.json": levels(request, made),
        "spec.nl": request.spec_text,
        "ruff.toml": "line-length = 110\n",
    }
    if expanded.training is not None:
        found["settings.py"] = settings_file.write(
            expanded, request.assignment, made, _header(request, "The run")
        )
        found["rules.py"] = rules_file.write(
            rules_file.algorithms(request.assignment), _origin(request, "The learning rules of the run")
        )
        runtime = resources("nldsl.codegen.runtime")
        for name in RUNTIME:
            found[name] = runtime.joinpath(name).read_text(encoding="utf-8")
        for source in expanded.training.data.sources:
            found |= request.corpus(source) or {}
    found["README.md"] = readme(request, made)
    found[RECORD] = record(found, request)
    return dict(sorted(found.items()))


def levels(request: Request, made: model_file.ModelFile) -> str:
    """`levels.json`: the level graph, and where in the model its weights lie.

    `weights` gives patterns over parameter names by spec path; `gradients` says how the loss flows through
    the updates of each memory: both are what `compile --verify` compares the model with.  `layers` says what
    each component holds in weights, cache or context.
    """
    data = json.loads(render(request.graph, "json"), object_hook=_anywhere)
    data["weights"] = dict(sorted(made.patterns.items()))
    memories = (one for one, _ in request.expanded.instances() if isinstance(one, MemoryInstance))
    data["gradients"] = {one.path: _gradient(one) for one in memories}
    assert request.expanded.model is not None
    within = learning_levels(request.expanded.model)
    data["gradients"] |= {level.path: level.gradient for level in within}
    data["layers"] = layers.as_data(request.expanded, request.graph)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _anywhere(found: dict[str, object]) -> dict[str, object]:
    """A component whose span names its file without folders: the same wherever the spec lies."""
    span = found.get("span")
    return found | {"span": PurePath(span).name} if isinstance(span, str) else found


def _gradient(instance: MemoryInstance) -> str:
    tokens = instance.core.gradient_tokens
    return instance.core.gradient if tokens is None else f"{instance.core.gradient} {tokens} tokens"


def record(found: dict[str, str | bytes], request: Request) -> str:
    """What was written, so that a later build can tell a stale file from one edited by hand."""
    hashes = {name: digest(content) for name, content in sorted(found.items())}
    data = {
        "tool": f"nldsl {request.version}",
        "spec": PurePath(request.source).name,
        "variant": request.expanded.variant,
        "files": hashes,
    }
    return json.dumps(data, indent=2) + "\n"


def digest(content: str | bytes) -> str:
    """The sha256 of a file's content."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _command(request: Request) -> str:
    variant = f" --variant {request.expanded.variant}" if request.expanded.variant else ""
    return f"nldsl compile {PurePath(request.source).name}{variant}"


def _header(request: Request, what: str) -> str:
    shapes = "Shapes: B sequences of a batch, T tokens, H heads, d features of a head."
    return f"{_origin(request, what)}\n{shapes}"


def _origin(request: Request, what: str) -> str:
    name = request.expanded.name
    return (
        f"{what} `{name}`, written by nldsl {request.version} from {PurePath(request.source).name}.\n\n"
        f"Make it again with `{_command(request)}`."
    )


def kernels(wanted: dict[str, str], request: Request) -> str:
    """The text of `kernels.py`: the engines the model uses, each with its derivation above it."""
    collected = kernel_source.collect(wanted)
    body: list[c.Step] = []
    for module, said, definitions in collected.sections:
        rule = f"# {'-' * 75} {module}"
        lines = [rule, "#", *textwrap.indent(said, "# ", lambda _: True).replace("# \n", "#\n").split("\n")]
        body.append(c.Verbatim("\n".join(line.rstrip() for line in lines)))
        body += [c.Verbatim(d.text) for d in definitions]
    header = (
        f"Kernels of `{request.expanded.name}`: what `model.py` needs, taken from nldsl {request.version}."
    )
    return file(
        c.File(
            header,
            ("from __future__ import annotations", "", *_sorted_imports(collected.imports)),
            tuple(body),
        )
    )


def _sorted_imports(imports: tuple[str, ...]) -> list[str]:
    """Imports in groups, the standard library first; names from one module on one line."""
    plain = sorted(i for i in imports if i.startswith("import "))
    names: dict[str, list[str]] = {}
    for one in imports:
        if one.startswith("from "):
            module, _, name = one.removeprefix("from ").partition(" import ")
            names.setdefault(module, []).append(name)
    lines = [
        *plain,
        *(f"from {m} import {', '.join(sorted(n, key=_import_order))}" for m, n in sorted(names.items())),
    ]
    third = [line for line in lines if line.split()[1].split(".")[0] == "torch"]
    first = [line for line in lines if line not in third]
    return [*first, *([""] if first and third else []), *third]


def _import_order(name: str) -> tuple[int, str]:
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


def plan_words(expanded: Expanded) -> list[str]:
    """One line for each memory: the engine, and why; of a chain, what it is."""
    lines = []
    for instance, copies in expanded.instances():
        if not isinstance(instance, MemoryInstance):
            if isinstance(instance, ChainInstance):
                lines.append(f"{instance.path} x{copies}: {in_words(instance)}")
            continue
        if looped(instance):
            chosen = fold(instance.core)
            period = instance.core.period
            how = f"read at the start of each period of {period}, folded over its writes ({chosen.reference})"
        else:
            choice = choose(instance.core)
            how = f"{choice.engine.name} ({choice.engine.reference}): {choice.engine.summary}"
        lines.append(f"{instance.path} x{copies}: {how}")
    return lines


def readme(request: Request, made: model_file.ModelFile) -> str:
    """The README of the folder."""
    expanded, training = request.expanded, request.expanded.training
    lines = [
        f"# {expanded.name}",
        "",
        (
            f"Written by nldsl {request.version} from `{PurePath(request.source).name}` "
            f"(`{_command(request)}`). It runs with torch alone."
        ),
        "",
        f"Parameters: {request.graph.parameters:,}.",
        "",
        "## Memories",
        "",
        *(f"- {line}" for line in plan_words(expanded)),
        "",
        "## Levels",
        "",
        "```text",
        render(request.graph, "text", width=100).rstrip(),
        "```",
        "",
        "## Files",
        "",
        f"- `model.py`: {', '.join(f'`{n}`' for n in made.classes)}",
        "- `kernels.py`: the engines the model uses, with their derivations",
        "- `levels.json`: the level graph",
        "- `spec.nl`: the whole spec, with where each value came from",
    ]
    if training is not None:
        lines += [
            "- `settings.py`: the run; `schedule.py`: its clocks",
            "- `train.py`, `loop.py`, `learners.py`, `starts.py`: the clocked loop",
            "- `rules.py`: learning rules",
            "",
            "## Commands",
            "",
            "```sh",
            "python train.py --plan               # which level will change when",
            "python train.py                      # train",
            "python train.py --resume             # go on where it stopped",
            "python train.py --set steps=100      # change a setting",
            'python generate.py --prompt "The "   # write text',
            "```",
        ]
    return "\n".join(line.rstrip() for line in lines) + "\n"
