"""Every transformers family, proven by function on a tiny model of its real config class."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from arch.contract import Float64, assert_heads_proven, assert_proven, randomise
from flagscope.arch import build_graph

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

COMMON = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "vocab_size": 11, "max_position_embeddings": 12,
}  # fmt: skip
GROUPED = {**COMMON, "num_key_value_heads": 2}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 11, "n_positions": 12}
VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "image_size": 8, "patch_size": 4,
}  # fmt: skip
CROSS = {"is_decoder": True, "add_cross_attention": True}
LINEAR = {"qk linear gl", "ov linear gl"}
ROPE = {"qk rope rotary", "ov linear gl"}
GATED = {"mlp gated scaling", "mlp gated permutation", "mlp silu permutation"}
GELU = {"mlp gelu permutation"}

# name: model class, config class, settings, family, changes that must have been made
CASES = {
    "bert": ("BertForMaskedLM", "BertConfig", COMMON, "bert", LINEAR | GELU),
    "bert-relu": (
        "BertForMaskedLM", "BertConfig", {**COMMON, "hidden_act": "relu"}, "bert",
        LINEAR | {"mlp relu scaling", "mlp relu permutation"},
    ),
    "bert-generation": ("BertGenerationEncoder", "BertGenerationConfig", COMMON, "bert",
                        LINEAR | GELU),
    "bert-odd-head": (
        "BertModel", "BertConfig", {**COMMON, "hidden_size": 15, "num_attention_heads": 3}, "bert",
        LINEAR | GELU,
    ),
    "bert-cross": ("BertLMHeadModel", "BertConfig", {**COMMON, **CROSS}, "bert", LINEAR | GELU),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", COMMON, "roberta", LINEAR | GELU),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig", COMMON, "roberta", LINEAR | GELU),
    "camembert": ("CamembertForMaskedLM", "CamembertConfig", COMMON, "roberta", LINEAR | GELU),
    "distilbert": (
        "DistilBertForMaskedLM", "DistilBertConfig",
        {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "vocab_size": 11,
         "max_position_embeddings": 12}, "distilbert", LINEAR | GELU,
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2, "gpt2",
             LINEAR | {"mlp gelu_new permutation"}),
    "gpt2-bare": ("GPT2Model", "GPT2Config", GPT2, "gpt2",
                  LINEAR | {"mlp gelu_new permutation"}),
    "gpt2-cross": ("GPT2LMHeadModel", "GPT2Config", {**GPT2, "add_cross_attention": True}, "gpt2",
                   LINEAR | {"mlp gelu_new permutation"}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED, "llama", ROPE | GATED),
    "llama-biases-relu": (
        "LlamaForCausalLM", "LlamaConfig",
        {**GROUPED, "attention_bias": True, "mlp_bias": True, "hidden_act": "relu"}, "llama",
        ROPE | {"mlp gated scaling", "mlp gated permutation", "mlp relu scaling",
                "mlp relu permutation"},
    ),
    "llama-wide-heads": ("LlamaModel", "LlamaConfig", {**GROUPED, "head_dim": 6}, "llama",
                         ROPE | GATED),
    "llama-one-kv": ("LlamaForCausalLM", "LlamaConfig", {**COMMON, "num_key_value_heads": 1},
                     "llama", ROPE | GATED),
    "mistral": ("MistralForCausalLM", "MistralConfig", GROUPED, "mistral", ROPE | GATED),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED, "qwen2", ROPE | GATED),
    "qwen3": (
        "Qwen3ForCausalLM", "Qwen3Config",
        # the scale of queries and keys is removed up to eps
        {**GROUPED, "head_dim": 8, "rms_norm_eps": 1e-20}, "qwen3",
        {"qk norm query scale", "qk norm key scale", "ov linear gl"} | GATED,
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig",
                 {**COMMON, "hidden_size": 32, "rotary_pct": 0.5}, "gpt_neox", ROPE | GELU),
    "gpt_neox-full-rotary": (
        "GPTNeoXForCausalLM", "GPTNeoXConfig",
        {**COMMON, "rotary_pct": 1.0, "use_parallel_residual": False, "attention_bias": False},
        "gpt_neox", ROPE | GELU,
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", VIT, "vit", LINEAR | GELU),
    "vit-bare-no-bias": ("ViTModel", "ViTConfig", {**VIT, "qkv_bias": False}, "vit",
                         LINEAR | GELU),
}  # fmt: skip


def build(case):
    model_class, config_class, settings, family, expected = CASES[case]
    config = getattr(transformers, config_class)(**settings)
    config._attn_implementation = "eager"
    model = randomise(getattr(transformers, model_class)(config), seed=1)
    return model, json.loads(json.dumps(config.to_dict(), default=str)), family, expected


def inputs(case):
    generator = torch.Generator().manual_seed(2)
    if case.startswith("vit"):
        pixels = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
        return {"pixel_values": pixels}
    # token 1 is RoBERTa's padding, which shifts positions
    given = {"input_ids": torch.randint(2, 11, (2, 7), generator=generator)}
    if case.endswith("cross"):
        hidden = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
        given["encoder_hidden_states"] = hidden
    return given


def shapes_of(state):
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("case", CASES)
def test_live_names(case):
    model, config, family, expected = build(case)
    state = dict(model.state_dict())
    graph = build_graph(shapes_of(state), config)
    given = inputs(case)

    def run(changed):
        different = {k: v for k, v in changed.items() if v is not state[k]}
        with torch.no_grad(), Float64():
            return torch.func.functional_call(model, different, kwargs=given)[0]

    assert graph.family == family
    assert graph.notes == ()
    assert_heads_proven(graph)
    assert assert_proven(graph, state, run, tolerance=1e-11) == expected


@pytest.mark.parametrize("case", ["bert", "gpt2", "qwen3", "gpt_neox", "vit", "vit-bare-no-bias"])
def test_saved_names(case, tmp_path):
    model, _, family, expected = build(case)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    state = load_file(tmp_path / "model.safetensors")
    graph = build_graph(shapes_of(state), config)
    given = inputs(case)

    def run(changed):
        # a file of its own for each change: loaded tensors may be mapped from their file
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "config.json").write_text((tmp_path / "config.json").read_text())
        contiguous = {k: v.contiguous() for k, v in changed.items()}
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
        loaded = type(model).from_pretrained(folder, dtype=torch.float64).eval()
        with torch.no_grad(), Float64():
            return loaded(**given)[0]

    assert graph.family == family
    assert graph.notes == ()
    assert_heads_proven(graph)
    first = [p for p in graph.pairs if p.layer == 0]
    one_layer = type(graph)(graph.family, tuple(first), graph.heads)
    assert assert_proven(one_layer, state, run, tolerance=1e-11) == expected


def test_names_differ_where_they_are_tested_to_differ():
    model, *_ = build("vit")
    assert any(".attention.q_proj." in name for name in model.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_family_and_heads_without_a_config(case):
    model, config, family, _ = build(case)
    shapes = shapes_of(model.state_dict())
    told = build_graph(shapes, config)
    heads = config.get("num_attention_heads") or config.get("n_head") or config.get("n_heads")
    guessed = build_graph(shapes, heads=heads)
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
    model, config, *_ = build("llama")
    graph = build_graph(shapes_of(model.state_dict()), config)
    group = next(p for p in graph.pairs if p.name == "layer.0.qk")
    assert [(m.head, m.kv_head) for m in group.members] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert [(h.space, h.count) for h in graph.heads[:4]] == [("q", 4), ("k", 2), ("v", 2), ("o", 4)]
    assert graph.heads[0].norm.gain == "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize("case", ["bert", "gpt2", "llama", "mistral", "qwen2", "gpt_neox", "vit"])
@pytest.mark.parametrize("head", [0, 3])
def test_a_head_reads_and_writes_only_its_spaces(case, head):
    """With the other heads' outputs cut off, gradients lie in the head's row spaces."""
    model, config, *_ = build(case)
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
