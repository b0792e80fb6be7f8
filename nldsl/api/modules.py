"""A memory that makes its own projections or targets, as a module: its core cannot be told from what feeds
it.
"""

from __future__ import annotations

import linecache
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

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
            ValueError: fewer than one sequence.
        """
        import torch

        if batch < 1:
            raise ValueError(f"`batch` is {batch!r}; give a whole number of at least 1")
        like = next(self.module.parameters())
        with torch.no_grad():
            x = torch.zeros(batch, 0, int(self.memory.width), dtype=dtype or like.dtype, device=like.device)
        return self.module(x, None)[1]

    def __call__(self, *, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read and write a sequence `x` `[batch, tokens, dim]`, or go on with one.

        Returns:
            The output `[batch, tokens, dim]` and the state after the last token.

        Raises:
            ValueError: `x` has another width, or holds NaN.
        """
        width = int(self.memory.width)
        if x.dim() != 3 or x.shape[-1] != width:
            raise ValueError(
                f"`x` has the shape {tuple(x.shape)}; `{self.memory.name}` takes [batch, tokens, {width}]"
            )
        if bool(x.isnan().any()):
            raise ValueError("`x` holds NaN; look at what made it")
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
