"""Copies a module, so that tracing does not change the original."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from flagscope.errors import ArchitectureError


class UntraceableError(ArchitectureError):
    """The module could not be exported; the message says what stopped it, and where."""


def still_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares the tensors, as a forward may assign to attributes.

    Raises
    ------
    UntraceableError
        If some attribute cannot be copied.
    """
    shared: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
    shared.update((id(buffer), buffer) for buffer in module.buffers())
    try:
        still = copy.deepcopy(module, shared).eval()
    except Exception as error:
        raise UntraceableError(
            f"the module cannot be copied: {error}", hint="scan its state dict instead"
        ) from error
    config = getattr(still, "config", None)
    if getattr(config, "use_cache", False) is True:  # a cache is an output that cannot be traced
        config.use_cache = False  # pyright: ignore[reportOptionalMemberAccess]
    return still
