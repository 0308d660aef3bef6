"""Small models with random weights, as the tests of the engine scan them."""

from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint import from_state_dict
from geometry.planted import normal


def gpt2(layers=2, d=24):
    shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d)}
    shapes |= {"mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    state = {
        f"h.{i}.{name}.weight": normal(*shape, seed=i).float()
        for i in range(layers)
        for name, shape in shapes.items()
    }
    state |= {f"h.{i}.ln_1.weight": torch.rand(d) + 0.5 for i in range(layers)}
    state["wte.weight"] = normal(50, d, seed=9).float()
    config = {"model_type": "gpt2", "n_head": 4, "n_embd": d, "n_layer": layers}
    return from_state_dict(state, config=config)


def whole_gpt2(layers=3, d=24):
    checkpoint = gpt2(layers=layers, d=d)
    state = {name: checkpoint.read(name) for name in checkpoint.tensors}
    for i in range(layers):
        state |= {f"h.{i}.ln_{n}.weight": torch.rand(d) + 0.5 for n in (1, 2)}
        state |= {f"h.{i}.ln_{n}.bias": torch.rand(d) for n in (1, 2)}
    return from_state_dict(state, config=checkpoint.config)


def llama(layers=3, d=24, f=40, scale=1.0):
    shapes = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (d // 2, d), "mlp.up_proj": (f, d)}
    shapes |= {"self_attn.v_proj": (d // 2, d), "self_attn.o_proj": (d, d)}
    shapes |= {"mlp.gate_proj": (f, d), "mlp.down_proj": (d, f)}
    state = {
        f"model.layers.{i}.{name}.weight": (scale * normal(*shape, seed=i)).bfloat16()
        for i in range(layers)
        for name, shape in shapes.items()
    }
    norms = ("input_layernorm", "post_attention_layernorm")
    state |= {f"model.layers.{i}.{n}.weight": torch.ones(d) for i in range(layers) for n in norms}
    config = {
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": d,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": f,
        "vocab_size": 50, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    }  # fmt: skip
    return from_state_dict(state, config=config)


_D, _WIDE = 264, 320
LARGE_LLAMA = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": _D, "num_attention_heads": 4,
    "num_key_value_heads": 4, "intermediate_size": _WIDE, "vocab_size": 50, "rms_norm_eps": 1e-5,
}  # fmt: skip


def large_llama():
    """Bare maps large enough for sharp scans, each with a direction that stands out, and gains."""
    generator = torch.Generator().manual_seed(1)
    shapes = {f"self_attn.{n}_proj": (_D, _D) for n in "qkvo"}
    shapes |= {f"mlp.{n}_proj": (_WIDE, _D) for n in ("gate", "up")} | {
        "mlp.down_proj": (_D, _WIDE)
    }
    state = {}
    for i in range(2):
        for name, (rows, columns) in shapes.items():
            w = torch.randn(rows, columns, generator=generator)
            w += 4 * torch.outer(
                torch.randn(rows, generator=generator), torch.randn(columns, generator=generator)
            )
            state[f"model.layers.{i}.{name}.weight"] = w.bfloat16()
        for norm in ("input_layernorm", "post_attention_layernorm"):
            gain = torch.exp(0.4 * torch.randn(_D, generator=generator))
            state[f"model.layers.{i}.{norm}.weight"] = gain.bfloat16()
    return state


def own_names(layers: int = 6) -> dict[str, Tensor]:
    """A transformer whose attention has names that say nothing to a stranger, d = 64."""
    draw = torch.Generator().manual_seed(0)
    state = {}
    for i in range(layers):
        for name in ("w_a", "w_b", "w_c", "w_d"):
            state[f"layers.{i}.mix.{name}.weight"] = torch.randn(64, 64, generator=draw)
        state[f"layers.{i}.ff.linear1.weight"] = torch.randn(128, 64, generator=draw)
        state[f"layers.{i}.ff.linear2.weight"] = torch.randn(64, 128, generator=draw)
    return state


def decoder(layers: int = 3) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config of a small decoder: d = 16, two heads, MLP of 24."""
    draw = torch.Generator().manual_seed(4)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) * 0.1

    state = {
        "model.embed_tokens.weight": random(8, 16),
        "model.norm.weight": torch.ones(16),
        "lm_head.weight": random(8, 16),
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        for name in ("q", "k", "v", "o"):
            state[f"{at}self_attn.{name}_proj.weight"] = random(16, 16)
        for name, shape in (("gate", (24, 16)), ("up", (24, 16)), ("down", (16, 24))):
            state[f"{at}mlp.{name}_proj.weight"] = random(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{at}{name}.weight"] = torch.ones(16)
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": layers,
              "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_act": "silu"}  # fmt: skip
    return state, config
