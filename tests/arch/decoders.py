"""Small decoders with the tensor names of from-scratch code: nanoGPT's, Meta's own, one's own."""

import torch
from torch import nn
from torch.nn import functional

WIDTH, HEADS, SHARED, TOKENS = 16, 4, 2, 11


class NanoGpt(nn.Module):
    """GPT-2's names on nn.Linear."""

    def __init__(self):
        super().__init__()
        layer = {
            "ln_1": lambda: nn.LayerNorm(WIDTH), "ln_2": lambda: nn.LayerNorm(WIDTH),
            "attn": lambda: nn.ModuleDict(
                {"c_attn": nn.Linear(WIDTH, 3 * WIDTH), "c_proj": nn.Linear(WIDTH, WIDTH)}),
            "mlp": lambda: nn.ModuleDict(
                {"c_fc": nn.Linear(WIDTH, 24), "c_proj": nn.Linear(24, WIDTH)}),
        }  # fmt: skip
        layers = [nn.ModuleDict({n: make() for n, make in layer.items()}) for _ in range(2)]
        parts = {"wte": nn.Embedding(TOKENS, WIDTH), "wpe": nn.Embedding(8, WIDTH)}
        self.transformer = nn.ModuleDict(
            {**parts, "h": nn.ModuleList(layers), "ln_f": nn.LayerNorm(WIDTH)}
        )
        self.lm_head = nn.Linear(WIDTH, TOKENS, bias=False)

    def forward(self, ids):
        parts = self.transformer
        x = parts["wte"](ids) + parts["wpe"](torch.arange(ids.shape[1]))
        for layer in parts["h"]:
            attention, mlp = layer["attn"], layer["mlp"]
            q, k, v = attention["c_attn"](layer["ln_1"](x)).chunk(3, -1)
            x = x + attention["c_proj"](attend(q, k, v, HEADS, HEADS))
            x = x + mlp["c_proj"](functional.gelu(mlp["c_fc"](layer["ln_2"](x))))
        return self.lm_head(parts["ln_f"](x))


class ScaleShift(nn.Module):
    """A layer norm whose gain and bias are called scale and shift."""

    def __init__(self, width):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return functional.layer_norm(x, x.shape[-1:], self.scale, self.shift, 1e-5)


class FromScratch(nn.Module):
    """The names of the GPT in "Build a Large Language Model (From Scratch)"."""

    def __init__(self):
        super().__init__()

        def layer():
            attention = {f"W_{name}": nn.Linear(WIDTH, WIDTH, bias=False)
                         for name in ("query", "key", "value")}  # fmt: skip
            inner = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))
            return nn.ModuleDict({
                "att": nn.ModuleDict({**attention, "out_proj": nn.Linear(WIDTH, WIDTH)}),
                "ff": nn.ModuleDict({"layers": inner}),
                "norm1": ScaleShift(WIDTH), "norm2": ScaleShift(WIDTH),
            })  # fmt: skip

        self.tok_emb, self.pos_emb = nn.Embedding(TOKENS, WIDTH), nn.Embedding(8, WIDTH)
        self.trf_blocks = nn.ModuleList([layer() for _ in range(2)])
        self.final_norm = ScaleShift(WIDTH)
        self.out_head = nn.Linear(WIDTH, TOKENS, bias=False)

    def forward(self, ids):
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))
        for layer in self.trf_blocks:
            attention, y = layer["att"], layer["norm1"](x)
            q, k, v = (attention[f"W_{name}"](y) for name in ("query", "key", "value"))
            x = x + attention["out_proj"](attend(q, k, v, HEADS, HEADS))
            x = x + layer["ff"]["layers"](layer["norm2"](x))
        return self.out_head(self.final_norm(x))


class MetaLlama(nn.Module):
    """The names of Meta's own files; neighbouring dimensions of a head turn together."""

    def __init__(self):
        super().__init__()
        k = WIDTH // HEADS

        def linear(i, o):
            return nn.Linear(i, o, bias=False)

        def layer():
            return nn.ModuleDict({
                "attention_norm": nn.RMSNorm(WIDTH, eps=1e-5),
                "ffn_norm": nn.RMSNorm(WIDTH, eps=1e-5),
                "attention": nn.ModuleDict({
                    "wq": linear(WIDTH, WIDTH), "wk": linear(WIDTH, SHARED * k),
                    "wv": linear(WIDTH, SHARED * k), "wo": linear(WIDTH, WIDTH)}),
                "feed_forward": nn.ModuleDict({
                    "w1": linear(WIDTH, 24), "w2": linear(24, WIDTH), "w3": linear(WIDTH, 24)}),
            })  # fmt: skip

        self.tok_embeddings = nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList([layer() for _ in range(2)])
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)
        self.output = linear(WIDTH, TOKENS)

    def forward(self, ids):
        x = self.tok_embeddings(ids)
        for layer in self.layers:
            attention, mlp, y = (
                layer["attention"],
                layer["feed_forward"],
                layer["attention_norm"](x),
            )
            q, k, v = (attention[name](y) for name in ("wq", "wk", "wv"))
            x = x + attention["wo"](attend(q, k, v, HEADS, SHARED, turned=True))
            y = layer["ffn_norm"](x)
            x = x + mlp["w2"](functional.silu(mlp["w1"](y)) * mlp["w3"](y))
        return self.output(self.norm(x))


class _NormedLinear(nn.Linear):
    """A linear layer that holds the norm in front of it, as Transformer Engine's do."""

    def __init__(self, inp, out, *, bias):
        super().__init__(inp, out, bias=bias)
        self.layer_norm_weight = nn.Parameter(torch.ones(inp))
        self.layer_norm_bias = nn.Parameter(torch.zeros(inp)) if bias else None

    def forward(self, x):
        if self.layer_norm_bias is None:
            x = functional.rms_norm(x, x.shape[-1:], self.layer_norm_weight, 1e-5)
        else:
            gain, shift = self.layer_norm_weight, self.layer_norm_bias
            x = functional.layer_norm(x, x.shape[-1:], gain, shift, 1e-5)
        return super().forward(x)


class Megatron(nn.Module):
    """The names of Megatron-core: gated, with RMSNorm and no bias, or plain with LayerNorm."""

    def __init__(self, *, gated, shared, fused=True):
        super().__init__()
        self.gated, self.shared = gated, shared
        k, bias = WIDTH // HEADS, not gated

        def norm():
            return nn.LayerNorm(WIDTH) if bias else nn.RMSNorm(WIDTH, eps=1e-5)

        def reader(out):
            return (_NormedLinear if fused else nn.Linear)(WIDTH, out, bias=bias)

        def layer():
            parts = {
                "self_attention": nn.ModuleDict({
                    "linear_proj": nn.Linear(WIDTH, WIDTH, bias=bias),
                    "linear_qkv": reader((HEADS + 2 * shared) * k)}),
                "mlp": nn.ModuleDict({"linear_fc1": reader(48 if gated else 24),
                                      "linear_fc2": nn.Linear(24, WIDTH, bias=bias)}),
            }  # fmt: skip
            norms = {} if fused else {"input_layernorm": norm(), "pre_mlp_layernorm": norm()}
            return nn.ModuleDict(parts | norms)

        self.embedding = nn.ModuleDict({"word_embeddings": nn.Embedding(TOKENS, WIDTH)})
        layers = nn.ModuleList([layer() for _ in range(2)])
        self.decoder = nn.ModuleDict({"layers": layers, "final_layernorm": norm()})
        self.output_layer = nn.Linear(WIDTH, TOKENS, bias=False)

    def forward(self, ids):
        x = self.embedding["word_embeddings"](ids)
        for layer in self.decoder["layers"]:
            attention, mlp = layer["self_attention"], layer["mlp"]
            y = layer["input_layernorm"](x) if "input_layernorm" in layer else x
            # Of each group, its queries lie before its one key and its one value.
            groups = attention["linear_qkv"](y).unflatten(-1, (self.shared, -1, WIDTH // HEADS))
            q = groups[..., :-2, :].flatten(-3)
            k, v = (groups[..., at, :].flatten(-2) for at in (-2, -1))
            x = x + attention["linear_proj"](
                attend(q, k, v, HEADS, self.shared, turned=True, half=True)
            )
            y = layer["pre_mlp_layernorm"](x) if "pre_mlp_layernorm" in layer else x
            y = mlp["linear_fc1"](y)
            if self.gated:
                gate, up = y.chunk(2, -1)
                y = functional.silu(gate) * up
            else:
                y = functional.gelu(y)
            x = x + mlp["linear_fc2"](y)
        return self.output_layer(self.decoder["final_layernorm"](x))


class OwnNames(nn.Module):
    """A decoder whose names say nothing to anybody else."""

    def __init__(self):
        super().__init__()

        def layer():
            mix = {name: nn.Linear(WIDTH, WIDTH) for name in ("ask", "offer", "carry", "merge")}
            return nn.ModuleDict({
                "before_mix": nn.LayerNorm(WIDTH), "before_think": nn.LayerNorm(WIDTH),
                "mix": nn.ModuleDict(mix),
                "think": nn.ModuleDict({"grow": nn.Linear(WIDTH, 24),
                                        "shrink": nn.Linear(24, WIDTH)}),
            })  # fmt: skip

        self.words = nn.Embedding(TOKENS, WIDTH)
        self.trunk = nn.ModuleList([layer() for _ in range(2)])
        self.rest = nn.LayerNorm(WIDTH)
        self.speak = nn.Linear(WIDTH, TOKENS)

    def forward(self, ids):
        x = self.words(ids)
        for layer in self.trunk:
            mix, think, y = layer["mix"], layer["think"], layer["before_mix"](x)
            q, k, v = (mix[name](y) for name in ("ask", "offer", "carry"))
            x = x + mix["merge"](attend(q, k, v, HEADS, HEADS))
            x = x + think["shrink"](functional.relu(think["grow"](layer["before_think"](x))))
        return self.speak(self.rest(x))


def attend(q, k, v, heads, shared, *, turned=False, half=False):
    """Causal attention of q (b, t, heads · k) over k and v (b, t, shared · k)."""
    q, k, v = (one.unflatten(-1, (n, -1)).transpose(1, 2)
               for one, n in ((q, heads), (k, shared), (v, shared)))  # fmt: skip
    if turned:
        q, k = rotary(q, half=half), rotary(k, half=half)
    k, v = (one.repeat_interleave(heads // shared, 1) for one in (k, v))
    y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).flatten(2)


def rotary(x, *, half=False):
    """Each pair of neighbours, or of dimensions half a head apart, turned by its angle."""
    count = x.shape[-1] // 2
    angles = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), 0.3 ** torch.arange(count))
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    if half:
        a, b = x[..., :count], x[..., count:]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def tokens():
    """Two sequences of tokens."""
    return torch.arange(12).reshape(2, 6) % TOKENS
