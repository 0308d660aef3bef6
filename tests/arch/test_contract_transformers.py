"""Every transformers family, proven by function on a tiny model of its real config class."""

import pytest
import torch

pytest.importorskip("transformers")
from arch.cases import CASES, build, inputs, prove_saved
from arch.contract import Float64
from arch.net_cases import NETS, prove_net
from arch.record import live_proof, merged, recorded
from flagscope.arch import build_graph, families

LINEAR = {"qk linear gl", "qk linear heads", "ov linear gl", "ov linear heads"}
ROPE = {"qk rope rotary", "qk rope heads", "ov linear gl", "ov linear heads"}
NORMED = {"qk norm query scale", "qk norm key scale", "qk norm norm rotation", "qk norm heads",
          "ov linear gl", "ov linear heads"}  # fmt: skip
STREAM = {"stream"}
GATED = {"mlp gated scaling", "mlp gated permutation", "mlp silu permutation"}
GELU = {"mlp gelu permutation"}


# What some cases must prove whatever the registry says: family, changes.
EXPECTED = {
    "bert": ("bert", LINEAR | GELU),
    "bert-relu": ("bert", LINEAR | {"mlp relu scaling", "mlp relu permutation"}),
    "bert-generation": ("bert", LINEAR | GELU),
    "bert-odd-head": ("bert", LINEAR | GELU),
    "bert-cross": ("bert", LINEAR | GELU),
    "roberta": ("roberta", LINEAR | GELU),
    "xlm-roberta": ("roberta", LINEAR | GELU),
    "camembert": ("roberta", LINEAR | GELU),
    "distilbert": ("distilbert", LINEAR | GELU),
    "gpt2": ("gpt2", LINEAR | {"mlp gelu_new permutation"}),
    "gpt2-bare": ("gpt2", LINEAR | {"mlp gelu_new permutation"}),
    "gpt2-cross": ("gpt2", LINEAR | {"mlp gelu_new permutation"}),
    "llama": ("llama", ROPE | GATED | STREAM),
    "llama-biases-relu": ("llama", ROPE | STREAM | {"mlp gated scaling", "mlp gated permutation",
        "mlp relu scaling", "mlp relu permutation"}),
    "llama-wide-heads": ("llama", ROPE | GATED),
    "llama-one-kv": ("llama", ROPE | GATED | STREAM),
    "mistral": ("mistral", ROPE | GATED | STREAM),
    "qwen2": ("qwen2", ROPE | GATED | STREAM),
    "qwen3": ("qwen3", NORMED | GATED | STREAM),
    "gpt_neox": ("gpt_neox", ROPE | GELU),
    "gpt_neox-full-rotary": ("gpt_neox", ROPE | GELU),
    "vit": ("vit", LINEAR | GELU),
    "vit-bare-no-bias": ("vit", LINEAR | GELU),
}  # fmt: skip
# The same where names alone do not tell the family.
UNNAMED = {
    "mixtral": ("mixtral", ROPE | GATED),
    "deepseek_v3": ("deepseek_v3", {"latent norm write scale", "latent norm permutation",
        "qk linear gl", "qk rope rotary", "ov linear gl"} | GATED),
    "mpt-clipped": ("mpt", {"qk clip permutation", "ov clip permutation"} | GELU),
}  # fmt: skip


def shapes_of(state):
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("case", CASES)
def test_live_names(case):
    proof = live_proof(case)
    if case in EXPECTED | UNNAMED:
        assert (proof["family"], set(proof["changes"])) == (EXPECTED | UNNAMED)[case]
    entry = recorded()["cases"].get(case, {})
    assert {key: entry.get(key) for key in proof} == proof, "run python tests/arch/record.py"


@pytest.mark.parametrize("case", CASES)
def test_saved_names(case, tmp_path):
    kind = prove_saved(case, tmp_path)
    assert kind == recorded()["cases"][case]["saved"], "run python tests/arch/record.py"


@pytest.mark.parametrize("case", NETS)
def test_modules_of_the_same_names(case):
    proof = prove_net(case)
    entry = recorded()["cases"].get(case, {})
    assert {key: entry.get(key) for key in proof} == proof, "run python tests/arch/record.py"


def test_the_registry_is_what_its_cases_make():
    registry = recorded()
    cases = registry["cases"]
    live = {name: one for name, one in cases.items() if one["live"]}
    nets = {name: one for name, one in cases.items() if not one["live"]}
    assert set(live) == set(CASES)
    assert set(nets) == set(NETS)
    keys = ("family", "model", "changes", "pairs")
    small = {name: {key: one[key] for key in keys} for name, one in nets.items()}
    large = {n: {key: one[key] for key in (*keys, "model_type")} for n, one in live.items()}
    saved = {name: one["saved"] for name, one in live.items()}
    assert merged(large, saved, small) == registry


def test_every_family_and_model_type_is_proven():
    assert len(families()) >= 45
    for family in families():
        assert family.proof is not None, family.name
        assert set(family.model_types) <= set(family.proof.model_types), family.name
        # every kind of pair that the file promises was there, and changes of it were made
        assert set(family.pairs) == set(family.proof.pairs), family.name
        assert {one.split()[0] for one in family.proof.changes} >= set(family.pairs) - {"residual"}


def test_names_differ_where_they_are_tested_to_differ():
    model, _ = build("vit")
    assert any(".attention.q_proj." in name for name in model.state_dict())


@pytest.mark.parametrize("case", EXPECTED)
def test_family_and_heads_without_a_config(case):
    model, config = build(case)
    family = EXPECTED[case][0]
    shapes = shapes_of(model.state_dict())
    # without a config NeoX is taken to run attention and MLP in parallel, so no window here
    told = build_graph(shapes, config, window=0)
    heads = config.get("num_attention_heads") or config.get("n_head") or config.get("n_heads")
    guessed = build_graph(shapes, heads=heads, window=0)
    # the same names, or those of the other family but for a prefix
    alike = {"mistral": "llama", "llama-biases-relu": "qwen2", "xlm-roberta": "bert"}
    assert guessed.family == alike.get(case, family)
    assert [m.name for p in guessed.pairs for m in p.members] == [
        m.name for p in told.pairs for m in p.members
    ]
    assert [(p.write, p.read) for p in guessed.pairs] == [(p.write, p.read) for p in told.pairs]
    if case == "gpt_neox-full-rotary":  # a quarter of 4 dimensions is no plane
        assert {p.freedom for p in guessed.pairs if p.kind == "qk"} == {"none"}
        assert any("odd" in note for note in guessed.notes)
    assert any("inferred from tensor names" in note for note in guessed.notes)


def test_grouped_query_heads_meet_their_key_value_head():
    model, config = build("llama")
    graph = build_graph(shapes_of(model.state_dict()), config)
    group = next(p for p in graph.pairs if p.name == "layer.0.qk")
    assert [(m.head, m.kv_head) for m in group.members] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert [(h.space, h.count) for h in graph.heads[:4]] == [("q", 4), ("k", 2), ("v", 2), ("o", 4)]
    assert graph.heads[0].norm.gain == "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize("case", ["bert", "gpt2", "llama", "mistral", "qwen2", "gpt_neox", "vit"])
@pytest.mark.parametrize("head", [0, 3])
def test_a_head_reads_and_writes_only_its_spaces(case, head):
    """With the other heads' outputs cut off, gradients lie in the head's row spaces."""
    model, config = build(case)
    state = dict(model.state_dict())
    graph = build_graph(shapes_of(state), config)
    heads = {h.space: h for h in graph.heads if h.layer == 0}
    output = heads["o"].map
    matrices = output.write_matrices(state[output.tensor]).clone()
    written = matrices[head].clone()
    matrices[[h for h in range(output.count) if h != head]] = 0
    cut = {output.tensor: output.replace(state[output.tensor], matrices)}

    kept = {}
    modules = dict(model.named_modules())
    reader = modules[heads["q"].map.tensor.removesuffix(".weight")]
    writer = modules[output.tensor.removesuffix(".weight")]
    reader.register_forward_pre_hook(lambda _, given: kept.update(read=given[0]))
    writer.register_forward_hook(lambda *given: kept.update(write=given[2]))
    with Float64():
        torch.func.functional_call(model, cut, kwargs=inputs(case))
    bias = state[output.bias] if output.bias else 0
    heard = kept["write"] - bias
    cotangent = torch.randn(heard.shape, generator=torch.Generator().manual_seed(5)).double()
    (gradient,) = torch.autograd.grad((heard * cotangent).sum(), kept["read"])

    def outside(vectors, *bases):
        basis = torch.linalg.qr(torch.cat(bases, dim=1)).Q
        vectors = vectors.detach().flatten(0, -2)
        return float((vectors - vectors @ basis @ basis.T).norm() / vectors.norm())

    def rows(one, at):
        return one.map.write_matrices(state[one.map.tensor])[at].T

    def own(h):
        shared = h * heads["k"].count // heads["q"].count
        return rows(heads["q"], h), rows(heads["k"], shared), rows(heads["v"], shared)

    assert outside(heard, written) < 1e-11
    assert outside(gradient, *own(head)) < 1e-11
    assert outside(gradient, *own(3 - head)) > 1e-3
    other = output.write_matrices(state[output.tensor])[3 - head]
    assert outside(heard, other) > 1e-3
