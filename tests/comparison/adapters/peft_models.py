"""Small models with PEFT's adapters on them, saved and merged by PEFT itself."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flagscope.checkpoint import Checkpoint, from_state_dict
from flagscope.checkpoint.lora import read_adapter
from flagscope.comparison.adapters.replay import replayed_merge
from flagscope.records.comparison.adapters import ReplayRecord

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {
    "llama": LLAMA,
    "gpt2": ["c_attn", "c_fc", "c_proj"],
    "bert": ["query", "key", "value", "dense"],
}


@dataclass
class Case:
    """Base, adapter and merged model.

    Attributes
    ----------
    base, merged
        State dicts.
    adapter
        The adapter's folder.
    """

    base: dict[str, Tensor]
    merged: dict[str, Tensor]
    adapter: Path

    def replay(self, merged=None, base=None, adapter=None) -> ReplayRecord:
        """The record, of other models where they are given."""
        with read_adapter(adapter or self.adapter) as weights:
            return replayed_merge(
                checkpoint(base or self.base), checkpoint(merged or self.merged), weights
            )

    def settings(self, **changes) -> None:
        """Change adapter_config.json."""
        file = self.adapter / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def checkpoint(tensors: dict[str, Tensor]) -> Checkpoint:
    """A state dict as a checkpoint, without tensors that share memory."""
    return from_state_dict({name: tensor.detach() for name, tensor in tensors.items()})


def tiny(kind: str, dtype: torch.dtype, seed: int = 0):
    """A small model of a family."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=64, n_head=4, n_layer=2, vocab_size=60, n_positions=16
        )
        return transformers.GPT2LMHeadModel(config).to(dtype)
    if kind == "bert":
        config = transformers.BertConfig(
            hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=96,
            vocab_size=60, max_position_embeddings=16,
        )  # fmt: skip
        return transformers.BertModel(config).to(dtype)
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=4, intermediate_size=96,
        num_hidden_layers=2, vocab_size=60, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype)


def merged_case(
    folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, *, seed: int = 0,
    spread: float = 0.04, safe: bool = False, embeddings: bool | str = False,
    cast: bool = True, **lora,
) -> Case:  # fmt: skip
    """A model, an adapter with random factors, and what PEFT merges of them."""
    peft = pytest.importorskip("peft")
    lora.setdefault("target_modules", TARGETS[kind])
    lora.setdefault("fan_in_fan_out", kind == "gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny(kind, dtype, seed)
        base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        # PEFT looks a base without a folder up on the hub when it saves.
        model.config.save_pretrained(folder / "base")
        model.name_or_path = str(folder / "base")
        tuned = peft.get_peft_model(model, peft.LoraConfig(**lora), autocast_adapter_dtype=cast)
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora_magnitude" in name:
                    parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
                elif "lora_" in name or "modules_to_save" in name:
                    parameter.normal_(0, spread)
        tuned.save_pretrained(folder / "adapter", save_embedding_layers=embeddings)
        merged = tuned.merge_and_unload(safe_merge=safe).state_dict()
    return Case(base, dict(merged), folder / "adapter")
