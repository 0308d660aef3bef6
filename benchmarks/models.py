"""Models to measure on: random weights in the shapes of known ones, written once to a cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_STD = 0.02  # GPT-2's and Llama's initialisation


def gpt2_small(cache: Path, *, quick: bool = False) -> Path:
    """`GPT2Config()` with random weights: 124 M parameters, float32, one file; or a tiny one."""
    if quick:
        return gpt2(cache, layers=2, d=128, heads=4)
    return gpt2(cache, layers=12, d=768, heads=12, vocabulary=50257, positions=1024)


def gpt2(
    cache: Path, *, layers: int, d: int, heads: int, vocabulary: int = 512, positions: int = 64
) -> Path:
    """GPT-2 of any size, as transformers would save it."""
    folder = cache / f"gpt2-{layers}x{d}-{heads}"
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": layers,
        "n_embd": d, "n_head": heads, "vocab_size": vocabulary, "n_positions": positions,
        "activation_function": "gelu_new",
    }  # fmt: skip
    if not (folder / "config.json").is_file():
        generator = torch.Generator().manual_seed(0)
        state = dict(_gpt2_tensors(layers, d, vocabulary, positions, generator))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        # Last, so that a folder with a config is a whole one.
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def _gpt2_tensors(
    layers: int, d: int, vocabulary: int, positions: int, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * _STD

    yield "transformer.wte.weight", random(vocabulary, d)
    yield "transformer.wpe.weight", random(positions, d)
    for name in [f"h.{i}.ln_{k}" for i in range(layers) for k in (1, 2)] + ["ln_f"]:
        yield f"transformer.{name}.weight", torch.ones(d)
        yield f"transformer.{name}.bias", torch.zeros(d)
    shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d),
              "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}  # fmt: skip
    for i in range(layers):
        for name, shape in shapes.items():
            yield f"transformer.h.{i}.{name}.weight", random(*shape)
            yield f"transformer.h.{i}.{name}.bias", torch.zeros(shape[1])


def llama(
    cache: Path,
    *,
    layers: int,
    d: int = 4096,
    ff: int = 11008,
    heads: int = 32,
    kv_heads: int = 32,
    vocabulary: int = 1024,
    distinct: int = 2,
) -> Path:
    """Llama in bfloat16, one shard a layer; by default in the shape of Llama-7B.

    Only `distinct` layers are drawn (405 MB each at 7B); the other shards are copies of theirs
    under the names of their own layers.
    """
    folder = cache / f"llama-{layers}x{d}-{ff}-{heads}-{kv_heads}"
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": layers,
        "hidden_size": d, "intermediate_size": ff, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": d // heads, "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
    }  # fmt: skip
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        index = _write_shards(folder, layers, d, ff, kv_heads * (d // heads), vocabulary, distinct)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": index})
        )
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def _write_shards(
    folder: Path, layers: int, d: int, ff: int, kv: int, vocabulary: int, distinct: int
) -> dict[str, str]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) * _STD).to(torch.bfloat16)

    shapes = {
        "self_attn.q_proj": (d, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, d), "mlp.gate_proj": (ff, d), "mlp.up_proj": (ff, d),
        "mlp.down_proj": (d, ff), "input_layernorm": (d,), "post_attention_layernorm": (d,),
    }  # fmt: skip
    shards = layers + 1
    index: dict[str, str] = {}
    for i in range(layers):
        tensors = {
            f"model.layers.{i}.{name}.weight": torch.ones(shape, dtype=torch.bfloat16)
            if len(shape) == 1
            else random(*shape)
            for name, shape in shapes.items()
        } if i < distinct else {}  # fmt: skip
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        if tensors:
            save_file(tensors, folder / file, metadata={"format": "pt"})
        else:
            _renamed_copy(folder, i % distinct, i, shards)
        index |= {f"model.layers.{i}.{name}.weight": file for name in shapes}
    file = f"model-{shards:05d}-of-{shards:05d}.safetensors"
    rest = {
        "model.embed_tokens.weight": random(vocabulary, d),
        "lm_head.weight": random(vocabulary, d),
        "model.norm.weight": torch.ones(d, dtype=torch.bfloat16),
    }
    save_file(rest, folder / file, metadata={"format": "pt"})
    return index | dict.fromkeys(rest, file)


def _renamed_copy(folder: Path, source: int, target: int, shards: int) -> None:
    """The shard of one layer again under the names of another: a new header, the same data."""
    one, other = (
        folder / f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in (source, target)
    )
    with one.open("rb") as data, other.open("wb") as written:
        length = int.from_bytes(data.read(8), "little")
        header: dict[str, Any] = json.loads(data.read(length))
        renamed = {
            key.replace(f"model.layers.{source}.", f"model.layers.{target}."): value
            for key, value in header.items()
        }
        text = json.dumps(renamed).encode()
        text += b" " * (-len(text) % 8)
        written.write(len(text).to_bytes(8, "little") + text)
        data.seek(8 + length)
        shutil.copyfileobj(data, written, 1 << 24)
