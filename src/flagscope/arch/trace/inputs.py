"""Example inputs for tracing: only shapes and dtypes matter, as nothing is computed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from flagscope.arch.trace.copies import still_copy
from flagscope.errors import InputError

# Image sizes and sequence lengths to try in turn: most networks accept any.
SIDES = (32, 28, 64, 224, 96, 128, 16, 8)
LENGTHS = (8, 64, 16, 128)
BATCH = 2
# The arguments of an nn.MultiheadAttention.
_ATTENTION = ("query", "key", "value")


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward, and the assumptions behind them (empty if they were given)."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    assumed: str = ""


def given_inputs(example_inputs: Any) -> Inputs:
    """Inputs from the user: a tensor, a sequence of arguments, or a mapping of named ones.

    Raises
    ------
    InputError
        If it is none of these, or holds no tensor.
    """
    inputs = None
    if isinstance(example_inputs, Tensor):
        inputs = Inputs((example_inputs,))
    elif isinstance(example_inputs, Mapping):
        inputs = Inputs((), dict(example_inputs))
    elif isinstance(example_inputs, Sequence) and not isinstance(example_inputs, (str, bytes)):
        inputs = Inputs(tuple(example_inputs))
    if inputs is None:
        raise InputError(
            f"example_inputs is a {type(example_inputs).__name__}",
            hint="give a tensor, a tuple of arguments, or a mapping of named arguments",
        )
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((inputs.args, inputs.kwargs))):
        raise InputError(
            f"example_inputs is a {type(example_inputs).__name__} without a tensor",
            hint="give tensors of the shapes and types that the module's forward accepts",
        )
    return inputs


def check_fit(module: nn.Module, inputs: Inputs) -> None:
    """Raise `InputError` where the arguments are not those of a module's forward."""
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # a forward that is not written in Python
        return
    try:
        signature.bind(*inputs.args, **inputs.kwargs)
    except TypeError as error:
        named = ", ".join(signature.parameters) or "nothing"
        raise InputError(
            f"example_inputs do not fit the forward of {type(module).__name__}, "
            f"which takes {named}: {error}",
            hint="give a tensor for a single argument, a tuple of arguments in their order, or "
            "a mapping of named ones",
        ) from error


def assumed_inputs(module: nn.Module) -> Iterator[Inputs]:
    """Inputs that a module may accept, from its dummy_inputs or its first layers."""
    dummy = getattr(module, "dummy_inputs", None)
    if isinstance(dummy, Mapping) and dummy:
        yield Inputs((), dict(dummy), "inputs: the module's dummy_inputs")
        return
    needed = _required(module)
    readers = _first_layers(module, needed)
    if readers is None:
        return
    layers = [reader.layer for reader in readers.values()]
    spatial = any(isinstance(layer, nn.modules.conv._ConvNd) for layer in layers)
    sequence = any(_takes_sequence(layer) for layer in layers)
    # a first Linear takes vectors or sequences of vectors
    tried = SIDES if spatial else LENGTHS if sequence else (0, *LENGTHS[:1])
    # with a sequence as another input, a Linear may take one vector or one for each position
    mixed = sequence and any(isinstance(layer, nn.Linear) for layer in layers)
    for extent, vectors in product(tried, (0, None) if mixed else (None,)):
        lengths = {n: vectors if isinstance(readers[n].layer, nn.Linear) else None for n in needed}
        args = tuple(
            _example(readers[n], extent if lengths[n] is None else 0, module) for n in needed
        )
        pairs = zip(needed, args, strict=True)
        shapes = ", ".join(f"{name} {tuple(example.shape)}" for name, example in pairs)
        yield Inputs(args, {}, f"inputs assumed for tracing: {shapes}")


def _required(module: nn.Module) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ("input",)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = tuple(p.name for p in parameters if p.kind in kinds and p.default is p.empty)
    children = list(module.children())
    handed_on = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    if not needed and handed_on and len(children) == 1:  # a wrapper: use the inner module
        return _required(children[0])
    return needed


@dataclass(frozen=True)
class _Reader:
    """The layer that reads an argument first, and the position there."""

    layer: nn.Module
    slot: int = 0

    @property
    def width(self) -> int:
        """Number of features that the layer takes at that position."""
        if isinstance(self.layer, nn.MultiheadAttention):
            sizes = self.layer.embed_dim, self.layer.kdim, self.layer.vdim
            return int(sizes[self.slot if self.slot < len(sizes) else 0])
        return int(self.layer.input_size)  # pyright: ignore[reportArgumentType]


def _first_layers(module: nn.Module, needed: tuple[str, ...]) -> dict[str, _Reader] | None:
    """The layer that reads each argument first."""
    leaves = [leaf for leaf in module.modules() if _reads(leaf)]
    if not leaves or not needed:
        return None
    first = {name: _Reader(leaves[0]) for name in needed}
    if leaves[0] is module:
        return {name: _Reader(module, position) for position, name in enumerate(needed)}
    parameters = inspect.signature(module.forward).parameters.items()
    fixed = {n: p.default for n, p in parameters if n not in needed and p.default is not p.empty}
    try:
        graph = fx.Tracer().trace(still_copy(module), concrete_args=fixed or None)
    except Exception:
        # Inputs of attention (targets, memory) have one width, except for kdim and vdim.
        alike = len(needed) == 1 or isinstance(leaves[0], nn.MultiheadAttention)
        return first if alike else None
    for node in graph.nodes:
        if node.op == "placeholder" and str(node.target) in first:
            reader = _met_first(node, module)
            if reader is not None:
                first[str(node.target)] = reader
            elif len(needed) > 1:
                return None
    return first


def _met_first(node: fx.Node, module: nn.Module) -> _Reader | None:
    queue, seen = [(user, node) for user in node.users], set()
    while queue:
        user, source = queue.pop(0)
        if user in seen:
            continue
        seen.add(user)
        if user.op == "call_module":
            layer = module.get_submodule(str(user.target))
            if _reads(layer):
                return _Reader(layer, _slot(user, source))
            reader = next((m for m in layer.modules() if _reads(m)), None)
            if reader is not None:
                return _Reader(reader)
        queue += [(after, user) for after in user.users]
    return None


def _slot(user: fx.Node, source: fx.Node) -> int:
    """Position of a node among the arguments of a layer."""
    if source in user.args:
        return user.args.index(source)
    names = [name for name, value in user.kwargs.items() if value is source]
    return next((position for position, name in enumerate(_ATTENTION) if name in names), 0)


def _reads(module: nn.Module) -> bool:
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.MultiheadAttention,
             nn.modules.rnn.RNNBase)  # fmt: skip
    return isinstance(module, kinds)


def _takes_sequence(module: nn.Module) -> bool:
    return isinstance(module, (nn.Embedding, nn.MultiheadAttention, nn.modules.rnn.RNNBase))


def _example(reader: _Reader, extent: int, module: nn.Module) -> Tensor:
    layer = reader.layer
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    shape: tuple[int, ...]
    if isinstance(layer, nn.Embedding):
        return torch.zeros(BATCH, extent, dtype=torch.long, device=parameter.device)
    if isinstance(layer, nn.modules.conv._ConvNd):
        shape = (BATCH, layer.in_channels, *[extent] * len(layer.kernel_size))
    elif isinstance(layer, nn.Linear):
        shape = (BATCH, extent, layer.in_features) if extent else (BATCH, layer.in_features)
    else:
        shape = (BATCH, extent, reader.width)
    return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
