"""Sum of the projectors of several subspaces: its spectrum, and who shares a direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry.gram import gram
from flagscope.geometry.head_spaces import HeadSpaces
from flagscope.geometry.leading_space import leading_space

# From this size on the largest eigenvalue alone comes from so many steps of Lanczos: an eigenvalue
# beyond the edge of the others by a hundredth of it is found to four digits.
_LANCZOS_FROM = 512
_LANCZOS_STEPS = 64
# From so many times their number on, the vectors of a few eigenvalues come from a Krylov space, by
# blocks of so many.
_KRYLOV_FROM, _KRYLOV_BLOCK = 64, 16


@dataclass(frozen=True)
class ProjectorSum:
    """Spectrum of Σ_h P_h.

    Attributes
    ----------
    eigenvalues
        All min(d, H r) that can differ from zero, descending.
    shared
        Eigenvalues above the threshold, descending.
    membership
        vᵀ P_h v for the first shared eigenvectors v and each head h.
    """

    eigenvalues: Float[Tensor, " s"]
    shared: Float[Tensor, " k"]
    membership: Float[Tensor, "first H"]


def projector_sum(spaces: HeadSpaces, *, threshold: float, most: int | None = None) -> ProjectorSum:
    """Eigenvalues of the sum of the heads' projectors, and who shares those above a threshold.

    The spectrum lies in [0, H] and needs few digits (thresholds are known to three), so it is
    computed in float32, to `eigenvalue_error`.

    Parameters
    ----------
    spaces
        The heads.
    threshold
        From which on an eigenvalue is shared.
    most
        Of how many shared eigenvectors the membership is computed, the largest first; by default of
        all.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import head_spaces
    >>> e = torch.eye(3, dtype=torch.float64)
    >>> shared = projector_sum(head_spaces(torch.stack([e[:2], e[1:]])), threshold=1.5)
    >>> shared.shared.round().tolist(), shared.membership.round().tolist()
    ([2.0], [[1.0, 1.0]])
    """
    count, d, r = spaces.bases.shape
    stacked = spaces.bases.to(torch.float32).transpose(0, 1).reshape(d, count * r)
    small = count * r < d
    squares = gram(stacked.mT if small else stacked)
    values = torch.linalg.eigvalsh(squares).flip(-1).clamp_min(0)
    shared = values[values > threshold]
    if not len(shared):
        return ProjectorSum(values, shared, values.new_zeros(0, count))
    first = shared[:most]
    chosen = _leading_vectors(squares, first)
    if small:
        chosen = stacked @ chosen / first.sqrt()
    inside = (chosen.mT @ stacked).reshape(-1, count, r).square().sum(-1)
    return ProjectorSum(values, shared, inside)


def eigenvalue_error(size: int) -> float:
    """Bound on the error of eigenvalues of `projector_sum`, for so many of them.

    LAPACK's solver for eigenvalues alone rounds more than the one with vectors: measured errors are
    1e-6 at 64, 2e-5 at 1024 and 1e-4 at 4096 eigenvalues.

    Examples
    --------
    >>> eigenvalue_error(64), round(eigenvalue_error(4096), 6)
    (1e-05, 0.000205)
    """
    return max(1e-5, 5e-8 * size)


def largest_of_projector_sum(spaces: HeadSpaces, *, forced: int = 0) -> float | None:
    """The largest eigenvalue of Σ_h P_h behind those that dimension forces to H.

    Of many heads in a wide stream by the Lanczos method: not above the true value, and as good as
    equal where it stands out of the rest.

    Parameters
    ----------
    spaces
        The heads.
    forced
        How many eigenvalues to leave out.

    Returns
    -------
    float or None
        None where no eigenvalue is left.

    References
    ----------
    G. Golub and C. Van Loan, Matrix Computations, section 10.1.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import head_spaces
    >>> e = torch.eye(3, dtype=torch.float64)
    >>> round(largest_of_projector_sum(head_spaces(torch.stack([e[:2], e[1:]]))), 4)
    2.0
    """
    count, d, r = spaces.bases.shape
    side = min(d, count * r)
    if forced >= side:
        return None
    if forced or side < _LANCZOS_FROM:
        return float(projector_sum(spaces, threshold=float("inf")).eigenvalues[forced])
    stacked = spaces.bases.to(torch.float32).transpose(0, 1).reshape(d, count * r)
    # A fixed start: equal runs give equal numbers.
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(d, generator=generator).to(stacked)
    known, applied = vector.new_zeros(2, _LANCZOS_STEPS, d)
    for i in range(_LANCZOS_STEPS):
        # Twice is enough for orthogonality to rounding.
        for _ in range(2):
            vector = vector - known[:i].mT @ (known[:i] @ vector)
        norm = torch.linalg.vector_norm(vector)
        # Nothing new comes from here on: few eigenvalues differ.
        if float(norm) < 1e-4:
            break
        known[i] = vector / norm
        applied[i] = vector = stacked @ (stacked.mT @ known[i])
    small = (known @ applied.mT).double()
    return float(torch.linalg.eigvalsh((small + small.mT) / 2)[-1])


def _leading_vectors(
    squares: Float[Tensor, "s s"], values: Float[Tensor, " k"]
) -> Float[Tensor, "s k"]:
    """Eigenvectors of the largest eigenvalues: by a block Krylov space where these are few."""
    size, count = len(squares), len(values)
    if size >= _KRYLOV_FROM * count:
        space = leading_space(
            lambda x: squares @ x, size, count, generator=torch.Generator().manual_seed(0),
            dtype=squares.dtype, device=squares.device, block=_KRYLOV_BLOCK,
        )  # fmt: skip
        # It may have missed some of many equal ones.
        apart = (space.values.to(values) - values).abs().amax()
        if space.certified and float(apart) < eigenvalue_error(size) * float(values[0]):
            return space.vectors
    return torch.linalg.eigh(squares)[1].flip(-1)[:, :count]
