"""A run of seconds: one level at every step, one at every fourth."""

from schedule import Clock, Data, Level, Measure, Rate, Sample, Settings

SETTINGS = Settings(
    name="Toy",
    model={"vocab": 128, "dim": 8},
    data=Data(source="letters.txt", length=16, batch=4, split="tail"),
    levels=(
        Level("pretrain", ("rest",), "adamw", Clock(1), Rate(1e-2, warmup=2, shape="cosine"), {"decay": 0.1}),
        Level("slow", ("slow",), "m3", Clock(4), Rate(1e-3), {"period": 2}),
    ),
    steps=6,
    evaluate_every=3,
    evaluate_windows=8,
    measures=(Measure("perplexity"), Measure("accuracy")),
    sample=Sample(prompt="ab", tokens=8),
)
