"""Example inputs for tracing: only shapes and types matter, no tensor is ever run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, fx, nn

from flagscope.arch.trace.copies import still_copy
from flagscope.errors import InputError

# Sides of images, and lengths of sequences, to try in turn: most networks take any.
SIDES = (32, 28, 64, 224, 96, 128, 16, 8)
LENGTHS = (8, 64, 16, 128)
BATCH = 2


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward, and what was assumed to get them (empty if they were given)."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    assumed: str = ""


def given_inputs(example_inputs: Any) -> Inputs:
    """What the user gave: a tensor, a sequence of arguments, or a mapping of named ones.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if isinstance(example_inputs, Tensor):
        return Inputs((example_inputs,))
    if isinstance(example_inputs, Mapping):
        return Inputs((), dict(example_inputs))
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return Inputs(tuple(example_inputs))
    raise InputError(
        f"example_inputs is a {type(example_inputs).__name__}",
        hint="give a tensor, a tuple of arguments, or a mapping of named arguments",
    )


def assumed_inputs(module: nn.Module) -> Iterator[Inputs]:
    """Inputs that a module may take, from its dummy_inputs or from its first layers."""
    dummy = getattr(module, "dummy_inputs", None)
    if isinstance(dummy, Mapping) and dummy:
        yield Inputs((), dict(dummy), "inputs: the module's dummy_inputs")
        return
    needed = _required(module)
    readers = _first_layers(module, needed)
    if readers is None:
        return
    spatial = any(isinstance(one, nn.modules.conv._ConvNd) for one in readers.values())
    sequence = any(_takes_sequence(one) for one in readers.values())
    # a first Linear takes vectors, or sequences of them
    tried = SIDES if spatial else LENGTHS if sequence else (0, *LENGTHS[:1])
    # beside a sequence, a Linear may take one vector or one for each position
    mixed = sequence and any(isinstance(one, nn.Linear) for one in readers.values())
    for extent, vectors in product(tried, (0, None) if mixed else (None,)):
        lengths = {n: vectors if isinstance(readers[n], nn.Linear) else None for n in needed}
        args = tuple(
            _example(readers[n], extent if lengths[n] is None else 0, module) for n in needed
        )
        pairs = zip(needed, args, strict=True)
        shapes = ", ".join(f"{name} {tuple(one.shape)}" for name, one in pairs)
        yield Inputs(args, {}, f"inputs assumed for tracing: {shapes}")


def _required(module: nn.Module) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ("input",)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in parameters if p.kind in kinds and p.default is p.empty)


def _first_layers(module: nn.Module, needed: tuple[str, ...]) -> dict[str, nn.Module] | None:
    """The layer that each argument meets first."""
    leaves = [one for one in module.modules() if _reads(one)]
    if not leaves or not needed:
        return None
    first = dict.fromkeys(needed, leaves[0])
    parameters = inspect.signature(module.forward).parameters.items()
    fixed = {n: p.default for n, p in parameters if n not in needed and p.default is not p.empty}
    try:
        graph = fx.Tracer().trace(still_copy(module), concrete_args=fixed or None)
    except Exception:
        return first if len(needed) == 1 else None
    for node in graph.nodes:
        if node.op == "placeholder" and str(node.target) in first:
            found = _met_first(node, module)
            if found is not None:
                first[str(node.target)] = found
            elif len(needed) > 1:
                return None
    return first


def _met_first(node: fx.Node, module: nn.Module) -> nn.Module | None:
    queue, seen = list(node.users), set()
    while queue:
        user = queue.pop(0)
        if user in seen:
            continue
        seen.add(user)
        if user.op == "call_module":
            one = module.get_submodule(str(user.target))
            reader = one if _reads(one) else next((m for m in one.modules() if _reads(m)), None)
            if reader is not None:
                return reader
        queue += list(user.users)
    return None


def _reads(one: nn.Module) -> bool:
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.MultiheadAttention,
             nn.modules.rnn.RNNBase)  # fmt: skip
    return isinstance(one, kinds)


def _takes_sequence(one: nn.Module) -> bool:
    return isinstance(one, (nn.Embedding, nn.MultiheadAttention, nn.modules.rnn.RNNBase))


def _example(one: nn.Module, extent: int, module: nn.Module) -> Tensor:
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    shape: tuple[int, ...]
    if isinstance(one, nn.Embedding):
        return torch.zeros(BATCH, extent, dtype=torch.long, device=parameter.device)
    if isinstance(one, nn.modules.conv._ConvNd):
        shape = (BATCH, one.in_channels, *[extent] * len(one.kernel_size))
    elif isinstance(one, nn.Linear):
        shape = (BATCH, extent, one.in_features) if extent else (BATCH, one.in_features)
    else:
        width = one.embed_dim if isinstance(one, nn.MultiheadAttention) else one.input_size
        shape = (BATCH, extent, int(width))  # pyright: ignore[reportArgumentType]
    return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
