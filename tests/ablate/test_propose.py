"""Proposals: what is asked of each spec, that it can be written, and that what is proposed can be trained."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest

import nldsl
from nldsl.ablate.propose import FAMILIES, Proposal, Proposals, block, propose
from nldsl.ablate.propose.proposal import asks, replaced
from nldsl.ablate.propose.text import block_text
from nldsl.api.reading import linked, reader_beside
from nldsl.api.spec import Spec, of_module
from nldsl.diagnostics.model import Source, SpecError
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.ablations import asked
from nldsl.resolve.expanded import ChainInstance, Expanded, MemoryInstance
from nldsl.resolve.findings import Findings

ROOT = Path(__file__).resolve().parents[2]
SPECS = tuple(
    path.relative_to(ROOT / "specs").with_suffix("").as_posix()
    for path in sorted((ROOT / "specs").rglob("*.nl"))
    if path.name != "models.nl"  # declares no run
)
TINY = {"model.dim": 16, "model.depth": 1, "data.length": 32, "data.batch": 2, "steps": 2}


@functools.cache
def spec_of(name: str, variant: str | None = None) -> Spec:
    return nldsl.load(ROOT / "specs" / f"{name}.nl", variant=variant)


@functools.cache
def proposed(name: str, variant: str | None = None) -> Proposals:
    return propose(spec_of(name, variant))


def changed(found: Proposals, spec: Spec, words: str) -> Expanded:
    """What the proposal of these words makes of a spec."""
    one = next((p for p in found if p.words == words), None)
    assert one is not None, f"`{words}` is not proposed"
    made = of_module(found.module, variant=spec.variant, settings=(*spec.settings, *one.amendments))
    return made.expanded


def memory(expanded: Expanded, name: str) -> MemoryInstance:
    found = next(i for i, _ in expanded.instances() if i.name == name)
    assert isinstance(found, MemoryInstance)
    return found


def adapts(expanded: Expanded, field: str) -> bool:
    return field in dict(memory(expanded, "SelfModifying").adaptives())


# --------------------------------------------------------------------------- the paper's own ablation

TABLE_6: tuple[tuple[str, str, Callable[[Expanded], bool]], ...] = (
    (
        "DGD -> GD",
        "SelfModifying.rule = gd",
        lambda x: memory(x, "SelfModifying").core.rule == "dgd",
    ),
    (
        "no momentum",
        "without SelfModifying.momentum",
        lambda x: "momentum" in memory(x, "SelfModifying").flows,
    ),
    (
        "no weight decay",
        "without SelfModifying.retain",
        lambda x: "retain" in memory(x, "SelfModifying").flows,
    ),
    (
        "no CMS",
        "without HopeBlock.store, slow",
        lambda x: any(isinstance(i, ChainInstance) for i, _ in x.instances()),
    ),
    ("k static", "without SelfModifying.key.adaptive", lambda x: adapts(x, "key")),
    ("v static", "without SelfModifying.value.adaptive", lambda x: adapts(x, "value")),
    ("q static", "without SelfModifying.query.adaptive", lambda x: adapts(x, "query")),
)
"""The rows of Nested Learning's Table 6, the proposal for each, and whether the part is there."""


@pytest.mark.parametrize(("words", "there"), [row[1:] for row in TABLE_6], ids=[row[0] for row in TABLE_6])
def test_a_row_of_table_6_is_proposed_and_its_part_is_gone(
    words: str, there: Callable[[Expanded], bool]
) -> None:
    spec = spec_of("hope", "Results")
    assert there(spec.expanded)
    assert not there(changed(proposed("hope", "Results"), spec, words))


# --------------------------------------------------------------------------- every spec


@pytest.mark.parametrize("name", SPECS)
def test_what_is_proposed_for_a_spec(name: str, golden: Callable[[Path, str], None]) -> None:
    found = proposed(name)
    lines = [f"{found.base}: {len(found)} proposals, {len(found.left_out)} left out", ""]
    lines += [f"[{one.family}] {one.question}\n    {one.words}" for one in found]
    lines += [""] if found.left_out else []
    lines += [f"- {one.proposal.words}: {one.reason}" for one in found.left_out]
    golden(Path(__file__).parent / "proposed" / f"{name.replace('/', '-')}.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("name", SPECS)
def test_a_block_of_proposals_reads_back_as_the_same_variants(name: str) -> None:
    found = proposed(name)
    path = ROOT / "specs" / f"{name}.nl"
    text = f"{path.read_text('utf-8')}\n{block(found)}"
    file = linked(Source(str(path), text), reader_beside(path))
    assert [*file.read, *file.linked] == []
    study = file.module.document.find("Auto")
    assert isinstance(study, doc.Ablate)
    findings = Findings()
    variants = asked(study, file.module.document, findings).variants
    assert findings.items == []
    assert [spelled(one.amendments) for one in variants] == [spelled(one.amendments) for one in found]
    assert all(one.question in text for one in found)


def test_a_block_says_all_that_is_not_so_anyway() -> None:
    both = asks("?", replaced("A.x", "relu"), replaced("A.y", "relu"))
    text = block_text([both, asks("?", replaced("A.x", "relu"))], "Run", measures=("perplexity",))
    variant, study = text.split("}\n\n")
    assert variant == "# ?\nvariant Auto1 of Run {\n  replace A.x by relu\n  replace A.y by relu\n"
    assert "variants = [Auto1]" in study
    assert "replace A.x = [relu]" in study
    assert "measure = [perplexity]" in study
    assert block_text([], "Run", seeds=(0,)) == "ablate Auto of Run { }\n"


def spelled(amendments: tuple[doc.Amendment, ...]) -> list[tuple[str, str, e.Expr | None]]:
    return [(one.action, one.path, one.value) for one in amendments]


def test_a_block_of_proposals_passes_the_checks() -> None:
    path = ROOT / "specs" / "hope.nl"
    text = f"{path.read_text('utf-8')}\n{block(proposed('hope'))}"
    assert [d for d in nldsl.check(Source(str(path), text)) if d.severity == "error"] == []


def test_proposals_come_in_the_same_order_each_time() -> None:
    again = propose(spec_of("hope"))
    assert [p.words for p in again] == [p.words for p in proposed("hope")]
    assert len({p.words for p in again}) == len(again)


@pytest.mark.parametrize("name", SPECS)
def test_a_proposal_asks_a_question_that_names_what_it_changes(name: str) -> None:
    for one in proposed(name):
        head = one.amendments[0].path.split(".")[0]
        assert "?" in one.question, one
        parts = {part for item in one.amendments for part in item.path.split(".")}
        values = {print_expr(item.value) for item in one.amendments if item.value is not None}
        assert head and any(word in one.question for word in parts | values), one


# --------------------------------------------------------------------------- choices


def test_families_can_be_chosen() -> None:
    found = propose(spec_of("hope"), ("clocks", "levels"))
    assert {one.family for one in found} == {"clocks", "levels"}
    everything = proposed("hope")
    assert [p.words for p in found] == [p.words for p in everything if p.family in ("clocks", "levels")]
    assert {p.family for p in everything} == {name for name, _ in FAMILIES}


def test_an_unknown_family_names_what_is_near() -> None:
    with pytest.raises(SpecError) as raised:
        propose(spec_of("hope"), ("clock",))
    (finding,) = raised.value.diagnostics
    assert (finding.code, finding.help) == ("NL0641", "maybe `clocks`")


def test_a_spec_without_a_run_has_no_proposals() -> None:
    with pytest.raises(SpecError) as raised:
        propose(nldsl.load(ROOT / "specs" / "continual" / "models.nl"))
    assert [d.code for d in raised.value.diagnostics] == ["NL0640"]


# --------------------------------------------------------------------------- what is left out

SMALL = """edition 2026
import [DeltaNet, GatedDeltaNet] from std
block Layer(dim) {{ mixer: x = x + (x |> rmsnorm |> {mixer}) }}
model Small(dim = 16, vocab = 256) {{ tokens |> embed(vocab, dim) |> Layer(dim) |> unembed(tied) }}
train Run {{
  model = Small
  data  = text("sotu", length = 32, batch = 2)
  steps = 4
  level all {{ learns = rest, rule = {rule} }}
}}
"""


def small(mixer: str = "DeltaNet(dim)", rule: str = "adamw(rate = 1e-3)", more: str = "") -> Proposals:
    return propose(nldsl.load(Source("small.nl", SMALL.format(mixer=mixer, rule=rule) + more)))


def reason(found: Proposals, words: str) -> str:
    return next(one.reason for one in found.left_out if one.proposal.words == words)


def test_a_rule_that_would_erase_twice_is_left_out_with_the_reason() -> None:
    assert reason(small(), "DeltaNet.rule = dgd") == (
        "`DeltaNet` erases twice: `dgd` does, and the objective `l2` does"
    )


def test_a_proposal_that_is_the_base_is_left_out() -> None:
    own = (
        "memory Own(dim, form = one) { key = x |> linear |> unit, value = x |> linear\n"
        "  query = x |> linear |> unit, objective = form(one = dot, other = dot) }"
    )
    assert reason(small("Own(dim)", more=own), "Own.form = other") == "the same as the base"


def test_a_proposal_that_is_another_is_left_out() -> None:
    own = (
        "memory Own(dim, still = zeros) { key = x |> linear |> unit, value = x |> linear\n"
        "  query = x |> linear |> unit, start = still(zeros = zeros, taught = learned) }"
    )
    found = small("Own(dim)", more=own)
    assert reason(found, "Own.start = learned") == "the same as `Own.still = taught`"


def test_a_rule_that_somebody_declared_has_kin_by_its_memories() -> None:
    own = (
        "optimizer mine(rate) {\n  memory pace { map = vector, value = grad, objective = l2, rate = 0.1 }\n"
        "  weight = weight - rate * pace\n}\n"
    )
    assert "all.rule = momentum(rate = 1e-3)" in [p.words for p in small(rule="mine(rate = 1e-3)", more=own)]


def test_memories_of_rules_are_asked_whether_they_need_to_erase() -> None:
    found = small(rule="delta_momentum(rate = 1e-3)")
    words = "delta_momentum.momentum.objective = dot, delta_momentum.momentum.rule = gd"
    assert words in [p.words for p in found]


def test_a_clock_is_changed_where_it_was_given() -> None:
    own = (
        "memory Own(dim, period = 4 tokens) { key = x |> linear |> unit, value = x |> linear\n"
        "  query = x |> linear |> unit, retain = 0.99, rate = 0.1, update = every period }\n"
    )
    assert clocks(small("Own(dim)", more=own)) == ["Own.period = 2 tokens", "Own.period = 8 tokens"]
    given = small("Own(dim, period = 8 tokens)", more=own)
    assert clocks(given) == ["Layer.mixer.Own.period = 4 tokens", "Layer.mixer.Own.period = 16 tokens"]


def test_a_clock_that_the_model_is_given_is_changed_there() -> None:
    own = (
        "memory Own(dim, period) { key = x |> linear |> unit, value = x |> linear\n"
        "  query = x |> linear |> unit, rate = 0.1, update = every period }\n"
    )
    text = SMALL.format(mixer="Own(dim, period)", rule="adamw(rate = 1e-3)") + own
    text = text.replace("Layer(dim)", "Layer(dim, period)")
    text = text.replace("vocab = 256)", "vocab = 256, period = 3 tokens)")
    default = propose(nldsl.load(Source("small.nl", text)), ["clocks"])
    assert clocks(default) == ["Small.period = 6 tokens"]  # and not one and a half
    for given in ("Small(period = 4 tokens)", "Small(16, 256, 4 tokens)"):
        run = text.replace("model = Small", f"model = {given}")
        found = propose(nldsl.load(Source("small.nl", run)), ["clocks"])
        assert clocks(found) == ["model.period = 2 tokens", "model.period = 8 tokens"]


@pytest.mark.parametrize(("hidden", "plain"), [("4 * dim", "6 * dim"), ("10", "15"), ("7 * dim + dim", "")])
def test_a_plain_feed_forward_has_as_many_weights_as_a_gated_one(hidden: str, plain: str) -> None:
    text = SMALL.format(mixer="DeltaNet(dim)", rule="adamw(rate = 1e-3)")
    text = text.replace(" }\nmodel", f"\n  ffn: x = x + (x |> swiglu({hidden})) }}\nmodel")
    spec = nldsl.load(Source("small.nl", text))
    [one] = [p for p in propose(spec, ["controls"]) if "swiglu by" in p.words]
    assert one.words.endswith(f"swiglu by mlp({plain or '3 * (7 * dim + dim) / 2'})")
    made = of_module(spec.module, settings=one.amendments)
    assert made.levels().parameters == spec.levels().parameters


def test_only_the_reach_of_a_weighted_window_is_changed() -> None:
    own = (
        "memory Own(dim, heads = 2) { key = x |> linear |> unit, value = x |> linear\n"
        "  query = x |> linear |> unit, rate = 0.1\n"
        "  window = 4 tokens weighted by (x |> linear(heads) |> sigmoid) }\n"
    )
    weighted = "tokens weighted by (x |> linear(heads) |> sigmoid)"
    assert clocks(small("Own(dim)", more=own)) == [f"Own.window = {n} {weighted}" for n in (2, 8)]


def test_keys_are_given_length_1_where_l2_would_overshoot() -> None:
    own = "memory Own(dim) { key = x |> linear, value = x, query = x |> linear, objective = dot }\n"
    words = [p.words for p in small("Own(dim)", more=own)]
    assert "Own.objective = l2, Own.key = x |> linear |> unit" in words
    unit = own.replace("key = x |> linear", "key = x |> linear |> unit")
    assert "Own.objective = l2" in [p.words for p in small("Own(dim)", more=unit)]


def test_weights_from_a_file_keep_their_shape() -> None:
    found = proposed("pretrained/smollm2")
    assert reason(found, "without Attention.out") == (
        "the weights that the run starts from are those of the base"
    )


def test_the_start_of_a_gate_becomes_its_constant() -> None:
    words = [p.words for p in proposed("mamba2")]
    assert "Mamba2.rate = 0.02" in words  # softplus(start = 0.02)
    assert "Mamba2.retain = 0.9802" in words  # exp(-exp(0) * 0.02)


def clocks(found: Proposals) -> list[str]:
    return [p.words for p in found if p.family == "clocks"]


def test_attention_is_imported_where_the_spec_lacks_it() -> None:
    found = small()
    assert found.imports == ("SoftmaxAttention",)
    assert block(found).startswith("import [SoftmaxAttention] from std\n")
    assert small("GatedDeltaNet(dim)").module.lookup("SoftmaxAttention") is not None


def test_a_name_that_means_something_else_is_not_proposed() -> None:
    own = "memory SoftmaxAttention(dim) { key = x, value = x, query = x }"
    assert not [p for p in small(more=own) if "SoftmaxAttention(" in p.words]


# --------------------------------------------------------------------------- they can be trained

TRAINED = (
    ("hope", "Results", "without HopeBlock.store, slow"),
    ("hope", "Results", "SelfModifying.rule = gd"),
    ("hope", "Results", "SelfModifying.map = matrix"),
    ("hope", "Results", "Continuum.order = [slow, middle, fast]"),
    ("hope", "Results", "Continuum.slow.update = never, without slow"),
    ("hope", "Results", "SelfModifying.update = never"),
    ("titans", None, "Titans.rule = muon"),
    ("titans", None, "replace TitansModelBlock.mixer.Titans by SoftmaxAttention(dim, heads = 4)"),
    ("transformer", None, "replace TransformerBlock.ffn.swiglu by mlp(3 * dim)"),
    ("transformer", None, "replace Transformer.unembed by unembed(vocab)"),
    ("cms_sequence", None, "ContinuumSequence.slow.update = never"),
    ("cms_nested", None, "without ContinuumNested.middle"),
    ("gla", None, "GLA.objective = l2, GLA.key = x |> linear |> unit"),
)


@pytest.mark.parametrize(("name", "variant", "words"), TRAINED)
def test_what_is_proposed_can_be_trained(name: str, variant: str | None, words: str, tmp_path: Path) -> None:
    import torch

    from nldsl.run.folder import load

    torch.set_num_threads(1)
    spec = nldsl.load(ROOT / "specs" / f"{name}.nl", variant=variant, set=TINY)
    one = next(p for p in proposed(name, variant) if p.words == words)
    module = proposed(name, variant).module
    of_module(module, variant=variant, settings=(*spec.settings, *one.amendments)).compile(tmp_path / "b")
    build = load(tmp_path / "b")
    trainer = build.loop.Trainer(build.settings, torch.device("cpu"))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    losses = [float(trainer.train_step()["loss"]) for _ in range(2)]
    assert all(math.isfinite(loss) for loss in losses)
    moved = [name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])]
    assert moved


def test_a_proposal_is_a_plain_value() -> None:
    assert proposed("hope").kept[0] == propose(spec_of("hope"), ("parts",)).kept[0]
    assert isinstance(proposed("hope").kept[0], Proposal)
