"""A live model whose names are a family's, of no known type: as its state dict where that is so."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import flagscope
from arch.contract import randomise
from arch.decoders import HEADS, NanoGpt, rotary, tokens
from flagscope.arch.trace import module_graph
from flagscope.errors import InputError

# torch.compile imports what uses torch.jit, which is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
CONFIG = {"n_layer": 2, "n_head": HEADS, "bias": True, "dropout": 0.0}


class Plain(NanoGpt):
    """The usual forward pass, whose operations the trace follows."""

    def forward(self, ids):
        parts = self.transformer
        x = parts["wte"](ids) + parts["wpe"](torch.arange(ids.shape[1]))
        for layer in parts["h"]:
            x = self.layer(x, layer)
        return self.lm_head(parts["ln_f"](x))

    def layer(self, x, layer):
        x = x + self.mixed(layer["ln_1"](x), layer["attn"])
        return x + self.thought(layer["ln_2"](x), layer["mlp"])

    def mixed(self, x, attn):
        b, t, d = x.shape
        q, k, v = (one.view(b, t, HEADS, d // HEADS).transpose(1, 2)
                   for one in attn["c_attn"](x).split(d, dim=2))  # fmt: skip
        y = functional.scaled_dot_product_attention(*self.turned(q, k), v, is_causal=True)
        return attn["c_proj"](y.transpose(1, 2).reshape(b, t, d))

    def turned(self, q, k):
        return q, k

    def thought(self, x, mlp):
        return mlp["c_proj"](functional.gelu(mlp["c_fc"](x)))


class Relu(Plain):
    """The same names with another activation."""

    def thought(self, x, mlp):
        return mlp["c_proj"](functional.relu(mlp["c_fc"](x)))


class Turned(Plain):
    """The same names with a rotary embedding, which the trace does not follow."""

    def turned(self, q, k):
        return rotary(q, half=True), rotary(k, half=True)


class Behind(Plain):
    """The same names with norms behind the sums."""

    def layer(self, x, layer):
        x = layer["ln_1"](x + self.mixed(x, layer["attn"]))
        return layer["ln_2"](x + self.thought(x, layer["mlp"]))


def measured(source, **options):
    result = flagscope.scan(source, workers=1, **options).result
    assert not result.failures
    records = [[one.model_dump() for one in part] for part in (result.pairs, result.heads)]
    return result.family, records


@pytest.mark.parametrize("wrapper", [lambda m: m, torch.compile, nn.DataParallel])
@pytest.mark.parametrize("config", [CONFIG, None])
def test_a_live_nanogpt_is_measured_as_its_state_dict(wrapper, config):
    model = randomise(Plain(), seed=5).eval()
    plain = measured(dict(model.state_dict()), config=CONFIG)
    assert plain[0] == "nanogpt"
    # Without a config, the trace shows the number of heads.
    live = measured(wrapper(model), config=config, example_inputs=tokens())
    assert live == plain


@pytest.mark.parametrize(("kind", "freedom"), [(Relu, "scaling"), (Behind, "permutation")])
def test_the_trace_is_taken_where_it_shows_another_model(kind, freedom):
    graph = module_graph(kind(), CONFIG, example_inputs=tokens())
    assert graph.family == "traced"
    assert {pair.freedom for pair in graph.pairs if pair.kind == "mlp"} == {freedom}


def test_no_freedom_is_claimed_of_what_the_trace_did_not_follow():
    graph = module_graph(Turned(), CONFIG, example_inputs=tokens())
    freedoms = {pair.kind: pair.freedom for pair in graph.pairs}
    assert freedoms.get("qk", "none") in ("none", "rotary")
    assert freedoms["mlp"] == "permutation"


def test_heads_are_read_from_attributes_where_a_model_cannot_be_traced():
    class Unrunnable(NanoGpt):
        def __init__(self):
            super().__init__()
            for layer in self.transformer["h"]:
                layer["attn"].n_head = HEADS

        def forward(self, ids):
            raise RuntimeError("not here")

    model = Unrunnable()
    graph = module_graph(model)
    assert graph.family == "nanogpt"
    assert {len(pair.members) for pair in graph.pairs if pair.kind == "qk"} == {HEADS}
    model.transformer["h"][0]["attn"].n_head = 2  # two numbers: neither is taken
    unknown = module_graph(model)
    assert not [pair for pair in unknown.pairs if pair.kind == "qk"]
    # Inputs that are given may be what its forward refuses.
    with pytest.raises(InputError, match=r"\(Unrunnable\) stopped with RuntimeError: not here"):
        module_graph(model, example_inputs=tokens())
