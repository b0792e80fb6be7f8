"""Rules as optimizers of any model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import nldsl
from nldsl.api.reading import library

torch.set_num_threads(1)


@pytest.mark.parametrize("name", library().rules)
def test_every_rule_of_a_spec_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = nldsl.rule(name, model, 0.01)
    tokens, losses = torch.arange(7), []
    for _ in range(30):
        loss = (model(tokens) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < losses[0]


def test_parameters_and_groups_serve_too() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    assert nldsl.rule("gd", [weight], 0.1).param_groups[0]["params"] == [weight]
    assert nldsl.rule("adamw", [{"params": [weight], "decay": 0.5}], 0.1).param_groups[0]["decay"] == 0.5


def test_embeddings_are_no_matrices_to_turn() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5))
    groups = nldsl.rule("muon", model, 0.1).param_groups
    assert [(len(g["params"]), g["matrix"]) for g in groups] == [(2, None), (1, False)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("dgd", [nn.Parameter(torch.zeros(2, 2))], 0.1), ValueError, "give the module, not its parameters"),
        (("adamv", nn.Linear(2, 2), 0.1), ValueError, "did you mean `adam"),
        (("gd", nn.Linear(2, 2), -1), ValueError, "the rate is -1"),
        (("gd", nn.Linear(2, 2), float("nan")), ValueError, "the rate is nan"),
        (("gd", nn.Tanh(), 0.1), ValueError, "nothing to learn"),
        (("gd", nn.Parameter(torch.zeros(2)), 0.1), TypeError, r"write `\[parameter\]`"),
        (("gd", 3, 0.1), TypeError, "a `int` is neither a module nor parameters"),
    ],
)
def test_what_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nldsl.rule(*arguments)
