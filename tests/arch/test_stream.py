"""Residual streams, proven by function on tiny models of real configuration classes."""

import pytest
import torch

pytest.importorskip("transformers")
import transformers

from arch import stream_proof as proof
from arch.cases import CASES, COMMON, FALCON, GROUPED, WAVE, inputs
from arch.contract import randomise
from arch.nets import MlpMixer, image
from flagscope.arch import build_graph

MORE = {
    "hubert-before": ("HubertModel", "HubertConfig",
                      {**WAVE, "do_stable_layer_norm": True}, "wave"),
    "falcon-in-turn": ("FalconForCausalLM", "FalconConfig",
                       {**FALCON, "parallel_attn": False}, "tokens"),
    "falcon-one-norm": ("FalconForCausalLM", "FalconConfig",
                        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2,
                         "num_ln_in_parallel_attn": 1}, "tokens"),
    "granite-scaled": ("GraniteForCausalLM", "GraniteConfig",
                       {**GROUPED, "residual_multiplier": 0.22}, "tokens"),
    "opt-behind": ("OPTForCausalLM", "OPTConfig",
                   {**COMMON, "ffn_dim": 24, "word_embed_proj_dim": 16,
                    "do_layer_norm_before": False}, "tokens"),
    "bloom-behind": ("BloomForCausalLM", "BloomConfig",
                     {"hidden_size": 16, "n_layer": 2, "n_head": 4, "vocab_size": 11,
                      "apply_residual_connection_post_layernorm": True}, "tokens"),
    "gpt_neo-three": ("GPTNeoForCausalLM", "GPTNeoConfig",
                      {"hidden_size": 16, "num_layers": 3, "num_heads": 4,
                       "intermediate_size": 24, "attention_types": [[["global"], 3]],
                       "vocab_size": 11, "max_position_embeddings": 16}, "tokens"),
}  # fmt: skip
EVERY = {**CASES, **MORE}
EPSILONS = {"layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "norm_eps", "norm_epsilon"}
# Families and cases without a stream: norms behind the sums, maps in front of the norm.
WITHOUT = {
    "bert",
    "roberta",
    "electra",
    "distilbert",
    "albert",
    "deberta_v2",
    "bart",
    "convnext",
    "resnet_transformers",
}
BEHIND = ("opt-behind", "bloom-behind", "wav2vec2", "hubert")


def live(case):
    model_class, config_class, settings, kind = EVERY[case]
    config = getattr(transformers, config_class)(**settings)
    for part in (
        config,
        getattr(config, "text_config", None),
        getattr(config, "vision_config", None),
    ):
        for name in EPSILONS & set(vars(part or object)):
            setattr(part, name, 1e-3)  # far from any default
    config._attn_implementation = config._experts_implementation = "eager"
    model = randomise(getattr(transformers, model_class)(config), seed=1)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    alike = next(name for name, one in CASES.items() if one[3] == kind)
    return proof.Live(model, inputs(alike), build_graph(shapes, config.to_dict()))


@pytest.mark.parametrize("case", EVERY)
def test_streams(case):
    """Norms, their readers, the order of the blocks and what they add, of each stream."""
    one = live(case)
    offered = one.graph.family not in WITHOUT and case not in BEHIND
    assert bool(one.graph.streams) == offered
    if not offered:
        return
    norms = {reader.norm.name for stream in one.graph.streams for block in stream.blocks
             for reader in block.readers if reader.norm is not None}  # fmt: skip
    assert proof.prove_norm_kinds(one) == len(norms)
    gains = 0 if case.startswith("olmo") and not case.startswith("olmoe") else len(norms)
    assert proof.prove_norms(one) == gains
    assert proof.prove_order(one) > 0
    factor = EVERY[case][2].get("residual_multiplier", 1.0)
    summed = proof.prove_sums(one, factor=factor)
    assert summed > 0 or case.startswith(
        ("mixtral", "olmoe", "granitemoe", "gpt-oss")
    )  # experts alone
    assert proof.prove_scales(one) == (4 if case.startswith("dinov2") else 0)


def test_channels_of_the_mixer():
    """Of two MLPs in a layer only that over channels reads and writes the stream."""
    module = randomise(MlpMixer(), seed=4)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.requires_grad_(False)
    one = proof.Live(
        module, {"x": image()}, build_graph(shapes, {"layer_norm_eps": 1e-5}, family="mlp_mixer")
    )
    one.run = lambda changed: torch.func.functional_call(module, changed, kwargs=one.given)
    (stream,) = one.graph.streams
    assert [[r.label for r in b.readers] for b in stream.blocks] == [
        ["layer.0.channels.up"], ["layer.1.channels.up"]]  # fmt: skip
    assert proof.prove_norm_kinds(one) == proof.prove_norms(one) == 2
    assert proof.prove_order(one) == 1
