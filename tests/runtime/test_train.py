"""The clocked loop: updates, accumulation, segments, checkpoints, interruptions, divergence."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.run.folder import Build

Events = list[dict[str, Any]]


def _settings(build: Build, *pairs: str, **changes: Any) -> Any:
    return dataclasses.replace(build.amend.amend(build.settings, pairs), **changes)


def _train(build: Build, settings: Any, **options: Any) -> tuple[Any, Events]:
    events: Events = []
    result = build.train.train(settings, device="cpu", listen=events.append, **options)
    return result, events


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["weights"]


def _steps(events: Events) -> Events:
    return [event for event in events if event["event"] == "step"]


def test_levels_change_on_their_clocks(build: Build) -> None:
    _, events = _train(build, _settings(build, "steps=9"))
    assert [event["step"] for event in _steps(events) if "slow" in event["updated"]] == [4, 8]
    assert all("pretrain" in event["updated"] for event in _steps(events))


def test_a_run_learns_and_tells_what_it_did(build: Build) -> None:
    result, events = _train(
        build, _settings(build, "steps=60", "levels.pretrain.rate=0.05", "evaluate_every=30")
    )
    assert result.code == 0
    assert result.loss_after < result.loss_before - 0.5
    assert result.baselines["bigram"] < result.baselines["unigram"]
    assert result.sample.startswith("ab")
    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["start", "evaluate"]
    assert kinds[-2:] == ["sample", "stop"]
    kept = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert kept == json.loads(json.dumps(events))


def test_gradients_wait_for_their_clock(build: Build) -> None:
    """Four steps of a level with period 4 are one step with the mean of the four gradients."""
    pairs = ("levels.pretrain.rate=0", "levels.slow.rule=gd", "levels.slow.rate=0.1", "clip=none")
    settings = _settings(build, *pairs, "steps=8")
    slow = dataclasses.replace(settings.level("slow"), options={})
    for reduce, factor in (("mean", 1 / 4), ("sum", 1.0)):
        levels = (settings.levels[0], dataclasses.replace(slow, reduce=reduce))
        trainer = build.loop.Trainer(dataclasses.replace(settings, levels=levels), torch.device("cpu"))
        before = trainer.model.slow.weight.detach().clone()
        total = torch.zeros_like(before)
        sampler = build.data.Sampler(trainer.course.corpus.train, 16, 4, 0)
        for _ in range(4):
            batch = sampler.next()
            logits, _ = trainer.model(batch[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            total += torch.autograd.grad(loss, trainer.model.slow.weight)[0]
        for _ in range(4):
            trainer.train_step()
        torch.testing.assert_close(trainer.model.slow.weight.detach(), before - 0.1 * factor * total)


def test_clipping_holds_the_norm_of_what_is_due(build: Build) -> None:
    settings = _settings(build, "clip=0.01", "levels.pretrain.rule=gd", "levels.pretrain.rate=1", "steps=4")
    levels = (
        dataclasses.replace(settings.levels[0], options={}, rate=build.schedule.Rate(1.0)),
        settings.levels[1],
    )
    trainer = build.loop.Trainer(dataclasses.replace(settings, levels=levels), torch.device("cpu"))
    before = [p.detach().clone() for p in trainer.learners[0].parameters.values()]
    facts = trainer.train_step()
    moved = [p.detach() - b for p, b in zip(trainer.learners[0].parameters.values(), before, strict=True)]
    assert facts["norm"] > 0.01
    torch.testing.assert_close(torch.nn.utils.get_total_norm(moved), torch.tensor(0.01), rtol=1e-3, atol=0)


def test_token_clocks_cut_the_sequence_and_carry_the_state(build: Build) -> None:
    settings = _settings(build, "levels.slow.clock=4 tokens", "steps=2")
    seen: list[tuple[int, bool]] = []
    trainer = build.loop.Trainer(settings, torch.device("cpu"))
    forward = trainer.model.forward

    def spy(tokens: torch.Tensor, state: Any = None) -> Any:
        seen.append((tokens.shape[1], state is None))
        assert state is None or not state["sum"].requires_grad
        return forward(tokens, state)

    trainer.model.forward = spy
    facts = trainer.train_step()
    assert seen == [(4, True), (4, False), (4, False), (4, False)]
    assert trainer.learners[1].rule.state[trainer.model.slow.weight]["step"] == 4
    assert trainer.learners[0].changed == 1
    assert facts["updates"] == {"slow": 4, "pretrain": 1}


def test_segments_without_updates_between_change_nothing_for_the_others(build: Build) -> None:
    """A step clock gathers over segments: its gradient is the mean over the sequence, cut or not."""
    losses = []
    for clock in ("4 tokens", "1 step"):
        settings = _settings(
            build, f"levels.slow.clock={clock}", "levels.slow.rate=0", "steps=1", "model.dim=8"
        )
        trainer = build.loop.Trainer(settings, torch.device("cpu"))
        losses.append(trainer.train_step()["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("pairs", [(), ("levels.slow.clock=8 tokens",), ("levels.pretrain.rule=muon",)])
def test_three_steps_and_three_more_are_six_steps_bit_for_bit(
    build: Build, tmp_path: Path, pairs: tuple
) -> None:
    six = _settings(build, *pairs, "steps=6", "evaluate_every=3")
    levels = tuple(
        dataclasses.replace(level, options={}) if level.rule == "muon" else level for level in six.levels
    )
    six = dataclasses.replace(six, levels=levels)
    _train(build, six, out=tmp_path / "whole")

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    result = build.train.train(six, device="cpu", out=tmp_path / "parts", listen=interrupt)
    assert (result.code, result.step) == (130, 3)
    torch.rand(5)  # the state of the generator outside must not matter
    resumed, events = _train(build, six, out=tmp_path / "parts", resume=True)
    assert (resumed.code, resumed.step) == (0, 6)
    whole, parts = _weights(tmp_path / "whole/checkpoint.pt"), _weights(tmp_path / "parts/checkpoint.pt")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    log = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if line["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [event["step"] for event in _steps(events)] == [4, 5, 6]


def test_a_shorter_run_can_be_made_longer(build: Build, tmp_path: Path) -> None:
    _train(build, _settings(build, "steps=4"), out=tmp_path / "run")
    result, _ = _train(build, _settings(build, "steps=8"), out=tmp_path / "run", resume=True)
    assert result.step == 8


@pytest.mark.parametrize(
    ("windows", "told"),
    [
        ("24", []),
        ("all", []),
        ("25", ["`evaluate_windows` is 25, and the held-out text has 24 windows of 16 tokens"]),
        ("64", []),  # the default, which nobody asked for
    ],
)
def test_fewer_windows_than_were_asked_for_are_told_of(build: Build, windows: str, told: list[str]) -> None:
    _, events = _train(build, _settings(build, "steps=0", f"evaluate_windows={windows}"))
    said = [event["text"] for event in events if event["event"] == "warning"]
    assert said == [f"{text}; no more are measured" for text in told]


def test_another_clock_of_a_level_is_told_when_a_run_goes_on(build: Build, tmp_path: Path) -> None:
    four = _settings(build, "steps=4", "levels.slow.clock=2 steps")
    _, events = _train(build, four, out=tmp_path / "run")
    assert not [e for e in events if e["event"] == "warning"]
    other = _settings(build, "steps=8", "levels.slow.clock=4 steps")
    _, events = _train(build, other, out=tmp_path / "run", resume=True)
    told = [event["text"] for event in events if event["event"] == "warning"]
    assert told == ["level `slow` changes every 4 steps from here on, and did so every 2 steps before"]


def test_the_same_seed_gives_the_same_weights(build: Build, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        _train(build, _settings(build, f"seed={seed}"), out=tmp_path / name)
    a, b, c = (_weights(tmp_path / name / "checkpoint.pt") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_checkpoint_of_another_model_is_refused_and_kept(build: Build, tmp_path: Path) -> None:
    _train(build, _settings(build), out=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(build.schedule.UserError) as caught:
        _train(build, _settings(build, "model.dim=4"), out=tmp_path, resume=True)
    assert "`embed.weight` is [128, 8] there and [128, 4] here" in caught.value.message
    other = dataclasses.replace(build.settings.levels[1], name="slower")
    with pytest.raises(build.schedule.UserError, match="has the levels pretrain, slow"):
        _train(build, _settings(build, levels=(build.settings.levels[0], other)), out=tmp_path, resume=True)
    muon = dataclasses.replace(build.settings.levels[1], rule="muon", options={})
    with pytest.raises(build.schedule.UserError, match="level `slow` learned by `m3`"):
        _train(build, _settings(build, levels=(build.settings.levels[0], muon)), out=tmp_path, resume=True)
    with pytest.raises(build.schedule.UserError, match="read its text with length 16"):
        _train(build, _settings(build, "data.length=8"), out=tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"hello"])
def test_a_damaged_checkpoint_is_refused_and_kept(build: Build, tmp_path: Path, damage) -> None:
    _train(build, _settings(build), out=tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(build.schedule.UserError, match="is damaged"):
        _train(build, _settings(build), out=tmp_path, resume=True)
    assert path.read_bytes() == before


def test_a_run_is_not_written_over(build: Build, tmp_path: Path) -> None:
    _train(build, _settings(build), out=tmp_path / "run")
    with pytest.raises(build.schedule.UserError, match="holds a run already"):
        _train(build, _settings(build), out=tmp_path / "run")
    with pytest.raises(build.schedule.UserError, match="there is no checkpoint"):
        _train(build, _settings(build), out=tmp_path / "other", resume=True)


def test_runs_are_numbered(build: Build) -> None:
    with pytest.raises(build.schedule.UserError, match="no run to resume"):
        _train(build, _settings(build), resume=True)
    assert [_train(build, _settings(build))[0].folder.name for _ in range(2)] == ["001", "002"]
    assert _train(build, _settings(build, "steps=7"), resume=True)[0].folder.name == "002"


def test_a_full_disk_leaves_the_old_checkpoint(build: Build, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    build.checkpoint.save(path, {"weights": {"a": torch.zeros(3)}})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(build.schedule.UserError) as caught:
            build.checkpoint.save(path, {"weights": {"a": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == 2
    assert "the checkpoint written before is still there" in caught.value.message
    assert build.checkpoint.load(path)["weights"]["a"].shape == (3,)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_a_folder_that_cannot_be_written_is_said(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(build.schedule.UserError, match="cannot write") as caught:
        _train(build, _settings(build), out=tmp_path / "file" / "run")
    assert caught.value.code == 2


def test_a_level_that_leaves_the_numbers_is_named(build: Build, tmp_path: Path) -> None:
    wild = dataclasses.replace(
        build.settings.levels[0], rule="gd", options={}, rate=build.schedule.Rate(1e25)
    )
    settings = _settings(
        build, "clip=none", "steps=8", "checkpoint_every=1", levels=(wild, build.settings.levels[1])
    )
    with pytest.raises(build.schedule.UserError) as caught:
        _train(build, settings, out=tmp_path)
    error = caught.value
    assert (error.kind, error.code) == ("diverged", 1)
    assert "level `pretrain`" in error.message
    assert "step" in error.message
    assert "levels.pretrain.rate=1e+24" in error.help
    weights = _weights(tmp_path / "checkpoint.pt")
    assert all(value.isfinite().all() for value in weights.values())
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "failed"


def test_a_gradient_that_is_not_finite_changes_no_weight(build: Build) -> None:
    trainer = build.loop.Trainer(_settings(build), torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.model.fast.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(
        build.schedule.UserError,
        match=r"gradient of level `pretrain` .`fast.weight`. is not finite at step 1",
    ):
        trainer.train_step()
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learns": ("nothing.*",)}, "level `slow` learns nothing"),
        ({"rule": "adamx", "options": {}}, "there is no rule `adamx`"),
        ({"options": {"perod": 3}}, "has no option `perod`"),
    ],
)
def test_levels_that_cannot_learn_are_said(build: Build, changes: dict, words: str) -> None:
    level = dataclasses.replace(build.settings.levels[1], **changes)
    with pytest.raises(build.schedule.UserError) as caught:
        _train(build, _settings(build, levels=(build.settings.levels[0], level)))
    assert words in caught.value.message


def test_each_weight_has_one_level(build: Build) -> None:
    first, slow = build.settings.levels
    for learns, words in ((("*",), "both learn"), (("embed",), "no level learns `norm_scale` and 3 more")):
        with pytest.raises(build.schedule.UserError, match=words):
            _train(build, _settings(build, levels=(dataclasses.replace(first, learns=learns), slow)))


def test_frozen_weights_stand_still(build: Build, tmp_path: Path) -> None:
    trainer = build.loop.Trainer(_settings(build, frozen=("embed",)), torch.device("cpu"))
    before = trainer.model.embed.weight.detach().clone()
    trainer.train_step()
    assert torch.equal(before, trainer.model.embed.weight)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("model.vocab=64",), "has a byte of value"),
        (("model.dim=0",), "no model can be built with"),
        (("data.length=30000",), "one window takes"),
        (("data.batch=0",), "`data.batch` is 0"),
        (("nonsense",), "sets nothing"),
    ],
)
def test_settings_that_cannot_work_are_said(build: Build, pairs: tuple[str, ...], words: str) -> None:
    with pytest.raises(build.schedule.UserError) as caught:
        _train(build, _settings(build, *pairs))
    assert words in caught.value.message


def test_devices_are_checked(build: Build) -> None:
    with pytest.raises(build.schedule.UserError, match="there is no device `tpu`"):
        build.session.pick_device("tpu")
    assert build.session.pick_device("cpu") == torch.device("cpu")


def test_the_surroundings_are_put_back(build: Build) -> None:
    before = torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGINT)
    _train(build, _settings(build))
    assert (torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGINT)) == before


def test_bfloat16_runs_on_the_cpu(build: Build) -> None:
    result, events = _train(build, _settings(build, "precision=bfloat16"))
    assert events[0]["precision"] == "bfloat16"
    assert result.code == 0


def test_measures(build: Build) -> None:
    measure = build.schedule.Measure
    wish = (measure("bits_per_byte"), measure("needle", {"length": 96, "count": 4}))
    result, _ = _train(build, _settings(build, measures=wish))
    assert result.measures["bits_per_byte"] == pytest.approx(result.measures["loss"] / 0.6931, rel=1e-3)
    assert 0 <= result.measures["needle"] <= 1
    for bad, words in (
        (measure("perplexty"), "there is no measure"),
        (measure("accuracy", {"x": 1}), "has no option `x`"),
        (measure("needle", {"length": 10}), "does not fit"),
    ):
        with pytest.raises(build.schedule.UserError, match=words):
            _train(build, _settings(build, measures=(bad,)))


def test_only_regions_are_compiled(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, compiled = torch.device("cpu"), []

    def note(module: torch.nn.Module) -> None:
        compiled.append(module)

    monkeypatch.setattr(torch.nn.Module, "compile", note)
    monkeypatch.setattr(build.session.shutil, "which", lambda name: name)
    model = build.checkpoint.construct({"vocab": 16, "dim": 2})
    compile_regions = build.session.compile_regions
    assert compile_regions(model, _settings(build), cpu) is None
    assert compiled == []  # left to the device, a CPU compiles nothing
    compile_regions(model, _settings(build, "compile=true"), cpu)
    assert compiled == [model]
    monkeypatch.setattr(torch.nn.Linear, "compile_region", True, raising=False)
    compile_regions(model, _settings(build, "compile=true"), cpu)
    assert compiled[1:] == [model.fast, model.slow]
    compile_regions(model, _settings(build, "compile=false"), torch.device("cuda"))
    assert len(compiled) == 3
    monkeypatch.setattr(build.session.shutil, "which", lambda name: None)
    assert "C++ compiler" in compile_regions(model, _settings(build, "compile=true"), cpu)


def test_running_out_of_memory_is_said(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(trainer: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(build.loop.Trainer, "train_step", full)
    with pytest.raises(build.schedule.UserError, match="out of memory at step 1 on cpu"):
        _train(build, _settings(build))


def test_no_rate_changes_weights_that_a_level_does_not_learn(build: Build) -> None:
    trainer = build.loop.Trainer(_settings(build, "levels.pretrain.rate=0"), torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for _ in range(4):
        trainer.train_step()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(before[name], p)}
    assert changed == {"slow.weight", "slow.bias"}
