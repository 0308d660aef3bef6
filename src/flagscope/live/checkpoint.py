"""A module as a checkpoint, and the module to trace for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.groups.model_state import model_state
from flagscope.checkpoint.quantised.formats import unpacked
from flagscope.checkpoint.state_dict import StateDictCheckpoint, check_values
from flagscope.checkpoint.wrapper_prefixes import WRAPPERS
from flagscope.errors import InputError
from flagscope.live.adapters import Merged
from flagscope.live.effective import with_effective_weights
from flagscope.live.structure import structure_copy
from flagscope.live.wrappers import without_wrappers


def module_checkpoint(
    module: nn.Module, *, config: Mapping[str, Any] | None = None
) -> tuple[Checkpoint, nn.Module, dict[str, str]]:
    """Checkpoint over a live module, and the module that its tensors belong to.

    Wrappers (torch.compile, DataParallel, activation checkpointing, …) are looked through.
    Weights that layers compute are given as computed in evaluation, those under PEFT's adapters
    merged when they are read; notes say which. The module itself is left as it is.

    Parameters
    ----------
    module
        Any module.
    config
        Its configuration, in place of its own.

    Returns
    -------
    checkpoint
        Its tensors by the names that its state dict has without the wrappers.
    module
        What to trace: the module without wrappers and parametrisations, sharing the tensors.
    names
        What the checkpoint calls the tensors of that module, by their names in its state dict.

    Raises
    ------
    InputError
        If its tensors have no values that can be read: on the meta device, not initialised,
        quantised, spread over processes.
    SourceError
        If a layer's weight cannot be computed, or an adapter not merged.

    Examples
    --------
    >>> checkpoint, *_ = module_checkpoint(nn.DataParallel(nn.Sequential(nn.Linear(3, 2))))
    >>> list(checkpoint.tensors)
    ['0.weight', '0.bias']
    """
    _check_quantised(module)
    plain = without_wrappers(structure_copy(module))
    merged = Merged(plain)
    plain = merged.module
    check_values(plain.state_dict(), source=type(plain).__name__)
    notes = (*merged.notes, *with_effective_weights(plain))
    name = type(plain).__name__
    found = model_state(plain.state_dict(), source=name, error=InputError)
    state, passed = found.state, found.notes
    check_values(state, source=name)
    derived = {key: value for key, value in merged.derived().items() if key in state}
    own = own_config(plain) if config is None else dict(config)
    parameters = {name for name, _ in plain.named_parameters(remove_duplicate=False)}
    stored = StateDictCheckpoint(
        {**state, **derived},
        source=name,
        config=own,
        notes=(*passed, *notes),
        buffers=set(state) - parameters,
    )
    return unpacked(stored), plain, {given: name for name, given in stored.given.items()}


def _check_quantised(module: nn.Module) -> None:
    """Refuse layers whose weights PyTorch has packed away."""
    for name, one in module.named_modules():
        kind = type(one)
        if kind.__module__.startswith("torch.") and ".quantized." in kind.__module__:
            raise InputError(
                f"the layer {name or 'itself'!r} is quantised "
                f"({kind.__module__}.{kind.__name__}): its weights are packed.",
                hint="scan the model from before torch.ao.quantization changed it.",
            )


def own_config(module: nn.Module) -> dict[str, Any] | None:
    """A module's own configuration, or that of the module which is all that it holds.

    Parameters
    ----------
    module
        Any module, also within wrappers.

    Returns
    -------
    dict or None
        None where there is none, as of a module that is not of transformers.
    """
    while True:
        own: Any = getattr(module, "config", None)
        if hasattr(own, "to_dict"):
            return dict(own.to_dict())
        children = [(name, one) for name, one in module._modules.items() if one is not None]
        if len(children) != 1 or children[0][0] not in WRAPPERS:
            return None
        module = children[0][1]
