"""What a traced graph depends on, where operations write into buffers and views share memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from nldsl.run.tracing import ancestors, dead, depending, operation, placeholders, results

Fn = Callable[[Tensor, Tensor], Tensor]


def written_by_a_view(x: Tensor, w: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[0].copy_(w[0])
    return y * x


def returned_after_writing(x: Tensor, w: Tensor) -> Tensor:
    y = x.clone()
    z = y.view(-1)
    z.mul_(w.sum())
    return y


def given_as_out(x: Tensor, w: Tensor) -> Tensor:
    y = torch.empty_like(x)
    torch.mm(x, w, out=y)
    return y + 1


def one_of_several(x: Tensor, w: Tensor) -> Tensor:
    y = x.clone()
    y.unbind()[1].add_(w[0])
    return y.t()


def read_before_writing(x: Tensor, w: Tensor) -> Tensor:
    y = x.clone()
    z = y.exp()
    y.mul_(w)
    return z


def written_elsewhere(x: Tensor, w: Tensor) -> Tensor:
    y = x.clone()
    y.clone().mul_(w)
    return y


@pytest.mark.parametrize(
    ("function", "reached"),
    [
        (written_by_a_view, True),
        (returned_after_writing, True),
        (given_as_out, True),
        (one_of_several, True),
        (read_before_writing, False),
        (written_elsewhere, False),
    ],
)
def test_what_is_written_counts_for_who_reads_it_afterwards(function: Fn, reached: bool) -> None:
    graph = make_fx(function)(torch.randn(3, 3), torch.randn(3, 3)).graph
    first, second = placeholders(graph)
    found = ancestors(results(graph))
    assert first in found
    assert (second in found) is reached
    named = {"y": results(graph)[0]}
    assert depending(graph, {second}, named) == ({"y"} if reached else set())
    assert depending(graph, {first}, named) == {"y"}
    assert [operation(node) for node in dead(graph)] == ([] if reached else ["mul_"])


def cut_before_writing(x: Tensor, w: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[0].copy_(w[0].detach())
    return y * x


def cut_after_writing(x: Tensor, w: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[0].copy_(w[0])
    return y.detach() * x


def cut_beside(x: Tensor, w: Tensor) -> Tensor:
    y = x.clone()
    y.detach().add_(1)
    return y.mul_(w)


@pytest.mark.parametrize(
    ("function", "reached"),
    [(cut_before_writing, False), (cut_after_writing, False), (cut_beside, True), (given_as_out, True)],
)
def test_gradients_go_through_buffers_and_stop_at_a_detach(function: Fn, reached: bool) -> None:
    graph = make_fx(function)(torch.randn(3, 3), torch.randn(3, 3)).graph
    first, second = placeholders(graph)
    assert second in ancestors(results(graph))
    live = ancestors(results(graph), gradient=True)
    assert first in live
    assert (second in live) is reached


def test_what_only_looks_is_not_dead() -> None:
    def looking(x: Tensor, w: Tensor) -> Tensor:
        torch.ops.aten._linalg_check_errors(w, "cholesky", is_matrix=True)
        return x + 1

    graph = make_fx(looking)(torch.randn(3), torch.zeros((), dtype=torch.int32)).graph
    assert "_linalg_check_errors" in [operation(node) for node in graph.nodes]
    assert dead(graph) == []


def test_nothing_comes_from_nothing() -> None:
    assert ancestors([]) == set()
