"""Files whose weights are stored in parts: the weights that the layers compute from them."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import flagscope
from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")

LAYERS = {
    "linear": (lambda: nn.Linear(8, 6), (3, 8)),
    "square": (lambda: nn.Linear(8, 8), (3, 8)),
    "one row": (lambda: nn.Linear(8, 1), (3, 8)),
    "one column": (lambda: nn.Linear(1, 8), (3, 1)),
    "conv": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 4, 3), (2, 4, 5, 5)),
}
METHODS = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm, columns": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "weight_norm, all": lambda layer: old_weight_norm(layer, dim=None),
    "older weight_norm": old_weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "older spectral_norm": old_spectral_norm,
    "pruning": lambda layer: prune.random_unstructured(layer, "weight", 0.4),
}


def trained(layer, shape):
    """A layer after some steps, and its weight in evaluation."""
    for _ in range(20):
        layer.train()(torch.randn(shape))
    with torch.no_grad():
        for name, tensor in layer.named_parameters():
            if name.endswith(("_g", "original0")):
                tensor.mul_(1 + torch.rand(tensor.shape))
    layer.eval()(torch.randn(shape))
    return layer


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_weight_is_that_of_the_layer(method, layer, dtype, tmp_path):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    module = make()
    METHODS[method](module)
    module = trained(module, shape).to(dtype)
    module(torch.zeros(shape, dtype=dtype))
    save_file({f"0.{n}": t.contiguous() for n, t in module.state_dict().items()},
              tmp_path / "model.safetensors")  # fmt: skip
    with open_checkpoint(tmp_path) as checkpoint:
        assert sorted(checkpoint.tensors) == ["0.bias", "0.weight"]
        weight = module.weight.detach()
        assert torch.equal(checkpoint.read("0.weight"), weight)
        assert torch.equal(checkpoint.read("0.weight", (slice(0, 1),)), weight[:1])
        assert checkpoint.tensors["0.weight"].dtype == str(dtype).removeprefix("torch.")
        name = method.partition(",")[0].removeprefix("older ")
        assert any(f"as torch's {name} does" in note for note in checkpoint.notes)
        copied = pickle.loads(pickle.dumps(checkpoint))
        assert torch.equal(copied.read("0.weight"), weight)
        same = from_state_dict({"0.weight": weight, "0.bias": module.bias.detach()})
        assert checkpoint_fingerprint(checkpoint) == checkpoint_fingerprint(same)


def test_formulas_of_the_papers():
    rng = np.random.default_rng(0)
    v, g = rng.normal(size=(5, 7)), rng.uniform(1, 2, size=(5, 1))
    left, values, right = np.linalg.svd(v)
    state = {
        "a.weight_g": g, "a.weight_v": v,
        "b.parametrizations.weight.original": v,
        "b.parametrizations.weight.0._u": left[:, 0], "b.parametrizations.weight.0._v": right[0],
        "c.weight_orig": v, "c.weight_mask": (v > 0).astype(np.float64),
    }  # fmt: skip
    checkpoint = from_state_dict(state)
    expected = {"a": g * v / np.linalg.norm(v, axis=1, keepdims=True), "b": v / values[0],
                "c": np.maximum(v, 0)}  # fmt: skip
    assert list(checkpoint.tensors) == ["a.weight", "b.weight", "c.weight"]
    for name, weight in expected.items():
        read = checkpoint.read(f"{name}.weight").numpy()
        np.testing.assert_allclose(read, weight, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "weight_norm, all"])
def test_layers_between_others_are_no_gap(method):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)]
    net = nn.Sequential(*layers)
    METHODS[method](net[2])
    net.eval()(torch.zeros(1, 8))
    result = flagscope.scan(dict(net.state_dict()), workers=1).result
    assert [pair.name for pair in result.pairs] == ["0-2", "2-4"]
    plain = {f"{at}.{name}": getattr(net[at], name).detach() for at in (0, 2, 4)
             for name in ("weight", "bias")}  # fmt: skip
    expected = flagscope.scan(plain, workers=1).result
    assert [pair.model_dump() for pair in result.pairs] == [
        pair.model_dump() for pair in expected.pairs
    ]


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Scaled(Doubled):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.0))


class LowRank(nn.Module):
    def forward(self, left, right):
        return left @ right

    def right_inverse(self, weight):
        return weight[:, :3].clone(), weight[:3].clone()


def twice(layer):
    parametrizations.spectral_norm(layer)
    parametrize.register_parametrization(layer, "weight", Scaled())


LEFT = {
    "orthogonal": parametrizations.orthogonal,
    "one's own": lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
    "factors": lambda layer: parametrize.register_parametrization(
        layer, "weight", LowRank(), unsafe=True
    ),
    "two in turn": twice,
}


@pytest.mark.parametrize("change", LEFT)
def test_parts_that_do_not_say_all_are_left_alone(change):
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    LEFT[change](layer)
    checkpoint = from_state_dict(layer.state_dict())
    assert list(checkpoint.tensors) == list(layer.state_dict())
    assert checkpoint.notes == ()


def test_other_tensors_of_such_names_are_left_alone():
    ones = torch.ones
    state = {
        "gate.w_v": ones(4, 3), "gate.w_g": ones(4, 1),  # values and gates of attention
        "a.weight_g": ones(4, 3), "a.weight_v": ones(4, 3),  # no norms
        "b.weight_g": ones(3), "b.weight_v": ones(4, 3),
        "c.weight": ones(4, 3), "c.weight_g": ones(4, 1), "c.weight_v": ones(4, 3),
        "d.weight_orig": ones(4, 3), "d.weight_mask": ones(4),
        "e.weight_orig": ones(4, 3), "e.weight_u": ones(5), "e.weight_v": ones(4),
        "f.weight_v": ones(4, 3).to(torch.float8_e4m3fn), "f.weight_g": ones(4, 1),
        "g.parametrizations.weight.original0": ones(4, 2),
        "g.parametrizations.weight.original1": ones(2, 3),
        "h.weight_v": ones(0, 3), "h.weight_g": ones(0, 1),
    }  # fmt: skip
    checkpoint = from_state_dict(state)
    assert list(checkpoint.tensors) == list(state)


def test_tensors_are_computed_when_they_are_read(tmp_path, monkeypatch):
    state = {f"{at}.weight_v": torch.randn(4, 4) for at in range(3)}
    state |= {f"{at}.weight_g": torch.ones(4, 1) for at in range(3)}
    save_file(state, tmp_path / "model.safetensors")
    count = []
    inner = torch._weight_norm
    monkeypatch.setattr(torch, "_weight_norm", lambda *parts: (count.append(1), inner(*parts))[1])
    with open_checkpoint(tmp_path) as checkpoint:
        assert not count
        for row in range(4):
            checkpoint.read("1.weight", (row,))
        assert len(count) == 1
        checkpoint.read("2.weight")
        checkpoint.read("1.weight")
        assert len(count) == 3
