"""Notions of stability for a pair of subspaces and for a pair of maps.

Three statements go by similar names and differ:

- the orbit of (V, U) is closed in Gr(r1, d) × Gr(r2, d): the pair is a flag. Some authors call
  this polystable;
- (V, U) is (semi-, poly-)stable in geometric invariant theory, linearised with weights (a, b) on
  the two Plücker bundles. Flags are unstable in this sense;
- the orbit of the maps (W1, W2) under (g W1, W2 g⁻¹) is closed in the affine space of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import inf

from flagscope.errors import InputError
from flagscope.geometry.strata import RelativePosition


class Stability(StrEnum):
    """Stability in the sense of geometric invariant theory.

    Every stable pair is polystable, every polystable one semistable. For two subspaces a
    semistable pair is always polystable, so that no member "semistable" is needed.
    """

    STABLE = "stable"
    POLYSTABLE = "polystable"
    UNSTABLE = "unstable"


@dataclass(frozen=True)
class GitVerdict:
    """Stability of a pair of subspaces with the filtration that proves it.

    Attributes
    ----------
    stability
        The verdict.
    slope
        (a r1 + b r2) / d, which no proper subspace may exceed.
    filtration
        Steps (slope, dimension) of the Harder-Narasimhan filtration, slopes descending. One step
        if and only if the pair is semistable. The first step is the largest subspace of largest
        slope.
    destabilising
        That first subspace in words ("V ∩ U", "V", "U" or "V + U") if the pair is unstable.
    """

    stability: Stability
    slope: Fraction
    filtration: tuple[tuple[Fraction, int], ...]
    destabilising: str | None


def git_stability(
    position: RelativePosition,
    *,
    weight_write: float | Fraction = 1,
    weight_read: float | Fraction = 1,
) -> GitVerdict:
    """Stability of (V, U) in linearised geometric invariant theory.

    With weights a, b > 0 the pair is semistable if and only if for every proper subspace S

        (a dim(V ∩ S) + b dim(U ∩ S)) / dim S  ≤  (a r1 + b r2) / d.

    Parameters
    ----------
    position
        The relative position of V and U, on which alone it depends.
    weight_write, weight_read
        a and b, positive and finite. Compared exactly, so give ratios as fractions.

    Raises
    ------
    InputError
        A weight that is not positive and finite, or d = 0.

    Notes
    -----
    R^d is a direct sum of lines of four kinds: k in both spaces, r1 - k in V alone, r2 - k in U
    alone and d - r1 - r2 + k in neither, of slopes a + b, a, b and 0. Lines are stable, so the
    pair is semistable if and only if all slopes that occur are equal, is then a sum of stable
    pieces of one slope, hence polystable, and is stable only for d = 1. For 0 < r1, r2 < d this
    leaves one case: a = b and R^d = V ⊕ U. In particular every pair that meets is unstable,
    flags included.

    References
    ----------
    .. [1] D. Mumford, J. Fogarty, F. Kirwan, Geometric Invariant Theory, 3rd edition, Springer
       1994, section 4.4.
    .. [2] B. Totaro, Tensor products of semistables are semistable, in: Geometry and Analysis on
       Complex Manifolds, World Scientific 1994, 242-250.

    Examples
    --------
    >>> from flagscope.geometry import RelativePosition, git_stability
    >>> git_stability(RelativePosition(d=4, r1=2, r2=2, k=0)).stability
    <Stability.POLYSTABLE: 'polystable'>
    >>> verdict = git_stability(RelativePosition(d=4, r1=2, r2=2, k=2))
    >>> verdict.stability, verdict.destabilising
    (<Stability.UNSTABLE: 'unstable'>, 'V ∩ U')
    """
    if not (0 < weight_write < inf and 0 < weight_read < inf):
        raise InputError(
            f"weights ({weight_write}, {weight_read}) must be positive and finite",
            hint="1 and 1 treat both spaces alike",
        )
    a, b = Fraction(weight_write), Fraction(weight_read)
    d, r1, r2, k = position.d, position.r1, position.r2, position.k
    if d == 0:
        raise InputError("stability is undefined in R^0", hint="give a space of dimension ≥ 1")
    kinds = ((a + b, k), (a, r1 - k), (b, r2 - k), (Fraction(0), d - r1 - r2 + k))
    dimensions: dict[Fraction, int] = {}
    for slope, dimension in kinds:
        if dimension:
            dimensions[slope] = dimensions.get(slope, 0) + dimension
    steps = tuple(sorted(dimensions.items(), reverse=True))
    if len(steps) > 1:
        stability = Stability.UNSTABLE
    else:
        stability = Stability.STABLE if d == 1 else Stability.POLYSTABLE
    return GitVerdict(
        stability=stability,
        slope=(a * r1 + b * r2) / d,
        filtration=steps,
        destabilising=_largest_slope(a, b, position) if len(steps) > 1 else None,
    )


def has_closed_orbit(position: RelativePosition) -> bool:
    """Whether the GL(d)-orbit of (V, U) is closed in Gr(r1, d) × Gr(r2, d).

    It is if and only if one space lies in the other. (Called polystable in [1]_, where no
    linearisation is involved; compare `git_stability`.)

    References
    ----------
    .. [1] Xiao, Sui, Ruan, Flag Varieties: A Geometric Framework for Deep Network Alignment,
       arXiv 2605.09861 (2026).

    Examples
    --------
    >>> from flagscope.geometry import RelativePosition, has_closed_orbit
    >>> has_closed_orbit(RelativePosition(d=4, r1=1, r2=2, k=1))
    True
    """
    return position.is_closed


def has_closed_affine_orbit(*, rank_write: int, rank_read: int, rank_product: int) -> bool:
    """Whether the orbit of the maps (W1, W2) under (g W1, W2 g⁻¹) is closed.

    It is if and only if R^d = im W1 ⊕ ker W2, that is if rank W1 = rank W2 = rank(W2 W1), and if
    and only if the orbit holds a balanced pair, W1 W1ᵀ = W2ᵀ W2 [1]_. With ker W2 in the place of
    U this is the criterion of `git_stability` for equal weights. W1 W1ᵀ - W2ᵀ W2 is the moment map
    of the action [2]_.

    Parameters
    ----------
    rank_write, rank_read, rank_product
        Ranks of W1, W2 and W2 W1.

    Raises
    ------
    InputError
        A product of larger rank than a factor.

    References
    ----------
    .. [1] G. Kempf, L. Ness, The length of vectors in representation spaces, in: Algebraic
       Geometry, Lecture Notes in Mathematics 732, Springer 1979, 233-243.
    .. [2] K. Lindsey, G. Menon, Regularization implies balancedness in the deep linear network,
       arXiv 2511.01137 (2025).

    Examples
    --------
    >>> from flagscope.geometry import has_closed_affine_orbit
    >>> has_closed_affine_orbit(rank_write=3, rank_read=3, rank_product=2)
    False
    """
    if not 0 <= rank_product <= min(rank_write, rank_read):
        raise InputError(
            f"a product of rank {rank_product} cannot come from maps of ranks {rank_write} and "
            f"{rank_read}",
            hint="count all ranks with thresholds of the same accuracy",
        )
    return rank_write == rank_read == rank_product


def _largest_slope(a: Fraction, b: Fraction, position: RelativePosition) -> str:
    """The largest subspace of largest slope, the first step of the filtration."""
    if position.k:
        return "V ∩ U"
    if a == b and position.r1 and position.r2:
        return "V + U"
    return "V" if position.r1 and (a > b or not position.r2) else "U"
