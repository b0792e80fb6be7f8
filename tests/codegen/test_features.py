"""One small spec for each feature: the text of its code, and that the code does what it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.codegen.building import FEATURES, built, feature, gradients, streamed, tokens, written

HERE = Path(__file__).parent
PIECES = (1, 3, 2, 7, 1, 5)
LENGTH = sum(PIECES)


@pytest.mark.parametrize("name", FEATURES)
def test_text(name: str, golden: Callable[[Path, str], None]) -> None:
    golden(HERE / "golden" / f"{name}.py", written(feature(name)).text)


@pytest.mark.parametrize("name", FEATURES)
def test_every_parameter_has_a_finite_gradient(name: str) -> None:
    model = built(feature(name)).train()  # what stands still at test time learns now
    ids = tokens(model, LENGTH)
    logits, _ = model(ids)
    assert logits.shape == (*ids.shape, model.embed.num_embeddings)
    found = gradients(model, ids)
    assert set(found) == {n for n, _ in model.named_parameters()}
    assert all(bool(g.isfinite().all()) for g in found.values())
    assert [n for n, g in found.items() if float(g.abs().max()) == 0] == []


@pytest.mark.parametrize("name", FEATURES)
def test_streaming_equals_whole(name: str) -> None:
    model = built(feature(name))
    ids = tokens(model, LENGTH)
    with torch.no_grad():
        whole, _ = model(ids)
        pieces, _ = streamed(model, ids, PIECES)
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FEATURES)
def test_the_future_does_not_reach_the_past(name: str) -> None:
    model = built(feature(name))
    ids = tokens(model, LENGTH)
    other = ids.clone()
    other[:, 11:] = (other[:, 11:] + 1) % int(model.embed.num_embeddings)
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[0][:, :11], model(other)[0][:, :11], rtol=1e-10, atol=1e-10)
