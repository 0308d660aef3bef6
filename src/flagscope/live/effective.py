"""Layers whose weight is computed in their forward: the weight put in place of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from flagscope.errors import SourceError
from flagscope.shortening import listed

# Hooks that set a weight before each forward, by the class's name, and the parts that they use:
# ends of names of parameters and buffers.
_HOOKS = {
    "WeightNorm": ("_g", "_v"),
    "SpectralNorm": ("_orig", "_u", "_v"),
}
_HOOK_MODULES = ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")
_LISTED = 4


def with_effective_weights(module: nn.Module) -> tuple[str, ...]:
    """Put the weights that layers compute in place of their parts; notes say which.

    Weights are those of evaluation, to the last digit: parametrisations of torch.nn.utils
    (weight_norm, spectral_norm, orthogonal, and custom ones), the older weight_norm and
    spectral_norm, and pruning.

    Parameters
    ----------
    module
        A `structure_copy` in evaluation mode: its layers are changed, their tensors are not.

    Raises
    ------
    SourceError
        If a layer's own code fails to compute its weight.

    References
    ----------
    PyTorch documentation, "Parametrizations Tutorial", torch.nn.utils.parametrize.
    """
    found: dict[str, list[str]] = {}
    for path, one in list(module.named_modules()):
        if isinstance(one, torch.jit.ScriptModule):
            continue
        for kind, names in (*_from_hooks(one, path), *_from_parametrizations(one, path)):
            found.setdefault(kind, []).extend(f"{path}.{name}".lstrip(".") for name in names)
    return tuple(
        f"{len(names)} weights are what the layers compute in evaluation ({kind}): "
        + listed(names, _LISTED)
        for kind, names in found.items()
    )


def _from_parametrizations(one: nn.Module, path: str) -> list[tuple[str, list[str]]]:
    if not parametrize.is_parametrized(one):
        return []
    lists: Any = one.parametrizations
    kinds: dict[str, list[str]] = {}
    values: dict[str, Tensor] = {}
    for name, steps in lists.items():
        values[name] = _computed(lambda name=name: getattr(one, name), path, name)
        kind = "+".join(type(step).__name__.lstrip("_") for step in steps)
        kinds.setdefault(kind, []).append(name)
    # The class of a parametrised module is its own class and a property for each weight. The
    # original shares it, so it stays as it is.
    one.__class__ = type(one).__bases__[0]
    del one._modules["parametrizations"]
    _put(one, values)
    return list(kinds.items())


def _from_hooks(one: nn.Module, path: str) -> list[tuple[str, list[str]]]:
    kinds: dict[str, list[str]] = {}
    values: dict[str, Tensor] = {}
    gone: list[str] = []
    for key, hook in list(one._forward_pre_hooks.items()):
        kind = type(hook)
        if isinstance(hook, prune.BasePruningMethod):
            name, ends, label = str(hook._tensor_name), ("_orig", "_mask"), "pruning"
        elif kind.__module__ in _HOOK_MODULES and kind.__name__ in _HOOKS:
            name, ends, label = str(getattr(hook, "name", "")), _HOOKS[kind.__name__], kind.__name__
        else:
            continue
        apply: Callable[..., Any] = hook
        values[name] = _computed(
            lambda a=apply, n=name: (a(one, ()), getattr(one, n))[1], path, name
        )
        kinds.setdefault(label, []).append(name)
        gone += [name + end for end in ends]
        for hooks in (one._forward_pre_hooks, one._forward_pre_hooks_with_kwargs):
            hooks.pop(key, None)
    for name in gone:
        one._parameters.pop(name, None)
        one._buffers.pop(name, None)
    for name in values:
        one.__dict__.pop(name, None)
    _put(one, values)
    return list(kinds.items())


def _computed(compute: Callable[[], Any], path: str, name: str) -> Tensor:
    try:
        with torch.no_grad():
            # A copy, as a parametrisation may hand out a tensor of its own.
            return compute().detach().clone()
    except Exception as error:  # whatever a user's parametrisation raises
        raise SourceError(
            f"the layer {path or 'the module itself'!r} fails to compute its {name}: {error}",
            hint="remove the parametrisation (torch.nn.utils.parametrize) and scan the result.",
        ) from error


def _put(one: nn.Module, values: dict[str, Tensor]) -> None:
    """Enter the weights in front of the other parameters, as layers declare them."""
    others = dict(one._parameters)
    one._parameters.clear()
    for name, value in values.items():
        setattr(one, name, nn.Parameter(value, requires_grad=False))
    one._parameters.update(others)
