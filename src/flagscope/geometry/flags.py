"""Flags of subspaces, their distance, and the flag of a matrix whose singular values cluster."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import non_negative, orthonormal, real_tensor

#: Expected rotation, in radians, beyond which two singular vectors cannot be distinguished.
LARGEST_ROTATION = 0.1


@dataclass(frozen=True, eq=False)
class Flag:
    """Nested subspaces F_1 ⊂ F_2 ⊂ … ⊂ F_s of R^d.

    Attributes
    ----------
    basis
        Shape (d, n_s), orthonormal columns: the first n_i span F_i.
    type
        Dimensions (n_1, …, n_s), strictly increasing, n_1 ≥ 1.

    Raises
    ------
    InputError
        Columns that are not orthonormal, or a type that does not fit them.

    References
    ----------
    .. [1] K. Ye, K. S.-W. Wong, L.-H. Lim, Optimization on flag manifolds, Math. Program. 194
       (2022) 621-660.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import Flag
    >>> flag = Flag(torch.eye(4)[:, :3], (1, 3))
    >>> flag.block_sizes
    (1, 2)
    >>> flag.subspace(1).shape
    torch.Size([4, 3])
    """

    basis: Float[Tensor, "d n"]
    type: tuple[int, ...]

    def __post_init__(self) -> None:
        basis = orthonormal(self.basis, "basis")
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "type", tuple(int(n) for n in self.type))
        if basis.ndim != 2:
            raise InputError(
                f"basis has shape {tuple(basis.shape)}; expected two dimensions",
                hint="make one Flag for each member of a batch",
            )
        increasing = all(low < high for low, high in pairwise((0, *self.type)))
        last = self.type[-1] if self.type else 0
        if not increasing or last != basis.shape[1]:
            raise InputError(
                f"type {self.type} does not fit a basis of {basis.shape[1]} vectors",
                hint="dimensions increase strictly and end with the number of columns",
            )

    @property
    def d(self) -> int:
        """Dimension of the space."""
        return self.basis.shape[0]

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Dimensions of the orthogonal blocks F_i ⊖ F_{i-1}."""
        return tuple(high - low for low, high in pairwise((0, *self.type)))

    def subspace(self, index: int) -> Float[Tensor, "d n"]:
        """Orthonormal basis of F_{index+1}."""
        return self.basis[:, : self.type[index]]

    def blocks(self) -> tuple[Float[Tensor, "d m"], ...]:
        """Orthonormal bases of the orthogonal blocks."""
        return self.basis.split(self.block_sizes, dim=1) if self.type else ()

    def projectors(self) -> tuple[Float[Tensor, "d d"], ...]:
        """Orthogonal projectors on the blocks. They determine the flag, its basis does not."""
        return tuple(block @ block.mT for block in self.blocks())


def chordal_distance(first: Flag, second: Flag) -> float:
    """Chordal distance of two flags of one type, d² = ½ Σ_blocks ‖P - P'‖_F².

    For flags of a single subspace it is √(Σ sin²) of the principal angles, the chordal distance
    of the Grassmannian. Absolute error a few ε however near the flags are.

    Parameters
    ----------
    first, second
        Flags of the same type in the same space. Only the listed blocks count: the orthogonal
        complement of the largest subspace is not one of them.

    Raises
    ------
    InputError
        Flags of different types.

    References
    ----------
    .. [1] N. Mankovich, T. Birdal, Chordal averaging on flag manifolds and its applications, ICCV
       2023, arXiv 2303.13501.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import Flag, chordal_distance
    >>> axes = torch.eye(3)
    >>> chordal_distance(Flag(axes[:, :2], (1, 2)), Flag(axes[:, [1, 0]], (1, 2))) ** 2
    2.000...
    """
    if (first.d, first.type) != (second.d, second.type):
        raise InputError(
            f"flags of type {first.type} in R^{first.d} and {second.type} in R^{second.d} have no "
            "distance",
            hint="merge blocks until both have the same type",
        )
    # ½‖P - P'‖² = ‖(I - P') X‖², projected twice: no difference of nearly equal numbers.
    total = 0.0
    for x, y in zip(first.blocks(), second.blocks(), strict=True):
        x, y = x.double(), y.double()
        residual = x - y @ (y.mT @ x)
        residual = residual - y @ (y.mT @ residual)
        total += (residual**2).sum().item()
    return total**0.5


@dataclass(frozen=True)
class SingularBlocks:
    """Singular values grouped where their vectors cannot be told apart.

    Attributes
    ----------
    sizes
        Sizes of the blocks above noise, in descending order of singular values.
    null
        Number of values at or below noise, whose vectors mean nothing.
    """

    sizes: tuple[int, ...]
    null: int


def singular_blocks(
    singular_values: Float[Tensor, " n"], *, noise_sd: float = 0.0, noise_norm: float = 0.0
) -> SingularBlocks:
    """Group singular values into blocks whose singular spaces are determined.

    Independent entry errors of standard deviation s turn singular vectors i and j into each other
    by an angle of standard deviation s √(σ_i² + σ_j²) / (σ_i² - σ_j²), to first order. A block ends
    after i where this is at most 0.1 for j = i + 1.

    Parameters
    ----------
    singular_values
        Of one matrix, descending.
    noise_sd
        s, root mean square of the storage error of an entry. Never taken below ε·σ_1, what an
        SVD itself leaves.
    noise_norm
        δ, spectral norm of the storage error. Values at or below it form the null block.

    Raises
    ------
    InputError
        Values that are negative, not finite or not descending, negative noise.

    References
    ----------
    .. [1] G. W. Stewart, J. Sun, Matrix Perturbation Theory, Academic Press 1990, section V.4.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import singular_blocks
    >>> values = torch.tensor([5.0, 3.0, 3.0, 1.0, 1e-4])
    >>> singular_blocks(values, noise_sd=1e-4, noise_norm=1e-3)
    SingularBlocks(sizes=(1, 2, 1), null=1)
    """
    values = non_negative(singular_values, "singular_values")
    if values.ndim != 1 or bool((values.diff() > 0).any()):
        raise InputError(
            "singular_values must be one row in descending order",
            hint="call once for each matrix; torch.linalg.svdvals has the right order",
        )
    if not (noise_sd >= 0 and noise_norm >= 0):
        raise InputError(
            f"noise_sd {noise_sd} and noise_norm {noise_norm} must not be negative",
            hint="use 0 if nothing is known about the storage error",
        )
    largest = values[0].item() if len(values) else 0.0
    floor = max(noise_norm, len(values) * torch.finfo(values.dtype).eps * largest)
    kept = values[values > floor].double()
    spread = max(noise_sd, torch.finfo(values.dtype).eps * largest)
    sums = (kept[:-1] ** 2 + kept[1:] ** 2).sqrt()
    gaps = (kept[:-1] - kept[1:]) * (kept[:-1] + kept[1:])
    cuts = (spread * sums <= LARGEST_ROTATION * gaps).nonzero().flatten().add(1).tolist()
    edges = (0, *cuts, len(kept)) if len(kept) else ()
    sizes = tuple(high - low for low, high in pairwise(edges))
    return SingularBlocks(sizes=sizes, null=len(values) - len(kept))


def singular_flag(
    matrix: Float[Tensor, "m n"],
    *,
    side: Literal["left", "right"] = "left",
    noise_sd: float = 0.0,
    noise_norm: float = 0.0,
) -> Flag:
    """The flag of singular blocks of a matrix: what of its singular basis is determined.

    Parameters
    ----------
    matrix
        One matrix.
    side
        "left" for the space the map writes, "right" for the space it reads.
    noise_sd, noise_norm
        As for `singular_blocks`.

    Raises
    ------
    InputError
        As `singular_blocks`, or an unknown side.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import singular_flag
    >>> singular_flag(torch.diag(torch.tensor([5.0, 3.0, 3.0, 0.0]))).type
    (1, 3)
    """
    matrix = real_tensor(matrix, "matrix", ndim=2)
    if matrix.ndim != 2:
        raise InputError(
            f"matrix has shape {tuple(matrix.shape)}; expected two dimensions",
            hint="make one flag for each member of a batch",
        )
    if side not in ("left", "right"):
        raise InputError(
            f"side is {side!r}", hint="'left' is the column space, 'right' the row space"
        )
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    blocks = singular_blocks(values, noise_sd=noise_sd, noise_norm=noise_norm)
    vectors = left if side == "left" else right.mT
    dimensions = torch.tensor(blocks.sizes, dtype=torch.int64).cumsum(0).tolist()
    return Flag(vectors[:, : sum(blocks.sizes)], tuple(dimensions))
