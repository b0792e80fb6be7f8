"""Every model of the gallery learns a text by heart: a few steps of its own code, made small."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.codegen.building import SPECS, gallery, imported

FLUSH_DENORMAL = True


@pytest.mark.parametrize("name", SPECS)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = imported(gallery(name)).build()
    ids = torch.randint(0, 256, (2, 21), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        logits, _ = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3, losses
