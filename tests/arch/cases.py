"""Tiny models of real configuration classes, one case or more for each family of transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from arch.contract import (
    Float64,
    State,
    assert_heads_proven,
    assert_proven,
    beside,
    change_names,
    movement,
    randomise,
)
from flagscope.arch import Graph, build_graph
from flagscope.reparameterize import Change, Symmetry, apply

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

COMMON = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "vocab_size": 11, "max_position_embeddings": 16,
}  # fmt: skip
GROUPED = {**COMMON, "num_key_value_heads": 2}
# The scale of queries and keys is removed by their norm up to eps.
NORMED = {**GROUPED, "rms_norm_eps": 1e-20, "layer_norm_eps": 1e-20}
VISION = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "image_size": 8, "patch_size": 4,
}  # fmt: skip
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
}  # fmt: skip
LATENT = {
    **COMMON, "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 6,
        "qk_nope_head_dim": 2, "qk_rope_head_dim": 4,
    "v_head_dim": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
    "first_k_dense_replace": 1, "n_group": 2, "topk_group": 2, "n_shared_experts": 1,
    "rms_norm_eps": 1e-20,
}  # fmt: skip
SIDES = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "vocab_size": 11,
    "max_position_embeddings": 16, "pad_token_id": 0, "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 11,
      "decoder_start_token_id": 0}  # fmt: skip
FALCON = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 11}
WAVE = {
    **COMMON, "conv_dim": [8, 8], "conv_stride": [2, 2], "conv_kernel": [3, 3],
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
TOWERS = {
    "text_config": {**COMMON, "eos_token_id": 10, "projection_dim": 8},
    "vision_config": {**VISION, "num_attention_heads": 2, "projection_dim": 8},
}
# Several parts with a config each: tokens alone pass through the language model alone.
PARTS = {"image_token_index": 10, "boi_token_index": 9, "eoi_token_index": 8,
         "mm_tokens_per_image": 4}  # fmt: skip
BEYOND = {"text_config": {**COMMON, "projection_size": 16}, "vision_config": VISION}

GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 11, "n_positions": 12}
VIT = VISION
CROSS = {"is_decoder": True, "add_cross_attention": True}

# name: model class, config class, settings, inputs
CASES: dict[str, tuple[str, str, dict, str]] = {
    "bert": ("BertForMaskedLM", "BertConfig",
        COMMON, "tokens"),
    "bert-relu": ("BertForMaskedLM", "BertConfig",
        {**COMMON, "hidden_act": "relu"}, "tokens"),
    "bert-generation": ("BertGenerationEncoder", "BertGenerationConfig",
        COMMON, "tokens"),
    "bert-odd-head": ("BertModel", "BertConfig",
        {**COMMON, "hidden_size": 15, "num_attention_heads": 3}, "tokens"),
    "bert-cross": ("BertLMHeadModel", "BertConfig",
        {**COMMON, **CROSS}, "cross"),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig",
        COMMON, "tokens"),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig",
        COMMON, "tokens"),
    "camembert": ("CamembertForMaskedLM", "CamembertConfig",
        COMMON, "tokens"),
    "distilbert": ("DistilBertForMaskedLM", "DistilBertConfig",
        {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "vocab_size": 11,
            "max_position_embeddings": 12}, "tokens"),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config",
        GPT2, "tokens"),
    "gpt2-bare": ("GPT2Model", "GPT2Config",
        GPT2, "tokens"),
    "gpt2-cross": ("GPT2LMHeadModel", "GPT2Config",
        {**GPT2, "add_cross_attention": True}, "cross"),
    "llama": ("LlamaForCausalLM", "LlamaConfig",
        GROUPED, "tokens"),
    "llama-biases-relu": ("LlamaForCausalLM", "LlamaConfig",
        {**GROUPED, "attention_bias": True, "mlp_bias": True, "hidden_act": "relu"}, "tokens"),
    "llama-wide-heads": ("LlamaModel", "LlamaConfig",
        {**GROUPED, "head_dim": 6}, "tokens"),
    "llama-one-kv": ("LlamaForCausalLM", "LlamaConfig",
        {**COMMON, "num_key_value_heads": 1}, "tokens"),
    "mistral": ("MistralForCausalLM", "MistralConfig",
        GROUPED, "tokens"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config",
        GROUPED, "tokens"),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config",
        {**GROUPED, "head_dim": 8, "rms_norm_eps": 1e-20}, "tokens"),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig",
        {**COMMON, "hidden_size": 32, "rotary_pct": 0.5}, "tokens"),
    "gpt_neox-full-rotary": ("GPTNeoXForCausalLM", "GPTNeoXConfig",
        {**COMMON, "rotary_pct": 1.0, "use_parallel_residual": False, "attention_bias": False},
            "tokens"),
    "vit": ("ViTForImageClassification", "ViTConfig",
        VIT, "pixels"),
    "vit-bare-no-bias": ("ViTModel", "ViTConfig",
        {**VIT, "qkv_bias": False}, "pixels"),
    "gptj": ("GPTJForCausalLM", "GPTJConfig",
             {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 11,
              "n_positions": 16}, "tokens"),
    "gpt_neo": ("GPTNeoForCausalLM", "GPTNeoConfig",
                {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "intermediate_size": 24,
                 "attention_types": [[["global", "local"], 1]], "vocab_size": 11,
                 "max_position_embeddings": 16, "window_size": 4}, "tokens"),
    "opt": ("OPTForCausalLM", "OPTConfig",
            {**COMMON, "ffn_dim": 24, "word_embed_proj_dim": 16}, "tokens"),
    "bloom": ("BloomForCausalLM", "BloomConfig",
              {"hidden_size": 16, "n_layer": 2, "n_head": 4, "vocab_size": 11}, "tokens"),
    "falcon": ("FalconForCausalLM", "FalconConfig", FALCON, "tokens"),
    "falcon-several-kv": ("FalconForCausalLM", "FalconConfig",
                          {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
                          "tokens"),
    "falcon-all-kv-alibi": ("FalconForCausalLM", "FalconConfig",
                            {**FALCON, "multi_query": False, "alibi": True, "bias": True},
                            "tokens"),
    "mpt": ("MptForCausalLM", "MptConfig",
            {"d_model": 16, "n_layers": 2, "n_heads": 4, "vocab_size": 11, "max_seq_len": 16},
            "tokens"),
    "llama4": ("Llama4ForCausalLM", "Llama4TextConfig",
               {**NORMED, "intermediate_size_mlp": 20, **EXPERTS, "interleave_moe_layer_step": 2,
                "no_rope_layers": [1, 0], "head_dim": 4, "layer_types": ["full_attention"] * 2},
               "tokens"),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**GROUPED, **EXPERTS}, "tokens"),
    "qwen2_moe": ("Qwen2MoeForCausalLM", "Qwen2MoeConfig", {**GROUPED, **EXPERTS}, "tokens"),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig",
                  {**NORMED, **EXPERTS, "head_dim": 4, "mlp_only_layers": [0]}, "tokens"),
    "olmoe": ("OlmoeForCausalLM", "OlmoeConfig", {**NORMED, **EXPERTS}, "tokens"),
    "gpt-bigcode": ("GPTBigCodeForCausalLM", "GPTBigCodeConfig",
        {**GPT2, "bos_token_id": 0, "eos_token_id": 0}, "tokens"),
    "gpt-bigcode-all-kv": ("GPTBigCodeForCausalLM", "GPTBigCodeConfig",
        {**GPT2, "multi_query": False, "bos_token_id": 0, "eos_token_id": 0}, "tokens"),
    "gpt-oss": ("GptOssForCausalLM", "GptOssConfig",
        {**GROUPED, **EXPERTS, "head_dim": 4, "intermediate_size": 8}, "tokens"),
    "granitemoe": ("GraniteMoeForCausalLM", "GraniteMoeConfig", {**GROUPED, **EXPERTS}, "tokens"),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {**GROUPED, "head_dim": 6}, "tokens"),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, "head_dim": 4}, "tokens"),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**NORMED, "head_dim": 4}, "tokens"),
    "gemma3-parts": ("Gemma3ForConditionalGeneration", "Gemma3Config",
                     {**PARTS, "text_config": {**NORMED, "head_dim": 4}, "vision_config": VISION},
                     "text"),
    "llama4-parts": ("Llama4ForConditionalGeneration", "Llama4Config",
                     {**PARTS, "text_config": {
                         **NORMED, "intermediate_size_mlp": 20, **EXPERTS, "head_dim": 4,
                         "interleave_moe_layer_step": 2, "no_rope_layers": [1, 0],
                         "layer_types": ["full_attention"] * 2,
                      }, "vision_config": {
                         **VISION, "vision_output_dim": 16, "projector_input_dim": 16,
                         "projector_output_dim": 16,
                      }}, "text"),
    "mistral3": ("Mistral3ForConditionalGeneration", "Mistral3Config",
                 {**PARTS, "text_config": {**GROUPED, "model_type": "mistral", "head_dim": 4},
                  "vision_config": {**VISION, "model_type": "pixtral", "head_dim": 4}}, "text"),
    "llava": ("LlavaForConditionalGeneration", "LlavaConfig",
              {**PARTS, "text_config": {**GROUPED, "model_type": "llama"},
               "vision_config": {**VISION, "model_type": "clip_vision_model"}}, "text"),
    "phi": ("PhiForCausalLM", "PhiConfig", COMMON, "tokens"),
    "phi-normed": ("PhiForCausalLM", "PhiConfig", {**NORMED, "qk_layernorm": True}, "tokens"),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**GROUPED, "pad_token_id": 0}, "tokens"),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", {**GROUPED, "hidden_size": 32},
                 "tokens"),
    "stablelm-normed": ("StableLmForCausalLM", "StableLmConfig",
                        {**NORMED, "hidden_size": 32, "qk_layernorm": True,
                         "use_parallel_residual": True}, "tokens"),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config",
                   {**GROUPED, "bos_token_id": 0, "eos_token_id": 0}, "tokens"),
    "olmo": ("OlmoForCausalLM", "OlmoConfig", GROUPED, "tokens"),
    "olmo-clipped": ("OlmoForCausalLM", "OlmoConfig", {**GROUPED, "clip_qkv": 0.5}, "tokens"),
    "mpt-clipped": (
        "MptForCausalLM",
        "MptConfig",
        {"d_model": 16, "n_layers": 2, "n_heads": 4, "vocab_size": 11, "max_seq_len": 16,
         "attn_config": {"clip_qkv": 0.5}},
        "tokens",
    ),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", NORMED, "tokens"),
    "olmo3": ("Olmo3ForCausalLM", "Olmo3Config", NORMED, "tokens"),
    "granite": ("GraniteForCausalLM", "GraniteConfig", GROUPED, "tokens"),
    "cohere": ("CohereForCausalLM", "CohereConfig", GROUPED, "tokens"),
    "cohere-normed": ("CohereForCausalLM", "CohereConfig", {**NORMED, "use_qk_norm": True},
                      "tokens"),
    "cohere2": ("Cohere2ForCausalLM", "Cohere2Config",
                {**GROUPED, "layer_types": ["sliding_attention", "full_attention"]}, "tokens"),
    "deepseek_v2": ("DeepseekV2ForCausalLM", "DeepseekV2Config",
                    {**LATENT, "topk_method": "greedy"}, "tokens"),
    "deepseek_v2-whole-queries": ("DeepseekV2ForCausalLM", "DeepseekV2Config",
                                  {**LATENT, "topk_method": "greedy", "q_lora_rank": None},
                                  "tokens"),
    "deepseek_v3": ("DeepseekV3ForCausalLM", "DeepseekV3Config", LATENT, "tokens"),
    "deepseek_v3-half": ("DeepseekV3ForCausalLM", "DeepseekV3Config",
                         {**LATENT, "rope_interleave": False}, "tokens"),
    "albert": ("AlbertForMaskedLM", "AlbertConfig", {**COMMON, "embedding_size": 8}, "tokens"),
    "electra": ("ElectraForMaskedLM", "ElectraConfig", {**COMMON, "embedding_size": 8}, "tokens"),
    "deberta_v2": ("DebertaV2ForMaskedLM", "DebertaV2Config",
                   {**COMMON, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                    "position_buckets": 8, "share_att_key": True,
                    "norm_rel_ebd": "layer_norm"}, "tokens"),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig",
                   {**COMMON, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 1}, "tokens"),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5, "sides"),
    "t5-gated": ("T5ForConditionalGeneration", "T5Config",
                 {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "sides"),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", T5, "sides"),
    "umt5": ("UMT5ForConditionalGeneration", "UMT5Config", T5, "sides"),
    "bart": ("BartForConditionalGeneration", "BartConfig", SIDES, "sides"),
    "marian": ("MarianMTModel", "MarianConfig", SIDES, "sides"),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", SIDES, "sides"),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", SIDES, "sides"),
    "m2m_100": ("M2M100ForConditionalGeneration", "M2M100Config", SIDES, "sides"),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig",
                {**SIDES, "num_mel_bins": 8, "max_source_positions": 8,
                 "max_target_positions": 16}, "mel"),
    "deit": ("DeiTForImageClassification", "DeiTConfig", VISION, "pixels"),
    "swin": ("SwinForImageClassification", "SwinConfig",
             {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 4], "window_size": 2,
              "image_size": 8, "patch_size": 2, "num_labels": 3}, "pixels"),
    "clip": ("CLIPModel", "CLIPConfig", {**TOWERS, "projection_dim": 8}, "both"),
    "clip-text": ("CLIPTextModelWithProjection", "CLIPTextConfig", TOWERS["text_config"],
                  "tokens"),
    "clip-vision": ("CLIPVisionModelWithProjection", "CLIPVisionConfig",
                    TOWERS["vision_config"], "pixels"),
    "siglip": ("SiglipModel", "SiglipConfig", BEYOND, "both"),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", VISION, "pixels"),
    "dinov2-registers-gated": ("Dinov2WithRegistersForImageClassification",
                               "Dinov2WithRegistersConfig",
                               {**VISION, "use_swiglu_ffn": True}, "pixels"),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig",
                 {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "image_size": 8,
                  "patch_size": 2}, "pixels"),
    "resnet": ("ResNetForImageClassification", "ResNetConfig",
               {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [2, 1],
                "layer_type": "basic", "num_labels": 3}, "pixels"),
    "resnet-bottleneck": ("ResNetForImageClassification", "ResNetConfig",
                          {"embedding_size": 8, "hidden_sizes": [16, 20], "depths": [1, 1],
                           "layer_type": "bottleneck", "num_labels": 3}, "pixels"),
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", WAVE, "wave"),
    "wav2vec2-before": ("Wav2Vec2ForCTC", "Wav2Vec2Config",
                        {**WAVE, "do_stable_layer_norm": True}, "wave"),
    "hubert": ("HubertModel", "HubertConfig", WAVE, "wave"),
    "mamba": ("MambaForCausalLM", "MambaConfig",
              {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 11, "state_size": 4,
               "time_step_rank": 3}, "tokens"),
    "mamba2": ("Mamba2ForCausalLM", "Mamba2Config",
               {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 11, "state_size": 4,
                "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 4}, "tokens"),
}  # fmt: skip


def build(case: str) -> tuple[torch.nn.Module, dict]:
    """The model in float64, and its config as config.json has it."""
    model_class, config_class, settings, _ = CASES[case]
    config = getattr(transformers, config_class)(**settings)
    config._attn_implementation = config._experts_implementation = "eager"
    model = with_epsilon(randomise(getattr(transformers, model_class)(config), seed=1), case)
    return model, json.loads(json.dumps(config.to_dict(), default=str))


def with_epsilon(model: torch.nn.Module, case: str) -> torch.nn.Module:
    """The case's epsilon in all norms: those of latent spaces do not ask the config."""
    epsilon = CASES[case][2].get("rms_norm_eps")
    for module in model.modules() if epsilon else ():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = epsilon
    return model


def inputs(case: str) -> dict[str, torch.Tensor]:
    """What the model is given."""
    kind = CASES[case][3]
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def tokens(length: int, below: int = 11) -> torch.Tensor:
        return torch.randint(2, below, (2, length), generator=generator)

    if kind == "text":  # none of the tokens that stand for an image
        return {"input_ids": tokens(7, below=8)}
    if kind == "pixels":
        return {"pixel_values": random(2, 3, 8, 8)}
    if kind == "both":
        return {"input_ids": tokens(7), "pixel_values": random(2, 3, 8, 8)}
    if kind == "sides":
        return {"input_ids": tokens(7), "decoder_input_ids": tokens(5)}
    if kind == "mel":
        return {"input_features": random(2, 8, 16), "decoder_input_ids": tokens(5)}
    if kind == "wave":
        return {"input_values": random(2, 40)}
    given = {"input_ids": tokens(7)}  # token 1 is RoBERTa's padding, which shifts positions
    return given | {"encoder_hidden_states": random(2, 5, 16)} if kind == "cross" else given


def graph_of(state: dict[str, torch.Tensor], config: dict, *, window: int = 0) -> Graph:
    """The graph of a state dict; test_stream.py proves what a window adds to it."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    return build_graph(shapes, config, window=window)


def channel_order(case: str, layer: str, graph: Graph) -> Change:
    """State-space channels trading places, as far as the maps that the graph names are concerned.

    The graph claims no freedom there, since more than these maps belongs to a channel.
    """
    writer, *others = [pair for pair in graph.pairs if pair.name.startswith(layer)]
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(writer.d, generator=generator)
    if case.startswith("mamba2"):  # within each head: its time step and decay are one
        heads = range(0, writer.d, 8)
        order = torch.cat([at + torch.randperm(8, generator=generator) for at in heads])
    return Change(Symmetry("permutation", writer, None, writer.d, tuple(others)), order)


def channels_permuted(case: str, state: State, order: torch.Tensor, mixer: str) -> State:
    """What belongs to the channels beside the maps of the graph, in another order."""
    changed = dict(state)
    if case.startswith("mamba2"):
        changed[f"{mixer}norm.weight"] = state[f"{mixer}norm.weight"][order]
    else:
        for name in ("dt_proj.weight", "dt_proj.bias", "A_log", "D"):
            changed[mixer + name] = state[mixer + name][order]
        changed[f"{mixer}x_proj.weight"] = state[f"{mixer}x_proj.weight"][:, order]
    rest = torch.arange(len(order), len(state[f"{mixer}conv1d.bias"]))
    for name in ("conv1d.weight", "conv1d.bias"):
        changed[mixer + name] = state[mixer + name][torch.cat([order, rest])]
    return changed


def assert_channels_proven(case: str, state: State, run: Callable[[State], torch.Tensor]) -> str:
    """Maps into and out of a state space, proven by permuting its channels in both layers."""
    reference, graph = run(state), graph_of(state, build(case)[1])
    for layer in ("layer.0.", "layer.1."):
        change = channel_order(case, layer, graph)
        mixer = change.symmetry.group.read.map.tensor.removesuffix("out_proj.weight")
        inner = channels_permuted(case, state, change.values, mixer)
        kept = movement(run(apply(inner, change).state), reference)
        assert kept < 1e-11, kept
        for part in range(1 + len(change.symmetry.partners)):
            moved = movement(run(beside(change, inner, part)), reference)
            assert moved > 1e-3, moved
    return "mlp ssm channel permutation"


def prove(case: str) -> dict:
    """What is proven of a case, on the names of the live module."""
    model, config = build(case)
    state = dict(model.state_dict())
    graph = graph_of(state, config)
    given = inputs(case)

    def run(changed: State) -> torch.Tensor:
        with torch.no_grad(), Float64():
            return torch.func.functional_call(model, changed, kwargs=given, tie_weights=False)[0]

    assert not unexpected_notes(graph, config)
    assert_heads_proven(graph)
    done = assert_proven(graph, state, run, tolerance=1e-11)
    if case.startswith("mamba"):
        done.add(assert_channels_proven(case, state, run))
    every = graph_of(state, config, window=1).pairs
    return {"family": graph.family, "model": CASES[case][0], "changes": sorted(done),
            "pairs": sorted({pair.kind for pair in every})}  # fmt: skip


def prove_saved(case: str, folder: Path) -> str:
    """The same on the names that `save_pretrained` writes: "same", or "proven" where they differ.

    The changed state is written, and read by `from_pretrained`.
    """
    model, _ = build(case)
    model.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    graph = graph_of(state, config)
    given = inputs(case)

    def run(changed: State) -> torch.Tensor:
        # a file of its own for each change: loaded tensors may be mapped from their file
        place = folder / f"{len(list(folder.iterdir()))}"
        place.mkdir()
        parted = {"tie_word_embeddings": False} if set(changed) > set(state) else {}
        (place / "config.json").write_text(json.dumps(config | parted))
        contiguous = {k: v.contiguous() for k, v in changed.items()}
        save_file(contiguous, place / "model.safetensors", metadata={"format": "pt"})
        loaded = (
            type(model)
            .from_pretrained(
                place,
                dtype=torch.float64,
                attn_implementation="eager",
                experts_implementation="eager",
            )
            .eval()
        )
        with torch.no_grad(), Float64():
            return with_epsilon(loaded, case)(**given)[0]

    live = graph_of(dict(model.state_dict()), config)
    assert not unexpected_notes(graph, config)
    assert_heads_proven(graph)
    assert heads_and_pairs(graph) == heads_and_pairs(live)
    done = assert_proven(graph, state, run, tolerance=1e-11, each=False)
    assert done == change_names(live)
    return "same" if set(state) <= set(model.state_dict()) else "proven"


def unexpected_notes(graph: Graph, config: dict) -> list[str]:
    """Notes but for the one that tells of the other parts of a model of several."""
    parts = "text_config" in config and graph.family not in ("clip", "siglip")
    return [note for note in graph.notes if not (parts and "a model of several parts" in note)]


def heads_and_pairs(graph: Graph) -> set[tuple]:
    """Names and sizes of all members, for two graphs of one model to agree."""
    return {(m.name, p.kind, p.between, p.d, p.freedom) for p in graph.pairs for m in p.members}
