"""Networks of known structure as bare state dicts: what is in them is known to who made them.

Each network holds its tensors and, for every true pair, the Gram matrices of both maps on the space
that they share. A claim is right where it has these: names, orientation, heads and folds all show
in them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


@dataclass
class Network:
    """A network: its tensors, config, true pairs by their tensors, and true folds.

    `residual` holds the norm between each writer of the stream and each reader behind it, where
    claims along the stream are asked for.
    """

    kind: str
    state: dict[str, Tensor] = field(default_factory=dict)
    config: dict[str, object] | None = None
    pairs: dict[tuple[str, str], list[Pair]] = field(default_factory=dict)
    folds: set[str] = field(default_factory=set)
    residual: dict[tuple[str, str], str] | None = None
    free: set[tuple[str, str]] | None = None  # where neurons may be scaled, None if not recorded

    def add(self, write: str, read: str, w1: Tensor, w2: Tensor) -> None:
        """A true pair: W1 writes R^d along its rows, W2 reads it along its columns."""
        self.pairs.setdefault((write, read), []).append((w1 @ w1.mT, w2.mT @ w2))

    def __len__(self) -> int:
        return sum(len(found) for found in self.pairs.values())


class Maker:
    """Draws weights and sizes."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def weights(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64)

    def linear(self, net: Network, name: str, out: int, inp: int, *, bias: bool) -> Tensor:
        net.state[f"{name}.weight"] = w = self.weights(out, inp)
        if bias:
            net.state[f"{name}.bias"] = self.weights(out)
        return w

    def norm(
        self, net: Network, name: str, d: int, *, batch: bool = False, bias: bool = True
    ) -> None:
        net.state[f"{name}.weight"] = self.weights(d)
        if bias:
            net.state[f"{name}.bias"] = self.weights(d)
        if batch:
            net.state[f"{name}.running_mean"] = self.weights(d)
            net.state[f"{name}.running_var"] = self.weights(d).abs() + 0.1
            net.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def plain_mlp(seed: int) -> Network:
    """Linear maps in sequence, named and numbered in the usual ways."""
    make = Maker(seed)
    pick = make.choice
    depth, bias = pick.randint(2, 6), pick.random() < 0.6
    widths = [pick.choice((4, 6, 8, 8, 8, 12)) for _ in range(depth + 1)]
    style = pick.choice(("sequential", "dropout", "fc", "layers", "linear_", "root", "batchnorm"))
    net = Network(f"mlp, {style}")
    names = {
        "sequential": [f"net.{2 * i}" for i in range(depth)],
        "dropout": [f"model.mlp.{3 * i}" for i in range(depth)],
        "batchnorm": [f"net.{3 * i}" for i in range(depth)],
        "fc": [f"fc{i + 1}" for i in range(depth)],
        "layers": [f"layers.{i}" for i in range(depth)],
        "linear_": [f"block.linear_{i}" for i in range(depth)],
        "root": [str(2 * i) for i in range(depth)],
    }[style]
    maps = []
    for at, name in enumerate(names):
        maps.append(make.linear(net, name, widths[at + 1], widths[at], bias=bias))
        if style == "batchnorm" and at + 1 < depth:
            make.norm(net, f"net.{3 * at + 1}", widths[at + 1], batch=True)
            net.folds.add(f"net.{3 * at + 1}")
    for (one, w1), (two, w2) in pairwise(zip(names, maps, strict=True)):
        net.add(f"{one}.weight", f"{two}.weight", w1, w2)
    return net


def bare_mlp(seed: int) -> Network:
    """W1, b1, W2, b2 as people write them in NumPy: (in, out)."""
    make = Maker(seed)
    depth = make.choice.randint(2, 4)
    widths = [make.choice.choice((4, 6, 8, 12)) for _ in range(depth + 1)]
    net = Network("mlp, bare parameters")
    maps = []
    for at in range(depth):
        net.state[f"W{at + 1}"] = w = make.weights(widths[at], widths[at + 1])
        net.state[f"b{at + 1}"] = make.weights(widths[at + 1])
        maps.append(w.mT)
    for at in range(depth - 1):
        net.add(f"W{at + 1}", f"W{at + 2}", maps[at], maps[at + 1])
    return net


SCHEMES = (
    # layer path, attention, names of Q, K, V, O, MLP, names of up, down (and gate), norms
    ("layers.{}.", "attn", "w_q w_k w_v w_o", "ff", "linear1 linear2", "norm1 norm2"),
    ("blocks.{}.", "attention", "W_Q W_K W_V W_O", "mlp", "fc1 fc2", "ln1 ln2"),
    ("encoder.layers.{}.", "self_attn", "q_proj k_proj v_proj out_proj", "", "fc1 fc2",
     "ln_a ln_b"),
    ("transformer.{}.", "mha", "Wq Wk Wv Wo", "ffn", "w1 w2", "attn_norm ffn_norm"),
    ("h.{}.", "attn", "query key value proj", "mlp", "c_fc c_proj", "ln_1 ln_2"),
    ("layer.{}.", "attn", "queries keys values fc_out", "feed_forward", "0 2", "norm1 norm2"),
    ("dec.{}.", "self_attention", "q_linear k_linear v_linear out", "ff", "lin1 lin2",
     "norm_1 norm_2"),
    ("stack.{}.", "slf_attn", "w_qs w_ks w_vs fc", "pos_ffn", "w_1 w_2", "n1 n2"),
    ("model.blocks.{}.", "att", "W_query W_key W_value out_proj", "ff", "layers.0 layers.2",
     "norm1 norm2"),
    ("layers.{}.", "attention", "wq wk wv wo", "feed_forward", "w1 w2 w3",
     "attention_norm ffn_norm"),
    ("net.layers.{}.", "attn", "to_q to_k to_v to_out.0", "ff", "net.0 net.3", "norm_a norm_b"),
    ("blocks.{}.", "attn", "linear_q linear_k linear_v linear_out", "mlp",
     "up_proj down_proj gate_proj", "pre_attn_norm pre_mlp_norm"),
    ("layers.{}.", "attn", "qkv proj", "mlp", "fc1 fc2", "norm1 norm2"),
    ("blocks.{}.", "attn", "to_qkv to_out", "ff", "w_in w_out", "ln1 ln2"),
    ("tower.{}.", "attn", "Wqkv out_proj", "mlp", "fc1 fc2", "norm1 norm2"),
    ("layers.{}.", "self_attn", "qkv_proj o_proj", "mlp", "gate_proj up_proj down_proj",
     "ln_1 ln_2"),
)  # fmt: skip
HEAD_KEYS = (
    "n_head",
    "num_heads",
    "n_heads",
    "nhead",
    "heads",
    "num_attention_heads",
    "num_q_heads",
)


def transformer(seed: int) -> Network:
    """Layers of attention and an MLP, in a naming scheme of from-scratch code."""
    make = Maker(seed)
    pick = make.choice
    path, attention, attention_names, mlp, mlp_names, norm_names = SCHEMES[seed % len(SCHEMES)]
    heads, k = pick.choice((2, 4)), pick.choice((2, 4))
    d = pick.choice((heads * k, heads * k, heads * k + 4))
    if "qkv" in attention_names:
        d = heads * k
    shared = pick.choice((heads, heads, 1)) if "qkv" not in attention_names else heads
    inner = pick.choice((2 * d, 4 * d, 3 * d))
    net = Network(f"transformer, {path}{attention}.{attention_names.split()[0]}")
    net.config = {pick.choice(HEAD_KEYS): heads}
    if shared != heads:
        net.config[pick.choice(("num_key_value_heads", "n_kv_heads", "num_kv_heads"))] = shared
    net.state["embed.weight"] = make.weights(11, d)
    for layer in range(pick.randint(1, 3)):
        base = path.format(layer)
        add_attention(
            make, net, f"{base}{attention}.", attention_names.split(), d, heads, shared, k
        )
        add_mlp(make, net, f"{base}{mlp}." if mlp else base, mlp_names.split(), d, inner)
        for name in norm_names.split():
            make.norm(net, base + name, d)
    if pick.random() < 0.6:
        make.linear(net, "lm_head", 11, d, bias=False)
    return net


def add_attention(
    make: Maker, net: Network, base: str, names: list[str], d: int, heads: int, shared: int, k: int
) -> None:
    if len(names) == 2:
        fused, out = (f"{base}{name}.weight" for name in names)
        net.state[fused] = make.weights(3 * heads * k, d)
        net.state[out] = make.weights(d, heads * k)
        parts = net.state[fused].reshape(3, heads, k, d)
        _true_heads(net, (fused, fused, fused, out), *parts, net.state[out], k)
        return
    q, key, v, o = (f"{base}{name}.weight" for name in names)
    net.state |= {q: make.weights(heads * k, d), key: make.weights(shared * k, d),
                  v: make.weights(shared * k, d), o: make.weights(d, heads * k)}  # fmt: skip
    if make.choice.random() < 0.4:
        net.state |= {name.replace("weight", "bias"): make.weights(len(net.state[name]))
                      for name in (q, key, v, o)}  # fmt: skip
    group = heads // shared
    queries = net.state[q].reshape(heads, k, d)
    keys, values = (
        net.state[n].reshape(shared, k, d).repeat_interleave(group, 0) for n in (key, v)
    )
    _true_heads(net, (q, key, v, o), queries, keys, values, net.state[o], k)


def _true_heads(
    net: Network, names: tuple[str, str, str, str], q: Tensor, key: Tensor, v: Tensor, o: Tensor,
    k: int,
) -> None:  # fmt: skip
    for head in range(len(q)):
        net.add(names[0], names[1], q[head], key[head].mT)
        net.add(names[2], names[3], v[head], o[:, head * k : (head + 1) * k])


def add_mlp(make: Maker, net: Network, base: str, names: list[str], d: int, inner: int) -> None:
    roles = {"gate_proj": "gate", "w3": "up", "down_proj": "down", "w2": "down"}
    if len(names) == 3:
        found = {roles.get(n, "gate" if n == "w1" else "up"): f"{base}{n}.weight" for n in names}
    else:
        found = dict(zip(("up", "down"), (f"{base}{n}.weight" for n in names), strict=True))
    for role, name in found.items():
        net.state[name] = make.weights(*((d, inner) if role == "down" else (inner, d)))
    for role in set(found) - {"down"}:
        net.add(found[role], found["down"], net.state[found[role]], net.state[found["down"]])


def heads_as_modules(seed: int) -> Network:
    """A list of heads, or lists of queries, keys and values, with one output map."""
    make = Maker(seed)
    pick = make.choice
    heads, k = pick.choice((2, 3, 4)), pick.choice((2, 4))
    d = heads * k
    style = pick.choice(("heads.{}.query", "head_{}.q", "lists", "heads.{}.fused"))
    net = Network(f"transformer, {style}")
    for layer in range(pick.randint(1, 3)):
        base = f"blocks.{layer}.sa."
        out = net.state[f"{base}proj.weight"] = make.weights(d, d)
        for head in range(heads):
            if style == "heads.{}.fused":
                name = f"{base}heads.{head}.qkv.weight"
                net.state[name] = make.weights(3 * k, d)
                q, key, v = net.state[name].reshape(3, k, d)
                names = [name] * 3
            else:
                names = [
                    f"{base}{n}.weight" for n in {
                        "heads.{}.query": [f"heads.{head}.{n}" for n in ("query", "key", "value")],
                        "head_{}.q": [f"head_{head}.{n}" for n in "qkv"],
                        "lists": [f"{n}.{head}" for n in ("queries", "keys", "values")],
                    }[style]
                ]  # fmt: skip
                q, key, v = (net.state.setdefault(n, make.weights(k, d)) for n in names)
            net.add(names[0], names[1], q, key.mT)
            net.add(names[2], f"{base}proj.weight", v, out[:, head * k : (head + 1) * k])
        add_mlp(make, net, f"blocks.{layer}.ffwd.", ["net.0", "net.2"], d, 4 * d)
        for norm in ("ln1", "ln2"):
            make.norm(net, f"blocks.{layer}.{norm}", d)
    return net


def heads_as_axis(seed: int) -> Network:
    """Parameters with an axis of heads, as in TransformerLens, or in JAX."""
    make = Maker(seed)
    pick = make.choice
    heads, k, d = pick.choice((2, 4)), pick.choice((3, 5)), pick.choice((8, 12))
    jax = pick.random() < 0.4
    net = Network("transformer, axis of heads")
    net.state["embed.W_E"] = make.weights(11, d)
    for layer in range(pick.randint(1, 2)):
        base = f"blocks.{layer}."
        names = [f"{base}attn.W_{n}" for n in "QKVO"]
        values = [make.weights(heads, d, k) for _ in range(3)] + [make.weights(heads, k, d)]
        for name, value in zip(names, values, strict=True):
            last = name.endswith("O")
            net.state[name] = value.transpose(0, 1).contiguous() if jax and not last else value
        for head in range(heads):
            q, key, v, o = (value[head] for value in values)
            net.add(names[0], names[1], q.mT, key)
            net.add(names[2], names[3], v.mT, o.mT)
        up, down = f"{base}mlp.W_in", f"{base}mlp.W_out"
        net.state |= {up: make.weights(d, 4 * d), down: make.weights(4 * d, d)}
        net.add(up, down, net.state[up].mT, net.state[down].mT)
    return net


def experts(seed: int) -> Network:
    """Layers whose MLP is a list of experts beside a router."""
    make = Maker(seed)
    pick = make.choice
    heads, k = 2, 4
    d, inner, count = heads * k, pick.choice((12, 16)), pick.choice((2, 4))
    names = pick.choice((["w1", "w2", "w3"], ["fc1", "fc2"], ["gate_proj", "up_proj", "down_proj"]))
    net = Network(f"transformer, experts {names[0]}")
    net.config = {"n_heads": heads}
    for layer in range(pick.randint(1, 2)):
        base = f"layers.{layer}."
        add_attention(make, net, f"{base}attn.", ["wq", "wk", "wv", "wo"], d, heads, heads, k)
        net.state[f"{base}moe.router.weight"] = make.weights(count, d)
        for expert in range(count):
            add_mlp(make, net, f"{base}moe.experts.{expert}.", names, d, inner)
        for norm in ("norm1", "norm2"):
            make.norm(net, base + norm, d)
    return net


def siblings(seed: int) -> Network:
    """Maps that stand side by side: no pair between them, whatever their sizes."""
    make = Maker(seed)
    pick = make.choice
    d = pick.choice((8, 12))
    style = pick.choice(("linears", "experts", "branches", "twins", "towers", "projections"))
    net = Network(f"siblings, {style}")
    if style == "linears":
        for at in range(4):
            make.linear(net, f"enc.0.att.linears.{at}", d, d, bias=True)
    elif style in ("experts", "projections"):
        for at in range(pick.randint(2, 5)):
            make.linear(net, f"{style}.{at}", d, d, bias=pick.random() < 0.5)
    elif style in ("branches", "towers"):
        word = "branch" if style == "branches" else "tower"
        for at in range(1, 4):
            maps = [make.linear(net, f"{word}{at}.{n}", d, d, bias=True) for n in (0, 2)]
            net.add(f"{word}{at}.0.weight", f"{word}{at}.2.weight", *maps)
    else:
        for name in ("q1", "q2"):
            maps = [make.linear(net, f"{name}.{n}", d, d, bias=True) for n in (0, 2)]
            net.add(f"{name}.0.weight", f"{name}.2.weight", *maps)
    return net


MAKERS = (
    (plain_mlp, 350), (bare_mlp, 100), (transformer, 640),
    (heads_as_modules, 120), (heads_as_axis, 80), (experts, 90), (siblings, 120),
)  # fmt: skip
