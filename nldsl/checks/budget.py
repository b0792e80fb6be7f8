"""Budget: what a spec needs, before anything is allocated."""

from __future__ import annotations

from nldsl.checks.subject import Subject, report
from nldsl.diagnostics.model import Span
from nldsl.levels import costs
from nldsl.records import record
from nldsl.resolve.expanded import Apply, BlockInstance, ChainInstance, Flow, Line, MemoryInstance, Num
from nldsl.resolve.findings import Findings

GIB = 1 << 30
"""Tokens that each tokenizer can give."""


@record
class Budget:
    """Bytes that training needs at least, in fp32.

    `activations` counts the output of every stage once for each token of a batch; engines that
    recompute need less, plain back-propagation through a token loop more.
    """

    weights: int
    gradients: int
    optimizer: int
    state: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.state + self.activations


def in_words(number: int) -> str:
    """A number of bytes for people.

    >>> in_words(3 << 20)
    '3.0 MiB'
    """
    size, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}" if unit != "B" else f"{number} B"


def estimate(subject: Subject) -> Budget:
    """What the training of a spec needs; one sequence of the graph's length where it has no `train`."""
    graph, training = subject.graph, subject.training
    batch = training.data.batch if training is not None else 1
    tokens = batch * graph.facts["sequence"]
    weights = graph.parameters * costs.BYTES
    optimizer = sum(c.state_bytes * c.copies for c in graph.components if c.kind == "optimizer")
    features = (
        sum(_features(line.flow) for line in subject.expanded.model.lines) if subject.expanded.model else 0
    )
    for instance, copies in subject.expanded.instances():
        features += copies * _inside(instance)
    return Budget(weights, weights, optimizer, batch * graph.state_bytes, tokens * features * costs.BYTES)


def _inside(instance: BlockInstance | MemoryInstance | ChainInstance) -> int:
    if isinstance(instance, BlockInstance):
        return sum(_features(line.flow) for line in instance.every_line())
    if isinstance(instance, ChainInstance):
        return len(instance.levels) * instance.shape.features
    return sum(_features(f) for _, f in (*instance.locals, *instance.flows.items())) + instance.shape.features


def _features(flow: Flow) -> int:
    return sum(node.shape.features for node in flow.walk() if node.inputs())


def fits_the_machine(subject: Subject, findings: Findings) -> None:
    """Training needs no more memory than the machine has.

    Why: a run that dies while it allocates has cost its set-up.  The estimate is a lower bound, so
    that what it refuses could never have run.
    Non-goals: machines of unknown size, and how tight the fit is.
    """
    training, most = subject.training, subject.memory_bytes
    if training is None or most is None:
        return
    need = estimate(subject)
    if need.total <= most:
        return
    parts = ", ".join(
        f"{name} {in_words(getattr(need, name))}"
        for name in ("weights", "gradients", "optimizer", "state", "activations")
    )
    report(
        subject,
        findings,
        "NL0810",
        f"training needs at least {in_words(need.total)}, and the machine has {in_words(most)}",
        [
            (training.data.spans.get("batch") or training.data.span, f"{training.data.batch} sequences"),
            (training.spans.get("model"), "the model"),
        ],
        notes=(parts,),
        help="use a smaller batch, a shorter `length` or a smaller model",
    )


def state_of_a_sequence(subject: Subject, findings: Findings) -> None:
    """The running state of one sequence stays below a GiB where it outgrows the weights.

    Why: weights are paid for once, state with every sequence of a batch and every request that is served.
    Non-goals: state that is smaller than the weights.
    """
    model = subject.expanded.model
    if model is None:
        return
    state, weights = subject.graph.state_bytes, subject.graph.parameters * costs.BYTES
    if state <= GIB or state <= weights:
        return
    worst = max(
        (c for c in subject.graph.components if c.per_sequence), key=lambda c: c.state_bytes * c.copies
    )
    place = next(
        (
            i.span
            for i, _ in subject.expanded.instances()
            if isinstance(i, MemoryInstance) and worst.path.startswith(i.path)
        ),
        None,
    )
    report(
        subject,
        findings,
        "NL0811",
        f"one sequence keeps {in_words(state)} of state, and all weights are {in_words(weights)}",
        [(place, f"most of it: {in_words(worst.state_bytes * worst.copies)}"), (model.span, "the model")],
        help="use more heads, a smaller `hidden`, or a window for a cache",
        severity="warning",
    )


def vocabulary(subject: Subject, findings: Findings) -> None:
    """The vocabulary has a row for every token that the tokenizer gives, and not many more.

    Why: a token without a row stops the run; rows that no token uses are weights that never learn.
    Non-goals: padding to the next round number: twice the tokens are allowed; how many tokens a file has,
    which the run says when it reads it.
    """
    training, model = subject.training, subject.expanded.model
    if training is None or model is None:
        return
    data = training.data
    if not data.tasks and data.tokenizer != "bytes":
        return
    tokens = data.vocabulary
    place = data.spans.get("tokenizer") or data.span
    gives = "the tasks have" if data.tasks else f"`{data.tokenizer}` gives"
    spots = [(_embed_span(model.lines), f"{model.vocab} rows"), (place, f"{tokens} tokens")]
    if model.vocab < tokens:
        report(
            subject,
            findings,
            "NL0812",
            f"{gives} {tokens} tokens, and the vocabulary has {model.vocab}",
            spots,
            fallback=model.span,
            help=f"use `vocab = {tokens}`",
        )
    elif model.vocab > 2 * tokens:
        report(
            subject,
            findings,
            "NL0815",
            f"{gives} {tokens} tokens, and never the other {model.vocab - tokens} of the vocabulary",
            spots,
            fallback=model.span,
            help=f"use `vocab = {tokens}`",
            severity="warning",
        )


def _embed_span(lines: tuple[Line, ...]) -> Span | None:
    for line in lines:
        for node in line.flow.walk():
            if isinstance(node, Apply) and node.primitive == "embed":
                vocab = node.arguments.get("vocab")
                return vocab.span if isinstance(vocab, Num) and vocab.span is not None else node.span
    return None


def batches(subject: Subject, findings: Findings) -> None:
    """A batch holds tokens, and a sequence more than one.

    Why: a batch of nothing has no loss; in a sequence of one token no memory ever reads what it wrote.
    Non-goals: whether the batch is a good size.
    """
    training = subject.training
    if training is None:
        return
    data = training.data
    for name, number in (("length", data.length), ("batch", data.batch)):
        if number < 1:
            report(
                subject,
                findings,
                "NL0813",
                f"`{name}` is {number}, so a batch holds no tokens",
                [(data.spans.get(name) or data.span, "nothing to learn from")],
                help=f"use a `{name}` of 1 or more",
            )
    if data.length == 1:
        report(
            subject,
            findings,
            "NL0814",
            "a sequence has one token, so nothing inside it is ever remembered",
            [(data.spans.get("length") or data.span, "one token")],
            help="use a longer sequence",
            severity="warning",
        )
