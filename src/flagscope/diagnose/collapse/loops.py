"""Both passes over a data loader: of features, or of a module with a hook on its last layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flagscope.diagnose.collapse.accumulate import NeuralCollapse
from flagscope.diagnose.collapse.records import CollapseRecord
from flagscope.errors import InputError


def neural_collapse(
    batches: Iterable[tuple[Float[Tensor, "*n d"], Int[Tensor, "*n"]]],
    weight: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> CollapseRecord:
    """NC1 to NC4 of features that come in batches, in two passes.

    Parameters
    ----------
    batches
        Pairs of features and labels. It is gone through twice, so a list or a data loader, not a
        generator; the order may differ between the passes, the samples may not.
    weight, bias
        The last linear layer, shapes (K, d) and (K,).
    device
        Where moments are kept; it must have float64.

    Raises
    ------
    InputError
        Batches that can be gone through only once, or do not fit: see `NeuralCollapse.update`.

    References
    ----------
    Papyan, Han, Donoho, PNAS 117 (2020) 24652-24663.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import neural_collapse
    >>> frame, labels = torch.eye(3) - 1 / 3, torch.tensor([0, 1, 2])
    >>> record = neural_collapse([(frame, labels), (frame * 2, labels)], frame)
    >>> round(record.nc1, 6), record.nc4
    (0.074074, 1.0)
    """
    if weight.ndim != 2:
        raise InputError(
            f"weight has shape {tuple(weight.shape)}; expected two dimensions",
            hint="one row a class, as torch.nn.Linear stores it",
        )
    if isinstance(batches, Iterator):
        raise InputError(
            "batches can be gone through only once, and NC4 needs a second pass",
            hint="give a list or a data loader, or use NeuralCollapse for NC1 to NC3 alone",
        )
    collapse = NeuralCollapse(weight.shape[0], device=device)
    for features, labels in batches:
        collapse.update(features, labels)
    if int(collapse.counts.min()) == 0:
        return collapse.result(weight, bias)
    agreement = collapse.agreement(weight, bias)
    for features, _ in batches:
        agreement.update(features)
    return collapse.result(weight, bias, agreement=agreement)


def neural_collapse_of_module(
    module: nn.Module,
    loader: Iterable[tuple[Any, Int[Tensor, "*n"]]],
    *,
    layer: str,
    device: torch.device | str = "cpu",
) -> CollapseRecord:
    """NC1 to NC4 of a network, its features caught at the input of its last linear layer.

    The module is put in evaluation mode for the two passes and left as it was found; no gradients
    are kept. A loader that augments at random shows other samples in the second pass: NC4 is then
    of those.

    Parameters
    ----------
    module
        The network, on any device.
    loader
        Pairs of inputs and labels, gone through twice. Inputs are a tensor, a tuple or list of
        positional arguments, or a mapping of keyword arguments; their tensors are brought to the
        layer's device.
    layer
        Name of the last linear layer, as in ``module.named_modules()``.
    device
        Where moments are kept; it must have float64.

    Raises
    ------
    InputError
        If there is no `torch.nn.Linear` of that name, if it does not run exactly once a batch, or
        as `neural_collapse`.

    References
    ----------
    Papyan, Han, Donoho, PNAS 117 (2020) 24652-24663.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import neural_collapse_of_module
    >>> generator = torch.Generator().manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> inputs = torch.randn(20, 2, 2, generator=generator)
    >>> loader = [(inputs, torch.arange(20) % 2)]
    >>> neural_collapse_of_module(net, loader, layer="1").samples
    20
    """
    linear = _linear(module, layer)
    if isinstance(loader, Iterator):
        raise InputError(
            "the loader can be gone through only once, and NC4 needs a second pass",
            hint="give the data loader itself, not an iterator of it",
        )
    with _evaluating(module):
        features = _Features(module, linear, layer, loader)
        return neural_collapse(features, linear.weight, linear.bias, device=device)


def _linear(module: nn.Module, layer: str) -> nn.Linear:
    modules = dict(module.named_modules())
    found = modules.get(layer)
    if not isinstance(found, nn.Linear):
        linears = [name for name, m in modules.items() if isinstance(m, nn.Linear)]
        what = "no module" if found is None else f"a {type(found).__name__}, not a Linear,"
        raise InputError(
            f"the network has {what} named {layer!r}",
            hint=f"its last linear layers are {', '.join(linears[-5:]) or 'none'}",
        )
    return found


class _Features:
    """The loader's batches with the inputs replaced by what the layer saw of them."""

    def __init__(
        self, module: nn.Module, linear: nn.Linear, name: str, loader: Iterable[tuple[Any, Tensor]]
    ) -> None:
        self._module, self._linear, self._name, self._loader = module, linear, name, loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seen: list[Tensor] = []

        def catch(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen.append(arguments[0])

        handle = self._linear.register_forward_pre_hook(catch)
        try:
            for inputs, labels in self._loader:
                seen.clear()
                with torch.no_grad():
                    self._forward(inputs)
                if len(seen) != 1:
                    raise InputError(
                        f"layer {self._name!r} ran {len(seen)} times in one forward pass",
                        hint="name the layer that makes the logits, once a batch",
                    )
                yield seen[0], labels
        finally:
            handle.remove()

    def _forward(self, inputs: Any) -> None:
        device = self._linear.weight.device
        if isinstance(inputs, Mapping):
            self._module(**{name: _brought(value, device) for name, value in inputs.items()})
        elif isinstance(inputs, tuple | list):
            self._module(*(_brought(value, device) for value in inputs))
        else:
            self._module(_brought(inputs, device))


def _brought(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
