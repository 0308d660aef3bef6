"""The scales of the stream's coordinates, as seen in what heads read or write, divided out.

A gain that all readers of a norm share makes their row spaces overlap: coordinates of large gain
lie nearly in all of them. A head's share of coordinate j, its leverage ℓ_j = (P_h)_jj, says how
large the scale g_j is: for maps in random position under a gain, ℓ_j/(1 - ℓ_j) is proportional to
g_j². Leverages depend on the spaces alone, so that no basis within a head, nor how its singular
values decay, matters. Sums of squares of columns would let the few largest directions decide.

Scales no further apart than the finite number of directions makes them are left alone: to divide
them out would cost power and mend nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy import special
from torch import Tensor

from flagscope.geometry.head_spaces import HeadSpaces, head_spaces

# Passes at most. Two bring profiles of log-sd 0.5 to a tenth of their own noise.
_PASSES = 6
# The last change, mean square, that is left in the logarithms of the scales: a part of the variance
# 2/weight that the finite number of directions gives them.
_CONVERGED = 0.01
# Scales further than this from their geometric mean are not divided out further; a coordinate that
# lies in a head as a whole has the odds infinity.
_LARGEST = 1e4
# A leverage below this part of the mean is a dead coordinate: its scale is below a millionth.
_DEAD = 1e-12
# Level at which scales differ. Smaller differences move no test by more than a part of its spread:
# in nulls under gains of log-sd 0.05 to 0.5 no size exceeds the nominal one.
_LEVEL = 0.01


@dataclass(frozen=True)
class ScaleProfile:
    """Scales of the coordinates of a stream.

    Attributes
    ----------
    scales
        Shape (d,), float64, geometric mean 1 over the live ones; 1 for dead ones.
    live
        Which coordinates any of the heads reads or writes, shape (d,).
    weight
        Σ r_h (1 - r_h/d) over the heads that were pooled: the variance of a log scale is
        1/(2 weight). 0 where every head fills the live coordinates, and no scale is open.
    differ
        Whether the scales are further apart than chance, or a coordinate is dead.
    """

    scales: Float[Tensor, " d"]
    live: Bool[Tensor, " d"]
    weight: float
    differ: bool

    def shift(self, r1: int, r2: int) -> float:
        """By how much dividing it out lowers E Σcos² of two of the pooled heads, over r1 r2/d.

        To first order 2 (1 - r1/d)(1 - r2/d)/weight, since the profile takes part of the heads' own
        scatter with it.
        """
        d = int(self.live.sum())
        if not self.weight > 0:
            return 0.0
        return 2 * (1 - r1 / d) * (1 - r2 / d) / self.weight

    def eigenvalue_shift(self, value: float, ranks: Sequence[int]) -> float:
        """By how much dividing it out lowers the largest eigenvalue of the sum of projectors.

        2 λ (1 - λ/H) √(H t(1-t))/weight for H heads of rank t d, within a quarter in simulations:
        the profile follows the diagonal of the sum, and the leading vector leans on it.
        """
        count, d = len(ranks), int(self.live.sum())
        t = sum(ranks) / (count * d)
        if not self.weight > 0:
            return 0.0
        return 2 * value * max(1 - value / count, 0) * (count * t * (1 - t)) ** 0.5 / self.weight


def scale_profile(pool: Sequence[HeadSpaces]) -> ScaleProfile | None:
    """The scales that the heads of some spaces have in common.

    Parameters
    ----------
    pool
        Spaces of one stream that share their scales, such as those of queries, keys and values
        behind one norm. Heads of rank 0 are passed over.

    Returns
    -------
    ScaleProfile or None
        None where there is no head.

    Notes
    -----
    The fixed point makes the mean leverage of all coordinates equal, as in Tyler's estimator of
    scatter, restricted to diagonal matrices.

    References
    ----------
    D. E. Tyler, Ann. Stat. 15 (1987) 234-251.

    Examples
    --------
    >>> import torch
    >>> maps = torch.randn(8, 8, 64, generator=torch.Generator().manual_seed(0)).double()
    >>> gain = torch.linspace(-1, 1, 64).exp().double()
    >>> found = scale_profile([head_spaces(maps * gain)])
    >>> bool((found.scales / gain).log().std() < 0.15)
    True
    """
    spread = [(_leverages(one), one) for one in pool]
    spread = [(sums, one) for sums, one in spread if int(one.ranks.sum())]
    if not spread:
        return None
    d = pool[0].d
    live = torch.stack([sums > _DEAD * sums.mean() for sums, _ in spread]).any(0)
    size = int(live.sum())
    spaces = [one for _, one in spread if bool((one.ranks < size).any())]
    weight = sum(float((one.ranks * (1 - one.ranks / size)).sum()) for one in spaces)
    scales = torch.ones(d, dtype=torch.float64, device=live.device)
    if not weight > 0:
        return ScaleProfile(scales, live, 0.0, size < d)
    logs = torch.zeros(size, dtype=torch.float64, device=live.device)
    bound = torch.log(torch.tensor(_LARGEST)).item()
    for _ in range(_PASSES):
        before = logs
        step = _pooled_logits([_scaled(one, live, logs) for one in spaces])
        logs = logs + (step - step.mean()) / 2
        logs = (logs - logs.mean()).clamp(-bound, bound)
        if float((logs - before).square().mean()) < _CONVERGED / (2 * weight):
            break
    scales[live] = logs.exp()
    # Under the null the logarithms are nearly normal, of variance 1/(2 weight) and with sum 0.
    beyond = special.chdtrc(size - 1, 2 * weight * float(logs.square().sum())) < _LEVEL
    return ScaleProfile(scales, live, weight, size < d or bool(beyond))


@dataclass(frozen=True)
class DividedSpaces:
    """Spaces of heads with the scales of the coordinates divided out.

    Attributes
    ----------
    spaces
        In the live coordinates.
    profile
        What was divided out.
    """

    spaces: HeadSpaces
    profile: ScaleProfile


def divided_spaces(spaces: HeadSpaces, pool: Sequence[HeadSpaces]) -> DividedSpaces | None:
    """Heads without the scales of the pool that they are part of; None where these do not differ.

    Parameters
    ----------
    spaces
        The heads.
    pool
        They and others that share their scales.
    """
    profile = scale_profile(pool)
    if profile is None or not profile.differ:
        return None
    return DividedSpaces(without_profile(spaces, profile), profile)


def without_profile(spaces: HeadSpaces, profile: ScaleProfile) -> HeadSpaces:
    """The spaces with the scales of the coordinates divided out, in the live coordinates alone."""
    return _scaled(spaces, profile.live, profile.scales[profile.live].log())


def _scaled(spaces: HeadSpaces, live: Bool[Tensor, " d"], logs: Float[Tensor, " c"]) -> HeadSpaces:
    bases = spaces.bases if bool(live.all()) else spaces.bases[:, live]
    return head_spaces((bases * (-logs).exp().to(bases)[:, None]).mT)


def _leverages(spaces: HeadSpaces) -> Float[Tensor, " d"]:
    """Σ_h (P_h)_jj of each coordinate, one head at a time."""
    total = torch.zeros(spaces.d, dtype=torch.float64, device=spaces.bases.device)
    for basis in spaces.bases:
        total += basis.square().sum(-1)
    return total


def _pooled_logits(pool: Sequence[HeadSpaces]) -> Float[Tensor, " d"]:
    """log ℓ/(1 - ℓ) of the mean leverage, spaces weighing by what they know of the scales."""
    total = torch.zeros(pool[0].d, dtype=torch.float64, device=pool[0].bases.device)
    weights = torch.zeros_like(total)
    for spaces in pool:
        heads = int((spaces.ranks > 0).sum())
        leverage = _leverages(spaces) / heads
        share = float(spaces.ranks.sum()) / (heads * spaces.d)
        # A coordinate that is dead in this space alone says nothing here.
        weight = heads * share * (1 - share) * (leverage > _DEAD * share)
        total += weight * torch.logit(leverage, eps=_DEAD)
        weights += weight
    return total / weights.clamp_min(_DEAD)
