"""Measure a trained model of a build folder on its held-out text."""

from __future__ import annotations

import dataclasses
import sys
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

    `whole` takes all of the held-out text, otherwise the windows that training looks at.  Where the data are
    tasks, `tasks` has the same for each.  Raises `RunError`.
    """
    build = load(folder)
    with as_run_errors(build):
        path = Path(checkpoint) if checkpoint else build.checkpoint.newest(build.folder)
        model, content = build.checkpoint.restore(path)
        settings = dataclasses.replace(build.settings, model=content["sizes"])
        build.measures.check(settings.measures, settings.data.tokenizer)
        count = sys.maxsize if whole else settings.most_windows
        vocabulary = int(settings.model.get("vocab", 256))
        course = build.tasks.Course(settings.data, vocabulary, count, build.folder)

        def measured(windows: Any, targets: Any) -> dict[str, float]:
            options = {"batch": settings.data.batch, "context": nullcontext, "targets": targets}
            rate = course.bytes_per_token
            return build.measures.evaluate(model, windows, settings.measures, bytes_per_token=rate, **options)

        found = measured(course.windows, course.targets)
        result = {
            "checkpoint": str(path),
            "step": content["step"],
            "tokens": course.questions_asked,
            **found,
            "bits_per_byte": build.data.bits(found["loss"]) / course.bytes_per_token,
            "baselines": course.baselines(),
        }
        if course.tasks:
            names = [task.name for task in course.tasks]
            result["tasks"] = {name: measured(*course.asked([i])) for i, name in enumerate(names)}
        if learn or (learn is None and build.plastic.plastic(settings) and not course.tasks):
            if course.tasks:
                raise build.schedule.UserError(
                    "learning at test time is measured on one text, and these data are tasks",
                    help="leave `--learn` out, or train on a `text`",
                )
            texts = build.learning.documents(course.corpus, learn_tokens or build.learning.TOKENS)
            learned = build.learning.learning_on(model, settings, content, texts, rates=rates)
            result["learning"] = learned
        return result
