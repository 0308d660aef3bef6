"""Two sets of weights of one small architecture, with planted changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flagscope.api.source import checked_settings, mapped, opened
from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.comparison.change.changed_maps import changed_maps
from flagscope.records.comparison.change import ChangeRecord, MapChange

BERT: dict[str, Any] = {
    "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 32,
    "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48,
    "vocab_size": 20, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_act": "gelu",
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "intermediate_size": 48, "vocab_size": 20, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8, "head_dim": 8,
}  # fmt: skip


def bert(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random weights of a small BERT."""
    draw = torch.Generator().manual_seed(seed)
    weights = {"embeddings.word_embeddings.weight": torch.randn(20, 32, generator=draw)}
    for layer in range(2):
        at = f"encoder.layer.{layer}."
        for name, shape in {
            "attention.self.query": (32, 32), "attention.self.key": (32, 32),
            "attention.self.value": (32, 32), "attention.output.dense": (32, 32),
            "intermediate.dense": (48, 32), "output.dense": (32, 48),
        }.items():  # fmt: skip
            weights[f"{at}{name}.weight"] = torch.randn(*shape, generator=draw, dtype=torch.float64)
            weights[f"{at}{name}.bias"] = torch.randn(shape[0], generator=draw)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{at}{norm}.weight"] = torch.ones(32)
            weights[f"{at}{norm}.bias"] = torch.zeros(32)
    return {name: value.to(dtype) for name, value in weights.items()}


def llama(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random weights of a small Llama with grouped queries."""
    draw = torch.Generator().manual_seed(seed)
    weights = {"model.embed_tokens.weight": torch.randn(20, 32, generator=draw)}
    for layer in range(2):
        at = f"model.layers.{layer}."
        for name, shape in {
            "self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32),
            "self_attn.v_proj": (16, 32), "self_attn.o_proj": (32, 32),
            "mlp.up_proj": (48, 32), "mlp.gate_proj": (48, 32), "mlp.down_proj": (32, 48),
        }.items():  # fmt: skip
            weights[f"{at}{name}.weight"] = torch.randn(*shape, generator=draw, dtype=torch.float64)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{at}{norm}.weight"] = torch.ones(32)
    weights["model.norm.weight"] = torch.ones(32)
    return {name: value.to(dtype) for name, value in weights.items()}


def graphed(weights: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[Checkpoint, Graph]:
    """An open checkpoint and its graph."""
    checkpoint = opened(weights, config=config, revision=None, base=None)
    return mapped(checkpoint, checked_settings(), weights, None)


def compared(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], config: dict[str, Any], **options: Any
) -> ChangeRecord:
    """What moved between two sets of weights."""
    (of_a, graph_a), (of_b, graph_b) = graphed(a, config), graphed(b, config)
    return changed_maps(of_a, of_b, graph_a, graph_b, **options)


def one(record: ChangeRecord, name: str) -> MapChange:
    """The record of one map."""
    return next(change for change in record.maps if change.name.endswith(name))
