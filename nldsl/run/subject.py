"""What is probed: a compiled folder, its model in float64 with weights off their start, and random tokens.

The weights are moved a little from where a run begins, because a start hides faults: a convolution that
begins as the identity cannot leak, whatever its padding.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nldsl.diagnostics.model import Diagnostic
from nldsl.run.errors import as_run_errors
from nldsl.run.folder import ORDER, Build, RunError, load

_On = TypeVar("_On")
State = Any  # nested dicts, lists and tuples of tensors
USUAL_TOKENS = 67  # beyond a tile of 64 and no multiple of a usual period
SECONDS = 25.0  # what the forward passes of all probes together may take
PASSES = 40  # forward passes over the whole length that the probes take, roughly


@dataclass(frozen=True, slots=True)
class Probe:
    """What one probe found: whether it is as it should be, and the number that was measured."""

    name: str
    ok: bool
    detail: str


Finding = tuple[bool, str]  # whether all is well, and what was measured


class Unfit(Exception):
    """The model does not do what a probe needs; the message says what it does instead."""


@dataclass(frozen=True)
class Subject:
    """A loaded build folder, its level graph, and how much of it fits into a minute.

    `wanted` is how many tokens a sequence of the probes should have; fewer are used where time is short.
    """

    build: Build
    graph: dict[str, Any]
    seed: int = 0
    wanted: int | None = None

    @property
    def settings(self) -> Any:
        """The run's settings, or None for a folder of a model alone."""
        return self.build.settings if "settings" in self.build.modules else None

    @property
    def length(self) -> int:
        """Tokens of one training sequence."""
        return int(self.graph["facts"]["sequence"])

    @property
    def components(self) -> list[dict[str, Any]]:
        """The components of the level graph."""
        return self.graph["components"]

    @cached_property
    def periods(self) -> list[int]:
        """Periods above 1 of the levels that learn inside the sequence, in tokens, that end within one."""
        clocks = (c["clock"] for c in self.components if c["per_sequence"])
        found = {c["period"] for c in clocks if c["unit"] == "token" and 1 < c["period"] < self.length}
        return sorted(found)

    def fresh(self) -> nn.Module:
        """The model as a run begins with it, in float32; the caller seeds."""
        with as_run_errors(self.build) if self.settings is not None else _plain():
            if self.settings is None:
                return self.build.model.build()
            return self.build.checkpoint.construct(self.settings.model)

    @cached_property
    def dtype(self) -> torch.dtype:
        """float64, or float32 for a model that would not fit into memory otherwise."""
        needed = self.graph["parameters"] * 8 * 4
        return torch.float64 if needed < _memory() else torch.float32

    @property
    def tolerance(self) -> float:
        """How far two computations of one number may lie apart, relative to the largest logit."""
        return 1e-10 if self.dtype == torch.float64 else 1e-4

    @cached_property
    def model(self) -> nn.Module:
        """The model in `dtype`, every weight moved by a random 0.02; all memories learn, as in training."""
        torch.manual_seed(self.seed)
        model = self.fresh().to(self.dtype).train()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
        return model

    @cached_property
    def embedding(self) -> nn.Embedding | None:
        """The first embedding of the model: what turns tokens into vectors."""
        return next((m for m in self.model.modules() if isinstance(m, nn.Embedding)), None)

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return self.embedding.num_embeddings if self.embedding is not None else 256

    @cached_property
    def tokens_a_second(self) -> float:
        """How fast one forward pass is, measured on one sequence."""
        tokens = self.tokens(1, min(self.length, 32))
        self.forward(tokens[:, :1])
        begin = time.perf_counter()
        self.forward(tokens)
        return tokens.numel() / max(1e-6, time.perf_counter() - begin)

    @cached_property
    def trial(self) -> int:
        """Tokens of a sequence in the probes: two long periods and a little more, if time allows."""
        longest = max(self.periods, default=1)
        wanted = self.wanted or min(self.length, max(USUAL_TOKENS, 2 * longest + 3))
        affordable = int(SECONDS * self.tokens_a_second / PASSES)
        return max(2, min(wanted, affordable))

    def tokens(self, batch: int, length: int, salt: int = 0) -> Tensor:
        """Random token ids `[batch, length]`; another `salt` gives others."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + salt)
        return torch.randint(self.vocabulary, (batch, length), generator=generator)

    def forward(self, tokens: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Logits and state without gradients.  Raises `Unfit` for what is no finite `[B, T, vocab]`."""
        with torch.no_grad():
            return self.checked(self.model, tokens, state)

    def checked(self, model: nn.Module, tokens: Tensor, state: State = None) -> tuple[Tensor, State]:
        """What `model` makes of `tokens`.  Raises `Unfit` for what is no finite `[B, T, vocab]`."""
        made = model(tokens, state)
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Tensor)):
            raise Unfit(f"the model gives {type(made).__name__}, not logits and a state")
        logits: Tensor = made[0]
        if logits.ndim != 3 or tuple(logits.shape[:2]) != tuple(tokens.shape):
            raise Unfit(f"the logits of tokens {list(tokens.shape)} have the shape {list(logits.shape)}")
        bad = (~logits.isfinite()).nonzero()
        if len(bad):
            raise Unfit(f"{len(bad):,} logits are not finite, first at token {int(bad[:, 1].min())}")
        return logits, made[1]


def open_folder(folder: Path | str, *, seed: int = 0, tokens: int | None = None) -> Subject:
    """The compiled `folder` as a subject; `RunError` (NL0801, NL0802) where it is none, or damaged."""
    folder = Path(folder)
    trained = (folder / "settings.py").is_file() or not (folder / "model.py").is_file()
    build = load(folder, ORDER if trained else ("kernels", "model"))
    return Subject(build, _graph(folder), seed, tokens)


def _graph(folder: Path) -> dict[str, Any]:
    """`levels.json`, with the keys that probes read."""
    try:
        graph = json.loads((folder / "levels.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise damaged(folder, f"`levels.json` cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise damaged(folder, f"`levels.json` is not JSON: {error}") from error
    needed = ("parameters", "facts", "components", "weights", "gradients")
    lacking = [key for key in needed if not isinstance(graph, dict) or key not in graph]
    if lacking:
        raise damaged(folder, f"`levels.json` has no `{lacking[0]}`")
    return graph


def damaged(folder: Path, what: str) -> RunError:
    """The finding of a folder that lacks something, or in which something does not run."""
    return RunError(
        Diagnostic(
            "NL0802",
            f"the build folder `{folder}` is damaged: {what}",
            help="write it again with `nldsl compile SPEC -o DIR --force`",
        ),
        exit_code=2,
    )


def attempt(name: str, probe: Callable[[_On], Finding], on: _On) -> Probe:
    """Run one probe; what the model raises is a finding, never a traceback."""
    try:
        ok, detail = probe(on)
    except RunError as error:
        return Probe(name, False, error.diagnostic.message)
    except Unfit as fact:
        return Probe(name, False, str(fact))
    except Exception as error:  # noqa: BLE001 (whatever a generated or edited model raises)
        said = (str(error).strip().splitlines() or [""])[0]
        return Probe(name, False, f"the model raises {type(error).__name__}: {said[:160]}".rstrip(": "))
    return Probe(name, ok, detail)


def listed(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more.

    >>> listed(["a", "b", "c", "d"], 2)
    '`a`, `b` and 2 more'
    """
    more = len(names) - most
    return ", ".join(f"`{n}`" for n in names[:most]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def quietly() -> Iterator[None]:
    """One thread and random numbers of its own, as it was before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _plain() -> Iterator[None]:
    yield


def _memory() -> int:
    """Bytes of memory that this machine has free, or a careful guess."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 * 2**30


def leaves(state: State, path: str = "state") -> Iterator[tuple[str, Tensor | float | str | None]]:
    """Every tensor and number in a state, with its path."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from leaves(value, f"{path}.{index}")
    else:
        yield path, state


def difference(a: State, b: State) -> tuple[float, str]:
    """The largest difference between two states, relative to the size of each tensor, and where it is.

    It is infinite where one has what the other lacks, or another shape.
    """
    first, second = dict(leaves(a)), dict(leaves(b))
    if set(first) != set(second):
        return math.inf, min(set(first) ^ set(second))
    worst, where = 0.0, ""
    for path, one in first.items():
        gap = _gap(one, second[path])
        if gap > worst:
            worst, where = gap, path
    return worst, where


def _gap(one: Any, other: Any) -> float:
    if one is None or other is None or isinstance(one, str):
        return 0.0 if one is other or one == other else math.inf
    one, other = torch.as_tensor(one).double(), torch.as_tensor(other).double()
    if one.shape != other.shape:
        return math.inf
    if one.numel() == 0:
        return 0.0
    gap = float((one - other).abs().max() / one.abs().max().clamp_min(1.0))
    return math.inf if math.isnan(gap) else gap


def copied(state: State) -> State:
    """A copy of a state that shares no memory with it."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state
