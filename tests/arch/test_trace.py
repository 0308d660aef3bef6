"""Traced networks, proven by function; and that what is not proven is not claimed."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from arch import nets
from arch.contract import assert_heads_proven, assert_proven, randomise
from arch.traced_nets import (
    Attention,
    Clamp,
    Copied,
    Functional,
    Glu,
    ResidualMlp,
    ResNet,
    Stock,
    Transformer,
    Vgg,
)  # fmt: skip
from flagscope.arch import build_graph
from flagscope.arch.trace import UntraceableError, module_graph, trace_graph
from flagscope.arch.trace.program import _silence
from flagscope.errors import InputError

IDS = torch.tensor([[1, 4, 2, 8, 5, 7], [3, 1, 4, 1, 5, 0]])


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def proven(module, given, graph=None):
    """Every claimed freedom keeps the function, and a shifted slice moves it."""
    graph = trace_graph(module) if graph is None else graph
    assert_heads_proven(graph)

    def run(state):
        with torch.no_grad():
            return torch.func.functional_call(module, state, given)

    state = dict(module.state_dict())
    assert_proven(graph, state, run, tolerance=1e-11)
    return graph


def rows(graph):
    return [(p.name, p.kind, p.between, p.freedom) for p in graph.pairs]


def test_each_activation_of_a_sequential_is_its_own():
    layers = [nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 7),
              nn.LeakyReLU(), nn.Linear(7, 6), nn.Linear(6, 5), nn.ReLU6(),
              nn.Linear(5, 3)]  # fmt: skip
    assert rows(proven(randomise(nn.Sequential(*layers), 0), numbers(5, 4))) == [
        ("0-2", "sequential", "gelu", "permutation"),
        ("2-4", "sequential", "relu", "scaling"),
        ("4-6", "sequential", "leaky_relu", "scaling"),
        ("6-7", "sequential", "linear", "gl"),
        ("7-9", "sequential", "relu6", "permutation"),
    ]


@pytest.mark.parametrize(
    ("bounded", "between", "freedom"),
    [
        (nn.Hardtanh(0, 6), "relu6", "permutation"),
        (nn.Hardtanh(-1, 6), "hardtanh", "permutation"),
        (nn.Hardtanh(0, 5), "hardtanh", "permutation"),
        (nn.Hardtanh(), "hardtanh", "permutation"),
        (nn.ReLU6(), "relu6", "permutation"),
        (Clamp(min=0), "relu", "scaling"),
        (Clamp(min=0, max=float("inf")), "relu", "scaling"),
        (Clamp(min=0, max=1), "clamp", "permutation"),
        (Clamp(min=1), "clamp", "permutation"),
        (Clamp(max=0), "clamp", "permutation"),
        (Clamp(max=float("inf"), min=-1), "clamp", "permutation"),
    ],
)
def test_the_bounds_of_an_activation_say_what_passes_it(bounded, between, freedom):
    net = nn.Sequential(nn.Linear(4, 6), bounded, nn.Linear(6, 3))
    (pair,) = module_graph(net).pairs
    assert (pair.between, pair.freedom) == (between, freedom)


def test_copies_along_a_new_dimension_leave_the_channels():
    net = randomise(Copied(), 0)
    graph = proven(net, numbers(5, 4))
    assert rows(graph) == [("first-last", "sequential", "relu", "scaling")]


def test_functional_activations():
    assert rows(proven(randomise(Functional(), 1), numbers(5, 6))) == [
        ("first-second", "sequential", "gelu_pytorch_tanh", "permutation"),
        ("second-third", "sequential", "relu", "scaling"),
        ("third-fourth", "sequential", "linear", "gl"),
        ("fourth-last", "sequential", "product+sigmoid", "permutation"),
    ]


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, nn.Identity])
def test_residual_mlp(norm):
    module = randomise(ResidualMlp(lambda d: norm(d)), 2)
    graph = proven(module, numbers(5, 5))
    between = "linear" if norm is nn.Identity else "norm"
    assert rows(graph) == [
        ("embed-blocks.0.1", "residual", between, "none"),
        ("blocks.0.1-blocks.0.3", "mlp", "tanh", "permutation"),
        ("blocks.0.3-blocks.1.1", "residual", between, "none"),
        ("blocks.1.1-blocks.1.3", "mlp", "tanh", "permutation"),
        ("blocks.1.3-head", "residual", "linear", "none"),
    ]
    pair = graph.pairs[2]
    kind = {nn.LayerNorm: "layernorm", nn.RMSNorm: "rmsnorm"}.get(norm)
    assert (pair.read_norm and pair.read_norm.kind) == kind
    assert (pair.read_norm and pair.read_norm.gain) == (kind and "blocks.1.0.weight")


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bottleneck", [True, False])
def test_torchvision_resnets(bottleneck, norm):
    module = randomise(ResNet(bottleneck=bottleneck, norm=norm), 3)
    graph = proven(module, numbers(2, 3, 32, 32))
    inner = [one for one in rows(graph) if one[1] == "conv" and not one[0].startswith("conv1")]
    assert len(inner) == (8 if bottleneck else 4)
    assert {one[2:] for one in inner} == {("relu", "scaling")}
    assert ("layer1.0.conv1-conv2", "conv", "relu", "scaling") in inner
    assert graph.unmapped == ()
    assert all((p.write_norm is not None) == norm for p in graph.pairs)


@pytest.mark.parametrize("case", [{}, {"bottleneck": True}, {"shortcut": "", "last": "linear"}])
def test_a_traced_resnet_is_that_of_the_family(case):
    """Pairs of the family file, whose names are known, and of the trace agree."""
    module = nets.ResNet(**case)
    shapes = {name: tuple(one.shape) for name, one in module.state_dict().items()}
    known = [build_graph(shapes), trace_graph(module)]
    family, traced = (
        {(p.name, p.between, p.freedom, p.write_norm and p.write_norm.name, p.d)
         for p in graph.pairs} for graph in known
    )  # fmt: skip
    assert traced == family


def test_convolutions_then_linear():
    graph = proven(randomise(Vgg(), 4), numbers(2, 1, 28, 28))
    assert rows(graph) == [
        ("features.0-4", "conv", "relu", "scaling"),
        ("features.4-classifier.1", "sequential", "silu", "permutation"),
        ("classifier.1-classifier.4", "sequential", "elu", "permutation"),
    ]


ATTENTIONS = {
    "apart": {"fused": False, "by_hand": False},
    "apart, by hand": {"fused": False, "by_hand": True},
    "fused": {"fused": True, "by_hand": False},
    "fused, by hand": {"fused": True, "by_hand": True},
    "interleaved": {"fused": True, "by_hand": False, "interleaved": True},
    "grouped": {"fused": False, "by_hand": False, "groups": 2},
    "grouped, by hand": {"fused": False, "by_hand": True, "groups": 2},
    "multi-query": {"fused": False, "by_hand": True, "groups": 1},
}


@pytest.mark.parametrize("case", ATTENTIONS)
def test_transformers_of_ones_own(case):
    module = randomise(Transformer(lambda: Attention(**ATTENTIONS[case])), 5)
    graph = proven(module, IDS)
    found = rows(graph)
    assert ("attentions.0.qk", "qk", "linear", "gl") in found
    assert ("attentions.1.ov", "ov", "linear", "gl") in found
    assert ("up.0-down.0", "mlp", "gated", "scaling") in found
    assert ("gate.1-down.1", "mlp", "silu", "permutation") in found
    assert [p.attention for p in graph.pairs if p.kind == "qk"] == ["self"] * 2
    assert [len(p.members) for p in graph.pairs if p.kind in ("qk", "ov")] == [4] * 4
    groups = ATTENTIONS[case].get("groups", 4)
    assert [h.count for h in graph.heads] == [4, groups, groups, 4] * 2
    assert {h.norm and h.norm.name for h in graph.heads if h.space != "o"} == {"norms.0", "norms.2"}


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(("norm_first", "activation"), [(True, "gelu"), (False, "relu")])
def test_stock_transformer_layers(norm_first, activation, weights):
    module = Stock(norm_first=norm_first, activation=activation, weights=weights)
    graph = proven(randomise(module, 6), IDS)
    found = rows(graph)
    freedom = "scaling" if activation == "relu" else "permutation"
    label = "encoder.layers.1"
    assert (f"{label}.linear1-{label}.linear2", "mlp", activation, freedom) in found
    for name in ("encoder.layers.0.self_attn", "decoder.multihead_attn", "attention"):
        assert (f"{name}.qk", "qk", "linear", "gl") in found
        assert (f"{name}.ov", "ov", "linear", "gl") in found
    cross = [p for p in graph.pairs if p.attention == "cross"]
    assert [p.name for p in cross] == ["decoder.multihead_attn.qk", "decoder.multihead_attn.ov"]


@pytest.mark.parametrize("chunked", [True, False])
def test_gate_and_values_in_one_map(chunked):
    graph = proven(randomise(Glu(chunked=chunked), 7), numbers(5, 5))
    gate = ("gelu" if chunked else "sigmoid", "permutation")
    assert sorted(one[2:] for one in rows(graph)) == sorted([("gated", "scaling"), gate])
    pairs = {p.between: p.write.map for p in graph.pairs}
    assert pairs[gate[0]].slice_text(0) == ("[0:8, :]" if chunked else "[8:16, :]")


def test_weights_stored_the_other_way_round():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (nn.Parameter(torch.zeros(a, b)) for a, b in ((4, 6), (6, 5)))
            self.three = nn.Linear(5, 3)

        def forward(self, x):
            return self.three(functional.relu(functional.relu(x @ self.one) @ self.two))

    module = Turned()
    given = trace_graph(module, example_inputs=torch.zeros(2, 4))
    assert [p.write.map.layout for p in given.pairs] == ["in0 o", "in0 o"]
    assert len(proven(randomise(module, 8), numbers(5, 4), given).pairs) == 2


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.again, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = functional.relu(self.again(functional.relu(self.one(x))))
        return self.last(functional.relu(self.again(x)))


def test_layers_used_twice_have_no_freedom_of_their_own():
    found = rows(proven(randomise(Shared(), 9), numbers(5, 6)))
    assert [one[0] for one in found] == ["one-again", "again-again", "again-last"]
    assert {one[3] for one in found} == {"none"}


def test_tied_weights_have_no_freedom():
    module = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False))
    module[2].weight = module[0].weight
    assert [p.freedom for p in trace_graph(module).pairs] == ["none", "none"]
    assert [p.freedom for p in trace_graph(nn.Sequential(*module[:2], nn.Linear(6, 9))).pairs] == [
        "gl", "gl",
    ]  # fmt: skip


class Seen(nn.Module):
    """The hidden layer is also returned, or read by a second map."""

    def __init__(self, way):
        super().__init__()
        self.one, self.two, self.other = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.way = way

    def forward(self, x):
        hidden = functional.relu(self.one(x))
        if self.way == "returned":
            return self.two(hidden), hidden
        if self.way == "read twice":
            return self.two(hidden), self.other(hidden)
        if self.way == "penalty":
            return self.two(hidden), self.one.weight.square().sum()
        return self.two(hidden * hidden.mean(-1, keepdim=True))


@pytest.mark.parametrize("way", ["returned", "read twice", "penalty", "its own scale"])
def test_what_others_see_has_no_freedom(way):
    graph = trace_graph(Seen(way))
    assert {p.freedom for p in graph.pairs} == {"none"}
    assert graph.pairs[0].name == "one-two"


UNFOLLOWED = {
    "cumsum": lambda x: x.cumsum(-1), "flip": lambda x: x.flip(-1), "sort": lambda x: x.sort(-1)[0],
    "roll": lambda x: x.roll(1, -1), "fft": lambda x: torch.fft.fft(x).real,
    "cat": lambda x: torch.cat([x[..., :3], x[..., 3:]], -1),
    "outer": lambda x: x.reshape(-1, 2, 3).transpose(1, 2).reshape(-1, 6),
}  # fmt: skip


class Between(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.one, self.two, self.operation = nn.Linear(4, 6), nn.Linear(6, 3), operation

    def forward(self, x):
        return self.two(self.operation(self.one(x)))


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_no_pair_across_what_is_not_understood(name):
    graph = trace_graph(Between(UNFOLLOWED[name]))
    assert graph.pairs == ()
    assert graph.unmapped == ("one.weight", "two.weight")
    assert any("one-two" in n or "no pair is claimed across" in n for n in graph.notes)


WITHOUT_FREEDOM = {
    "softmax": lambda x: x.softmax(-1), "layer norm": lambda x: functional.layer_norm(x, (6,)),
    "one vector": lambda x: x * torch.arange(6.0),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_FREEDOM)
def test_channels_that_meet_each_other_have_no_freedom(name):
    assert [p.freedom for p in trace_graph(Between(WITHOUT_FREEDOM[name])).pairs] == ["none"]


def test_squeeze_and_excitation_claims_nothing_for_the_shared_channels():
    class Squeeze(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)
            self.down, self.up = nn.Conv2d(6, 9, 1), nn.Conv2d(9, 6, 1)

        def forward(self, x):
            x = self.conv(x)
            scale = functional.relu(self.down(x.mean((2, 3), keepdim=True)))
            return self.last(x * torch.sigmoid(self.up(scale)))

    found = rows(proven(randomise(Squeeze(), 10), numbers(2, 3, 8, 8)))
    assert {one[0]: one[3] for one in found} == {
        "conv-down": "outer", "down-up": "scaling", "conv-last": "none", "up-last": "outer",
    }  # fmt: skip


def test_grouped_convolutions_are_no_maps():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 3, 1))
    graph = trace_graph(module)
    assert graph.pairs == ()
    assert any("grouped convolution" in note for note in graph.notes)


LAYERS = [f"layer{stage}.{block}.conv1-conv2" for stage in (1, 2) for block in (0, 1)]


class Dynamic(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.fc1, self.fc2 = nn.Linear(4, 1), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        if self.gate(x).sum() > 0:
            return self.fc2(functional.relu(self.fc1(x)))
        return self.fc2(torch.tanh(self.fc1(x)))


class Observed(nn.Module):
    """Keeps statistics of what runs through it, which torch.export refuses."""

    def __init__(self, look):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.look, self.seen = look, None

    def forward(self, x):
        hidden = functional.relu(self.one(x))
        self.seen = self.look(hidden)
        return self.three(torch.tanh(self.two(hidden)))


class ObservedVgg(Vgg):
    def forward(self, x):
        x = self.features(x)
        self.seen = x.detach().mean((0, 2, 3)).cpu().numpy()
        return self.classifier(x)


class InPlace(nn.Module):
    """An activation whose result nobody takes: it has changed what is read next."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.one(x)
        hidden.relu_()
        self.seen = hidden.detach().numpy().copy()
        return self.two(hidden)


LOOKS = {
    "numpy": lambda x: x.detach().numpy(),
    "mean to numpy": lambda x: x.detach().mean(0).cpu().numpy(),
    "check": lambda x: torch._assert(torch.isfinite(x).all(), "not finite"),
}


def traced_by_fx(module, given, **arguments):
    with pytest.raises(Exception), _silence():  # noqa: B017, PT011 - whatever export raises
        torch.export.export(module, (given,), strict=False)
    graph = trace_graph(module, **arguments)
    assert "torch.export failed on the module itself; it was traced by torch.fx" in graph.notes
    return proven(module, given, graph)


@pytest.mark.parametrize("look", LOOKS)
def test_what_export_refuses_is_traced_by_fx(look):
    graph = traced_by_fx(randomise(Observed(LOOKS[look]), 12), numbers(5, 4))
    assert rows(graph) == [
        ("one-two", "sequential", "relu", "scaling"),
        ("two-three", "sequential", "tanh", "permutation"),
    ]


def test_convolutions_traced_by_fx():
    graph = traced_by_fx(randomise(ObservedVgg(), 4), numbers(2, 1, 28, 28))
    assert [one[3] for one in rows(graph)] == ["scaling", "permutation", "permutation"]


def test_fx_keeps_what_acts_in_place():
    graph = traced_by_fx(randomise(InPlace(), 13), numbers(5, 4))
    assert rows(graph) == [("one-two", "sequential", "relu", "scaling")]


def test_a_module_that_does_not_trace_gets_a_partial_result():
    with pytest.raises(UntraceableError, match="Dynamic"):
        trace_graph(Dynamic())
    graph = module_graph(Dynamic())
    assert [(p.name, p.between, p.freedom) for p in graph.pairs] == [("fc1-fc2", "unknown", "none")]
    assert "(Dynamic) stopped with" in graph.notes[0]
    assert "1 pairs and 0 head spaces were inferred from tensor names alone" in graph.notes[0]
    assert "a freedom claimed for 0); 1 matrices are in no pair" in graph.notes[0]
    assert graph.unmapped == ("gate.weight",)


def test_the_names_of_a_family_may_claim_freedom_where_the_trace_fails():
    class Untraceable(nets.ResNet):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    module = randomise(Untraceable(), 14)
    graph = module_graph(module, example_inputs=nets.image())
    assert "the module itself (Untraceable) stopped with" in graph.notes[0]
    assert f"(family 'resnet', a freedom claimed for {len(LAYERS)})" in graph.notes[0]
    assert [p.name for p in graph.pairs if p.freedom not in ("none", "outer")] == LAYERS
    proven(module, nets.image(), graph)


def test_inner_modules_that_stop_the_trace_are_named():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner = nn.Linear(4, 4), Dynamic()

        def forward(self, x):
            return self.inner(self.stem(x))

    assert "inner (Dynamic) stopped with" in module_graph(Outer()).notes[0]


class Remembering(nn.Module):
    """Assigns to itself in forward, which torch.export refuses in some forms."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(4, 6), nn.Linear(6, 3), None

    def forward(self, x):
        self.last = functional.relu(self.one(x))
        if int(self.last.shape[0]) < 1:
            raise ValueError("empty")
        return self.two(self.last)


def test_the_module_is_left_as_it_was():
    module = Remembering().train()
    before = {name: one.clone() for name, one in module.state_dict().items()}
    assert [p.freedom for p in trace_graph(module).pairs] == ["scaling"]
    assert module.training
    assert module.last is None
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())


def test_batchnorm_that_follows_no_map_is_not_folded():
    layers = [nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3)]
    pair = trace_graph(nn.Sequential(*layers)).pairs[0]
    assert (pair.between, pair.freedom, pair.write_norm) == ("norm", "none", None)
    bare = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 3))
    assert proven(randomise(bare, 11), numbers(5, 4)).pairs[0].freedom == "permutation"
    batch = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False),
                          nn.Linear(6, 3))  # fmt: skip
    assert trace_graph(batch).pairs == ()


def test_inputs_are_assumed_given_or_missing():
    class Reshaping(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(12, 6), nn.Linear(6, 3)

        def forward(self, x, scale):
            if x.shape[1:] != (3, 4):
                raise ValueError("images of 3 by 4 are expected")
            return self.two(self.one(x.reshape(-1, 12)) * scale)

    with pytest.raises(UntraceableError, match="what its forward takes") as stopped:
        trace_graph(Reshaping())
    assert "example_inputs" in str(stopped.value.hint)
    arguments = torch.zeros(2, 3, 4), torch.ones(())
    for given in (arguments, {"x": arguments[0], "scale": arguments[1]}):
        graph = trace_graph(Reshaping(), example_inputs=given)
        assert [p.freedom for p in graph.pairs] == ["gl"]
        assert graph.notes == ()
    with pytest.raises(InputError, match="example_inputs"):
        trace_graph(Reshaping(), example_inputs=3)


WRONG = {
    "width": (torch.zeros(2, 5), r"0 \(Linear\) stopped with RuntimeError"),
    "integers": (torch.zeros(2, 4, dtype=torch.long), "int64, and a map .* weights of float32"),
    "precision": (torch.zeros(2, 4).double(), "float64, and a map .* weights of float32"),
    "a text": ("hello", "example_inputs is a str"),
    "bytes": (b"hello", "example_inputs is a bytes"),
    "numbers": ([1.0, 2.0], "is a list without a tensor"),
    "an array": ([torch.zeros(2, 4).numpy()], "is a list without a tensor"),
    "too many": ((torch.zeros(2, 4), torch.zeros(2, 4)), "Sequential, which takes input: too"),
    "another name": ({"y": torch.zeros(2, 4)}, "missing a required argument: 'input'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_example_inputs_are_refused(case):
    given, message = WRONG[case]
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(InputError, match=message) as stopped:
        module_graph(net, example_inputs=given)
    assert stopped.value.hint.startswith("give ")


def test_types_of_inputs_may_change_on_their_way():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3).double()

        def forward(self, x):
            return self.two(self.one(x).double())

    for given in (torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.long)):
        module = Mixed() if given.is_floating_point() else nn.Sequential(ToFloat(), Mixed())
        assert len(module_graph(module, example_inputs=given).pairs) == 1


class ToFloat(nn.Module):
    def forward(self, x):
        return x.float()


def test_a_note_says_that_example_inputs_were_not_used():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    for given in (None, torch.zeros(2, 5)):
        notes = module_graph(net, family="none", example_inputs=given).notes
        assert any("example_inputs were not used" in note for note in notes) == (given is not None)
    with pytest.raises(InputError, match="is a str"):
        module_graph(net, family="none", example_inputs="hello")


def test_dummy_inputs_are_taken():
    module = Shared()
    module.dummy_inputs = {"x": torch.zeros(1, 6)}
    assert trace_graph(module).notes == ("inputs: the module's dummy_inputs",)


def test_several_arguments_each_get_what_their_layer_takes():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.sizes, self.last = nn.Embedding(7, 4), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, ids, sizes):
            return self.last(functional.relu(self.words(ids).mean(1) + self.sizes(sizes)))

    graph = trace_graph(Two())
    assert [p.name for p in graph.pairs] == ["words-last", "sizes-last"]
    assert {p.kind for p in graph.pairs} == {"residual"}


def test_parametrised_weights_are_no_stored_maps():
    one = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
    assert trace_graph(nn.Sequential(one, nn.Linear(6, 3))).pairs == ()
