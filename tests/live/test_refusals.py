"""Modules whose weights cannot be read end in an error with a hint, or in a note."""

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

import flagscope
from flagscope.errors import FlagscopeError, InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


class Packed(torch.Tensor):
    """A tensor of a quantiser's class: its elements are not what it computes with."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        raise NotImplementedError(func)


def with_weight(weight):
    module = net()
    module[0].weight = nn.Parameter(weight, requires_grad=False)
    return module


def lazy():
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 8))


def dynamic(module, kind):
    return torch.ao.quantization.quantize_dynamic(module, {kind}, dtype=torch.qint8)


def meta():
    module = net()
    module[2].to_empty(device="meta")
    return module


def quantised():
    return with_weight(torch.quantize_per_tensor(torch.randn(16, 8), 0.1, 0, torch.qint8))


REFUSED = {
    "lazy": (lazy, "no shape yet", "run the module once"),
    "lazy convolution": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "no shape yet", "once"),
    "dynamic int8": (lambda: dynamic(net(), nn.Linear), "layer '0' is quantised", "before"),
    "dynamic LSTM": (lambda: dynamic(nn.Sequential(nn.LSTM(8, 8)), nn.LSTM), "is quantised",
                     "before"),
    "compiled int8": (lambda: torch.compile(dynamic(net(), nn.Linear)), "is quantised", "before"),
    "meta": (meta, "meta device", "load the weights"),
    "a quantiser's class": (lambda: with_weight(Packed(torch.randn(16, 8))), "a Packed, whose",
                            "plain tensor"),
    "a quantised parameter": (quantised, "quantised by PyTorch", "dequantize"),
    "nested": (lambda: with_weight(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
               "a nested tensor", "a name of its own"),
    "no weights": (nn.ReLU, "no dense tensors", "state_dict"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("call", [flagscope.scan, flagscope.inspect])
@pytest.mark.parametrize("case", REFUSED)
def test_an_error_says_what_to_do(case, call):
    make, said, hint = REFUSED[case]
    with pytest.raises(InputError, match=said) as told:
        call(make())
    assert hint in str(told.value.hint)


def test_state_dicts_of_such_modules_are_refused_too():
    for module, said in ((lazy(), "no shape yet"), (quantised(), "quantised by PyTorch")):
        with pytest.raises(InputError, match=said):
            flagscope.scan(module.state_dict())
    with pytest.raises(InputError, match="a Packed, whose"):
        flagscope.scan({"0.weight": Packed(torch.randn(3, 3))})


def test_sparse_weights_are_passed_over_with_a_note():
    module = with_weight(torch.randn(16, 8).to_sparse())
    result = flagscope.scan(module, workers=1).result
    assert not result.pairs
    assert not result.failures
    assert "passed over 1 entries that are not dense tensors: 0.weight" in result.notes


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(os.name == "nt", reason="gloo on Windows wants another store")
@pytest.mark.filterwarnings("ignore")
def test_distributed_wrappers(one_process):
    from torch.nn.parallel import DistributedDataParallel

    plain = flagscope.scan(net(), workers=1).result
    result = flagscope.scan(DistributedDataParallel(net()), workers=1).result
    assert [one.model_dump() for one in result.pairs] == [one.model_dump() for one in plain.pairs]
    sharded = fully_shard(net())
    with pytest.raises(FlagscopeError, match=r"a DTensor, .* spread over processes") as told:
        flagscope.scan(sharded)
    assert "full_state_dict=True" in str(told.value.hint)
    flat = FullyShardedDataParallel(net(), device_id=torch.device("cpu"))
    with pytest.raises(InputError, match="flattened and spread") as told:
        flagscope.scan(flat)
    assert "full_state_dict=True" in str(told.value.hint)
