"""The implicit gradient step of a linear memory as an explicit one with a smaller rate.

W_t minimises 1/2 |W k - v|^2 + |W - W~|^2 / (2 e), W~ what retention leaves.  The minimum lies along the
gradient at W~, at the explicit step's rate over 1 + e |k|^2 (Longhorn; Nested Learning, eq. 57):

    W_t = W~ - e / (1 + e |k|^2) (W~ k - v) k^T

so every engine of gradient steps serves it, given this rate.  For other maps and objectives the rule is
defined by the same rate.
"""

from __future__ import annotations

import torch
from torch import Tensor


def implicit_rate(key: Tensor, rate: Tensor | None = None) -> Tensor:
    """The rate of the explicit step, e / (1 + e |k|^2), `[B, H, T]`.

    Args:
        key: `[B, H, T, Dk]`.
        rate: e, `[B, H, T]`; 1 where not given.
    """
    rate = torch.ones_like(key[..., 0]) if rate is None else rate
    return rate / (1 + rate * key.square().sum(-1))
