"""Learning at test time: streams over shared weights, their clocks, and their states as values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from nldsl.run.folder import Build
from tests.runtime.streaming import plastic_level, same, with_levels

FLUSH_DENORMAL = True
LENGTH = 16


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def _pieces(text: torch.Tensor, *sizes: int) -> list[torch.Tensor]:
    return list(text.split([*sizes, len(text) - sum(sizes)]))


# --------------------------------------------------------------------------- what is computed


def test_without_learning_a_stream_is_the_model(build: Build, model, text, two) -> None:
    whole, state = model(text[None])
    stream = build.streams.Stream(model, two, learn=False)
    logits = torch.cat([stream.feed(piece) for piece in _pieces(text, 1, 30, 20)])
    torch.testing.assert_close(logits, whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stream.state, state, rtol=1e-12, atol=1e-12)


def test_several_streams_are_read_at_once_where_nothing_learns(build: Build, model, two) -> None:
    texts = torch.randint(97, 110, (3, 40))
    stream = build.streams.Stream(model, two, learn=False, count=3)
    logits = torch.cat([stream.feed(texts[:, :13]), stream.feed(texts[:, 13:])], 1)
    torch.testing.assert_close(logits, model(texts)[0], rtol=1e-12, atol=1e-12)
    with pytest.raises(build.schedule.UserError, match="3 streams at once cannot learn"):
        build.streams.Stream(model, two, count=3)


def _by_hand(
    model: Any,
    text: torch.Tensor,
    cuts: list[int],
    due: Callable[[int], list[str]],
    clip: float | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Gradient descent at 0.3 on `fast` or `slow` when `due` says so, each by the mean of its gradients."""
    own = {n: w.detach().clone().requires_grad_() for n, w in model.named_parameters()}
    sums = {n: torch.zeros_like(w) for n, w in own.items()}
    counts = {"fast": 0, "slow": 0}
    state, logits, begin = None, [], 0
    for end in [*cuts, len(text)]:
        if end == len(text):
            answer, _ = torch.func.functional_call(model, own, (text[None, begin:], state))
            logits.append(answer[0].detach())
            break
        answer, state = torch.func.functional_call(model, own, (text[None, begin:end], state))
        state = {k: v.detach() for k, v in state.items()}
        logits.append(answer[0].detach())
        cross_entropy(answer[0], text[begin + 1 : end + 1], reduction="sum").backward()
        for name, weight in own.items():
            if weight.grad is not None:
                sums[name] += weight.grad
                weight.grad = None
        counts = {name: count + end - begin for name, count in counts.items()}
        changed = {n: sums[n] / counts[n.split(".")[0]] for n in own if n.split(".")[0] in due(end)}
        norm = torch.cat([g.flatten() for g in changed.values()]).norm() if changed else torch.tensor(0.0)
        factor = float(clip / norm) if clip is not None and norm > clip else 1.0
        with torch.no_grad():
            for name, gradient in changed.items():
                own[name] -= 0.3 * factor * gradient
                sums[name].zero_()
        counts |= dict.fromkeys(due(end), 0)
        begin = end
    return torch.cat(logits), {n: w.detach() for n, w in own.items()}


@pytest.mark.parametrize(
    ("fast", "slow", "cuts"),
    [
        ("1 step", "2 steps", [16, 32, 48, 64]),
        ("5 tokens", "1 step", [5, 10, 15, 16, 20, 25, 30, 32, 35, 40, 45, 48, 50, 55, 60, 64, 65, 70]),
        ("1 token", "3 tokens offset 1", list(range(1, 75))),
        ("24 tokens", "40 tokens", [16, 24, 32, 40, 48, 64, 72]),
        ("2 steps offset 1", "1 step", [16, 32, 48, 64]),
    ],
)
def test_every_clock_is_a_loop_written_by_hand(build: Build, model, text, fast: str, slow: str, cuts) -> None:
    levels = {"fast": fast, "slow": slow}
    settings = with_levels(build, *(plastic_level(build, n, (n,), c) for n, c in levels.items()), clip=0.05)

    def due(end: int) -> list[str]:
        found = []
        for name, clock in levels.items():
            number, unit = int(clock.split()[0]), LENGTH if "step" in clock else 1
            offset = int(clock.split()[-1]) * unit if "offset" in clock else 0
            if end >= offset and (end - offset) % (number * unit) == 0:
                found.append(name)
        return found

    stream = build.streams.Stream(model, settings)
    logits = stream.feed(text)
    wanted, weights = _by_hand(model, text, cuts, due, clip=0.05)
    torch.testing.assert_close(logits, wanted, rtol=1e-12, atol=1e-12)
    for one in stream.levels:
        for name, weight in one.weights.items():
            torch.testing.assert_close(weight.detach(), weights[name], rtol=1e-12, atol=1e-12)
    assert stream.updates == {n: sum(n in due(end) for end in cuts) for n in levels}


def test_rules_go_on_from_their_memories_in_the_checkpoint(build: Build, text) -> None:
    """A stream's first update of AdamW has the averages and the bias correction of the run before it."""
    slow = plastic_level(build, "slow", ("slow",), "1 step", rule="adamw", rate=build.schedule.Rate(1e-2))
    settings = with_levels(build, slow, clip=None)
    trainer = build.loop.Trainer(settings, torch.device("cpu"))
    for _ in range(3):
        trainer.train_step()
    trained = trainer.state_dict()
    stream = build.streams.Stream(trainer.model.eval(), settings, trained)
    before = _weights(trainer.model)
    stream.feed(text[: LENGTH + 1])
    learner = next(one for one in trainer.learners if one.level.name == "slow")
    logits, _ = trainer.model(text[None, :LENGTH])
    trainer.model.zero_grad()
    cross_entropy(logits[0], text[1 : LENGTH + 1]).backward()
    learner.rule.param_groups[0]["lr"] = learner.rule.param_groups[-1]["lr"] = 1e-2
    learner.rule.step()
    for name, weight in stream.levels[0].weights.items():
        assert not torch.equal(weight, before[name])
        torch.testing.assert_close(weight, trainer.model.get_parameter(name), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sizes", [(1,) * 20, (15, 1, 1), (16, 16), (7, 40), (33,), (74,)])
def test_learning_in_pieces_is_learning_in_one_go(build: Build, model, text, two, sizes) -> None:
    once, pieces = build.streams.Stream(model, two), build.streams.Stream(model, two)
    whole = once.feed(text)
    logits = torch.cat([pieces.feed(piece) for piece in _pieces(text, *sizes)])
    torch.testing.assert_close(logits, whole, rtol=1e-12, atol=1e-12)
    for one, other in zip(once.levels, pieces.levels, strict=True):
        assert same(one.state_dict(), other.state_dict())  # bit for bit


def test_rules_that_see_their_layers_go_on_in_pieces_and_from_files(
    build: Build, text, tmp_path: Path
) -> None:
    """`dgd` gathers what layers were given; of the checkpoint it takes memories, and not its open period."""
    slow = plastic_level(
        build, "slow", ("slow.weight",), "24 tokens", rule="dgd", rate=build.schedule.Rate(1e-2)
    )
    settings = with_levels(build, slow)
    trainer = build.loop.Trainer(settings, torch.device("cpu"))
    trainer.train_step()
    trained, model = trainer.state_dict(), trainer.model.eval()
    once, pieces = (build.streams.Stream(model, settings, trained) for _ in range(2))
    once.feed(text)
    for piece in _pieces(text, 7, 12, 1, 30):
        pieces.feed(piece)
        pieces.save(tmp_path / "state.pt")
        pieces = build.streams.Stream(model, settings, trained)
        pieces.load(tmp_path / "state.pt")
    assert once.updates == {"slow": 3}
    assert same(once.levels[0].state_dict(), pieces.levels[0].state_dict())
    other = build.streams.Stream(model, settings, trained | {"levels": {}})
    other.feed(text)
    assert same(once.levels[0].state_dict()["weights"], other.levels[0].state_dict()["weights"])


def test_a_label_is_used_only_once_it_is_known(build: Build, model, text, two) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:8])  # the fast level is due, and what should have followed is not known
    assert stream.updates == {"fast": 0, "slow": 0}
    stream.feed(text[8:9])
    assert stream.updates == {"fast": 1, "slow": 0}
    other = build.streams.Stream(model, two)
    other.feed(torch.cat([text[:8], (text[8:9] + 1) % 128]))
    assert not same(stream.levels[0].state_dict(), other.levels[0].state_dict())


def test_what_is_no_label_teaches_nothing(build: Build, model, text, two) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:11], learn=True)
    stream.feed(text[11:60], learn=False)
    other = build.streams.Stream(model, two)
    other.feed(text[:11], learn=True)
    other.feed((text[11:60] + 1) % 128, learn=False)
    assert stream.updates == other.updates == {"fast": 2, "slow": 1}
    # What was read without learning is context of nothing that was learned after it.
    assert same(stream.levels[0].weights, other.levels[0].weights)
    quiet = build.streams.Stream(model, two)
    quiet.feed(text, learn=False)
    assert quiet.updates == {"fast": 0, "slow": 0}


def test_only_the_last_step_counts_where_the_spec_says_so(build: Build, model, text) -> None:
    settings = with_levels(
        build, plastic_level(build, "slow", ("slow",), "2 steps", reduce="last"), clip=None
    )
    stream = build.streams.Stream(model, settings)
    stream.feed(text[:33])
    _, state = model(text[None, :16])
    logits, _ = model(text[None, 16:32], {k: v.detach() for k, v in state.items()})
    gradient = torch.autograd.grad(cross_entropy(logits[0], text[17:33]), model.slow.weight)[0]
    wanted = model.slow.weight.detach() - 0.3 * gradient
    torch.testing.assert_close(stream.levels[0].weights["slow.weight"].detach(), wanted, rtol=1e-12, atol=0)


def test_resets_and_starts_go_on(build: Build, model, text) -> None:
    """A nested pair: the fast level returns to a start that the slow level learns, whenever that changes."""
    slow = plastic_level(build, "slow", ("slow",), "2 steps")
    fast = plastic_level(build, "fast", ("fast",), "1 step", start="learned in slow", reset="with slow")
    settings = with_levels(build, slow, fast, clip=None)
    stream = build.streams.Stream(model, settings)
    stream.feed(text[:33])
    # By hand: two segments; the start gathers the gradients of both, at the weights of their time.
    own = {n: w.detach().clone().requires_grad_() for n, w in model.named_parameters()}
    start = own["fast.weight"].detach().clone()
    gathered, state = [], None
    for begin in (0, 16):
        logits, state = torch.func.functional_call(model, own, (text[None, begin : begin + 16], state))
        state = {k: v.detach() for k, v in state.items()}
        loss = cross_entropy(logits[0], text[begin + 1 : begin + 17])
        gradients = torch.autograd.grad(loss, [own["fast.weight"], own["slow.weight"], own["fast.bias"]])
        gathered.append(gradients)
        with torch.no_grad():
            own["fast.weight"] -= 0.3 * gradients[0]
            own["fast.bias"] -= 0.3 * gradients[2]
    wanted = start - 0.3 * (gathered[0][0] + gathered[1][0]) / 2
    found = {n: w for one in stream.levels for n, w in one.weights.items()}
    torch.testing.assert_close(found["fast.weight"].detach(), wanted, rtol=1e-12, atol=1e-14)
    step = (gathered[0][1] + gathered[1][1]) / 2
    changed = model.slow.weight.detach() - 0.3 * step
    torch.testing.assert_close(found["slow.weight"].detach(), changed, rtol=1e-12, atol=1e-14)


# --------------------------------------------------------------------------- nothing leaks


def test_interleaved_streams_are_those_run_alone(build: Build, model, two) -> None:
    texts = [torch.randint(97, 110, (60,)) for _ in range(6)]
    before = _weights(model)
    alone = []
    for text in texts:
        stream = build.streams.Stream(model, two)
        alone.append((torch.cat([stream.feed(piece) for piece in text.split(5)]), stream.state_dict()))
    streams = [build.streams.Stream(model, two) for _ in texts]
    answers: list[list[torch.Tensor]] = [[] for _ in texts]
    for begin in range(0, 60, 5):
        for index, stream in enumerate(streams):
            answers[index].append(stream.feed(texts[index][begin : begin + 5]))
    for (logits, state), answer, stream in zip(alone, answers, streams, strict=True):
        assert torch.equal(torch.cat(answer), logits)
        assert same(stream.state_dict(), state)
    assert same(_weights(model), before)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_weights_are_shared_until_they_change(build: Build, model, text, two) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:8])
    places = {n: w.data_ptr() for n, w in model.named_parameters()}
    mine = {n: w.data_ptr() for one in stream.levels for n, w in one.weights.items()}
    assert all(places[n] == place for n, place in mine.items())
    stream.feed(text[8:20])
    fast, slow = ({n: w.data_ptr() for n, w in one.weights.items()} for one in stream.levels)
    assert all(places[n] != place for n, place in fast.items())
    assert all(places[n] == place for n, place in slow.items())
    others = {n: w.data_ptr() for n, w in stream._own.named_parameters() if n.split(".")[0] != "fast"}
    assert all(places[n] == place for n, place in others.items())


def test_a_fork_goes_on_as_the_stream_does_and_apart_from_it(build: Build, model, text, two) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:37])
    fork, third = stream.fork(), stream.fork()
    assert (
        fork.levels[0].weights["fast.weight"].data_ptr() == stream.levels[0].weights["fast.weight"].data_ptr()
    )
    apart = third.feed((text[37:] + 1) % 128)
    logits = stream.feed(text[37:])
    assert torch.equal(fork.feed(text[37:]), logits)
    assert same(fork.state_dict(), stream.state_dict())
    assert not torch.equal(apart, logits)


def test_a_state_is_a_value(build: Build, model, text, two) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text[:37])
    kept = stream.state_dict()
    logits = stream.feed(text[37:])
    stream.load_state_dict(kept)
    assert torch.equal(stream.feed(text[37:]), logits)
    fresh = build.streams.Stream(model, two).state_dict()
    stream.load_state_dict(fresh)
    assert torch.equal(stream.feed(text), build.streams.Stream(model, two).feed(text))


def test_a_new_sequence_keeps_what_was_learned_and_nothing_else(build: Build, model, text, two) -> None:
    stream = build.streams.Stream(model, two)
    stream.feed(text)
    fresh = stream.new_sequence()
    assert (fresh.position, fresh.state) == (0, None)
    own = {n: w.detach() for one in stream.levels for n, w in one.weights.items()}
    wanted, _ = torch.func.functional_call(model, own, (text[None, :7],))
    assert torch.equal(fresh.feed(text[:7]), wanted[0])


# --------------------------------------------------------------------------- what goes wrong


def test_a_rate_that_diverges_is_stopped_and_its_level_named(build: Build, model, text) -> None:
    settings = with_levels(
        build,
        plastic_level(build, "fast", ("fast",), "8 tokens", rate=build.schedule.Rate(1e-3)),
        plastic_level(build, "slow", ("norm_scale",), "8 tokens"),
        clip=None,
    )
    for rate, words in (
        (1e6, r"tokens cost .* nats each: level `slow` has changed"),
        (1e308, "level `slow`"),
    ):
        stream = build.streams.Stream(model, settings, rates={"slow": rate})
        with pytest.raises(build.schedule.UserError, match=words) as caught:
            stream.feed(text.repeat(5))
        assert caught.value.kind == "diverged"
        assert f"`--rate slow={rate / 10:g}`" in caught.value.help
        assert "tokens of the stream" in caught.value.message


def test_rates_are_those_asked_for(build: Build, model, text) -> None:
    settings = with_levels(build, plastic_level(build, "slow", ("slow",), "1 step"), clip=None)
    moved = []
    for rates in ({}, {"slow": 0.6}, {"slow": 0.0}):
        stream = build.streams.Stream(model, settings, rates=rates)
        stream.feed(text[:17])
        moved.append(stream.levels[0].weights["slow.weight"].detach() - model.slow.weight.detach())
    torch.testing.assert_close(moved[1], 2 * moved[0], rtol=1e-9, atol=1e-14)
    assert not moved[2].any()


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"fats": 0.1}, "no plastic level is called `fats`"),
        ({"pretrain": 0.1}, "no plastic level is called `pretrain`"),
        ({"fast": -1.0}, "the rate of level `fast` is -1.0"),
        ({"fast": float("nan")}, "the rate of level `fast` is nan"),
    ],
)
def test_rates_that_cannot_be_are_said(build: Build, model, two, rates: dict, words: str) -> None:
    with pytest.raises(build.schedule.UserError, match=words):
        build.streams.Stream(model, two, rates=rates)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (torch.zeros(0, dtype=torch.int64), "the tokens have the shape"),
        (torch.zeros(2, 5, dtype=torch.int64), "the tokens have the shape"),
        (torch.full((3,), 200), "the text has the token 200, and the model has 128 tokens"),
    ],
)
def test_tokens_that_cannot_be_read_are_said(build: Build, model, two, tokens, words: str) -> None:
    with pytest.raises(build.schedule.UserError, match=words):
        build.streams.Stream(model, two).feed(tokens)
