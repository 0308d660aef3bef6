"""Checks on the arguments of every public function of this folder.

Half precision is widened to float32, in which LAPACK can work; float32 and float64 are kept, so
that a result has the precision of its input.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from flagscope.errors import InputError

_WORKING_DTYPE = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}


def real_tensor(value: object, name: str, *, ndim: int) -> Tensor:
    """`value` as a finite float32 or float64 tensor of at least `ndim` dimensions."""
    if not isinstance(value, Tensor):
        raise InputError(
            f"{name} must be a torch tensor, not {type(value).__name__}",
            hint=f"convert it with torch.as_tensor({name})",
        )
    if value.dtype not in _WORKING_DTYPE:
        raise InputError(
            f"{name} has dtype {value.dtype}; expected float64, float32, bfloat16 or float16",
            hint=f"widen it first, for example {name}.to(torch.float64)",
        )
    if value.ndim < ndim:
        raise InputError(
            f"{name} has shape {tuple(value.shape)}; expected at least {ndim} dimensions",
            hint="leading dimensions are batches; the last ones hold the "
            + ("matrix" if ndim == 2 else "values"),
        )
    widened = value.to(_WORKING_DTYPE[value.dtype])
    # The extremes of a tensor with NaN are NaN.
    if widened.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(widened))).all()):
        raise InputError(
            f"{name} holds NaN or infinity",
            hint="check the weights it was computed from; torch.isfinite shows where",
        )
    return widened


def same_dtype(*values: Tensor) -> tuple[Tensor, ...]:
    """All values in the widest dtype among them."""
    dtype = torch.float64 if any(v.dtype == torch.float64 for v in values) else torch.float32
    return tuple(value.to(dtype) for value in values)


def non_negative(value: object, name: str) -> Tensor:
    """`value` as a tensor (..., n) of finite values without a negative one."""
    values = real_tensor(value, name, ndim=1)
    if bool((values < 0).any()):
        raise InputError(
            f"{name} holds a negative value, {values.min().item():.3g}",
            hint="singular values are the clipped square roots of a Gram's eigenvalues",
        )
    return values


def orthonormal(value: object, name: str) -> Tensor:
    """`value` as a tensor (..., d, r) with orthonormal columns."""
    basis = real_tensor(value, name, ndim=2)
    d, r = basis.shape[-2:]
    if r > d:
        raise InputError(
            f"{name} has shape {tuple(basis.shape)}: {r} columns cannot be independent in R^{d}",
            hint=f"a basis holds one vector a column; perhaps {name}.mT is meant",
        )
    if basis.numel() == 0:
        return basis
    gram = basis.mT @ basis
    defect = (gram - torch.eye(r, dtype=basis.dtype, device=basis.device)).abs().max().item()
    # √ε admits bases made from a Gram's eigenvectors, whose defect is κ²·ε; the cosines then err
    # by as much. Whatever is farther off is not meant to be orthonormal.
    if defect > math.sqrt(torch.finfo(basis.dtype).eps):
        raise InputError(
            f"the columns of {name} are not orthonormal: max |XᵀX - I| = {defect:.2g}",
            hint="make a basis of their span with flagscope.geometry.orthonormal_basis",
        )
    return basis


def two_bases(first: object, second: object, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Two orthonormal bases of subspaces of one R^d, in one dtype."""
    x, y = same_dtype(orthonormal(first, names[0]), orthonormal(second, names[1]))
    if x.shape[-2] != y.shape[-2]:
        raise InputError(
            f"{names[0]} and {names[1]} lie in different spaces: shapes "
            f"{tuple(x.shape)} and {tuple(y.shape)}",
            hint="both hold one vector a column, of the same length d",
        )
    broadcast_batch(x, y, names)
    return x, y


def broadcast_batch(x: Tensor, y: Tensor, names: tuple[str, str]) -> torch.Size:
    """The common shape of the leading dimensions of two batches of matrices."""
    try:
        # That of PyTorch imports SymPy, which takes half a second.
        return torch.Size(np.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
    except ValueError:
        raise InputError(
            f"the leading dimensions of {names[0]} {tuple(x.shape)} and {names[1]} "
            f"{tuple(y.shape)} do not broadcast",
            hint="give both the same leading dimensions, or 1 where one is repeated",
        ) from None


def two_grams(first: object, second: object, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Two batches of symmetric matrices of one size (..., d, d), in one dtype."""
    grams = []
    for value, name in zip((first, second), names, strict=True):
        gram = real_tensor(value, name, ndim=2)
        if gram.shape[-1] != gram.shape[-2]:
            raise InputError(
                f"{name} has shape {tuple(gram.shape)}; a Gram matrix is square",
                hint="the write Gram is W1 W1ᵀ, the read Gram W2ᵀ W2",
            )
        scale = gram.abs().amax().item() if gram.numel() else 0.0
        # A product computed in blocks is symmetric up to rounding of sums of d terms; √ε is far
        # above that and far below any matrix that is not meant to be symmetric.
        if gram.numel() and (gram - gram.mT).abs().amax().item() > scale * math.sqrt(
            torch.finfo(gram.dtype).eps
        ):
            raise InputError(
                f"{name} is not symmetric", hint="a Gram matrix is; pass W W.mT or W.mT W"
            )
        grams.append((gram + gram.mT) / 2)
    a, b = same_dtype(*grams)
    if a.shape[-1] != b.shape[-1]:
        raise InputError(
            f"{names[0]} and {names[1]} have different sizes: {tuple(a.shape)} and "
            f"{tuple(b.shape)}",
            hint="both are Grams on the shared space R^d",
        )
    broadcast_batch(a, b, names)
    return a, b
