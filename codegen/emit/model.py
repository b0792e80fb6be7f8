"""`model.py`: one class for each block and memory, then the model itself."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit import sequence
from nldsl.codegen.emit.apart import ApartWriter
from nldsl.codegen.emit.blocks import (
    BlockWriter,
    kept_in_flows,
    result_name,
    scratch_name,
    variables,
    write_line,
)
from nldsl.codegen.emit.chains import ChainWriter
from nldsl.codegen.emit.classes import (
    ClassWriter,
    Namespace,
    Written,
    gives,
    notes,
    parameter,
    reserved,
    snake,
    text_of,
)
from nldsl.codegen.emit.flows import FlowWriter
from nldsl.codegen.emit.memories import MemoryWriter, docstring
from nldsl.codegen.emit.numbers import literal
from nldsl.codegen.emit.pretrained import customary_names, of_model
from nldsl.codegen.emit.printer import file, flat
from nldsl.codegen.emit.projections import ProjectionWriter
from nldsl.codegen.plan import engines, projections
from nldsl.document import expr as e
from nldsl.resolve.expanded import (
    BlockInstance,
    ChainInstance,
    MemoryInstance,
    ModelInstance,
    Num,
    Repeat,
    Use,
)

Instance = BlockInstance | MemoryInstance | ChainInstance
NOT_COMPILED = "    compile_region = False  # inner gradients are taken by what layers in its blocks answer"


@dataclass(slots=True)
class ModelFile:
    """The text of `model.py`, the kernels it imports, and where the weights of each spec path lie."""

    text: str
    kernels: dict[str, str]
    patterns: dict[str, list[str]]
    stacked: list[str]
    classes: list[str]
    sizes: dict[str, int | float]
    customary: dict[str, str]


@dataclass(slots=True)
class ModelEmitter:
    """Writes the classes of a model, inner ones first; equal classes are written once."""

    lowering: str = "chunked"
    written: dict[str, list[tuple[str, Written]]] = field(default_factory=dict)
    classes: list[Written] = field(default_factory=list)
    kernels: dict[str, str] = field(default_factory=dict)
    names: Namespace = field(default_factory=lambda: Namespace(kept=reserved))

    # ------------------------------------------------------------------ parts

    def part(self, instance: Instance, methods: frozenset[str] = frozenset()) -> Written:
        """The class of an instance; a memory that is read and written apart has `methods` for that."""
        if isinstance(instance, BlockInstance):
            made, kernels = BlockWriter(instance, self).write()
        elif methods and isinstance(instance, MemoryInstance):
            made, kernels = ApartWriter(instance, self.use).write_apart(self._choice(instance), methods)
        elif isinstance(instance, ChainInstance):
            made, kernels = ChainWriter(instance, self.part, self.construct).write()
        else:
            made, kernels = self._memory(instance)
        text = text_of(made.step)
        for known, one in self.written.get(instance.name, []):
            if known == text:  # the same class, but its weights lie on paths of their own
                return replace(made, name=one.name, step=one.step)
        self.kernels |= kernels
        name = self.names.fresh(instance.name)
        if name != made.name:
            made.step = c.Class(
                name, made.step.bases, made.step.body, made.step.docstring, made.step.decorators
            )
            made.name = name
        self.written.setdefault(instance.name, []).append((text, made))
        self.classes.append(made)
        return made

    def _memory(self, instance: MemoryInstance) -> tuple[Written, dict[str, str]]:
        if projections.looped(instance):
            return ProjectionWriter(instance, self.use).write_projections(
                projections.fold(instance.core, self.lowering)
            )
        return MemoryWriter(instance, self.use).write(self._choice(instance))

    def _choice(self, instance: MemoryInstance) -> engines.Choice:
        core = instance.core
        return engines.choose(core) if self.lowering == "chunked" else engines.reference(core)

    # ------------------------------------------------------------------ instances in pipelines

    def use(self, writer: FlowWriter, flow: Use | Repeat, x: c.Code) -> c.Code:
        """An instance, or a stack of them, applied to `x`."""
        if isinstance(flow, Repeat):
            return self._repeat(writer, flow, x)
        if flow.name is not None and writer.shared is not None:
            return writer.shared(writer, flow, x)
        made = self.part(flow.instance)
        wanted = (
            writer.prefix
            if writer.prefix and writer.prefix not in writer.owner.attributes.taken
            else snake(made.name)
        )
        attribute = writer.owner.module(
            wanted, self.construct(writer.owner, flow.instance, made)
        ).removeprefix("self.")
        writer.owner.children.append((attribute, made))
        if not made.stateful:
            return c.Invoke(f"self.{attribute}", (x,))
        new = c.name(writer.names.fresh(f"{attribute.rstrip('_')}_state"))
        writer.owner.keep(attribute, new)
        target = c.name(writer.result)
        value = c.Invoke(f"self.{attribute}", (x, c.call("state.get", f'"{attribute}"')))
        writer.steps.append(c.Assign(c.Several((target, new), bare=True), value))
        return target

    def construct(self, owner: ClassWriter, instance: Instance, made: Written) -> c.Code:
        """How a class is made with the arguments of an instance."""
        given = [(parameter(p), owner.number(instance.arguments[p])) for p in made.parameters]
        first = given[:1] if given and given[0][0] == "dim" else []
        return c.Invoke(made.name, tuple(v for _, v in first), tuple(given[len(first) :]))

    def _repeat(self, writer: FlowWriter, flow: Repeat, x: c.Code) -> c.Code:
        owner = writer.owner
        parts = [(one, self.part(one)) for one in flow.instances]
        built = [self.construct(owner, one, made) for one, made in parts]
        count = owner.number(flow.count)
        attribute = owner.attributes.fresh("blocks")
        name = f"self.{attribute}"
        body: list[c.Step] = [c.Do(c.Method(c.name(name), "append", (one,))) for one in built]
        owner.modules.append(c.Assign(c.name(name), c.call("nn.ModuleList")))
        owner.modules.append(c.Nested(f"for _ in range({flat(count)})", tuple(body)))
        if len(parts) == 1:
            owner.children.append((f"{attribute}.*", parts[0][1]))
        else:
            rounds = range(int(flow.count))
            owner.children += [
                (f"{attribute}.{r * len(parts) + i}", made)
                for i, (_, made) in enumerate(parts)
                for r in rounds
            ]
        target = c.name(writer.result)
        if x != target:
            writer.steps.append(c.Assign(target, x))
        if not any(made.stateful for _, made in parts):
            writer.steps.append(
                c.Nested(f"for block in {name}", (c.Assign(target, c.Invoke("block", (target,))),))
            )
            return target
        new = c.name(writer.names.fresh(f"{attribute}_state"))
        owner.keep(attribute, new)
        writer.steps.append(c.Assign(new, c.name("[]"), annotation="list[Any]"))
        old = c.name(writer.names.fresh(f"{attribute}_before"))
        writer.steps.append(c.Assign(old, c.name(f'state.get("{attribute}") or [None] * len({name})')))
        if all(made.stateful for _, made in parts):
            step: tuple[c.Step, ...] = (
                c.Assign(
                    c.Several((target, c.name("after")), bare=True),
                    c.Invoke("block", (target, c.name("before"))),
                ),
                c.Do(c.Method(new, "append", (c.name("after"),))),
            )
        else:
            kinds = " | ".join(dict.fromkeys(made.name for _, made in parts if made.stateful))
            step = (
                c.Nested(
                    f"if isinstance(block, {kinds})",
                    (
                        c.Assign(
                            c.Several((target, c.name("after")), bare=True),
                            c.Invoke("block", (target, c.name("before"))),
                        ),
                    ),
                ),
                c.Nested(
                    "else",
                    (
                        c.Assign(
                            c.Several((target, c.name("after")), bare=True),
                            c.Several((c.Invoke("block", (target,)), c.name("None")), bare=True),
                        ),
                    ),
                ),
                c.Do(c.Method(new, "append", (c.name("after"),))),
            )
        writer.steps.append(c.Nested(f"for block, before in zip({name}, {old.text}, strict=True)", step))
        return target

    # ------------------------------------------------------------------ the model

    def model(self, instance: ModelInstance) -> tuple[Written, c.Class]:
        """The model's class and its `Config`."""
        own = {k: Num(v.value, e.Name((k,))) for k, v in instance.arguments.items()}
        owner = ClassWriter(own, "config.{}")
        read = owner.attributes.fresh("read") if sequence.learning_levels(instance) else ""
        steps: list[c.Step] = []
        names = Namespace(frozenset({"tokens"}), kept=kept_in_flows)
        named = variables(instance.lines, names)
        scratch = scratch_name(names)
        embedding: list[str] = []
        logits: c.Code = c.name("tokens")
        for line in instance.lines:
            result = result_name(line, named, scratch)
            writer = FlowWriter(
                owner,
                names,
                steps,
                line.label or "",
                result,
                "",
                self.use,
                variables=named,
                embedding=embedding,
            )
            logits = write_line(line, writer)
        if owner.states:
            steps.insert(0, c.Assign(c.name("state"), c.name("state or {}")))
        steps += gives(logits, owner.state())
        init = c.Function(
            "__init__",
            ("self", "config: Config"),
            "None",
            (
                c.Do(c.Atom("super().__init__()")),
                *owner.sizes,
                *owner.modules,
                c.Do(c.call(self._kernel("initialise", "parts"), "self")),
            ),
        )
        say = "`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."
        forward = c.Function(
            "forward",
            ("self", "tokens: Tensor", "state: State | None = None"),
            "tuple[Tensor, State]",
            tuple(steps),
            say,
        )
        methods = sequence.reading(owner, read, forward) if read else (forward,)
        marks = (c.Verbatim(NOT_COMPILED), c.Blank()) if read else ()
        self.kernels |= owner.kernels
        name = self.names.fresh(instance.name)
        body = (*marks, init, c.Blank(), *methods)
        step = c.Class(name, ("nn.Module",), body, docstring(instance.span))
        made = Written(name, (), True, step, owner.own, owner.children, of_model(instance.lines, owner.made))
        self.classes.append(made)
        fields = [
            c.Verbatim(
                f"    {parameter(k)}: {'int' if isinstance(v.value, int) else 'float'} = "
                f"{literal(v.value).text}"
            )
            for k, v in instance.arguments.items()
            if k in owner.used
        ] or [c.Verbatim("    pass")]
        config = c.Class("Config", (), tuple(fields), "Sizes of the model.", ("dataclass(frozen=True)",))
        return made, config

    def _kernel(self, name: str, file_: str) -> str:
        self.kernels[name] = file_
        return name


def patterns(made: Written, prefix: str = "") -> dict[str, list[str]]:
    """Where the weights of each spec path lie, as patterns over parameter names."""
    found: dict[str, list[str]] = {}
    for path, attribute in made.own:
        name = f"{prefix}{attribute}"
        if name not in found.setdefault(path, []):
            found[path].append(name)
    for attribute, child in made.children:
        for path, names in patterns(child, f"{prefix}{attribute}.").items():
            known = found.setdefault(path, [])
            known += [n for n in names if n not in known]
    return found


def write(model: ModelInstance, header: str, lowering: str = "chunked") -> ModelFile:
    """The whole of `model.py`."""
    emitter = ModelEmitter(lowering)
    made, config = emitter.model(model)
    body: list[c.Step] = [c.Assign(c.name("State"), c.name("dict[str, Any]")), config]
    body += [one.step for one in emitter.classes]
    body.append(
        c.Function(
            "build",
            ("config: Config | None = None",),
            made.name,
            (c.Return(c.call(made.name, "config or Config()")),),
            "The model with fresh weights; seed torch before for the same ones again.",
        )
    )
    text = file(c.File(header + _features(model), (), tuple(body)))
    kernels = dict(sorted(emitter.kernels.items()))
    found = patterns(made)
    sizes = {parameter(k): v.value for k, v in model.arguments.items() if f"    {parameter(k)}: " in text}
    return ModelFile(
        _with_imports(text, kernels),
        kernels,
        found,
        _stacked(found),
        [one.name for one in emitter.classes],
        sizes,
        customary_names(made),
    )


def _stacked(found: dict[str, list[str]]) -> list[str]:
    """Parameters of three axes that are stacks of matrices: the learned starts of fast weights."""
    ends = ("start", "_memory")
    return sorted(
        {n for names in found.values() for n in names if n.split(".")[-1] == "start" or n.endswith(ends[1])}
    )


def _features(model: ModelInstance) -> str:
    said = notes(model.span)
    return f"\n\n{said}" if said else ""


def _with_imports(text: str, kernels: dict[str, str]) -> str:
    """Only the imports that the text uses, in the formatter's order."""
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    standard = ["import math"] if "math" in used else []
    lines = [*standard, "from dataclasses import dataclass", "from typing import Any", ""]
    if "torch" in used:
        lines.append("import torch")
    lines.append("from torch import Tensor, nn")
    if "F" in used:
        lines.append("from torch.nn import functional as F")
    names = ", ".join(sorted(kernels, key=_import_order))
    one = f"from kernels import {names}"
    lines.append("")
    if len(one) <= 110:
        lines.append(one)
    else:
        lines += [
            "from kernels import (",
            *(f"    {n}," for n in sorted(kernels, key=_import_order)),
            ")",
        ]
    head, _, rest = text.partition('"""\n\n')
    return (
        f'{head}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(lines) + "\n\n" + rest.lstrip("\n")
    )


def one_class(memory: MemoryInstance, lowering: str) -> tuple[str, dict[str, str], str, tuple[str, ...]]:
    """The class of one memory alone: its text, the kernels it needs, its name and its constructor's
    parameters.
    """
    emitter = ModelEmitter(lowering)
    made = emitter.part(memory)
    lines = [
        "from __future__ import annotations",
        "",
        "import math",
        "from typing import Any",
        "",
        "import torch",
        "from torch import Tensor, nn",
        "from torch.nn import functional as F",
        "",
        "State = dict[str, Any]",
    ]
    text = file(c.File("One memory.", tuple(lines), tuple(one.step for one in emitter.classes)))
    return text, dict(emitter.kernels), made.name, made.parameters


def _import_order(name: str) -> tuple[bool, bool, str]:
    """Constants, classes, functions; each by letters, whatever their case."""
    return (not name.isupper(), not name[0].isupper(), name.lower())
