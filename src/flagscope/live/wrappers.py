"""Modules that wrap others without changing what they compute, and what is inside."""

from __future__ import annotations

from torch import nn

from flagscope.errors import InputError
from flagscope.live.structure import replace_children

# By class, the child that does the work. Classes of a user's own that have such children keep
# their forward; only names are shown without the wrapper.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "ActivationWrapper": "_checkpoint_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "DeepSpeedEngine": "module",
    "_FabricModule": "_forward_module",
}
_LIBRARIES = ("torch", "lightning", "lightning_fabric", "deepspeed", "fairscale")
_SHARDED = "FullyShardedDataParallel"


def without_wrappers(module: nn.Module) -> nn.Module:
    """A module whose wrappers are taken out, at the top and below; it is changed in place.

    Raises
    ------
    InputError
        If weights are flattened and spread by FullyShardedDataParallel.

    Examples
    --------
    >>> without_wrappers(nn.Sequential(nn.DataParallel(nn.Linear(2, 2))))
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
    )
    """
    exchange: dict[int, nn.Module] = {}
    for name, one in module.named_modules():
        kinds = [kind.__name__ for kind in type(one).__mro__ if _of_library(kind)]
        if _SHARDED in kinds:
            raise InputError(
                f"the module{f' {name!r}' if name else ''} is wrapped by {_SHARDED}, whose weights "
                "are flattened and spread over processes.",
                hint="scan its state dict: get_model_state_dict of "
                "torch.distributed.checkpoint.state_dict, with full_state_dict=True.",
            )
        inside = next((_WRAPPERS[kind] for kind in kinds if kind in _WRAPPERS), None)
        child = None if inside is None else one._modules.get(inside)
        if child is not None:
            exchange[id(one)] = child
    return replace_children(module, exchange)


def _of_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _LIBRARIES
