# What every generated `model.py` offers to the runtime's files beside it.

from dataclasses import dataclass

from torch import nn

# The sizes of the model; the fields differ from spec to spec.
@dataclass(frozen=True)
class Config: ...

# The model: `(tokens [B, T], state | None) -> (logits [B, T, V], state)`.
def build(config: Config = ...) -> nn.Module: ...
