"""Continue a text with the model of a build folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    learn: bool = False,
    learn_own: bool = False,
    save_state: Path | str | None = None,
    load_state: Sequence[Path | str] = (),
    new_sequence: bool = False,
    rates: Mapping[str, float] | None = None,
) -> Iterator[str]:
    """Pieces of text that follow `prompt`, as they are made.

    The folder and its checkpoint (default: that of the newest run) are read before the first piece is
    asked for.  Raises `RunError`.

    Args:
        folder: a trained build folder.
        prompt: the text to go on from; may be empty where a state is loaded.
        tokens: how many to make.
        temperature: 0 takes the likeliest token.
        top_k: draw from so many of the likeliest tokens only.
        seed: of the draws.
        checkpoint: another than the newest.
        learn: let plastic levels learn from the prompt.
        learn_own: and from what is made.
        save_state: where to write the stream when the text has ended.
        load_state: states to go on from; several are averaged.
        new_sequence: keep only what the loaded states have learned, and begin a sequence.
        rates: rates of plastic levels by name; their base rates by default.
    """
    build = load(folder)
    with as_run_errors(build):
        path = Path(checkpoint) if checkpoint else build.checkpoint.newest(build.folder)
        model, trained = build.checkpoint.restore(path)
        words = build.tokens.tokenizer(build.settings.data.tokenizer, build.folder)
        stream = None
        if learn or learn_own or save_state or load_state or new_sequence or rates:
            stream = build.generate.open_stream(
                model,
                dataclasses.replace(build.settings, model=trained["sizes"]),
                trained,
                learn=learn or learn_own,
                states=[Path(one) for one in load_state],
                new_sequence=new_sequence,
                rates=rates,
            )
        made = build.generate.generate(
            model,
            words.encode(prompt),
            tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            stream=stream,
            learn=learn,
            learn_own=learn_own,
        )
        return _pieces(build, words.decode(made), stream, Path(save_state) if save_state else None)


def _pieces(build: Build, pieces: Iterator[str], stream: Any, save_state: Path | None) -> Iterator[str]:
    """The pieces, whose errors come up only as they are made; in the end the state is saved."""
    with as_run_errors(build):
        yield from pieces
        if stream is not None and save_state is not None:
            stream.save(save_state)
