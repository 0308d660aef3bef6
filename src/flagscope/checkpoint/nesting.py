"""Where in a saved object the model's state dict lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flagscope.errors import FlagscopeError

# Keys under which training scripts put the model, the usual ones first.
_MODEL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_DEEPEST = 4
_LISTED = 6


def model_state(
    saved: Mapping[Any, Any], *, source: str, error: type[FlagscopeError]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The model's tensors in a saved object, and notes on what was passed over.

    A mapping under one of the usual keys comes first, then tensors at this level, then the only
    nested mapping that holds any; this is repeated to a depth of four.

    Parameters
    ----------
    saved
        A state dict, or a training checkpoint around one.
    source
        What it came from, for the messages.
    error
        The error to raise.

    Raises
    ------
    error
        If there are no tensors, or several mappings hold some and none has a usual key, or
        tensors have no values (on the meta device).
    """
    path: list[str] = []
    while len(path) < _DEEPEST:
        key = _next_key(saved, source, error)
        if key is None:
            break
        path.append(str(key))
        saved = saved[key]
    state = {key: value for key, value in saved.items() if _is_dense(key, value)}
    if not state:
        raise error(
            f"{source} holds no dense tensors under names.",
            hint="give a checkpoint that holds a model's weights, such as module.state_dict().",
        )
    meta = [key for key, tensor in state.items() if tensor.device.type == "meta"]
    if meta:
        raise error(
            f"{source} holds tensors on the meta device, which have no values: {meta[0]!r}"
            + (f" and {len(meta) - 1} more." if meta[1:] else "."),
            hint="load the weights before taking or saving the state dict.",
        )
    notes = [f"read the entry {'.'.join(path)} of {source}"] if path else []
    others = [str(key) for key in saved if key not in state]
    if others:
        listed = ", ".join(others[:_LISTED]) + (", …" if len(others) > _LISTED else "")
        notes.append(f"passed over {len(others)} entries that are not dense tensors: {listed}")
    return state, tuple(notes)


def _next_key(saved: Mapping[Any, Any], source: str, error: type[FlagscopeError]) -> Any:
    """The key to descend to, None to stay here."""
    nested = [key for key, value in saved.items() if _holds_tensors(value, _DEEPEST)]
    for key in _MODEL_KEYS:
        if key in nested:
            return key
    if not nested or any(_is_dense(key, value) for key, value in saved.items()):
        return None
    if len(nested) > 1:
        raise error(
            f"{source} holds several groups of tensors: {', '.join(map(str, nested))}.",
            hint="load it yourself and pass the one wanted as a state dict.",
        )
    return nested[0]


def _holds_tensors(value: Any, depth: int) -> bool:
    """Whether a mapping holds tensors, at most `depth` levels down; each mapping is met once."""
    level, met = [value], {id(value)}
    for _ in range(depth):
        below: list[Any] = []
        for mapping in level:
            if not isinstance(mapping, Mapping):
                continue
            for key, inner in mapping.items():
                if _is_dense(key, inner):
                    return True
                if id(inner) not in met:
                    met.add(id(inner))
                    below.append(inner)
        level = below
    return False


def _is_dense(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
