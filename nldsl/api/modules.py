"""Memories that make their own projections or targets, as modules with weights."""

from __future__ import annotations

import linecache
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nldsl.api.shapes import check_sequence, check_size, compare_states
from nldsl.resolve.expanded import MemoryInstance

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

State = dict[str, Any]


class ModuleCore:
    """A self-modifying memory as a function of the block's input; its projections' weights belong to it.

        y, state = core(x=x)                        # x [batch, tokens, dim]
        y, state = core(x=x2, state=state)          # goes on where the first stopped

    Attributes:
        inputs: `("x",)`.
        lowering: `chunked`, folded by closed forms, or `reference`, token by token.
        memory: the memory's instance, with its algebra in `memory.core`.
        module: the `torch.nn.Module`, with learned starts and static projections as parameters.
    """

    def __init__(self, memory: MemoryInstance, lowering: str, seed: int = 0) -> None:
        self.memory, self.lowering = memory, lowering
        self.inputs: tuple[str, ...] = ("x",)
        self.module = build(memory, lowering, seed)

    def __repr__(self) -> str:
        return f"<Core {self.memory.name}: self-modifying ({self.lowering}), takes x>"

    def init_state(self, batch: int, dtype: torch.dtype | None = None) -> State:
        """The state before the first token of `batch` sequences; `dtype` is the module's where not given.

        Raises:
            ValueError: `batch` is no whole number of at least 1.
        """
        import torch

        check_size("batch", batch)
        like = self._like()
        kind, place = (None, None) if like is None else (like.dtype, like.device)
        x = torch.zeros(batch, 0, int(self.memory.width), dtype=dtype or kind, device=place)
        return self.module(x, None)[1]

    def _like(self) -> Tensor | None:
        """One of the weights, where there are any: inputs have its dtype and device."""
        return next(self.module.parameters(), None)

    def __call__(self, *, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read and write a sequence, or go on with one.

        Args:
            x: `[batch, tokens, dim]`, in the dtype of the module's weights.
            state: what an earlier call or `init_state` returned; a sequence may be cut anywhere.

        Returns:
            The output `[batch, tokens, dim]` and the state after the last token.

        Raises:
            TypeError: `x` is no floating-point tensor, or `state` is not built as this core's.
            ValueError: `x` has another width or dtype, or holds NaN or an infinity; `state` is another
                memory's, of another batch or dtype.
        """
        check_sequence(self.memory, x, self._like())
        if state is not None:
            fresh = self.module(x[:, :0].detach(), None)[1]
            compare_states(self.memory.name, state, fresh)
        return self.module(x, state)


def build(memory: MemoryInstance, lowering: str, seed: int) -> nn.Module:
    """The generated class of one memory, made with weights drawn from `seed`."""
    import torch

    from nldsl.codegen.emit import model as emitted

    text, kernels, name, parameters = emitted.one_class(memory, lowering)
    module = ModuleType(f"nldsl_core_{memory.name}")
    for kernel, file in kernels.items():
        setattr(module, kernel, getattr(import_module(f"nldsl.codegen.engines.{file}"), kernel))
    place = f"<nldsl core {memory.name}, {lowering}>"
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    sys.modules[module.__name__] = module
    exec(compile(text, place, "exec"), module.__dict__)  # noqa: S102 -- our own generated text
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(module, name)(**{p: memory.arguments[p].value for p in parameters})


__all__ = ["ModuleCore", "build"]
