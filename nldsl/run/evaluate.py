"""Measure a trained model of a build folder on its held-out text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nldsl.run.errors import as_run_errors
from nldsl.run.folder import load


def evaluate(
    folder: Path | str,
    *,
    checkpoint: Path | str | None = None,
    whole: bool = True,
    learn: bool | None = None,
    rates: Mapping[str, float] | None = None,
    learn_tokens: int | None = None,
) -> dict[str, Any]:
    """Held-out loss, the spec's measures, and what counting tokens gives on the same text, in nats per token.

    These are measured with weights that stand still.  With `learn` (default: where a level is plastic)
    held-out documents of about `learn_tokens` tokens (default: 65,536) are read as streams as well, each
    from the checkpoint on, and `learning` says what a token costs while the plastic levels learn, and while
    nothing does.

    `whole` takes all of the held-out text, otherwise the windows that training looks at.  Raises `RunError`.
    """
    build = load(folder)
    with as_run_errors(build):
        path = Path(checkpoint) if checkpoint else build.checkpoint.newest(build.folder)
        model, content = build.checkpoint.restore(path)
        settings = dataclasses.replace(build.settings, model=content["sizes"])
        build.measures.check(settings.measures, settings.data.tokenizer)
        corpus = build.data.load(settings.data, build.folder)
        build.data.check_vocabulary(corpus, int(settings.model.get("vocab", 256)))
        count = len(corpus.held_out) if whole else settings.evaluate_windows
        windows = build.data.held_out_windows(corpus, settings.data.length, count)
        found = build.measures.evaluate(
            model,
            windows,
            settings.measures,
            batch=settings.data.batch,
            context=nullcontext,
            bytes_per_token=corpus.bytes_per_token,
        )
        result = {
            "checkpoint": str(path),
            "step": content["step"],
            "tokens": windows.shape[0] * (windows.shape[1] - 1),
            **found,
            "bits_per_byte": build.data.bits(found["loss"]) / corpus.bytes_per_token,
            "baselines": build.data.baselines(corpus, windows),
        }
        if learn or (learn is None and build.plastic.plastic(settings)):
            texts = build.learning.documents(corpus, learn_tokens or build.learning.TOKENS)
            learnt = build.learning.learning_on(model, settings, content, texts, rates=rates)
            result["learning"] = learnt
        return result
