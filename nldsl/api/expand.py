"""The complete spec: imports in line, the variant and `--set` applied, every default stated with where it
came from.

What is printed parses again and means the same; that it does is a law that the tests hold over every spec.
"""

from __future__ import annotations

from nldsl.api import defaults
from nldsl.api.gather import Gathered, gather
from nldsl.api.provenance import DEFAULT_EDITION, Provenance
from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr, print_statement
from nldsl.resolve import Module, Resolution

Row = tuple[str, str]
"""A line of the spec and the remark that goes behind it."""


def expand(resolution: Resolution) -> str:
    """The complete spec of a resolution without errors, as `.nl` text in canonical form."""
    from nldsl.syntax import parse_body
    from nldsl.syntax.fmt import format_body

    writer = _Writer(resolution)
    text = "\n".join(f"{line}  # {remark}" if remark else line for line, remark in writer.rows())
    body, findings = parse_body(Source("<expanded>.nl", text))
    assert not findings, findings
    return format_body(body)


def lines(resolution: Resolution) -> list[str]:
    """The complete spec as `expand` has it, a line for each field, statement or brace, without any remark.

    Lines are neither indented nor broken, so that they can be compared one by one.
    """
    rows = (line for line, _ in _Writer(resolution).rows())
    return [line for line in rows if line and not line.startswith("#")]


class _Writer:
    def __init__(self, resolution: Resolution) -> None:
        self.resolution = resolution
        self.gathered: Gathered = gather(resolution.module, resolution.base)
        self.instances = defaults.instances_of(resolution.expanded)
        self.origins = Provenance(resolution.module)

    def rows(self) -> list[Row]:
        rows: list[Row] = [(f"edition {self.resolution.module.document.edition or DEFAULT_EDITION}", "")]
        for declaration, module in self.gathered.items:
            rows += [("", ""), *self._declaration(declaration, module)]
        return rows

    def _declaration(self, declaration: doc.Node, module: Module) -> list[Row]:
        match declaration:
            case doc.Let():
                value = self.gathered.renamed(declaration, module, declaration.value)
                return [
                    (
                        f"let {self._name(declaration)} = {print_expr(value)}",
                        self.origins.remark(value, declaration.where()),
                    )
                ]
            case doc.Memory():
                return self._memory(declaration, module)
            case doc.Optimizer():
                return self._optimizer(declaration, module)
            case doc.Block() | doc.Model():
                return self._block(declaration, module)
            case doc.Train():
                return self._train(declaration, module)
            case _:
                raise TypeError(f"no such declaration: {type(declaration).__name__}")

    def _name(
        self, declaration: doc.Let | doc.Memory | doc.Optimizer | doc.Block | doc.Model | doc.Train
    ) -> str:
        return self.gathered.names.get(id(declaration), declaration.name)

    def _header(
        self, declaration: doc.Memory | doc.Optimizer | doc.Block | doc.Model, module: Module
    ) -> list[Row]:
        whole = self.origins.of_span(declaration.where())
        spelled: list[str] = []
        parts = []
        for parameter in declaration.parameters:
            if parameter.default is None:
                spelled.append(parameter.name)
                continue
            default = self.gathered.renamed(declaration, module, parameter.default)
            spelled.append(f"{parameter.name} = {print_expr(default)}")
            origin = self.origins.of(default)
            if origin.who != whole.who:
                parts.append((parameter.name, origin))
        listed = f"({', '.join(spelled)})" if spelled else ""
        return [
            (f"# {self.origins.together(whole, parts)}", ""),
            (f"{declaration.kind} {self._name(declaration)}{listed} {{", ""),
        ]

    def _row(self, name: str, value: e.Expr) -> Row:
        return f"{name} = {print_expr(value)}", self.origins.remark(value)

    # ------------------------------------------------------------------ memories and rules

    def _memory(self, memory: doc.Memory, module: Module) -> list[Row]:
        rows = self._header(memory, module)
        instances = self.instances.get(memory.name, [])
        parameters = defaults.parameters_of(memory, instances)
        stated = defaults.memory_fields(memory, instances)
        for name, value in stated.items():
            new = self.gathered.renamed(memory, module, value)
            new = (
                defaults.mapping(new, parameters)
                if name == "map"
                else defaults.pipeline(new, parameters, module)
            )
            rows.append(self._row(name, new))
        if memory.chain is not None:
            rows.append((f"chain {_chain_words(memory.chain)} {{", ""))
            for level in memory.chain.levels:
                rows += self._chain_level(level, memory, module, parameters)
            rows.append(("}", ""))
        return [*rows, ("}", "")]

    def _chain_level(
        self, level: doc.Level, memory: doc.Memory, module: Module, parameters: defaults.Parameters
    ) -> list[Row]:
        rows: list[Row] = [(f"level {level.name} {{", "")]
        stated = defaults.level_fields(memory, level)
        fields = level.fields | {n: v for n, v in stated.items() if n not in level.fields}
        for name, value in fields.items():
            new = self.gathered.renamed(memory, module, value)
            rows.append(self._row(name, defaults.mapping(new, parameters) if name == "map" else new))
        return [*rows, ("}", "")]

    def _optimizer(self, optimizer: doc.Optimizer, module: Module) -> list[Row]:
        rows = self._header(optimizer, module)
        for memory in optimizer.memories:
            rows.append((f"memory {memory.name} {{", ""))
            rows += [
                self._row(n, self.gathered.renamed(optimizer, module, v)) for n, v in memory.fields.items()
            ]
            rows.append(("}", ""))
        rows += [
            self._row(n, self.gathered.renamed(optimizer, module, v)) for n, v in optimizer.fields.items()
        ]
        if optimizer.otherwise is not None:
            other = self.gathered.renamed(optimizer, module, optimizer.otherwise)
            rows.append((f"otherwise {print_expr(other)}", self.origins.remark(other)))
        return [*rows, ("}", "")]

    # ------------------------------------------------------------------ blocks and training

    def _block(self, block: doc.Block | doc.Model, module: Module) -> list[Row]:
        rows = self._header(block, module)
        parameters = defaults.parameters_of(block, self.instances.get(block.name, []))
        for statement in block.body:
            new = self.gathered.renamed(block, module, statement)
            assert isinstance(new, e.Statement)
            value = defaults.pipeline(new.value, parameters, module)
            line = e.Statement(value, new.target, new.label, span=new.span)
            rows.append((print_statement(line), self.origins.remark(value, new.span)))
        return [*rows, ("}", "")]

    def _train(self, train: doc.Train, module: Module) -> list[Row]:
        rows: list[Row] = [
            (f"# {self.origins.of_span(train.where()).text}", ""),
            (f"train {self._name(train)} {{", ""),
        ]
        for name, value in defaults.train_fields(train).items():
            new = self.gathered.renamed(train, module, value)
            rows.append(self._row(name, defaults.data(new) if name == "data" else new))
        for level in train.levels:
            rows.append((f"level {level.name} {{", ""))
            for name, value in level.fields.items():
                whole = defaults.rule(value, module) if name == "rule" else value
                rows.append(self._row(name, self.gathered.renamed(train, module, whole)))
            rows.append(("}", ""))
        for one in train.evaluations:
            measures = ", ".join(print_expr(m) for m in one.measures)
            rows.append((f"eval {print_expr(one.clock)} {{ {measures} }}", self.origins.remark(one.clock)))
        return [*rows, ("}", "")]


def _chain_words(chain: doc.Chain) -> str:
    """The variant of a chain; of independent levels also how they become one."""
    if chain.variant != "independent":
        return chain.variant
    combine = chain.arguments.get("combine") or chain.arguments.get("0") or e.Name(("weighted",))
    return f"{chain.variant}(combine = {print_expr(combine)})"
