"""Memories as functions: the part of a memory that learns, without the projections around it."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from nldsl.api.block_maps import block_settings
from nldsl.api.inner_rules import step_function
from nldsl.api.modules import ModuleCore
from nldsl.api.objectives import objective_function
from nldsl.api.shapes import check_call, check_size, check_state, check_widths, drawn_start
from nldsl.api.spec import Spec, load
from nldsl.diagnostics.model import Source, SpecError
from nldsl.document import expr as e
from nldsl.resolve.expanded import MemoryInstance, Parameter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nldsl.codegen.plan.engines import Choice
    from nldsl.resolve.modules import Module

Lowering = Literal["chunked", "reference"]
State = dict[str, "Tensor"]
Start = "Tensor | tuple[Tensor, ...]"
GATES = ("rate", "retain", "momentum", "erase", "erase_into")


class Core:
    """One memory as a function of keys, values, queries and gates; a value without weights of its own.

        read, state = core(query=q, key=k, value=v, rate=e)
        read, state = core(query=q2, key=k2, value=v2, rate=e2, state=state)  # goes on from there

    Attributes:
        inputs: the names it takes: `query`, `key`, `value`, and the gates that the memory has.
        lowering: `chunked` or `reference`.
        engine: the name of the engine that runs.
        memory: the memory's instance, with its algebra in `memory.core`.
    """

    def __init__(self, memory: MemoryInstance, choice: Choice, lowering: Lowering) -> None:
        self.memory, self.lowering = memory, lowering
        self._choice = choice
        block = memory.core.map.kind == "block"
        self._map = block_settings(memory.core.map) if block else None
        gates = [g for g in GATES[:3] if getattr(memory.core, g) != "none"]
        gates += [name for name in GATES[3:] if getattr(memory.core, name)]
        gates += ["weight"] if memory.core.weighted else []
        gates += ["objective_parameter"] if memory.core.thresholds else []
        written = memory.core.expression
        self._own: tuple[Parameter, ...] = written.parameters if written is not None else ()
        self._objective = objective_function(written) if written is not None else None
        rule = memory.core.optimizer
        self._rule = step_function(rule) if rule is not None else None
        gates += [one.name for one in self._own if not one.field]
        self.inputs: tuple[str, ...] = ("query", "key", "value", *gates)

    @property
    def engine(self) -> str:
        return self._choice.engine.name

    def __repr__(self) -> str:
        return f"<Core {self.memory.name}: {self.engine} ({self.lowering}), takes {', '.join(self.inputs)}>"

    def init_state(
        self, batch: int, heads: int, dim_k: int, dim_v: int, start: Any = None,
        dtype: torch.dtype | None = None, device: torch.device | str | None = None,
    ) -> State:  # fmt: skip
        """The state before the first token, a dict of named tensors.

        Args:
            batch: sequences.
            heads: memories side by side in each.
            dim_k: features of a key.
            dim_v: features of a value.
            start: the weights to start from, `[heads, ...]` or `[batch, heads, ...]`: one tensor for a matrix
                (`[.., dim_v, dim_k]`) or vector (`[.., dim_v]`), a tuple with one tensor for each layer of a
                deep map.  By default a matrix starts from zeros, and a deep map, whose start is learned in a
                model, from one drawn with a fixed seed: from zeros it could not learn.
            dtype: torch's default where not given.
            device: torch's default where not given.

        Returns:
            `W` `[batch, heads, dim_v, dim_k]` for a matrix, `W1`, `W2`, ... for a deep map, `S...` with
            momentum, `..._start` and `phase` with a period, `key` and `value` for a cache (empty at first).

        Raises:
            ValueError: a size below 1, or a start of another shape.
            TypeError: a start for a cache, which has none.
        """
        import torch

        for name, size in {"batch": batch, "heads": heads, "dim_k": dim_k, "dim_v": dim_v}.items():
            check_size(name, size)
        check_widths(self.memory, dim_k, dim_v)
        made = torch.empty(0, dtype=dtype, device=device)
        beside = {one.name: one.kind for one in self._own if not one.field}
        held = self.memory.core.groups or heads
        held = held if heads % held == 0 else heads
        tensors = {
            "query": made.new_zeros(batch, heads, 0, dim_k),
            "key": made.new_zeros(batch, held, 0, dim_k),
        }
        tensors["value"] = made.new_zeros(batch, held, 0, dim_v)
        for gate in self.inputs[3:]:
            if gate in beside:
                made_for = {"head": (), "value": (dim_v,), "key": (dim_k,)}[beside[gate]]
                tensors[gate] = made.new_zeros(batch, heads, 0, *made_for)
                continue
            size = (dim_k,) if gate in GATES[3:] or getattr(self.memory.core, gate, "") == "channel" else ()
            tensors[gate] = made.new_zeros(batch, heads, 0, *size)
        return self._run(tensors, None, start)[1]

    def __call__(
        self, *, query: Tensor, key: Tensor, value: Tensor, state: State | None = None, start: Any = None,
        **gates: Tensor,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Read and write a sequence, or go on with one.

        Args:
            query: `[batch, heads, tokens, dim_k]`.
            key: `[batch, heads, tokens, dim_k]`; with `writes = n` there are `tokens * n` of them, as there
                are of `value`, `rate` and `erase`.
            value: `[batch, heads, tokens, dim_v]`.
            state: what an earlier call or `init_state` returned, for the same sizes and in the inputs' dtype;
                a sequence may be cut anywhere.
            start: as in `init_state`; only without `state`.
            gates: those of `inputs`: `rate` (at least 0), `retain` and `momentum` (0 to 1), each
                `[batch, heads, tokens]`, or `[batch, heads, tokens, dim_k]` where the memory's gate is per
                channel; `erase` and `erase_into` like a key; `weight` (at least 0), how much a pair counts in
                its windows; what an objective that is an expression reads, by name, `[batch, heads, tokens]`
                or with features behind.

        Returns:
            What each query read, `[batch, heads, tokens, dim_v]`, and the state after the last token.

        Raises:
            TypeError: an input is missing, unknown, or no floating-point tensor, or `state` is no dict of
                tensors.
            ValueError: a shape or dtype does not fit, a gate is out of its range, an input holds NaN or an
                infinity, or `state` is another memory's.
        """
        tensors = check_call(self.memory, self.inputs, {"query": query, "key": key, "value": value, **gates})
        if state is not None:
            if start is not None:
                raise TypeError("both `state` and `start` are given; a state has its start behind it")
            check_state(self.memory.name, state, tensors, self.init_state)
        return self._run(tensors, state, start)

    def _run(self, tensors: dict[str, Tensor], state: State | None, start: Any) -> tuple[Tensor, State]:
        engine = self._choice.engine
        function = getattr(import_module(f"nldsl.codegen.engines.{engine.file}"), engine.function)
        words: dict[str, Any] = dict(self._choice.keywords)
        if self._map is not None:
            words["map"] = self._map
        if self._rule is not None:
            words["rule"] = self._rule
        if self._objective is not None:
            words["objective"] = self._objective
            tensors, words = self._parametrised(tensors, words)
        begin = drawn_start(self.memory, start, tensors)
        if begin is not None:
            words["start"] = begin
        if self.memory.core.rule == "gd_implicit" and self.lowering != "reference":
            from nldsl.codegen.engines.implicit import implicit_rate

            tensors = {**tensors, "rate": implicit_rate(tensors["key"], tensors.get("rate"))}
        if "erase_into" in tensors:
            words["erase"] = (tensors["erase"], tensors["erase_into"])
            tensors = {n: t for n, t in tensors.items() if n not in ("erase", "erase_into")}
        if self.memory.core.writes > 1:
            from nldsl.codegen.engines.several import several

            return several(function, **tensors, state=state, writes=self.memory.core.writes, **words)
        return function(**tensors, state=state, **words)

    def _parametrised(
        self, tensors: dict[str, Tensor], words: dict[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the objective reads, as engines take it."""
        if not self._own:
            return tensors, words
        given = tuple(tensors[p.name][..., None] if p.kind == "head" else tensors[p.name] for p in self._own)
        own = {p.name for p in self._own if not p.field}
        return {n: t for n, t in tensors.items() if n not in own}, words | {"objective_parameter": given}


def core(
    name_or_spec: str | os.PathLike[str] | Spec,
    lowering: Lowering = "chunked",
    *,
    memory: str | None = None,
    dim: int = 64,
    **parameters: float | str,
) -> Core | ModuleCore:
    """The core of a memory: of the standard library by name, or of a spec.

    A memory that writes its own projections, or makes its own targets, cannot be told from what feeds it: its
    core takes `x` `[batch, tokens, dim]` and holds the projections' weights in `.module`.

    Args:
        name_or_spec: a memory of the library, such as `"DeltaNet"`; the path of a spec; or a `Spec`.
        lowering: `chunked`, the engine that fits the memory's algebra, or `reference`, the token loop that
            defines it.
        memory: for a spec, the memory by name or path; it may be left out where the spec has only one.
        dim: for a library memory, its `dim`: sizes that depend on it, such as the width of a deep map's
            hidden layer.
        parameters: other parameters of a library memory, numbers or the text of an expression:
            `core("Titans", dim=32, heads=2, period="8 tokens")`.

    Raises:
        ValueError: no such memory or lowering, or no engine fits (what keeps each away is named).
        SpecError: the spec has errors.

    >>> core("DeltaNet").inputs
    ('query', 'key', 'value', 'rate')
    """
    if lowering not in ("chunked", "reference"):
        raise ValueError(f"there is no lowering `{lowering}`; use `chunked` or `reference`")
    if isinstance(name_or_spec, Spec):
        found = _of_spec(name_or_spec, memory)
    elif isinstance(name_or_spec, str) and "." not in name_or_spec and "/" not in name_or_spec:
        found = _of_library(name_or_spec, dim, parameters)
    else:
        found = _of_spec(load(name_or_spec), memory)
    if found.adaptives() or found.core.target == "self":
        return ModuleCore(found, lowering)
    return Core(found, _choice(found, lowering), lowering)


def _choice(memory: MemoryInstance, lowering: Lowering) -> Choice:
    from nldsl.codegen.plan import engines

    if memory.core.partial != "drop":
        raise ValueError(
            f"`{memory.name}` asks to {memory.core.partial} a partial period, which no lowering does; "
            "leave that out"
        )
    if lowering == "reference":
        return engines.reference(memory.core)
    choice = engines.choose(memory.core)
    if choice.engine is engines.TOKEN_LOOP:
        why = "; ".join(f"{engine.name}: {', '.join(obstacles)}" for engine, obstacles in choice.missed)
        raise ValueError(f'no engine fits `{memory.name}` ({why}); use `lowering="reference"`')
    return choice


def _of_library(name: str, dim: int, parameters: dict[str, Any]) -> MemoryInstance:
    from nldsl.api.reading import amendments, library, linked
    from nldsl.diagnostics.suggest import nearest
    from nldsl.resolve import memory

    known = library().names
    if name not in known:
        near = nearest(name, list(known))
        raise ValueError(
            f"there is no memory called `{name}` in the standard library; "
            + (f"maybe `{near[0]}`" if near else f"it has {', '.join(f'`{k}`' for k in known)}")
        )
    made, wrong = amendments(parameters)
    file = linked(Source("<core>.nl", f"edition 2026\nimport [{name}] from std\n"), None)
    _no_block(name, file.module)
    given = tuple(e.Argument(a.value, a.path, span=a.span) for a in made if a.value is not None)
    found, findings = memory(file.module, name, dim=dim, given=given) if not wrong else (None, [])
    errors = [d for d in (*wrong, *findings) if d.severity == "error"]
    if found is None or errors:
        said = "; ".join(dict.fromkeys(f"{d.message}{f' ({d.help})' if d.help else ''}" for d in errors))
        raise ValueError(f"`{name}` cannot be made: {said or 'it has no core of its own'}")
    return found


def _no_block(name: str, module: Module) -> None:
    """Raises `ValueError` where a name of the library is a block."""
    from nldsl.document import model as doc

    declaration, home = module.lookup(name) or (None, module)
    if not isinstance(declaration, doc.Block):
        return
    beside = {n: home.lookup(n) for n in home.names()}
    inside = [f'`core("{n}")`' for n, found in beside.items() if found and isinstance(found[0], doc.Memory)]
    raise ValueError(
        f"`{name}` is a block, and blocks have no core; "
        f"call that of a memory in it ({', '.join(inside)}), or compile a model that uses `{name}`"
    )


def _of_spec(spec: Spec, wanted: str | None) -> MemoryInstance:
    memories = {i.path: i for i, _ in spec.expanded.instances() if isinstance(i, MemoryInstance)}
    chosen = [m for path, m in memories.items() if wanted is None or wanted in (path, m.name)]
    if len({(m.core, m.name) for m in chosen}) == 1:
        return chosen[0]
    listed = ", ".join(f"`{path}`" for path in memories) or "none"
    if wanted is None:
        raise ValueError(f"`{spec.name}` has {len(memories)} memories; choose one by `memory=`: {listed}")
    fact = f"`{wanted}` is {len(chosen)} memories of" if chosen else f"there is no memory `{wanted}` in"
    raise ValueError(f"{fact} `{spec.name}`; it has {listed}")


__all__ = ["Core", "Lowering", "SpecError", "State", "core"]
