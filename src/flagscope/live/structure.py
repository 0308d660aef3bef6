"""A copy of a module's structure: other module objects, the same tensors."""

from __future__ import annotations

import copy
from types import MethodType

import torch
from torch import nn

_CONTAINERS = (list, dict, set)


def structure_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose layers may be exchanged without harm to the original.

    Only the modules and their lists and dicts are copied, none of the tensors and nothing else
    that hangs on a module, so that it works on modules that cannot be copied deeply.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 2))
    >>> copied = structure_copy(net)
    >>> copied[0] is net[0], copied[0].weight is net[0].weight, copied.training
    (False, True, False)
    """
    copies: dict[int, nn.Module] = {}
    copied = _copied(module, copies)
    for one in copies.values():
        for name, value in one.__dict__.items():
            # A method that was bound to the original and put in place of the class's.
            if isinstance(value, MethodType) and id(value.__self__) in copies:
                one.__dict__[name] = MethodType(value.__func__, copies[id(value.__self__)])
    return copied


def _copied(module: nn.Module, copies: dict[int, nn.Module]) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):  # lives in C++, cannot be put together anew
        return module
    if id(module) in copies:
        return copies[id(module)]
    # Not through the class: that of a torch.fx.GraphModule makes a further class.
    new = object.__new__(type(module))
    copies[id(module)] = new
    state = {
        name: copy.copy(value) if isinstance(value, _CONTAINERS) else value
        for name, value in module.__dict__.items()
    }
    state["_modules"] = {
        name: None if child is None else _copied(child, copies)
        for name, child in module._modules.items()
    }
    state["training"] = False
    if state.get("_compiled_call_impl") is not None:  # module.compile() was called
        state["_compiled_call_impl"] = None
    new.__dict__.update(state)
    return new


def replace_children(module: nn.Module, exchange: dict[int, nn.Module]) -> nn.Module:
    """Put other modules in place of some, by their ids, everywhere below and at the top.

    What is put in is looked through as well.
    """
    met: set[int] = set()

    def exchanged(one: nn.Module) -> nn.Module:
        while id(one) in exchange:
            one = exchange[id(one)]
        return one

    top = exchanged(module)
    below = [top]
    while below:
        one = below.pop()
        if id(one) in met or isinstance(one, torch.jit.ScriptModule):
            continue
        met.add(id(one))
        for name, child in one._modules.items():
            if child is not None:
                one._modules[name] = exchanged(child)
                below.append(one._modules[name])  # pyright: ignore[reportArgumentType]
    return top
