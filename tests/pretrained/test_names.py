"""What a start takes from a file, by which names; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nldsl.run.folder import Build

Begun = Callable[[Build], tuple[dict[str, Tensor], list[str]]]
Make = Callable[..., Build]
Tensors = Callable[..., dict[str, Tensor]]
HIDDEN, LAYERS = 48, 4
START = 'start = pretrained("model.safetensors")'
LISTS = ("blocks.0", "blocks.1", "blocks_2.0", "blocks_3.0")
OURS = {
    "mixer_norm": "input_layernorm",
    "mixer.query_linear": "self_attn.q_proj",
    "mixer.key_linear": "self_attn.k_proj",
    "mixer.value_linear": "self_attn.v_proj",
    "mixer.out_linear": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.mlp.gate": "mlp.gate_proj",
    "ffn.mlp.up": "mlp.up_proj",
    "ffn.mlp.down": "mlp.down_proj",
}


def expected(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model by hand, from a file with customary names."""
    found = {"embed.weight": given["model.embed_tokens.weight"], "norm.weight": given["model.norm.weight"]}
    for number, block in enumerate(LISTS):
        for own, name in OURS.items():
            found[f"{block}.{own}.weight"] = given[f"model.layers.{number}.{name}.weight"]
    return found


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert sorted(found) == sorted(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def refusal(build: Build, begun: Begun) -> str:
    """The message and help of the refusal, on one line."""
    with pytest.raises(build.schedule.UserError) as caught:
        begun(build)
    assert caught.value.kind == "pretrained"
    return f"{caught.value.message} / {caught.value.help}"


def test_customary_names_of_all_blocks(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    found, lines = begun(make_build(tensors()))
    assert_same(found, expected(tensors()))
    assert lines[0] == "model.safetensors: 38 tensors, 39,200 numbers, float32"
    assert "blocks.0-1.ffn.mlp.gate.weight" in lines[8]
    assert "model.layers.0-1.mlp.gate_proj.weight  [48, 32]" in lines[8]


def test_the_order_of_a_file_does_not_matter(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    found, _ = begun(make_build(dict(reversed(tensors().items()))))
    assert_same(found, expected(tensors()))


def test_names_without_the_first_part(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    bare = {name.removeprefix("model."): one for name, one in tensors().items()}
    assert_same(begun(make_build(bare))[0], expected(tensors()))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read_into_float32(
    make_build: Make, tensors: Tensors, begun: Begun, kind: torch.dtype
) -> None:
    given = {name: one.to(kind) for name, one in tensors().items()}
    found, lines = begun(make_build(given))
    assert_same(found, expected({name: one.float() for name, one in given.items()}))
    assert lines[0].endswith(str(kind).removeprefix("torch."))


def test_names_of_the_model_itself(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    assert_same(begun(make_build(expected(tensors())))[0], expected(tensors()))


def test_fused_projections_are_cut_by_rows(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = tensors()
    for n in range(LAYERS):
        at = f"model.layers.{n}"
        qkv = [given.pop(f"{at}.self_attn.{part}_proj.weight") for part in "qkv"]
        given[f"{at}.self_attn.qkv_proj.weight"] = torch.cat(qkv)
        both = [given.pop(f"{at}.mlp.{part}_proj.weight") for part in ("gate", "up")]
        given[f"{at}.mlp.gate_up_proj.weight"] = torch.cat(both)
    found, lines = begun(make_build(given))
    assert_same(found, expected(tensors()))
    assert any("rows 48 to 95" in line for line in lines)
    given["model.layers.1.mlp.gate_up_proj.weight"] = torch.zeros(2 * HIDDEN + 1, 32)
    assert "has 97 rows, and what stands in it has 48 + 48 in the model" in refusal(make_build(given), begun)


def test_matrices_that_stand_transposed(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = {n: one.T.contiguous() if "proj" in n else one for n, one in tensors().items()}
    found, lines = begun(make_build(given))
    assert_same(found, expected(tensors()))
    assert sum("transposed" in line for line in lines) == 21
    assert "transposed" in next(line for line in lines if "q_proj" in line)  # square: as the others say
    mixed = tensors() | {"model.layers.2.mlp.up_proj.weight": torch.zeros(32, HIDDEN)}
    assert "keeps `model.layers.2.mlp.up_proj.weight` transposed and" in refusal(make_build(mixed), begun)


def test_renamed_parts(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    def other(name: str) -> str:
        name = name.replace("model.layers", "transformer.h").replace("mlp.gate_proj", "ff.w1")
        return name.replace("model.embed_tokens", "wte")

    pairs = '[["model.layers", "transformer.h"], ["mlp.gate_proj", "ff.w1"], ["embed", "wte"]]'
    build = make_build(
        {other(name): one for name, one in tensors().items()},
        change=(START, f'start = pretrained("model.safetensors", rename = {pairs})'),
    )
    assert_same(begun(build)[0], expected(tensors()))


def test_a_level_takes_its_part_and_the_rest_is_drawn(
    make_build: Make, tensors: Tensors, begun: Begun
) -> None:
    level = 'start = pretrained("model.safetensors", "model.layers.*.mlp"), update = every 2 steps'
    build = make_build(tensors(), change=("update = every 2 steps", level))
    assert len(build.settings.pretrained) == 2
    assert_same(begun(build)[0], expected(tensors()))
    alone = make_build(tensors(), variant="Level")
    (start,) = alone.settings.pretrained
    assert start.path == "model.layers.*.mlp"
    found, lines = begun(alone)
    wanted = expected(tensors())
    taken = {name: one for name, one in wanted.items() if name.startswith("blocks_2.0.ffn.mlp")}
    assert_same({name: found[name] for name in taken}, taken)
    assert all(not torch.equal(one, wanted[name]) for name, one in found.items() if name not in taken)
    assert len(lines) == 4


def test_what_is_missing(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = tensors()
    for n in range(LAYERS):
        del given[f"model.layers.{n}.self_attn.o_proj.weight"]
    said = refusal(make_build(given), begun)
    assert "no `model.layers.0.self_attn.o_proj.weight` for `blocks.0.mixer.out_linear.weight`" in said
    assert "and nothing for 3 more weights / name the tensor with `rename" in said


def test_a_partial_start_says_what_it_leaves(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = tensors() | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}
    del given["model.layers.3.mlp.up_proj.weight"]
    build = make_build(given, change=(START, 'start = pretrained("model.safetensors", partial)'))
    found, lines = begun(build)
    wanted = expected(tensors())
    drawn = "blocks_3.0.ffn.mlp.up.weight"
    assert not torch.equal(found[drawn], wanted[drawn])
    assert_same(found, wanted | {drawn: found[drawn]})
    assert lines[-2:] == [
        "  begins anew: blocks_3.0.ffn.mlp.up.weight",
        "  not used: model.layers.0.self_attn.q_proj.bias",
    ]


def test_a_tensor_without_a_place(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = tensors() | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}
    said = refusal(make_build(given), begun)
    assert "the model has no place for `model.layers.0.self_attn.q_proj.bias` of model.safetensors" in said


def test_blocks_beyond_the_model_are_left_out_and_said(
    make_build: Make, tensors: Tensors, begun: Begun
) -> None:
    found, lines = begun(make_build(tensors(6)))
    assert_same(found, expected(tensors(6)))
    assert sum("not used: model.layers.4-5" in line for line in lines) == 9


def test_a_head_is_the_embedding_or_a_finding(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    twin = tensors()["model.embed_tokens.weight"]
    assert_same(begun(make_build(tensors() | {"lm_head.weight": twin.clone()}))[0], expected(tensors()))
    said = refusal(make_build(tensors() | {"lm_head.weight": twin + 1}), begun)
    assert "the model has no place for `lm_head.weight`" in said
    said = refusal(make_build(tensors(), change=("unembed(tied)", "unembed(vocab)")), begun)
    assert "no `lm_head.weight` for `unembed.weight` / write `unembed(tied)`" in said


def test_tensors_that_follow_from_sizes_are_passed_over(
    make_build: Make, tensors: Tensors, begun: Begun
) -> None:
    given = tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert_same(begun(make_build(given))[0], expected(tensors()))


def test_two_tensors_for_one_weight(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = tensors() | {"norm.weight": torch.ones(32)}
    said = refusal(make_build(given), begun)
    assert "`norm.weight` may begin as `model.norm.weight` or as `norm.weight`" in said


def test_other_sizes(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = tensors() | {"model.norm.weight": torch.ones(33)}
    assert "`model.norm.weight` of model.safetensors is [33], and `norm.weight` is [32]" in refusal(
        make_build(given), begun
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(make_build: Make, tensors: Tensors, begun: Begun, bad: float) -> None:
    given = tensors()
    given["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    said = refusal(make_build(given), begun)
    assert (
        "`model.layers.1.mlp.up_proj.weight` of model.safetensors holds numbers that are not finite" in said
    )


def test_whole_numbers_are_no_weights(make_build: Make, tensors: Tensors, begun: Begun) -> None:
    given = tensors() | {"model.norm.weight": torch.ones(32, dtype=torch.int64)}
    assert "holds int64, which are no weights" in refusal(make_build(given), begun)


def test_a_file_that_is_none(make_build: Make, begun: Begun, tmp_path: Path) -> None:
    build = make_build(None)
    assert "there is no file `model.safetensors` to start from" in refusal(build, begun)
    (build.folder / "model.safetensors").write_bytes(b"PK\x03\x04 not weights")
    assert "is no whole safetensors file" in refusal(build, begun)


def test_nothing_changes_where_a_start_is_refused(make_build: Make, tensors: Tensors) -> None:
    build = make_build(tensors() | {"model.norm.weight": torch.ones(33)})
    model = build.checkpoint.construct(build.settings.model)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(build.schedule.UserError):
        build.pretrained.start_from_files(model, build.settings, build.folder)
    assert_same(model.state_dict(), before)
