"""Networks without any alignment: weights drawn independently, in the layouts that people store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

Entries = Literal["gauss", "t3", "spectrum"]
State = dict[str, Tensor]


@dataclass(frozen=True)
class NullNetwork:
    """How the weights of a network are drawn.

    Attributes
    ----------
    name
        As the table says it.
    make
        Gives the plain names, shapes and config; weights are drawn into it.
    entries
        Independent Gaussian entries, Student's t with 3 degrees of freedom, or maps (of heads
        where there are heads) in Haar position with singular values 1/i.
    gains
        Standard deviation of the logarithm of norm gains.
    profile
        The same of a scale for each coordinate of the stream, of the neurons and of the dimensions
        of heads, shared by the maps that write it and those that read it.
    dead
        Share of these coordinates that is zero in both.
    balanced
        Whether neurons are scaled so that both of their sides have one norm.
    dtype
        In which the weights are stored.
    """

    name: str
    make: Callable[[_Draw], tuple[State, dict[str, Any] | None]]
    entries: Entries = "gauss"
    gains: float = 0.0
    profile: float = 0.0
    dead: float = 0.0
    balanced: bool = False
    dtype: torch.dtype = torch.float32
    scans: int | None = None  # fewer than asked for, where one takes long

    def draw(self, seed: int) -> tuple[State, dict[str, Any] | None]:
        """Weights and config of one network."""
        state, config = self.make(_Draw(self, seed))
        if self.dtype != torch.float8_e4m3fn:
            return {name: w.to(self.dtype) for name, w in state.items()}, config
        return _in_float8(state), config


def _in_float8(state: State) -> State:
    """Maps in float8 with one scale each, as quantised checkpoints store them."""
    stored: State = {}
    for name, w in state.items():
        if w.ndim < 2 or "embed" in name or "lm_head" in name:
            stored[name] = w.to(torch.bfloat16)
            continue
        scale = w.abs().max() / 448.0
        stored[name] = (w / scale).to(torch.float8_e4m3fn)
        stored[f"{name}_scale"] = scale.to(torch.float32).reshape(1)
    return stored


@dataclass
class _Draw:
    """Draws the maps of one network."""

    how: NullNetwork
    seed: int
    scales: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int) -> Tensor:
        """Independent normal numbers."""
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        """Independent numbers in [0, 1)."""
        return torch.rand(*shape, generator=self._generator, dtype=torch.float64)

    def scale(self, space: str | None, d: int) -> Tensor:
        """The scale profile of a space, the same for every map on it."""
        if space is None:
            return torch.ones(d, dtype=torch.float64)
        if space not in self.scales:
            profile = (self.how.profile * self.normal(d)).exp()
            self.scales[space] = profile * (self.uniform(d) >= self.how.dead)
        return self.scales[space]

    def map(self, out: int, into: int, write: str | None = None, read: str | None = None) -> Tensor:
        """One map, (out, into), with the profiles of the spaces that it writes and reads."""
        shape = out, into
        if self.how.entries == "spectrum":
            k = min(shape)
            left, right = (torch.linalg.qr(self.normal(n, k)).Q for n in shape)
            w = (left / torch.arange(1, k + 1)) @ right.mT * into**0.5
        else:
            w = self.normal(*shape)
            if self.how.entries == "t3":
                w = w / (sum(self.normal(*shape).square() for _ in range(3)) / 3).sqrt()
        w = w / into**0.5
        return self.scale(write, out)[:, None] * w * self.scale(read, into)

    def gain(self, d: int) -> Tensor:
        """The gain of a norm."""
        return (self.how.gains * self.normal(d)).exp()


def gpt2(d: int, heads: int, layers: int) -> Callable[[_Draw], tuple[State, dict[str, Any]]]:
    """A GPT-2: fused Q, K, V in Conv1D layout, LayerNorm in front of each block."""

    def make(draw: _Draw) -> tuple[State, dict[str, Any]]:
        k, state = d // heads, {}
        for layer in range(layers):
            at = f"transformer.h.{layer}."
            inner = f"neurons.{layer}"
            parts = [
                draw.map(k, d, f"{layer}.{h}.{'v' if part == 'v' else 'qk'}", "stream").mT
                for part in "qkv"
                for h in range(heads)
            ]
            out = [draw.map(d, k, "stream", f"{layer}.{h}.v").mT for h in range(heads)]
            state |= {
                at + "attn.c_attn.weight": torch.cat(parts, 1),
                at + "attn.c_proj.weight": torch.cat(out, 0),
                at + "mlp.c_fc.weight": draw.map(4 * d, d, inner, "stream").mT.contiguous(),
                at + "mlp.c_proj.weight": draw.map(d, 4 * d, "stream", inner).mT.contiguous(),
                at + "attn.c_attn.bias": torch.zeros(3 * d),
                at + "attn.c_proj.bias": torch.zeros(d),
                at + "mlp.c_fc.bias": torch.zeros(4 * d),
                at + "mlp.c_proj.bias": torch.zeros(d),
            }
            for norm in ("ln_1", "ln_2"):
                state |= {f"{at}{norm}.weight": draw.gain(d), f"{at}{norm}.bias": torch.zeros(d)}
        state |= {
            "transformer.wte.weight": torch.zeros(16, d),
            "transformer.wpe.weight": torch.zeros(16, d),
            "transformer.ln_f.weight": torch.ones(d),
            "transformer.ln_f.bias": torch.zeros(d),
        }
        config = {"model_type": "gpt2", "n_embd": d, "n_head": heads, "n_layer": layers}
        return state, config | {"activation_function": "gelu_new", "vocab_size": 16}

    return make


def llama(
    d: int, heads: int, shared: int, inner: int, layers: int
) -> Callable[[_Draw], tuple[State, dict[str, Any]]]:
    """A Llama: grouped-query attention with rotary embeddings, gated MLP, RMSNorm."""

    def make(draw: _Draw) -> tuple[State, dict[str, Any]]:
        k, state = d // heads, {}
        group = heads // shared
        for layer in range(layers):
            at, neurons = f"model.layers.{layer}.", f"neurons.{layer}"

            def of(head: int, part: str, at: int = layer) -> str:
                return f"{at}.{head}.{part}"

            queries = [draw.map(k, d, of(h // group, "qk"), "stream") for h in range(heads)]
            keys = [draw.map(k, d, of(h, "qk"), "stream") for h in range(shared)]
            values = [draw.map(k, d, of(h, "v"), "stream") for h in range(shared)]
            out = [draw.map(d, k, "stream", of(h // group, "v")) for h in range(heads)]
            state |= {
                at + "self_attn.q_proj.weight": torch.cat(queries),
                at + "self_attn.k_proj.weight": torch.cat(keys),
                at + "self_attn.v_proj.weight": torch.cat(values),
                at + "self_attn.o_proj.weight": torch.cat(out, 1),
                at + "mlp.gate_proj.weight": draw.map(inner, d, neurons, "stream"),
                at + "mlp.up_proj.weight": draw.map(inner, d, neurons, "stream"),
                at + "mlp.down_proj.weight": draw.map(d, inner, "stream", neurons),
                at + "input_layernorm.weight": draw.gain(d),
                at + "post_attention_layernorm.weight": draw.gain(d),
            }
        state |= {
            "model.embed_tokens.weight": torch.zeros(16, d),
            "lm_head.weight": torch.zeros(16, d),
            "model.norm.weight": torch.ones(d),
        }
        config = {"model_type": "llama", "hidden_size": d, "num_attention_heads": heads}
        config |= {"num_key_value_heads": shared, "num_hidden_layers": layers, "head_dim": k}
        return state, config | {"intermediate_size": inner, "vocab_size": 16, "hidden_act": "silu"}

    return make


def mlp(*widths: int) -> Callable[[_Draw], tuple[State, None]]:
    """Linear maps with ReLU between them."""

    def make(draw: _Draw) -> tuple[State, None]:
        maps = [
            draw.map(b, a, f"layer.{i + 1}", f"layer.{i}")
            for i, (a, b) in enumerate(pairwise(widths))
        ]
        if draw.how.balanced:
            for one, two in pairwise(maps):
                out, into = one.norm(dim=1), two.norm(dim=0)
                scale = (into / out).sqrt()
                one.mul_(scale[:, None])
                two.div_(scale)
        return {f"{2 * i}.weight": w for i, w in enumerate(maps)}, None

    return make


def initialised_gpt2(draw: _Draw) -> tuple[State, dict[str, Any]]:
    """GPT-2 as transformers initialises it: 12 layers of 768 with 12 heads."""
    config = GPT2Config()
    torch.manual_seed(draw.seed)
    return GPT2LMHeadModel(config).state_dict(), config.to_dict()


_LLAMA = llama(64, 8, 2, 128, 4)
_WIDE = gpt2(96, 3, 4)
_WIDTHS = (8, 64, 32, 128, 16, 16, 64, 4, 12)

NETWORKS = (
    NullNetwork("Llama (64, 8, 2 kv) fp32", _LLAMA),
    NullNetwork("Llama (64, 8, 2 kv) bf16", _LLAMA, dtype=torch.bfloat16),
    NullNetwork("Llama (64, 8, 2 kv) fp16", _LLAMA, dtype=torch.float16),
    NullNetwork("Llama (64, 8, 2 kv) scaled float8", _LLAMA, dtype=torch.float8_e4m3fn),
    NullNetwork("GPT-2 (48, 12, 4 layers)", gpt2(48, 12, 4)),
    NullNetwork("GPT-2 (16, 2, 6 layers)", gpt2(16, 2, 6)),
    NullNetwork("GPT-2 (96, 3, 4 layers)", _WIDE),
    NullNetwork("MLP of 8 maps", mlp(*_WIDTHS)),
    NullNetwork("GPT-2 (48, 12), heads with σ = 1/i", gpt2(48, 12, 4), entries="spectrum"),
    NullNetwork("GPT-2 (96, 3), norm gains of sd .2", _WIDE, gains=0.2),
    NullNetwork("Llama, norm gains of sd .2", _LLAMA, gains=0.2),
    NullNetwork("GPT-2 (96, 3), a quarter dead", _WIDE, dead=0.25),
    NullNetwork("MLP of 8 maps, a quarter dead", mlp(*_WIDTHS), dead=0.25),
    NullNetwork("GPT-2 (96, 3), t3 entries", _WIDE, entries="t3"),
    NullNetwork("Llama, t3 entries", _LLAMA, entries="t3"),
    NullNetwork("GPT-2 (96, 3), shared profile of sd .3", _WIDE, profile=0.3),
    NullNetwork("Llama, shared profile of sd .3", _LLAMA, profile=0.3),
    NullNetwork("MLP of 8 maps, ReLU-balanced", mlp(*_WIDTHS), balanced=True),
    NullNetwork(
        "GPT-2 (96, 3), profile of sd .3 and σ = 1/i", _WIDE, "spectrum", profile=0.3, scans=60
    ),
    NullNetwork("GPT-2 (256, 4, 2 layers) fp16", gpt2(256, 4, 2), dtype=torch.float16, scans=60),
    NullNetwork("GPT2Config(), seeds 0-19", initialised_gpt2, scans=20),
)
