"""A wrapped module is measured as the module inside it, under the same names."""

import copy
from functools import cache

import pytest
import torch
import transformers
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.optim.swa_utils import AveragedModel

import flagscope
from flagscope.live import module_checkpoint
from flagscope.live.structure import structure_copy

# torch.compile imports what uses torch.jit, which is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")


def sequential():
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 16), nn.Tanh()),
              nn.Linear(16, 8)]  # fmt: skip
    return nn.Sequential(*layers)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=16, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


class Holder(nn.Module):
    """A class of one's own whose only child has a wrapper's name."""

    def __init__(self, name, inside):
        super().__init__()
        self.add_module(name, inside)
        self._held = name

    def forward(self, *args, **kwargs):
        return getattr(self, self._held)(*args, **kwargs)


def inside(name):
    """Every linear layer held under a name, in the forward of which it stands."""

    def wrapped(module):
        for parent in list(module.modules()):
            for child, layer in list(parent.named_children()):
                if type(layer).__name__ in ("Linear", "Conv1D"):
                    setattr(parent, child, Holder(name, layer))
        return module

    return wrapped


def checkpointed(module):
    kinds = (nn.Linear, transformers.pytorch_utils.Conv1D)
    apply_activation_checkpointing(module, check_fn=lambda one: isinstance(one, kinds))
    return module


def compiled_in_place(module):
    module.compile()
    return module


WRAPPERS = {
    "torch.compile": torch.compile,
    "module.compile": compiled_in_place,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "a child called module": lambda m: Holder("module", m),
    "layers called module": inside("module"),
    "FSDP": lambda m: Holder("_fsdp_wrapped_module", inside("_fsdp_wrapped_module")(m)),
    "flattened FSDP": lambda m: Holder("_fsdp_wrapped_module", Holder("_fpw_module", m)),
    "Lightning": lambda m: Holder("_forward_module", m),
    "activation checkpoints": checkpointed,
    "a checkpoint of all": checkpoint_wrapper,
    "nested": lambda m: nn.DataParallel(torch.compile(Holder("module", checkpointed(m)))),
}
MODELS = {"sequential": sequential, "gpt2": gpt2, "llama": llama}


def measured(source, **options):
    """All pairs and heads of a scan."""
    result = flagscope.scan(source, workers=1, **options).result
    assert not result.failures
    return result.family, [
        [one.model_dump() for one in records] for records in (result.pairs, result.heads)
    ]


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


@cache
def plain(name):
    return measured(made(name))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_module_is_measured_as_the_plain_one(wrapper, model):
    family, (pairs, heads) = plain(model)
    assert len(pairs) >= 2
    assert bool(heads) == (model != "sequential")
    assert measured(WRAPPERS[wrapper](made(model))) == (family, [pairs, heads])


@pytest.mark.parametrize("model", MODELS)
def test_so_are_tensors_under_the_names_of_wrappers(model):
    config = None if model == "sequential" else made(model).config.to_dict()
    expected = measured(dict(made(model).state_dict()), config=config)
    wrapped = WRAPPERS["nested"](made(model))
    for state in (wrapped.state_dict(), dict(wrapped.named_parameters(remove_duplicate=False))):
        assert all(name.startswith("module._orig_mod.module.") for name in state)
        assert measured(state, config=config) == expected
    assert any("_checkpoint_wrapped_module" in name for name in state)


def test_a_child_called_module_next_to_layers_of_the_same_names():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            self.add_module("0", nn.Linear(8, 8))

        def forward(self, x):
            return self.module(torch.tanh(self.get_submodule("0")(x)))

    torch.manual_seed(0)
    net = Two()
    result = flagscope.scan(net, workers=1).result
    assert [pair.name for pair in result.pairs] == ["0-module.0", "module.0-module.2"]
    assert any("'module' stays" in note for note in result.notes)
    names = {}
    checkpoint, *_ = module_checkpoint(net)
    for name in checkpoint.tensors:
        names[name] = torch.equal(checkpoint.read(name), net.state_dict()[name])
    assert set(names) == set(net.state_dict())
    assert all(names.values())


def test_the_module_is_left_as_it_is():
    net = nn.Sequential(nn.DataParallel(nn.Linear(4, 4)), nn.ReLU(), nn.Dropout(), nn.Linear(4, 4))
    before, kinds = dict(net.state_dict(keep_vars=True)), [type(one) for one in net.modules()]
    flagscope.scan(net.train(), workers=1)
    assert net.training
    assert all(one.training for one in net.modules())
    assert [type(one) for one in net.modules()] == kinds
    after = net.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())


def test_tied_parameters_keep_both_names_and_one_tensor():
    model = gpt2()
    checkpoint, module, _ = module_checkpoint(torch.compile(model))
    assert list(checkpoint.tensors) == list(model.state_dict())
    state = module.state_dict(keep_vars=True)
    assert state["lm_head.weight"] is state["transformer.wte.weight"]


def test_a_method_that_was_put_on_a_module_acts_on_the_copy():
    class Net(nn.Module):
        def forward(self, x):
            return x

    net = Net()
    net.forward = net.forward
    copied = structure_copy(net)
    assert copied.forward.__self__ is copied
    assert net.forward.__self__ is net


def test_a_module_that_cannot_be_copied_deeply_is_read():
    net = sequential()
    net.handle = (number for number in range(3))
    with pytest.raises(TypeError):
        copy.deepcopy(net)
    result = flagscope.scan(net, workers=1).result
    assert result.pairs
    assert any("cannot be copied" in note for note in result.notes)


def test_modules_of_torchscript_and_of_fx_are_read():
    torch.manual_seed(0)
    net = sequential()
    assert measured(torch.fx.symbolic_trace(net)) == measured(net)
    checkpoint, *_ = module_checkpoint(torch.jit.script(net))
    assert set(checkpoint.tensors) == set(net.state_dict())
