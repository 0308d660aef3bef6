"""Checks of a batch and of a classifier, where they enter."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.errors import InputError

_LARGEST = 1e75


def checked_features(features: Tensor, d: int | None, device: torch.device) -> Float[Tensor, "n d"]:
    """Features as float64 rows on the device, leading dimensions run together."""
    if not isinstance(features, Tensor) or not features.is_floating_point() or features.ndim < 2:
        came = (
            f"{features.dtype} of shape {tuple(features.shape)}"
            if isinstance(features, Tensor)
            else type(features).__name__
        )
        raise InputError(
            f"features are {came}; expected a floating-point tensor (n, d)",
            hint="give the input of the last linear layer, one row a sample",
        )
    if d is not None and features.shape[-1] != d:
        raise InputError(
            f"features have {features.shape[-1]} columns, but {d} were expected",
            hint="all batches, and the classifier, must be of one network",
        )
    # First to the device, then to float64: not every accelerator has that type.
    rows = features.detach().reshape(-1, features.shape[-1]).to(device).to(torch.float64)
    # NaN fails the comparison too. Fourth powers of features must stay in range.
    if not bool((rows.abs() < _LARGEST).all()):
        raise InputError(
            f"features hold NaN, infinity or values beyond {_LARGEST:g}",
            hint="the network has diverged, or its inputs are not finite",
        )
    return rows


def checked_labels(
    labels: Tensor, shape: torch.Size, classes: int, device: torch.device
) -> Int[Tensor, " n"]:
    """Labels as a row of whole numbers from 0 to classes - 1 on the device."""
    whole = isinstance(labels, Tensor) and not (
        labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    )
    if not whole or labels.shape != shape:
        came = tuple(labels.shape) if whole else getattr(labels, "dtype", type(labels).__name__)
        raise InputError(
            f"labels are {came}; expected whole numbers of shape {tuple(shape)}",
            hint="one class index a sample; turn one-hot rows into labels.argmax(-1)",
        )
    flat = labels.detach().reshape(-1).to(device).to(torch.int64)
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= classes):
        raise InputError(
            f"labels run from {int(flat.min())} to {int(flat.max())}, "
            f"but there are {classes} classes, 0 to {classes - 1}",
            hint="leave out samples that are to be ignored, or raise `classes`",
        )
    return flat


def checked_classifier(
    weight: Tensor, bias: Tensor | None, classes: int, d: int, device: torch.device
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """Weight (classes, d) and bias (classes,) in float64 on the device; no bias is a zero one."""
    if not isinstance(weight, Tensor) or weight.shape != (classes, d):
        raise InputError(
            f"weight has shape {tuple(getattr(weight, 'shape', ()))}; expected {(classes, d)}",
            hint="one row a class, as torch.nn.Linear stores it",
        )
    if bias is not None and bias.shape != (classes,):
        raise InputError(
            f"bias has shape {tuple(bias.shape)}; expected {(classes,)}", hint="one number a class"
        )
    w = weight.detach().to(device).to(torch.float64)
    b = w.new_zeros(classes) if bias is None else bias.detach().to(device).to(torch.float64)
    if not (bool(torch.isfinite(w).all()) and bool(torch.isfinite(b).all())):
        raise InputError(
            "the classifier holds NaN or infinity", hint="the network has diverged; look earlier"
        )
    return w, b
