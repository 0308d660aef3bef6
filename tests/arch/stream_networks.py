"""Transformers as bare state dicts whose residual streams are known: pre-norm, post-norm, parallel.

What may be claimed along the stream depends on how the blocks are wired, which names show only
sometimes: of each naming scheme every wiring is made that people use it for.
"""

from __future__ import annotations

from dataclasses import dataclass

from arch.networks import Maker, Network, add_attention, add_mlp


@dataclass(frozen=True)
class Scheme:
    """Names of a layer's tensors, and the wirings that go by them."""

    path: str
    attention: str
    maps: str
    mlp: str
    ups: str
    norms: str
    last: str
    wirings: tuple[str, ...]


PRE, ANY = ("pre", "parallel"), ("pre", "parallel", "post", "res-post", "scaled")
SCHEMES = (
    Scheme("layers.{}.", "attn", "wq wk wv wo", "ff", "fc1 fc2", "norm1 norm2", "norm", ANY),
    Scheme("stages.0.blocks.{}.", "attn", "qkv proj", "mlp", "fc1 fc2", "norm1 norm2", "norm", ANY),
    Scheme("blocks.{}.", "attn", "query key value proj", "mlp", "c_fc c_proj", "ln_1 ln_2", "ln_f",
           PRE),
    Scheme("blocks.{}.", "sa", "q k v proj", "ffwd", "net.0 net.2", "ln1 ln2", "ln_f", PRE),
    Scheme("layers.{}.", "self_attn", "q k v o", "mlp", "up down",
           "input_layernorm post_attention_layernorm", "final_layernorm", PRE),
    Scheme("enc.{}.", "mha", "w_q w_k w_v w_o", "ffn", "w_1 w_2", "pre_attn_norm pre_ffn_norm",
           "norm", PRE),
    Scheme("layers.{}.", "0.fn", "to_q to_k to_v to_out.0", "1.fn", "net.0 net.3",
           "0.norm 1.norm", "norm", PRE),
    Scheme("transformer.layers.{}.", "0", "to_qkv to_out.0", "1.net", "1 4", "0.norm 1.net.0",
           "norm", PRE),
    Scheme("layer_stack.{}.", "slf_attn", "w_qs w_ks w_vs fc", "pos_ffn", "w_1 w_2",
           "slf_attn.layer_norm pos_ffn.layer_norm", "layer_norm", ("post", "pre")),
    Scheme("encoder.{}.", "attention", "query key value dense", "output", "up down",
           "attention.LayerNorm output.LayerNorm", "", ("post",)),
    Scheme("layers.{}.", "attn", "wq wk wv wo", "mlp", "fc1 fc2", "attn_norm mlp_norm", "norm",
           ANY),
)  # fmt: skip


def stream_transformer(seed: int) -> Network:
    """Layers of attention and an MLP in one of the wirings that their names allow."""
    make = Maker(seed)
    pick = make.choice
    scheme = SCHEMES[seed % len(SCHEMES)]
    wiring = pick.choice(scheme.wirings)
    heads, k = pick.choice((2, 4)), pick.choice((2, 4))
    d = heads * k
    net = Network(f"{wiring}, {scheme.path}{scheme.norms}", config={"n_heads": heads})
    net.residual = {}
    net.state["embed.weight"] = make.weights(11, d)
    blocks: list[tuple[int, str, list[str], str]] = []
    for layer in range(pick.randint(1, 3)):
        base = scheme.path.format(layer)
        maps, ups = scheme.maps.split(), scheme.ups.split()
        add_attention(make, net, f"{base}{scheme.attention}.", maps, d, heads, heads, k)
        add_mlp(make, net, f"{base}{scheme.mlp}.", ups, d, 3 * d)
        norms = [base + name for name in scheme.norms.split()]
        for norm in norms:
            make.norm(net, norm, d)
        if wiring == "scaled":
            net.state |= {f"{base}{n}.gamma": make.weights(d) for n in ("ls1", "ls2")}
        *readers, writer = (f"{base}{scheme.attention}.{name}.weight" for name in maps)
        up, down = (f"{base}{scheme.mlp}.{name}.weight" for name in ups)
        blocks += [(layer, norms[0], readers, writer), (layer, norms[1], [up], down)]
    if scheme.last:
        make.norm(net, scheme.last, d)
    if wiring in PRE:
        _follow(net, blocks, parallel=wiring == "parallel")
    return net


def _follow(net: Network, blocks: list[tuple[int, str, list[str], str]], *, parallel: bool) -> None:
    """Enter each writer of the stream with the readers behind it, and the norm between them."""
    assert net.residual is not None
    for at, (layer, _, _, writer) in enumerate(blocks):
        for later, norm, readers, _ in blocks[at + 1 :]:
            if not (parallel and later == layer):
                net.residual |= {(writer, reader): norm for reader in readers}


def stream_by_heads(seed: int) -> Network:
    """Parameters with an axis of heads as TransformerLens stores them, biases and buffers too."""
    make = Maker(seed)
    pick = make.choice
    heads, k = pick.choice((2, 3, 4)), pick.choice((2, 3, 5))
    d, shared = pick.choice((8, 12, 16)), pick.random() < 0.3
    wiring = pick.choice(PRE)
    net = Network(f"TransformerLens, {wiring}", residual={})
    if pick.random() < 0.5:
        net.state |= {"embed.W_E": make.weights(11, d), "pos_embed.W_pos": make.weights(k, d)}
        net.state |= {"unembed.W_U": make.weights(d, 11), "unembed.b_U": make.weights(11)}
    if pick.random() < 0.5:
        net.config = {"n_heads": heads, "d_head": k, "d_model": d}
    groups, mark = (1, "_") if shared else (heads, "")
    blocks: list[tuple[int, str, list[str], str]] = []
    for layer in range(pick.randint(1, 3)):
        base = f"blocks.{layer}."
        names = [f"{base}attn.{m}W_{n}" for m, n in zip(("", mark, mark, ""), "QKVO", strict=True)]
        counts = (heads, groups, groups, heads)
        for name, count in zip(names, counts, strict=True):
            out = name.endswith("O")
            net.state[name] = make.weights(count, k, d) if out else make.weights(count, d, k)
            bias = name.replace("W_", "b_")
            net.state[bias] = make.weights(d) if out else make.weights(count, k)
        net.state[f"{base}attn.mask"] = make.weights(k, k)
        for head in range(heads):
            q, key, v, o = (net.state[n][head % len(net.state[n])] for n in names)
            net.add(names[0], names[1], q.mT, key)
            net.add(names[2], names[3], v.mT, o.mT)
        up, down = f"{base}mlp.W_in", f"{base}mlp.W_out"
        net.state |= {up: make.weights(d, 4 * d), down: make.weights(4 * d, d)}
        net.state |= {f"{base}mlp.b_in": make.weights(4 * d), f"{base}mlp.b_out": make.weights(d)}
        net.add(up, down, net.state[up].mT, net.state[down].mT)
        norms = [f"{base}{n}" for n in ("ln1", "ln2")]
        net.state |= {f"{norm}.{n}": make.weights(d) for norm in norms for n in "wb"}
        blocks += [(layer, norms[0], names[:3], names[3]), (layer, norms[1], [up], down)]
    net.state |= {f"ln_final.{n}": make.weights(d) for n in "wb"}
    _follow(net, blocks, parallel=wiring == "parallel")
    return net


def fused_gates(seed: int) -> Network:
    """Layers whose MLP holds gate and up in one map, in an order that names do not tell."""
    make = Maker(seed)
    pick = make.choice
    heads, k = 2, pick.choice((3, 4))
    d = heads * k
    names = pick.choice(("net.0.proj net.2", "w12 w3", "gate_up_proj down_proj", "fc1 fc2"))
    # Of a square map, or one of twice the stream's width, only a name can say it.
    inner = pick.choice((2 * d, 3 * d) if names == "fc1 fc2" else (d // 2, 2 * d, 3 * d, d))
    net = Network(f"fused gate, {names}", config={"n_heads": heads})
    for layer in range(pick.randint(1, 2)):
        base = f"layers.{layer}."
        add_attention(make, net, f"{base}attn.", ["wq", "wk", "wv", "wo"], d, heads, heads, k)
        both, down = (f"{base}ff.{name}.weight" for name in names.split())
        net.state |= {both: make.weights(2 * inner, d), down: make.weights(d, inner)}
        for half in net.state[both].chunk(2):
            net.add(both, down, half, net.state[down])
        for norm in ("norm1", "norm2"):
            make.norm(net, base + norm, d)
    return net


STREAM_MAKERS = ((stream_transformer, 440), (stream_by_heads, 90), (fused_gates, 60))
