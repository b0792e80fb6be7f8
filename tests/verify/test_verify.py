"""Probes of compiled folders: all pass for what the compiler writes, and each finds the fault it is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nldsl.run.folder import RunError
from nldsl.run.subject import Probe
from nldsl.run.verify import PROBES, verify

GALLERY = ("deltanet", "hope", "hope_attention", "retnet", "titans", "transformer")
SPECS = [
    pytest.param(path.stem, marks=() if path.stem in GALLERY else pytest.mark.slow)
    for path in sorted((Path(__file__).parents[2] / "specs").glob("*.nl"))
]
TOKENS = 41  # two periods of 16 and a little more

Built = Callable[[str], Path]
Broken = Callable[..., Path]


def failed(folder: Path) -> dict[str, str]:
    """What fails, with what is said of it."""
    return {probe.name: probe.detail for probe in verify(folder, tokens=TOKENS) if not probe.ok}


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_compiled_passes(spec: str, built: Built) -> None:
    found = verify(built(spec), tokens=TOKENS)
    assert [probe.name for probe in found] == ["runs", *(name for name, _ in PROBES)]
    assert [probe for probe in found if not probe.ok] == []
    assert all(probe.detail for probe in found)
    assert f"{TOKENS} tokens" in found[0].detail


def test_details_hold_what_was_measured(built: Built) -> None:
    told = {probe.name: probe.detail for probe in verify(built("hope"), tokens=TOKENS)}
    assert "writes are felt from token 16 on" in told["inner clocks"]
    assert "reaches 40 of 40 tokens back" in told["loss reaches back"]
    assert "128 tokens: loss" in told["finite"]
    assert "512 tokens: loss" in told["finite"]


def test_nothing_is_left_changed(built: Built) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    verify(built("transformer"), tokens=9)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


EMBED = "        x = self.embed(tokens)"
INITIALISE = "        initialise(self)"
RETNET = "        state = state or {}\n        # retnet.nl:12"
HALVED = "        for one in (state or {}).get('blocks', []):\n            one['mixer']['core']['W'] /= 2\n"
GAIN = "nn.RMSNorm(dim // heads, eps=1e-6)"
CONV = "        short = reach - 1 - padded.shape[1]"
NORM = "        return F.linear(self.norm(x), self.embed.weight), "

FAULTS = {
    "a convolution that sees the next token": (
        "deltanet",
        "kernels.py",
        [(CONV, f"        y = y + 0.1 * torch.roll(y, -1, dims=1)\n{CONV}")],
        {"causal", "streaming equals whole", "generation equals whole"},
    ),
    "a norm over the batch": (
        "transformer",
        "model.py",
        [(EMBED, f"{EMBED}\n        x = x - 0.1 * x.mean(0, keepdim=True)")],
        {"batch independence"},
    ),
    "a norm over the sequence": (
        "transformer",
        "model.py",
        [(NORM, f"        x = x / (0.1 + x.std(dim=1, correction=0, keepdim=True))\n{NORM}")],
        {"causal", "streaming equals whole", "generation equals whole"},
    ),
    "state kept between calls": (
        "retnet",
        "model.py",
        [
            (RETNET, RETNET.replace("or {}", "or getattr(self, 'last', None) or {}")),
            (NORM, "        self.last = {'blocks': blocks_state} if len(tokens) == 2 else None\n" + NORM),
        ],
        {"state returns to its start"},
    ),
    "a buffer that counts": (
        "transformer",
        "model.py",
        [
            (INITIALISE, f"        self.register_buffer('seen', torch.zeros(()))\n{INITIALISE}"),
            (EMBED, f"        self.seen += 1\n{EMBED}"),
            ("from torch import Tensor, nn", "import torch\nfrom torch import Tensor, nn"),
        ],
        {"state returns to its start"},
    ),
    "a state written in place": (
        "retnet",
        "model.py",
        [(RETNET, f"{HALVED}{RETNET}")],
        {"state is a value"},
    ),
    "a frozen parameter": (
        "titans",
        "model.py",
        [(f"self.out_norm = {GAIN}", f"self.out_norm = {GAIN}.requires_grad_(False)")],
        {"no dead parameter"},
    ),
    "a projection that nothing reads": (
        "titans",
        "model.py",
        [("self.momentum_linear(x)", "0 * self.momentum_linear(x)")],
        {"no dead parameter"},
    ),
    "a period of half the length": (
        "hope",
        "model.py",
        [("(x.shape[1], phase, 16)", "(x.shape[1], phase, 8)"), ("x.shape[1]) % 16", "x.shape[1]) % 8")],
        {"inner clocks"},
    ),
    "a phase that is forgotten": (
        "hope",
        "model.py",
        [('int(state["phase"])', "0")],
        {"streaming equals whole", "generation equals whole"},
    ),
    "a gradient that stops": (
        "deltanet",
        "model.py",
        [("rate=rate, state=", "rate=rate.detach(), state="),
         ("delta(query, key, value,", "delta(query, key.detach(), value.detach(),")],
        {"no dead parameter", "loss reaches back"},
    ),
    "weights drawn without the seed": (
        "transformer",
        "model.py",
        [(INITIALISE, f"{INITIALISE}\n        self.norm.weight.data += torch.rand((), generator=_RANDOM)"),
         ("State = dict[str, Any]", "State = dict[str, Any]\n_RANDOM = torch.Generator().manual_seed(5)"),
         ("from torch import Tensor, nn", "import torch\nfrom torch import Tensor, nn")],
        {"builds repeat"},
    ),
    "a start that is not finite": (
        "transformer",
        "kernels.py",
        [("nn.init.normal_(module.weight, std=0.02)", "nn.init.constant_(module.weight, float('inf'))")],
        {"runs"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, broken: Broken) -> None:
    spec, file, edits, expected = FAULTS[fault]
    found = failed(broken(spec, file, *edits))
    assert expected <= set(found), found
    assert all(found.values())


def test_faults_are_named(broken: Broken) -> None:
    spec, file, edits, _ = FAULTS["a frozen parameter"]
    names = "`blocks.0.mixer.out_norm.weight`, `blocks.1.mixer.out_norm.weight`"
    told = f"2 of 46 parameters get no gradient: {names}"
    assert failed(broken(spec, file, *edits)) == {"no dead parameter": told}


def test_a_wrong_period_is_told_with_both_numbers(broken: Broken) -> None:
    spec, file, edits, _ = FAULTS["a period of half the length"]
    told = "the first token is felt anew at token 8; periods of 16 tokens were promised"
    assert failed(broken(spec, file, *edits)) == {"inner clocks": told}


def test_a_model_that_raises_is_one_finding(broken: Broken) -> None:
    folder = broken("transformer", "model.py", (EMBED, f"{EMBED} @ tokens"))
    assert [probe.name for probe in verify(folder)] == ["runs"]
    assert failed(folder)["runs"].startswith("the model raises RuntimeError: ")


def test_a_model_that_gives_something_else_is_one_finding(broken: Broken) -> None:
    folder = broken("transformer", "model.py", (NORM, "        return 1, "))
    assert verify(folder) == [Probe("runs", False, "the model gives tuple, not logits and a state")]


def test_a_folder_that_is_damaged_is_said_to_be(broken: Broken, tmp_path: Path) -> None:
    with pytest.raises(RunError) as none:
        verify(tmp_path / "nowhere")
    assert none.value.diagnostic.code == "NL0801"
    folder = broken("transformer", "levels.json", ('"weights"', '"wheights"'))
    with pytest.raises(RunError, match=r"`levels\.json` has no `weights`") as lacking:
        verify(folder)
    assert lacking.value.diagnostic.code == "NL0802"
    (folder / "levels.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="is not JSON"):
        verify(folder)
    (folder / "levels.json").unlink()
    with pytest.raises(RunError, match=r"`levels\.json` cannot be read"):
        verify(folder)


def test_a_folder_without_a_run_is_probed_too(built: Built, tmp_path: Path) -> None:
    for name in ("model.py", "kernels.py", "levels.json"):
        (tmp_path / name).write_bytes((built("titans") / name).read_bytes())
    assert failed(tmp_path) == {}
