"""The learning rules that every spec can name, as data (Nested Learning, section 4; REF b).

`state` lists the memories a rule keeps for each weight: its own level of the graph.
"""

from __future__ import annotations

from nldsl.records import record


@record
class RuleInfo:
    """A rule, its options with their defaults, and the memories it keeps (numbers per weight)."""

    name: str
    summary: str
    options: dict[str, float | int | str]
    state: tuple[str, ...]
    matrices_only: bool = False


RULES: dict[str, RuleInfo] = {
    r.name: r
    for r in (
        RuleInfo("gd", "gradient descent (REF b.1)", {"decay": 0.0}, ()),
        RuleInfo(
            "momentum", "gradient descent with momentum (REF b.2)", {"beta": 0.9, "decay": 0.0}, ("momentum",)
        ),
        RuleInfo("nesterov", "momentum that looks ahead", {"beta": 0.9, "decay": 0.0}, ("momentum",)),
        RuleInfo(
            "adagrad",
            "steps divided by the root of summed squares (REF b.6)",
            {"eps": 1e-10, "decay": 0.0},
            ("sum",),
        ),
        RuleInfo(
            "rmsprop",
            "steps divided by the root of averaged squares",
            {"beta": 0.99, "eps": 1e-8, "decay": 0.0},
            ("second",),
        ),
        RuleInfo(
            "adam",
            "two averages, the first divided by the root of the second (REF b.5)",
            {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
            ("first", "second"),
        ),
        RuleInfo(
            "adamw",
            "Adam with decay apart from the gradient (REF b.5)",
            {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.0},
            ("first", "second"),
        ),
        RuleInfo(
            "muon",
            "momentum made orthogonal by Newton-Schulz (REF b.7)",
            {"beta": 0.95, "decay": 0.0, "rounds": 5},
            ("momentum",),
            True,
        ),
        RuleInfo(
            "delta_momentum",
            "momentum with the l2 objective (REF b.9)",
            {"beta": 0.9, "eta": 0.1, "decay": 0.0},
            ("momentum",),
        ),
        RuleInfo(
            "m3",
            "two momenta of two clocks, each orthogonal (REF b.15)",
            {
                "fast": 0.9,
                "slow": 0.9,
                "norm": 0.999,
                "mix": 0.5,
                "period": 16,
                "eps": 1e-8,
                "decay": 0.0,
                "accumulate": "ema",
                "divide": "root",
                "rounds": 5,
            },
            ("near", "far", "size", "sum"),
            True,
        ),
    )
}
SCHEDULES: dict[str, tuple[str, ...]] = {
    "warmup": ("steps",),
    "cosine": ("floor",),
    "linear": ("floor",),
    "constant": (),
}
