"""Probe a compiled folder on random data: what a model must not do, measured rather than believed.

Every probe is one small function of a `Subject` that gives whether all is well and what it measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nldsl.run.folder import RunError
from nldsl.run.subject import (
    SECONDS,
    Finding,
    Probe,
    State,
    Subject,
    attempt,
    copied,
    difference,
    listed,
    open_folder,
    quietly,
)

PIECES = (1, 3, 7, 2, 13, 5)  # lengths in which a stream is fed: none a multiple of a usual period
LONGEST = 16_384  # tokens of the longest sequence that is tried


def verify(folder: Path | str, *, seed: int = 0, tokens: int | None = None) -> list[Probe]:
    """Probe the compiled `folder`, in float64 on one thread, in about a minute whatever its size.

    Args:
        folder: what `compile` wrote.
        seed: of the weights and the data.
        tokens: how long a sequence of the probes is; by default two of the longest periods, and 67 at least.

    Returns:
        One `Probe` for each property.  A model that raises gives a failed probe with what it said.

    Raises:
        RunError: there is no such folder (NL0801), or it is damaged (NL0802).
    """
    with quietly():
        subject = open_folder(folder, seed=seed, tokens=tokens)
        begin = attempt("runs", runs, subject)
        if not begin.ok:
            return [begin]
        return [begin, *(attempt(name, probe, subject) for name, probe in PROBES)]


def runs(subject: Subject) -> Finding:
    """The model can be made and gives logits; says what the other probes use."""
    made = sum(p.numel() for p in subject.model.parameters())
    subject.forward(subject.tokens(2, subject.trial))
    kind = str(subject.dtype).removeprefix("torch.")
    return True, f"{made:,} parameters; probed with {subject.trial} tokens a sequence in {kind}"


# --------------------------------------------------------------------------- time and neighbours


def causal(subject: Subject) -> Finding:
    """A token changes no logit before it, and does change its own or a later one."""
    length = subject.trial
    tokens = subject.tokens(2, length)
    before, _ = subject.forward(tokens)
    scale = float(before.abs().max())
    worst, where, reach = 0.0, "", 0
    for place in places(subject):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1 + subject.vocabulary // 2) % subject.vocabulary
        after, _ = subject.forward(changed)
        moved = (after - before).abs().amax(dim=(0, 2)) / max(scale, 1e-30)
        if place and float(moved[:place].max()) > worst:
            worst = float(moved[:place].max())
            where = f"token {place} changes the logits of token {int(moved[:place].argmax())}"
        late = (moved > subject.tolerance).nonzero()
        if not len(late) or int(late[-1]) < place:
            return False, f"changing token {place} changes no logit at or after it"
        reach = max(reach, int(late[-1]) - place)
    if worst > subject.tolerance:
        return False, f"{where} by {worst:.1e} of the largest logit"
    return True, f"at most {worst:.1e} before a changed token; later logits change up to {reach} tokens on"


def places(subject: Subject) -> list[int]:
    """Tokens to change: the first, the last, the middle, and around the ends of periods and tiles."""
    length = subject.trial
    ends = {p for period in subject.periods[:3] for p in (period, 2 * period)} | {16, 64}
    around = {end + step for end in ends for step in (-1, 0, 1)} if length > 2 else set()
    return sorted(p for p in {0, 1, length // 2, length - 1} | around if 0 <= p < length)


def independent(subject: Subject) -> Finding:
    """A sequence's logits do not depend on its neighbours, nor on its place in the batch."""
    tokens = subject.tokens(3, subject.trial, salt=1)
    together, state = subject.forward(tokens)
    scale = max(float(together.abs().max()), 1e-30)
    alone, _ = subject.forward(tokens[1:2])
    apart = float((together[1:2] - alone).abs().max()) / scale
    order = torch.tensor([2, 0, 1])
    turned, _ = subject.forward(tokens[order])
    moved = float((turned - together[order]).abs().max()) / scale
    # A carried state must belong to its sequence too.
    other = tokens.clone()
    other[0] = subject.tokens(1, subject.trial, salt=2)[0]
    _, beside = subject.forward(other)
    tail = subject.tokens(3, min(5, subject.trial), salt=3)
    late = subject.forward(tail, state)[0][1:] - subject.forward(tail, beside)[0][1:]
    carried = float(late.abs().max()) / scale
    worst = max(apart, moved, carried)
    if worst <= subject.tolerance:
        return True, f"alone, permuted and beside others alike to {worst:.1e}"
    names = {apart: "beside others", moved: "in another place", carried: "after a state made beside others"}
    return False, f"a sequence's logits differ by {worst:.1e} {names[worst]}"


# --------------------------------------------------------------------------- state


def forgets(subject: Subject) -> Finding:
    """Two calls without a state agree, whatever was read between them, and a call changes no weight."""
    model = subject.model
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens = subject.tokens(2, subject.trial, salt=4)
    first, state = subject.forward(tokens)
    subject.forward(subject.tokens(2, subject.trial, salt=5))
    second, again = subject.forward(tokens)
    for name, tensor in model.state_dict().items():
        if name not in kept or not torch.equal(tensor, kept[name]):
            return False, f"a forward pass changes `{name}`"
    gap = float((first - second).abs().max()) / max(float(first.abs().max()), 1e-30)
    inner, where = difference(state, again)
    if gap > subject.tolerance:
        return False, f"the same tokens give logits that differ by {gap:.1e} after other tokens were read"
    if inner > subject.tolerance:
        return False, f"the same tokens leave another `{where}` after other tokens were read"
    return True, f"two calls on the same tokens differ by {gap:.1e}; no weight or buffer changes"


def valued(subject: Subject) -> Finding:
    """A state handed in is left as it is, so that it can be kept and used again."""
    half = max(1, subject.trial // 2)
    tokens = subject.tokens(2, subject.trial, salt=6)
    _, state = subject.forward(tokens[:, :half])
    kept = copied(state)
    first, _ = subject.forward(tokens[:, half:], state)
    gap, where = difference(kept, state)
    if gap > 0:
        return False, f"a call changes the `{where}` it was given, by {gap:.1e}"
    second, _ = subject.forward(tokens[:, half:], state)
    gap = float((first - second).abs().max())
    return gap == 0, f"used twice, it gives logits that differ by {gap:.1e}"


def streams(subject: Subject) -> Finding:
    """Token by token, in odd pieces and whole agree: logits, and the state at the end."""
    tokens = subject.tokens(2, subject.trial, salt=7)
    whole, end = subject.forward(tokens)
    scale = max(float(whole.abs().max()), 1e-30)
    worst, told = 0.0, ""
    for name, sizes in (("one at a time", (1,)), ("in pieces", PIECES), ("by periods", cuts(subject))):
        logits, state = streamed(subject, tokens, sizes)
        apart = float((logits - whole).abs().max()) / scale
        inner, where = difference(end, state)
        if apart > worst:
            worst, told = apart, f"read {name}, the logits differ by {apart:.1e}"
        if inner > worst:
            worst, told = inner, f"read {name}, `{where}` differs by {inner:.1e} at the end"
    if worst > subject.tolerance:
        return False, told
    return True, f"one at a time, in pieces and whole agree to {worst:.1e}, logits and state"


def cuts(subject: Subject) -> tuple[int, ...]:
    """Pieces that end just before, at and just after the end of a period."""
    period = subject.periods[0] if subject.periods else 16
    return (period - 1, 1, 1, period - 1, period) if period > 1 else (1,)


def streamed(subject: Subject, tokens: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, State]:
    """Logits and last state of `tokens` fed in pieces of `sizes`, over and over."""
    state: State = None
    found, begin, turn = [], 0, 0
    while begin < tokens.shape[1]:
        end = begin + sizes[turn % len(sizes)]
        logits, state = subject.forward(tokens[:, begin:end], state)
        found.append(logits)
        begin, turn = end, turn + 1
    return torch.cat(found, dim=1), state


def generates(subject: Subject) -> Finding:
    """What is generated greedily from carried state is what the whole sequence makes likeliest."""
    prompt, count = subject.tokens(1, min(5, subject.trial), salt=8), min(24, subject.trial)
    given, state, said, seen = prompt, None, [], []
    for _ in range(count):
        logits, state = subject.forward(given, state)
        seen.append(logits[:, -1])
        given = logits[:, -1:].argmax(-1)
        said.append(int(given))
    text = torch.cat((prompt, torch.tensor([said[:-1]], dtype=torch.long)), dim=1)
    whole = subject.forward(text)[0][:, prompt.shape[1] - 1 :]
    gap = float((torch.stack(seen, dim=1) - whole).abs().max()) / max(float(whole.abs().max()), 1e-30)
    if gap > subject.tolerance:
        return False, f"over {count} tokens, streamed logits differ from the whole by {gap:.1e}"
    if "generate" in subject.build.modules:
        told = list(subject.build.generate.generate(subject.model, prompt[0], count, temperature=0.0))
        if told != said:
            at = next(i for i, (a, b) in enumerate(zip(told, said, strict=True)) if a != b)
            return False, f"`generate.py` chooses another token than the likeliest, {at} tokens on"
    return True, f"{count} greedy tokens, streamed and whole alike to {gap:.1e}"


def clocked(subject: Subject) -> Finding:
    """Where all memories show their writes at the end of a period, the first token is felt anew only there.

    The first token reaches tokens near it by convolutions, and the rest by the memory it was written to: so
    after a gap its effect begins at the end of the first period.
    """
    inner = [c for c in subject.components if c["kind"] in ("memory", "cache", "projection")]
    clocks = {(c["clock"]["unit"], c["clock"]["period"]) for c in inner}
    if len(clocks) != 1 or (clock := next(iter(clocks)))[0] != "token" or clock[1] == 1:
        return True, "memories show each write at once" if inner else "no memory learns inside the sequence"
    period = clock[1]
    if subject.trial <= period:
        return True, f"not measured: a period of {period} tokens is longer than the {subject.trial} used"
    tokens = subject.tokens(1, subject.trial, salt=9)
    other = tokens.clone()
    other[:, 0] = (other[:, 0] + 1) % subject.vocabulary
    moved = (subject.forward(tokens)[0] - subject.forward(other)[0]).abs().amax(dim=(0, 2)) > 1e-12
    begins = [t for t in range(1, subject.trial) if moved[t] and not moved[t - 1]]
    if not begins and moved[period - 1]:
        return True, f"not measured: convolutions reach across a period of {period} tokens"
    if not moved[period:].any():
        return False, f"what is written in the first {period} tokens is never read"
    wrong = [t for t in begins if t % period]
    if wrong or (begins and begins[0] != period):
        at = (wrong or begins)[0]
        return False, f"the first token is felt anew at token {at}; periods of {period} tokens were promised"
    return True, f"writes are felt from token {period} on, as periods of {period} tokens promise"


# --------------------------------------------------------------------------- gradients


def loss_of(model: nn.Module, subject: Subject, tokens: Tensor) -> Tensor:
    """The next-token loss on random targets."""
    logits, _ = subject.checked(model, tokens)
    targets = subject.tokens(*tokens.shape, salt=99)
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


def learns(subject: Subject) -> Finding:
    """Every parameter gets a gradient that is not zero everywhere."""
    model = subject.model
    model.zero_grad(set_to_none=True)
    loss_of(model, subject, subject.tokens(2, subject.trial, salt=10)).backward()
    frozen = subject.settings.frozen if subject.settings is not None else ()
    dead, still, live = [], 0, 0
    for name, parameter in model.named_parameters():
        if any(subject.build.schedule.matches(name, pattern) for pattern in frozen):
            still += 1
        elif parameter.grad is None or not bool(parameter.grad.any()):
            dead.append(name)
        else:
            live += 1
    model.zero_grad(set_to_none=True)
    if dead:
        return False, f"{len(dead)} of {len(dead) + live} parameters get no gradient: {listed(dead)}"
    return True, f"{live} parameters get gradients" + (f", {still} are frozen" if still else "")


def reaches(subject: Subject) -> Finding:
    """The loss of the last token reaches as far back as the last logit depends on what was read."""
    embedding, length = subject.embedding, subject.trial
    if embedding is None:
        return True, "not measured: the model has no `nn.Embedding`"
    tokens = subject.tokens(2, length, salt=11)
    vectors: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        vectors.append(output.detach().requires_grad_())
        return vectors[-1]

    hook = embedding.register_forward_hook(cut)
    try:
        logits, _ = subject.checked(subject.model, tokens)
    finally:
        hook.remove()
    late = logits[:, -1].log_softmax(-1)[:, 0].sum()
    # A model whose levels change inside the sequence reads it in segments, one call after the other.
    gradients = torch.autograd.grad(late, vectors, allow_unused=True, materialize_grads=True)
    touched = torch.cat([one.abs().sum(dim=(0, 2)) for one in gradients])[:length].nonzero()
    if not len(touched):
        return False, "the last logit gives no gradient to any token"
    back = length - 1 - int(touched[0])
    told = f"the loss of the last token reaches {back} of {length - 1} tokens back{_training(subject)}"
    if back == length - 1 or not _depends(subject, tokens, length - 1 - back):
        return True, told
    stops = [path for path, kind in subject.graph["gradients"].items() if kind != "through"]
    if stops:
        return True, f"{told}, as `gradient = {subject.graph['gradients'][stops[0]]}` promises"
    return False, f"{told}, though the last logit depends on tokens before that"


def _depends(subject: Subject, tokens: Tensor, before: int) -> bool:
    """Whether the last logit depends on any token before `before`."""
    other = tokens.clone()
    other[:, :before] = (other[:, :before] + 1) % subject.vocabulary
    gap = subject.forward(tokens)[0][:, -1] - subject.forward(other)[0][:, -1]
    return bool(gap.abs().max() > subject.tolerance)


def _training(subject: Subject) -> str:
    """How short training cuts the gradient, where it does."""
    if subject.settings is None:
        return ""
    _, segment = subject.build.schedule.segment_lengths(subject.settings)
    return f" (training cuts it every {segment} tokens)" if segment < subject.length else ""


def finite(subject: Subject) -> Finding:
    """Logits and gradients are finite in float32 at the start, at the spec's length and four times it."""
    torch.manual_seed(subject.seed)
    model = subject.fresh().eval()
    affordable = int(subject.tokens_a_second * SECONDS / 3)
    used = sorted({min(subject.length * k, max(affordable, 2), LONGEST) for k in (1, 4)})
    told = []
    for length in used:
        model.zero_grad(set_to_none=True)
        loss = loss_of(model, subject, subject.tokens(1, length, salt=12))
        loss.backward()
        sizes = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
        norm = math.hypot(*sizes)
        if not math.isfinite(norm):
            return False, f"at {length} tokens the gradient of {_unbounded(model)}"
        told.append(f"{length} tokens: loss {loss.item():.3f}, gradient {norm:.2g}")
    short = "" if used[-1] == 4 * subject.length else f" ({4 * subject.length} would take too long)"
    return True, "; ".join(told) + short


def _unbounded(model: nn.Module) -> str:
    """The parameters whose gradient is not finite; else the one whose norm is beyond float32."""
    given = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    names = [name for name, gradient in given.items() if not gradient.isfinite().all()]
    if names:
        return f"{listed(names)} is not finite"
    name, gradient = max(given.items(), key=lambda item: float(item[1].abs().max()))
    return f"`{name}` reaches {float(gradient.abs().max()):.1e}, and its norm is not finite"


def repeats(subject: Subject) -> Finding:
    """Two models built from one seed have the same weights."""
    torch.manual_seed(subject.seed)
    first = subject.fresh().state_dict()
    torch.manual_seed(subject.seed)
    second = subject.fresh().state_dict()
    if list(first) != list(second):
        return False, "two builds have different parameters"
    differ = [name for name in first if not torch.equal(first[name], second[name])]
    if differ:
        return False, f"built twice from seed {subject.seed}, {listed(differ)} differs"
    wrong = [name for name, tensor in first.items() if not tensor.isfinite().all()]
    if wrong:
        return False, f"{listed(wrong)} is not finite at the start"
    return True, f"{len(first)} tensors equal, bit for bit"


PROBES: tuple[tuple[str, Callable[[Subject], Finding]], ...] = (
    ("causal", causal),
    ("batch independence", independent),
    ("state returns to its start", forgets),
    ("state is a value", valued),
    ("streaming equals whole", streams),
    ("generation equals whole", generates),
    ("inner clocks", clocked),
    ("no dead parameter", learns),
    ("loss reaches back", reaches),
    ("finite", finite),
    ("builds repeat", repeats),
)

__all__ = ["PROBES", "Probe", "RunError", "verify"]
