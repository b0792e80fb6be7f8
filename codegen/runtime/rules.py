"""Learning rules as `torch.optim.Optimizer`s.

`make(rule, parameters, rate, **options)` is the way in.  In the equations W are the weights, g
their gradient, `rate` the learning rate and `decay` a decay that is decoupled from the gradient
(`W <- (1 - rate * decay) W`, before the update) except where a rule says otherwise.

A rule that treats matrices as matrices (`muon`, `m3`, `delta_momentum`) looks at the group option `matrix`:
None (default) means parameters with two axes, True all with two or more (leading axes are a
stack of matrices), False none.
"""

from __future__ import annotations

import difflib
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]

# Muon's quintic (Keller Jordan): singular values from 0.01 up go to [0.68, 1.13] in five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly, by Newton-Schulz iteration; zero stays zero.

    X = M / |M|_F;  `rounds` times  A = X X^T,  X <- a X + (b A + c A^2) X  (Nested Learning, Eq. 42-44,
    in the form of the reference Muon).  `matrix` is [..., rows, columns].

    >>> orthogonal(torch.zeros(2, 3)).abs().max().item()
    0.0
    """
    wide = matrix.size(-2) <= matrix.size(-1)
    x = matrix if wide else matrix.mT
    # The norm is guarded by a term far below any gradient that is not zero, so zero divides to zero.
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


def shape_scale(parameter: Tensor) -> float:
    """Muon's scale for tall matrices, sqrt(max(1, rows / columns))."""
    return math.sqrt(max(1.0, parameter.size(-2) / parameter.size(-1)))


def is_matrix(parameter: Tensor, group: dict[str, Any]) -> bool:
    """Whether a rule for matrices applies to `parameter` (see the head of this file)."""
    asked = group.get("matrix")
    return parameter.ndim == 2 if asked is None else bool(asked) and parameter.ndim >= 2


def adamw_step(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """One AdamW step for what a rule for matrices leaves aside.

    M <- b1 M + (1 - b1) g;  V <- b2 V + (1 - b2) g^2;
    W <- W - rate (M / (1 - b1^t)) / (sqrt(V / (1 - b2^t)) + eps).
    """
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state.update(step=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
    state["step"] += 1
    beta1, beta2 = group["adam_betas"]
    rate = group["lr"] * group["adam_scale"]
    state["first"].lerp_(gradient, 1 - beta1)
    state["second"].lerp_(gradient.square(), 1 - beta2)
    size = (state["second"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["adam_eps"])
    parameter.mul_(1 - rate * group["weight_decay"])
    parameter.addcdiv_(state["first"], size, value=-rate / (1 - beta1 ** state["step"]))


class Rule(Optimizer, ABC):
    """An optimizer whose update is one function of a parameter, its state and its group."""

    @abstractmethod
    def update(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change `parameter` in place by its `grad`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, self.state[parameter], group)
        return loss


class Muon(Rule):
    """Momentum, orthogonalised (Nested Learning, Eq. 42-44; the reference code of Keller Jordan).

    S <- beta S + (1 - beta) g;  U = beta S + (1 - beta) g if `nesterov` else S;
    W <- (1 - rate decay) W - rate sqrt(max(1, rows / columns)) NS(U).
    Parameters that are no matrices are left to AdamW at `adam_scale` times the rate.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        beta: float = 0.95,
        nesterov: bool = True,
        rounds: int = 5,
        decay: float = 0.0,
        adam_scale: float = 1.0,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta": beta,
            "nesterov": nesterov,
            "rounds": rounds,
            "weight_decay": decay,
        }
        defaults |= {"adam_scale": adam_scale, "adam_betas": adam_betas, "adam_eps": adam_eps, "matrix": None}
        super().__init__(params, defaults)

    def update(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """See the class."""
        if not is_matrix(parameter, group):
            return adamw_step(parameter, state, group)
        gradient = parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        beta = group["beta"]
        state["momentum"].lerp_(gradient, 1 - beta)
        direction = gradient.lerp(state["momentum"], beta) if group["nesterov"] else state["momentum"]
        step = orthogonal(direction, group["rounds"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(step, alpha=-group["lr"] * shape_scale(parameter))
        return None


class M3(Rule):
    """Multi-scale momentum Muon (Nested Learning, Eq. 75 and Algorithm 1).

    near <- fast near + (1 - fast) g;  size <- norm size + (1 - norm) g^2;
    W <- (1 - rate decay) W - rate (NS(near) + mix NS(far)) / (sqrt(size) + eps);
    after every `period` gradients:  far <- slow far + (1 - slow) mean of the block.
    The slow memory is read from the next step on, and its orthogonal form is kept for the whole block.

    `accumulate = "sum"` is the printed algorithm, in which nothing is forgotten: near += fast g,
    size += norm g^2, far += slow (sum of the block).  `divide = "root"` is printed too; NS does not know the
    scale of gradients and 1 / sqrt(size) does, so small gradients then make large steps.
    `divide = "relative"` divides by sqrt(size) over its own root mean square, so the rate means what it
    means for Muon; `shape` turns on Muon's scale for tall matrices.  Parameters that are no matrices are left
    to AdamW at `adam_scale` times the rate.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        fast: float = 0.9,
        slow: float = 0.9,
        norm: float = 0.999,
        mix: float = 0.5,
        period: int = 16,
        eps: float = 1e-8,
        rounds: int = 5,
        accumulate: Literal["ema", "sum"] = "ema",
        divide: Literal["root", "relative"] = "root",
        shape: bool = False,
        decay: float = 0.0,
        adam_scale: float = 1.0,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
    ) -> None:
        if accumulate not in ("ema", "sum"):
            raise ValueError(f"`accumulate` is `{accumulate}`; it can be `ema` or `sum`")
        if divide not in ("root", "relative"):
            raise ValueError(f"`divide` is `{divide}`; it can be `root` or `relative`")
        if period < 1:
            raise ValueError(f"`period` is {period}; it has to be 1 or more")
        defaults = {
            "lr": lr,
            "fast": fast,
            "slow": slow,
            "norm": norm,
            "mix": mix,
            "period": period,
            "eps": eps,
        }
        defaults |= {"rounds": rounds, "accumulate": accumulate, "divide": divide, "shape": shape}
        defaults |= {"weight_decay": decay, "adam_scale": adam_scale, "adam_betas": adam_betas}
        super().__init__(params, defaults | {"adam_eps": adam_eps, "matrix": None})

    def update(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """See the class."""
        if not is_matrix(parameter, group):
            return adamw_step(parameter, state, group)
        gradient = parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = 0
            state |= {
                name: torch.zeros_like(parameter) for name in ("near", "far", "far_read", "size", "block")
            }
        state["step"] += 1
        sums = group["accumulate"] == "sum"

        def gather(memory: Tensor, value: Tensor, keep: float) -> None:
            memory.add_(value, alpha=keep) if sums else memory.lerp_(value, 1 - keep)

        gather(state["near"], gradient, group["fast"])
        gather(state["size"], gradient.square(), group["norm"])
        state["block"].add_(gradient)
        size = state["size"].sqrt()
        if group["divide"] == "relative":
            size = size / size.square().mean((-2, -1), keepdim=True).sqrt_().clamp_min_(group["eps"])
        step = orthogonal(state["near"], group["rounds"]).add_(state["far_read"], alpha=group["mix"])
        scale = shape_scale(parameter) if group["shape"] else 1.0
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(step, size.add_(group["eps"]), value=-group["lr"] * scale)
        if state["step"] % group["period"] == 0:
            gather(state["far"], state["block"] if sums else state["block"] / group["period"], group["slow"])
            state["far_read"] = orthogonal(state["far"], group["rounds"])
            state["block"].zero_()
        return None


class DeltaMomentum(Rule):
    """Momentum that erases along the gradient before it writes (Nested Learning, Eq. 48-49).


    explicit:  S <- S (beta I - eta g^T g) - g;      stable while eta |g|^2 < 1 + beta
    implicit:  S <- (beta S - g) (I + eta g^T g)^-1;  always stable
    W <- (1 - rate decay) W + rate S.  The paper's memory is eta S, with eta = rate.
    What is no matrix takes the same rule element by element, with g^2 for g^T g.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        beta: float = 0.9,
        eta: float = 0.1,
        form: Literal["implicit", "explicit"] = "implicit",
        decay: float = 0.0,
    ) -> None:
        if form not in ("implicit", "explicit"):
            raise ValueError(f"`form` is `{form}`; it can be `implicit` or `explicit`")
        defaults = {"lr": lr, "beta": beta, "eta": eta, "form": form, "weight_decay": decay, "matrix": None}
        super().__init__(params, defaults)

    def update(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """See the class."""
        gradient = parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        eta, beta, memory = group["eta"], group["beta"], state["momentum"]
        matrix = is_matrix(parameter, group)
        if group["form"] == "explicit":
            erased = memory @ gradient.mT @ gradient if matrix else memory * gradient.square()
            memory.mul_(beta).sub_(eta * erased + gradient)
        else:
            written = beta * memory - gradient
            solved = (
                right_solve(written, gradient, eta) if matrix else written / (1 + eta * gradient.square())
            )
            memory.copy_(solved)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(memory, alpha=group["lr"])


def right_solve(written: Tensor, gradient: Tensor, eta: float) -> Tensor:
    """`written (I + eta g^T g)^-1`, through the smaller of the two Gram matrices.

    (I + e g^T g)^-1 = I - e g^T (I + e g g^T)^-1 g  (Woodbury).
    """
    rows, columns = gradient.shape[-2:]
    eye = torch.eye(min(rows, columns), dtype=gradient.dtype, device=gradient.device)
    if columns <= rows:
        return torch.linalg.solve(eye + eta * gradient.mT @ gradient, written, left=False)
    inner = torch.linalg.solve(eye + eta * gradient @ gradient.mT, gradient)
    return written - eta * (written @ gradient.mT) @ inner


# --------------------------------------------------------------------------- by name


def _flavour(groups: list[dict[str, Any]]) -> dict[str, bool]:
    """The fastest form that torch has for these parameters."""
    fusable = all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for g in groups for p in g["params"]
    )
    return {"fused": True} if fusable else {"foreach": True}


def gd(groups: list[dict[str, Any]], rate: float, decay: float = 0.0) -> Optimizer:
    """Gradient descent: W <- (1 - rate decay) W - rate g  (Nested Learning, Eq. 8)."""
    return SGD(groups, lr=rate, weight_decay=decay, foreach=True)


def momentum(groups: list[dict[str, Any]], rate: float, beta: float = 0.9, decay: float = 0.0) -> Optimizer:
    """S <- beta S + g + decay W;  W <- W - rate S  (Nested Learning, Eq. 10-13; decay goes through S)."""
    return SGD(groups, lr=rate, momentum=beta, weight_decay=decay, foreach=True)


def nesterov(groups: list[dict[str, Any]], rate: float, beta: float = 0.9, decay: float = 0.0) -> Optimizer:
    """S <- beta S + g + decay W;  W <- W - rate (g + decay W + beta S)."""
    return SGD(groups, lr=rate, momentum=beta, nesterov=True, weight_decay=decay, foreach=True)


def adagrad(groups: list[dict[str, Any]], rate: float, eps: float = 1e-10, decay: float = 0.0) -> Optimizer:
    """V <- V + g^2;  W <- W - rate g / (sqrt(V) + eps), with `decay W` added to g."""
    return Adagrad(groups, lr=rate, eps=eps, weight_decay=decay, foreach=True)


def rmsprop(
    groups: list[dict[str, Any]],
    rate: float,
    beta: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    decay: float = 0.0,
) -> Optimizer:
    """V <- beta V + (1 - beta) g^2;  W <- W - rate g / (sqrt(V) + eps), with `decay W` added to g."""
    return RMSprop(groups, lr=rate, alpha=beta, eps=eps, momentum=momentum, weight_decay=decay, foreach=True)


def adam(
    groups: list[dict[str, Any]],
    rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.0,
) -> Optimizer:
    """AdamW's update, with `decay W` added to g instead of decoupled (Nested Learning, Eq. 100-105)."""
    return Adam(groups, lr=rate, betas=(beta1, beta2), eps=eps, weight_decay=decay, **_flavour(groups))


def adamw(
    groups: list[dict[str, Any]],
    rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.0,
) -> Optimizer:
    """Adam with decoupled decay (Nested Learning, appendix B).

    With M, V the exponential averages of g and g^2, each divided by 1 - beta^t:
    W <- (1 - rate decay) W - rate M / (sqrt(V) + eps).
    """
    return AdamW(groups, lr=rate, betas=(beta1, beta2), eps=eps, weight_decay=decay, **_flavour(groups))


RULES: dict[str, Callable[..., Optimizer]] = {
    "gd": gd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "muon": Muon,
    "m3": M3,
    "delta_momentum": DeltaMomentum,
}


def make(rule: str, params_or_groups: Parameters, rate: float, **options: Any) -> Optimizer:
    """The optimizer called `rule` over parameters or groups of them.

    A group is a dict with `params` and what differs from `options` there: `decay`, `matrix`.
    Raises `ValueError`, naming the nearest, for a rule or option that does not exist.

    >>> make("gd", [torch.nn.Parameter(torch.zeros(2))], 0.1).param_groups[0]["lr"]
    0.1
    >>> make("adamv", [], 0.1)
    Traceback (most recent call last):
    ValueError: there is no rule `adamv`; did you mean `adam`, `adamw`?
    """
    if rule not in RULES:
        raise ValueError(f"there is no rule `{rule}`; {_near(rule, RULES)}")
    maker = RULES[rule]
    known = [
        name for name in inspect.signature(maker).parameters if name not in ("groups", "params", "rate", "lr")
    ]
    for name in options:
        if name not in known:
            raise ValueError(f"rule `{rule}` has no option `{name}`; {_near(name, known)}")
    items = list(params_or_groups)
    groups = [dict(g) for g in items if isinstance(g, dict)] or [{"params": items}]
    for group in groups:
        if "decay" in group:
            group["weight_decay"] = group.pop("decay")
        group["params"] = list(group["params"])
    return maker(groups, rate, **options)


def _near(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(f"`{n}`" for n in near) + "?"
    return "known: " + ", ".join(f"`{n}`" for n in names)
