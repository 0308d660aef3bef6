"""Whole modules, pickled or scripted: the names and numbers of their state dicts, no code run."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, UnsafeFileError


class Net(nn.Module):
    """A network with what a state dict leaves out or names twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 5, bias=False))
        self.named = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.LayerNorm(5)})
        self.scale = nn.Parameter(torch.rand(5))
        self.head = nn.Linear(5, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("passing", torch.ones(5), persistent=False)
        self.register_parameter("absent", None)
        self.plain = torch.ones(11)

    def forward(self, x):
        x = self.norm(self.embedding(x) * self.scale + self.passing)
        return self.head(self.named["b"](self.named["a"](self.layers(x)))) + self.steps


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def assert_is(path: Path, state: dict[str, torch.Tensor], **how: str) -> None:
    with open_checkpoint(path, **how) as checkpoint:
        assert set(checkpoint.tensors) == set(state)
        for name, tensor in state.items():
            assert checkpoint.read(name).equal(tensor), name
            assert checkpoint.read(name).dtype == tensor.dtype


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def saved(request, tmp_path):
    def save(value, name: str = "net.pt") -> Path:
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sources that cannot be found
            torch.save(value, path, _use_new_zipfile_serialization=request.param)
        return path

    return save


def test_pickled_module(saved, net):
    assert_is(saved(net), net.state_dict())


@pytest.mark.parametrize("key", ["model", "net", "ema", "anything"])
def test_module_in_a_checkpoint(saved, net, key):
    assert_is(saved({key: net, "epoch": 3, "optimizer": torch.optim.Adam(net.parameters())}),
              net.state_dict())  # fmt: skip


def test_wrapped_module(saved, net):
    wrapped = nn.DataParallel(net)
    assert set(wrapped.state_dict()) == {f"module.{name}" for name in net.state_dict()}
    assert_is(saved(wrapped), net.state_dict())


def test_object_that_holds_modules(saved, net):
    class_of_no_module = type("Agent", (), {"__module__": __name__})
    globals()["Agent"] = class_of_no_module
    agent = class_of_no_module()
    agent.policy, agent.name, agent.memory = net, "a", [torch.ones(3, 3)] * 3
    assert_is(saved(agent), net.state_dict())
    agent.other = nn.Linear(3, 3)
    assert_is(saved(agent), net.state_dict(), tensors="policy")
    assert_is(saved(agent), agent.other.state_dict(), tensors="other")


def test_traced_by_fx(saved):
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert_is(saved(torch.fx.symbolic_trace(plain)), plain.state_dict())


def test_parametrised_module_as_its_state_dict(saved):
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 3)), nn.Linear(3, 3))
    state = net.state_dict()
    path = saved(net)
    u, v, weight = (state.pop(f"0.weight_{part}") for part in ("u", "v", "orig"))
    # The parts are given as the weight that the layer uses, as those of a state dict are.
    assert_is(path, {**state, "0.weight": weight / torch.dot(u, torch.mv(weight, v))})


def test_modules_of_classes_that_are_gone(saved, net, monkeypatch):
    path = saved({"model": net})
    monkeypatch.delitem(globals(), "Net")
    with pytest.raises(AttributeError):
        torch.load(path, weights_only=False)
    assert_is(path, net.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["script", "trace"])
def test_torchscript(tmp_path, net, way):
    made = torch.jit.script(net.layers) if way == "script" else torch.jit.trace(
        net, torch.arange(6)
    )  # fmt: skip
    torch.jit.save(made, tmp_path / "net.pt")
    expected = dict(made.state_dict())
    assert_is(tmp_path / "net.pt", expected)
    own = net.layers.state_dict() if way == "script" else net.state_dict()
    assert set(expected) - set(own) <= {"passing"}  # which TorchScript keeps
    for name, tensor in own.items():
        assert expected[name].equal(tensor)


class Attributes(nn.Module):
    """Tensors that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.plain = torch.ones(4, 4)

    def forward(self, x):
        return self.inner(x).sum() + self.plain.sum()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_attributes_are_no_parameters(tmp_path):
    made = torch.jit.script(Attributes())
    torch.jit.save(made, tmp_path / "net.pt")
    assert b"plain" in (tmp_path / "net.pt").read_bytes()
    assert_is(tmp_path / "net.pt", dict(made.state_dict()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_torchscript_says_so(tmp_path):
    made = torch.jit.freeze(torch.jit.script(Attributes().eval()))
    torch.jit.save(made, tmp_path / "net.pt")
    with pytest.raises(CorruptFileError, match="frozen TorchScript") as error:
        open_checkpoint(tmp_path / "net.pt")
    assert "freeze" in error.value.hint


def test_objects_without_weights_say_what_their_code_would_make(saved):
    path = saved({"when": Fraction(1, 3)})
    with pytest.raises(UnsafeFileError, match=r"fractions\.Fraction; nothing of it was run"):
        open_checkpoint(path)
