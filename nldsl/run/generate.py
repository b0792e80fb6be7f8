"""Continue a text with the model of a build folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nldsl.run.errors import as_run_errors
from nldsl.run.folder import Build, load


def generate(
    folder: Path | str,
    *,
    prompt: str = "The ",
    tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
    checkpoint: Path | str | None = None,
) -> Iterator[str]:
    """Pieces of text that follow `prompt`, as they are made.

    The folder and its checkpoint (default: that of the newest run) are read before the first piece is
    asked for.  Raises `RunError`.
    """
    build = load(folder)
    with as_run_errors(build):
        path = Path(checkpoint) if checkpoint else build.checkpoint.newest(build.folder)
        model, _ = build.checkpoint.restore(path)
        stream = build.generate.generate(
            model, build.data.encode(prompt), tokens, temperature=temperature, top_k=top_k, seed=seed
        )
        return _pieces(build, build.generate.text(stream))


def _pieces(build: Build, pieces: Iterator[str]) -> Iterator[str]:
    """The pieces, whose errors come up only as they are made."""
    with as_run_errors(build):
        yield from pieces
