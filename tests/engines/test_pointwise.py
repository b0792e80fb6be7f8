"""Parts with backwards of their own, against the same in torch's words."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nldsl.codegen.engines.pointwise import causal_conv, causal_conv_plainly, unit_plainly, unit_vectors


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("reach", [1, 2, 4])
def test_conv_is_torchs(tokens: int, reach: int) -> None:
    x, weight = draw(2, tokens, 3), draw(3, 1, reach)
    padded = F.pad(x, (0, 0, reach - 1, 0)).transpose(1, 2)
    expected = F.conv1d(padded, weight, groups=3).transpose(1, 2) if tokens else x.clone()
    for found in (causal_conv(x, weight), causal_conv_plainly(x, weight)):
        torch.testing.assert_close(found, expected)
        cotangent = torch.randn_like(expected)
        grads = [
            torch.autograd.grad(y, (x, weight), cotangent, retain_graph=True, materialize_grads=True)
            for y in (found, expected)
        ]
        torch.testing.assert_close(*grads)


def test_unit_is_torchs_even_for_nothing() -> None:
    with torch.no_grad():
        x = draw(4, 3)
        x[1] = 0
        x[2] *= 1e-9
    x.requires_grad_()
    found, expected = unit_vectors(x), unit_plainly(x, 1e-6)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, x, cotangent), torch.autograd.grad(expected, x, cotangent)
    )


def test_backwards_can_be_differentiated() -> None:
    assert torch.autograd.gradgradcheck(unit_vectors, (draw(2, 3),))
    assert torch.autograd.gradgradcheck(causal_conv, (draw(1, 3, 2), draw(2, 1, 4)))


def test_function_transforms_pass_through() -> None:
    x, weight = torch.randn(3, 2, 5, 2), torch.randn(3, 2, 1, 3)
    torch.testing.assert_close(
        torch.func.vmap(causal_conv)(x, weight), torch.func.vmap(causal_conv_plainly)(x, weight)
    )
    slopes = [
        torch.func.vmap(torch.func.grad(lambda z, f=f: f(z).pow(3).sum()))(x)
        for f in (unit_vectors, lambda z: unit_plainly(z, 1e-6))
    ]
    torch.testing.assert_close(*slopes)


def test_a_weight_follows_the_precision_of_the_features() -> None:
    x = torch.randn(1, 4, 2, dtype=torch.bfloat16)
    assert causal_conv(x, torch.randn(2, 1, 3)).dtype == torch.bfloat16
