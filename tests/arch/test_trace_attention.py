"""Attention over another input, with positions put next to it, and without example inputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from arch.contract import assert_heads_proven, assert_proven, randomise
from flagscope.arch.trace import trace_graph


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def proven(module, given, graph):
    """Every claimed freedom keeps the function, and a shifted slice moves it."""
    assert_heads_proven(graph)

    def run(state):
        with torch.no_grad():
            return torch.func.functional_call(module, state, given)

    assert_proven(graph, dict(module.state_dict()), run, tolerance=1e-11)
    return {pair.name: pair for pair in graph.pairs}


class Multihead(nn.Module):
    """torch's own layer; of its results only the first counts."""

    def __init__(self, **options):
        super().__init__()
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True, **options)

    def forward(self, query, key, value):
        return self.attend(query, key, value)[0]


class Cross(nn.Module):
    """Queries of one width, keys and values of another, by hand."""

    def __init__(self, bias=True):
        super().__init__()
        self.inner = nn.Linear(12, 24)
        self.q, self.o = nn.Linear(24, 32, bias), nn.Linear(32, 24, bias)
        self.k, self.v = nn.Linear(10, 32, bias), nn.Linear(10, 32, bias)

    def forward(self, x, context):
        def heads(y):
            return y.unflatten(-1, (4, 8)).transpose(1, 2)

        parts = heads(self.q(self.inner(x))), heads(self.k(context)), heads(self.v(context))
        return self.o(functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


OTHER = {"kdim": 16, "vdim": 20}
# Options, widths of key and value, and the freedom that may be claimed: a bias that is stored for
# Q, K and V together next to weights apart cannot be changed with one of them, nor can bias_k.
CASES = {
    "same width": ({}, (32, 32), "gl"),
    "other widths": (OTHER, (16, 20), "none"),
    "other widths, no bias": ({**OTHER, "bias": False}, (16, 20), "gl"),
    "bias_k": ({"add_bias_kv": True}, (32, 32), "none"),
    "zero position": ({"add_zero_attn": True}, (32, 32), "gl"),
}


@pytest.mark.parametrize("assumed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_torchs_attention(case, assumed):
    options, widths, freedom = CASES[case]
    module = randomise(Multihead(**options), 1).double().eval()
    given = numbers(2, 5, 32), *(numbers(2, 7, width) for width in widths)
    graph = trace_graph(
        module.attend if assumed else module, example_inputs=None if assumed else given
    )
    if assumed:
        assert graph.notes[0].startswith("inputs assumed for tracing: query (2, 8, 32)")
        pairs = {pair.name: pair for pair in graph.pairs}
    else:
        pairs = proven(module, given, graph)
    label = "main" if assumed else "attend"
    assert [(p.kind, p.attention, p.freedom, len(p.members)) for p in pairs.values()] == [
        ("qk", "cross", freedom, 4), ("ov", "cross", freedom, 4)
    ]  # fmt: skip
    assert set(pairs) == {f"{label}.qk", f"{label}.ov"}
    assert [(one.space, one.count, one.d) for one in graph.heads] == [
        ("q", 4, 32), ("k", 4, widths[0]), ("v", 4, widths[1]), ("o", 4, 32)
    ]  # fmt: skip
    # the maps are those of torch's layer
    state = {name.removeprefix("attend."): one for name, one in module.state_dict().items()}
    pair = pairs[f"{label}.qk"]
    maps = [side.map.write_matrices(state[side.map.tensor.removeprefix("attend.")])
            for side in (pair.write, pair.read)]  # fmt: skip
    fused = "in_proj_weight" in state
    q = state["in_proj_weight"][:32] if fused else state["q_proj_weight"]
    k = state["in_proj_weight"][32:64] if fused else state["k_proj_weight"]
    assert torch.equal(maps[0], q.reshape(4, 8, -1))
    assert torch.equal(maps[1], k.reshape(4, 8, -1))


@pytest.mark.parametrize("bias", [True, False])
def test_attention_over_a_context_of_another_width(bias):
    module = randomise(Cross(bias), 2).double().eval()
    given = numbers(2, 5, 12), numbers(2, 7, 10)
    pairs = proven(module, given, trace_graph(module))
    assert [(p.name, p.attention, p.freedom) for p in pairs.values()] == [
        ("inner-q", None, "gl"), ("main.qk", "cross", "gl"), ("main.ov", "cross", "gl")
    ]  # fmt: skip


def test_torchs_decoder_layers_need_no_inputs():
    module = randomise(nn.TransformerDecoderLayer(16, 4, 24, batch_first=True), 3).eval()
    graph = trace_graph(module)
    found = [(p.name, p.attention) for p in graph.pairs if p.kind in ("qk", "ov")]
    assert found == [
        ("self_attn.qk", "self"), ("self_attn.ov", "self"),
        ("multihead_attn.qk", "cross"), ("multihead_attn.ov", "cross"),
    ]  # fmt: skip


class Joined(nn.Module):
    """What a map wrote, with something put next to it along a dimension."""

    def __init__(self, other, dim):
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8 if dim else 16, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.other, self.dim = other, dim

    def forward(self, x):
        y = self.one(x)
        shape = (len(y), 1, 8) if self.dim else y.shape
        other = {
            "zeros": lambda: torch.zeros(shape, dtype=y.dtype),
            "token": lambda: self.token.expand(shape),
        }
        parts = [other[self.other](), y] if self.other in other else [y, y]
        return self.two(torch.cat(parts, 1 if self.dim else -1))


def test_what_is_put_next_to_channels():
    freedoms = {}
    for other in ("zeros", "token", "itself"):
        for along_positions in (True, False):
            module = randomise(Joined(other, along_positions), 4).double()
            given = numbers(2, 5, 6)
            pairs = proven(module, given, trace_graph(module, example_inputs=given))
            freedoms[other, along_positions] = [(p.between, p.freedom) for p in pairs.values()]
    assert freedoms == {
        ("zeros", True): [("linear", "gl")],
        ("token", True): [("joined", "none")],
        ("itself", True): [],
        ("zeros", False): [],
        ("token", False): [],
        ("itself", False): [],
    }


class Shifted(nn.Module):
    """A part of a weight, with another part of what holds its biases."""

    def __init__(self, start):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(16, 6)), nn.Parameter(torch.zeros(16))
        self.two, self.start = nn.Linear(8, 4), start

    def forward(self, x):
        return self.two(functional.linear(x, self.weight[:8], self.bias[self.start :][:8]))


@pytest.mark.parametrize(("start", "freedom"), [(0, "gl"), (8, "none"), (4, "none")])
def test_a_bias_that_lies_otherwise_than_its_weight(start, freedom):
    module = randomise(Shifted(start), 5).double()
    given = numbers(5, 6)
    pairs = proven(module, given, trace_graph(module, example_inputs=given))
    assert [pair.freedom for pair in pairs.values()] == [freedom]


def test_names_decide_what_is_a_weight():
    """Tensors without a name are none that can be read: nothing is claimed through them."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    names = {name: f"net.{name}" for name in net.state_dict()}
    graph = trace_graph(net, names=names)
    assert [pair.name for pair in graph.pairs] == ["net.0-net.2", "net.2-net.4"]
    del names["2.weight"]
    graph = trace_graph(net, names=names)
    assert graph.pairs == ()
    assert set(graph.unmapped) == {"net.0.weight", "net.4.weight"}
