"""MLPs and ResNets: biases, BatchNorm with its statistics, convolutions; and what is refused."""

import pytest
import torch
from torch import nn

import flagscope
from arch.contract import randomise
from arch.nets import ResNet, image
from flagscope.arch import build_graph
from flagscope.errors import InputError
from flagscope.reparameterize import Change, applicable, apply, balancing_change, random_change


def chain(activation, *, norm=False, bias=True):
    layers = [nn.Linear(3, 8, bias=bias), nn.BatchNorm1d(8) if norm else nn.Identity(),
              activation(), nn.Linear(8, 6, bias=bias), activation(), nn.Linear(6, 4)]  # fmt: skip
    return nn.Sequential(*layers)


def conv():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 2))


def vectors():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(7)).double()


NETS = {
    "relu": (lambda: chain(nn.ReLU), vectors, {"activation": "relu"}),
    "relu without biases": (lambda: chain(nn.ReLU, bias=False), vectors, {"activation": "relu"}),
    "batchnorm": (lambda: chain(nn.ReLU, norm=True), vectors, {"activation": "relu"}),
    "tanh": (lambda: chain(nn.Tanh), vectors, {"activation": "tanh"}),
    "linear": (lambda: chain(nn.Identity), vectors, {"activation": "linear"}),
    "convolutions": (conv, image, {"activation": "relu"}),
    "resnet": (ResNet, image, None),
    "bottleneck": (lambda: ResNet(bottleneck=True), image, None),
}
KINDS = {"tanh": {"permutation"}, "linear": {"gl"}}


def prepared(name):
    make, given, config = NETS[name]
    module = randomise(make(), seed=4)
    shapes = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    return module, given(), build_graph(shapes, config)


def run(module, x):
    with torch.no_grad():
        return module(x)


@pytest.mark.parametrize("name", NETS)
def test_outputs_stay_and_the_inverse_restores(name):
    module, x, graph = prepared(name)
    reference = run(module, x)
    kept = {k: v.clone() for k, v in module.state_dict().items()}
    symmetries = applicable(graph)
    assert {one.kind for one in symmetries} == KINDS.get(name, {"scaling", "permutation"})
    for seed, symmetry in enumerate(symmetries):
        change = random_change(symmetry, generator=torch.Generator().manual_seed(seed))
        result = apply(module, change, in_place=True)
        assert any(not torch.equal(result.state[k], kept[k]) for k in result.changed)
        assert float((run(module, x) - reference).abs().max() / reference.abs().max()) < 1e-11
        apply(module, change.inverse(), in_place=True)
        for tensor, value in module.state_dict().items():
            assert torch.allclose(value, kept[tensor], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["batchnorm", "resnet"])
def test_statistics_left_behind_move_the_outputs(name):
    module, x, graph = prepared(name)
    reference = run(module, x)
    kept = dict(module.state_dict())
    permutation = next(one for one in applicable(graph) if one.kind == "permutation")
    order = torch.arange(permutation.d).roll(1)
    state = apply(module, Change(permutation, order)).state
    stale = {k: kept[k] if "running" in k else v for k, v in state.items()}
    for weights, moves in ((state, False), (stale, True)):
        with torch.no_grad():
            moved = (torch.func.functional_call(module, weights, x) - reference).abs().max()
        assert bool(moved > 1e-3 * reference.abs().max()) == moves


def test_no_scale_passes_a_batchnorm_without_a_gain():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.ReLU(),
                        nn.Conv2d(4, 2, 1))  # fmt: skip
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    kinds = [one.kind for one in applicable(build_graph(shapes, {"activation": "relu"}))]
    assert kinds == ["permutation"]


def test_nothing_is_offered_where_nothing_is_known():
    graph = build_graph({"0.weight": (8, 4), "2.weight": (3, 8)})
    assert applicable(graph) == ()
    assert applicable(build_graph({"w.0.attention.q.weight": (8, 8), "w.0.attention.k.weight":
                                   (8, 8)}, heads=2)) == ()  # fmt: skip


def test_stored_dtypes_stay_and_round_once():
    module = chain(nn.ReLU).to(torch.bfloat16)
    graph = flagscope.inspect(module).graph
    scaling = applicable(graph)[0]
    change = Change(scaling, torch.full((8,), 3.0))
    state = module.state_dict()
    both = apply(state, [change, change.inverse()]).state
    for name, value in state.items():
        assert both[name].dtype == torch.bfloat16
        assert torch.equal(both[name], value)


def test_seeds_repeat():
    symmetry = applicable(prepared("relu")[2])[0]
    one, two, other = (random_change(symmetry, generator=torch.Generator().manual_seed(s)).values
                       for s in (1, 1, 2))  # fmt: skip
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("scaling", torch.ones(7), "shape"),
        ("scaling", -torch.ones(8), "positive"),
        ("scaling", torch.full((8,), float("nan")), "finite"),
        ("permutation", torch.zeros(8), "once"),
        ("gl", torch.zeros(8, 8), "condition"),
        ("gl", torch.ones(8), "shape"),
    ],
)
def test_values_outside_the_group_are_refused(kind, values, message):
    graph = prepared("linear" if kind == "gl" else "relu")[2]
    symmetry = next(one for one in applicable(graph) if one.kind == kind)
    with pytest.raises(InputError, match=message) as raised:
        Change(symmetry, values)
    assert "random_change" in raised.value.hint


def test_wrong_use_is_refused():
    module, _, graph = prepared("relu")
    scaling, permutation = applicable(graph)[:2]
    change = Change(scaling, torch.full((8,), 2.0))
    state = dict(module.state_dict())
    with pytest.raises(InputError, match="in_place is for modules"):
        apply(state, change, in_place=True)
    with pytest.raises(InputError, match=r"no tensor '0\.weight'"):
        apply({"other": torch.ones(2)}, change)
    with pytest.raises(InputError, match="expected with shape"):
        apply(state | {"0.weight": torch.ones(9, 3)}, change)
    with pytest.raises(InputError, match=r"torch\.int8"):
        apply(state | {"0.weight": torch.ones(8, 3, dtype=torch.int8)}, change)
    with pytest.raises(InputError, match="cannot change a int"):
        apply(3, change)
    with pytest.raises(InputError, match="Change objects"):
        apply(state, [scaling])
    with pytest.raises(InputError, match=r"torch\.Generator"):
        random_change(scaling, generator=0)
    with pytest.raises(InputError, match="symmetry and a tensor"):
        Change("scaling", torch.ones(8))
    with pytest.raises(InputError, match="cannot be balanced"):
        balancing_change(permutation, state)


def test_a_refused_change_writes_nothing():
    module, _, graph = prepared("relu")
    kept = {k: v.clone() for k, v in module.state_dict().items()}
    first, later = (one for one in applicable(graph) if one.kind == "scaling")
    module[5].weight.data = module[5].weight.data[:, :5]
    kept["5.weight"] = kept["5.weight"][:, :5]
    changes = [random_change(one, generator=torch.Generator().manual_seed(0))
               for one in (first, later)]  # fmt: skip
    with pytest.raises(InputError):
        apply(module, changes, in_place=True)
    for name, value in module.state_dict().items():
        assert torch.equal(value, kept[name])


def test_a_pair_without_full_rank_cannot_be_balanced():
    module, _, graph = prepared("linear")
    with pytest.raises(InputError, match="full rank"):
        balancing_change(applicable(graph)[0], dict(module.state_dict()))


def test_the_module_is_offered_at_the_top():
    assert flagscope.reparameterize.applicable is applicable
    assert "reparameterize" in flagscope.__all__
