"""Weights that layers compute are measured as the layers use them, to the last digit."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import flagscope
from flagscope.errors import SourceError
from flagscope.live import module_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).T


class Scaled(nn.Module):
    """With a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, weight):
        return self.factor * weight


class LowRank(nn.Module):
    """Several originals that are no weight norm."""

    def forward(self, left, right):
        return left @ right

    def right_inverse(self, weight):
        return weight[:, :2].clone(), weight[:2].clone()


def registered(*kinds):
    def change(layer):
        for kind in kinds:
            parametrize.register_parametrization(layer, "weight", kind(), unsafe=kind is LowRank)

    return change


CHANGES = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of columns": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "weight_norm of all": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "older weight_norm": old_weight_norm,
    "older spectral_norm": old_spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.4),
    "pruned twice": lambda layer: (
        prune.random_unstructured(layer, "weight", 0.2),
        prune.ln_structured(layer, "weight", 0.25, n=2, dim=0),
    ),
    "bias pruned": lambda layer: prune.random_unstructured(layer, "bias", 0.5),
    "one's own": registered(Symmetric),
    "two of one's own": registered(Symmetric, Scaled),
    "factors": registered(LowRank),
}


def net(change=None):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)]
    module = nn.Sequential(*layers)
    if change is not None:
        change(module[0])
        change(module[2])
        for _ in range(3):  # power iterations, and weights set by hooks
            module.train()(torch.randn(5, 8))
    return module.eval()


def plain(module):
    """A module of ordinary layers with the same weights in evaluation."""
    module(torch.zeros(1, 8))  # hooks set their weights
    same = net()
    with torch.no_grad():
        for at in (0, 2, 4):
            same[at].weight.copy_(module[at].weight)
            same[at].bias.copy_(module[at].bias)
    return same


def measured(source, **options):
    result = flagscope.scan(source, workers=1, **options).result
    assert not result.failures
    return [pair.model_dump() for pair in result.pairs]


@pytest.mark.parametrize("change", CHANGES)
def test_effective_weights_are_those_of_the_layers(change):
    module = net(CHANGES[change])
    expected = plain(module).state_dict()
    checkpoint, traced, _ = module_checkpoint(module)
    assert sorted(checkpoint.tensors) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.read(name), tensor), name
    x = torch.randn(5, 8)
    assert torch.equal(traced(x), module(x))
    assert sum("what the layers compute" in note for note in checkpoint.notes) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_scan_is_that_of_the_plain_layers(change):
    module = net(CHANGES[change])
    pairs = measured(module)
    assert [pair["name"] for pair in pairs] == ["0-2", "2-4"]
    assert pairs == measured(plain(module))


def test_weight_norm_is_its_formula():
    module = nn.Sequential(nn.Linear(8, 5))
    parametrizations.weight_norm(module[0])
    with torch.no_grad():
        module[0].parametrizations.weight.original0.mul_(torch.arange(1.0, 6.0)[:, None])
    g, v = (
        part.detach().double().numpy() for part in module[0].parametrizations.weight.parameters()
    )
    expected = g * v / np.linalg.norm(v, axis=1, keepdims=True)
    checkpoint, *_ = module_checkpoint(module)
    read = checkpoint.read("0.weight").double().numpy()
    np.testing.assert_allclose(read, expected, rtol=1e-6, atol=0)


def test_nothing_of_the_module_changes_in_training_mode():
    for change in CHANGES.values():
        module = net(change).train()
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        kinds = [type(one) for one in module.modules()]
        hooks = [len(one._forward_pre_hooks) for one in module.modules()]
        measured(module)
        assert [type(one) for one in module.modules()] == kinds
        assert [len(one._forward_pre_hooks) for one in module.modules()] == hooks
        assert list(module.state_dict()) == list(before)
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        assert module.training


def test_convolutions_and_recurrent_layers():
    torch.manual_seed(0)
    conv = nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    for at in (0, 2):
        parametrizations.spectral_norm(conv[at])
    checkpoint, *_ = module_checkpoint(conv.eval())
    for at in (0, 2):
        assert torch.equal(checkpoint.read(f"{at}.weight"), conv[at].weight)
    recurrent = nn.LSTM(4, 6)
    parametrizations.weight_norm(recurrent, "weight_hh_l0")
    checkpoint, traced, _ = module_checkpoint(recurrent)
    assert torch.equal(checkpoint.read("weight_hh_l0"), recurrent.weight_hh_l0)
    x = torch.randn(3, 4)
    assert torch.equal(traced(x)[0], recurrent(x)[0])


def test_a_parametrisation_that_fails_says_which():
    class Failing(nn.Module):
        failing = False

        def forward(self, weight):
            if self.failing:
                raise ValueError("no weight today")
            return weight

    module = nn.Sequential(nn.Linear(3, 3))
    parametrize.register_parametrization(module[0], "weight", Failing())
    Failing.failing = True
    with pytest.raises(
        SourceError, match="'0' fails to compute its weight: no weight today"
    ) as told:
        flagscope.scan(module)
    assert "parametri" in str(told.value.hint)
