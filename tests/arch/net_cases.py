"""Families that are no part of transformers, on small modules with the same tensor names."""

import torch
from torch import nn

from arch.contract import assert_proven, randomise
from arch.decoders import FromScratch, Megatron, MetaLlama, NanoGpt, tokens
from arch.nets import ConvNext, MlpMixer, ResNet, image
from flagscope.arch import build_graph

NETS = {
    "resnet-cifar": (lambda: ResNet(shortcut="shortcut", last="linear"), "resnet"),
    "resnet-torchvision-timm": (lambda: ResNet(bottleneck=True), "resnet"),
    "mlp_mixer-timm": (MlpMixer, "mlp_mixer"),
    "convnext-timm": (ConvNext, "convnext"),
    "convnext-timm-pointwise": (lambda: ConvNext(pointwise=True), "convnext"),
    "nanogpt": (NanoGpt, "nanogpt"),
    "from-scratch": (FromScratch, "llms_from_scratch"),
    "llama-native": (MetaLlama, "llama_native"),
    "megatron": (lambda: Megatron(gated=True, shared=2), "megatron"),
    "megatron-local": (lambda: Megatron(gated=True, shared=4, fused=False), "megatron"),
    "megatron-plain": (lambda: Megatron(gated=False, shared=4), "megatron_plain"),
    "megatron-plain-grouped": (lambda: Megatron(gated=False, shared=1, fused=False),
                               "megatron_plain"),
    "mlp": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 8),
                                  nn.ReLU(), nn.Linear(8, 3)), "mlp"),
}  # fmt: skip
CONFIGS = {"mlp": {"activation": "relu"}, "nanogpt": {"model_type": "nanogpt", "n_head": 4},
           "from-scratch": {"model_type": "llms_from_scratch", "n_heads": 4, "emb_dim": 16},
           "llama-native": {"model_type": "llama_native", "n_heads": 4, "n_kv_heads": 2},
           "megatron": {"model_type": "megatron", "num_attention_heads": 4,
                        "group_query_attention": True, "num_query_groups": 2},
           "megatron-local": {"num_attention_heads": 4, "num_query_groups": 1},
           "megatron-plain": {"model_type": "megatron_plain", "num_attention_heads": 4,
                              "kv_channels": 4},
           "megatron-plain-grouped": {"num_attention_heads": 4, "group_query_attention": True,
                                      "num_query_groups": 1}}  # fmt: skip
DECODERS = ("nanogpt", "from-scratch", "llama-native", "megatron", "megatron-local",
            "megatron-plain", "megatron-plain-grouped")  # fmt: skip


def prove_net(case: str) -> dict:
    """What is proven of a case."""
    make, family = NETS[case]
    module = randomise(make(), seed=4)
    state = dict(module.state_dict())
    config = CONFIGS.get(case)
    given = tokens() if case in DECODERS else image()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    guessed = build_graph(shapes, config)
    graph = build_graph(shapes, config, family=family)
    assert guessed.family == family
    assert guessed.pairs == graph.pairs

    def run(changed):
        with torch.no_grad():
            return torch.func.functional_call(module, changed, given)

    done = assert_proven(graph, state, run, tolerance=1e-11)
    return {"family": family, "model": "a small module of the same names",
            "changes": sorted(done),
            "pairs": sorted({pair.kind for pair in graph.pairs})}  # fmt: skip
