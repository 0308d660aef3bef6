"""The scales of the stream's coordinates, as seen in what heads read or write, divided out.

A gain that all readers of a norm share makes their row spaces overlap: coordinates of large gain lie
nearly in all of them. A head's share of coordinate j, its leverage ℓ_j = (P_h)_jj, says how large
the scale g_j is: for maps in random position under a gain, ℓ_j/(1 - ℓ_j) is proportional to g_j².
Leverages depend on the spaces alone, so that no basis within a head, nor how its singular values
decay, matters. Sums of squares of columns would let the few largest directions decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.diagnose.head_spaces import HeadSpaces, head_spaces

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
        1/(2 weight).
    """

    scales: Float[Tensor, " d"]
    live: Bool[Tensor, " d"]
    weight: float

    def shift(self, r1: int, r2: int) -> float:
        """By how much dividing it out lowers E Σcos² of two of the pooled heads, over r1 r2/d.

        To first order 2 (1 - r1/d)(1 - r2/d)/weight, since the profile takes part of the heads' own
        scatter with it.
        """
        d = int(self.live.sum())
        return 2 * (1 - r1 / d) * (1 - r2 / d) / self.weight


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
        None where the heads leave no scale open: no head, or each is as large as the space.

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
    spread = [(one.bases.double().square().sum((0, 2)), one) for one in pool]
    spread = [(sums, one) for sums, one in spread if int(one.ranks.sum())]
    if not spread:
        return None
    d = pool[0].d
    live = torch.stack([sums > _DEAD * sums.mean() for sums, _ in spread]).any(0)
    size = int(live.sum())
    spaces = [one for _, one in spread if bool((one.ranks < size).any())]
    weight = sum(float((one.ranks * (1 - one.ranks / size)).sum()) for one in spaces)
    if not weight > 0:
        return None
    logs = torch.zeros(size, dtype=torch.float64, device=live.device)
    bound = torch.log(torch.tensor(_LARGEST)).item()
    for _ in range(_PASSES):
        before = logs
        step = _pooled_logits([_scaled(one, live, logs) for one in spaces])
        logs = logs + (step - step.mean()) / 2
        logs = (logs - logs.mean()).clamp(-bound, bound)
        if float((logs - before).square().mean()) < _CONVERGED / (2 * weight):
            break
    scales = torch.ones(d, dtype=torch.float64, device=live.device)
    scales[live] = logs.exp()
    return ScaleProfile(scales, live, weight)


def without_profile(spaces: HeadSpaces, profile: ScaleProfile) -> HeadSpaces:
    """The spaces with the scales of the coordinates divided out, in the live coordinates alone."""
    return _scaled(spaces, profile.live, profile.scales[profile.live].log())


def _scaled(
    spaces: HeadSpaces, live: Bool[Tensor, " d"], logs: Float[Tensor, " c"]
) -> HeadSpaces:
    bases = spaces.bases if bool(live.all()) else spaces.bases[:, live]
    return head_spaces((bases * (-logs).exp().to(bases)[:, None]).mT)


def _pooled_logits(pool: Sequence[HeadSpaces]) -> Float[Tensor, " d"]:
    """log ℓ/(1 - ℓ) of the mean leverage, spaces weighing by what they know of the scales."""
    total = torch.zeros(pool[0].d, dtype=torch.float64, device=pool[0].bases.device)
    weights = torch.zeros_like(total)
    for spaces in pool:
        heads = int((spaces.ranks > 0).sum())
        leverage = spaces.bases.double().square().sum((0, 2)) / heads
        share = float(spaces.ranks.sum()) / (heads * spaces.d)
        # A coordinate that is dead in this space alone says nothing here.
        weight = heads * share * (1 - share) * (leverage > _DEAD * share)
        total += weight * torch.logit(leverage, eps=_DEAD)
        weights += weight
    return total / weights.clamp_min(_DEAD)
