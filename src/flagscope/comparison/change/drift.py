"""How far leading singular spaces turned, against what a random update of equal norm does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from flagscope.comparison.change.kept_directions import KeptDirections
from flagscope.comparison.change.leading import Directions
from flagscope.geometry import expected_drift, singular_blocks
from flagscope.geometry.angles import principal_sines
from flagscope.null import Significance
from flagscope.null.tails import log_gamma_tails, log_pearson3_tails
from flagscope.records import Freedom
from flagscope.records.comparison.change import BlockDrift, SideDrift

SingularDirections = Directions | KeptDirections

# Blocks listed of each side of a map.
_LISTED = 8
# Mean sin² beyond which the first order says too little, and relative width of its bounds likewise.
_FIRST_ORDER, _WIDE = 0.1, 0.1

# Share of rounding in an update from which on its errors, which are larger where entries are, make
# it unlike independent entries: of MiniLM in bf16 22 % of the p-values of blocks were below 5 %.
ROUNDED = 0.5
_NOT_EVEN = "mostly rounding, whose errors are not of one size: no null"

_NOTHING_LEADS = "no direction stands out of the bulk in both maps"
_NO_GAP = "no gap behind the leading directions that an update of this size leaves open"


def side_drift(
    a: SingularDirections,
    b: SingularDirections,
    *,
    write: bool,
    square: float,
    rounding: float,
    squares: tuple[float, float],
    freedom: Freedom,
    square_variance: float = 0.0,
) -> SideDrift:
    """Drift of the leading directions of one side of a map.

    Parameters
    ----------
    a, b
        Directions of both maps.
    write
        The output side, else the input side.
    square
        ‖ΔW‖².
    rounding
        Expected squared norm of the storage rounding of both.
    squares
        ‖W_a‖² and ‖W_b‖².
    freedom
        Of the space on this side.
    square_variance
        Of ‖ΔW‖² relative to its square, where it is an estimate.
    """
    entries = a.shape[0] * a.shape[1]
    spread = math.sqrt(max(square, rounding) / entries)

    def expected(block: tuple[int, int]) -> ExpectedTurn:
        return _expected(
            (a, b), block, write=write, square=square, squares=squares,
            square_variance=square_variance,
        )  # fmt: skip

    return drift_of_blocks(
        a, b, write=write, freedom=freedom, cuts=lambda side: _cuts(side, spread),
        expected=expected, rounded=rounding > ROUNDED * square,
    )  # fmt: skip


@dataclass(frozen=True)
class ExpectedTurn:
    """Mean sin² of a space that a random update gives.

    Attributes
    ----------
    low, high
        Bounds of it: infinite where singular values are equal.
    variance
        Of the mean sin², relative to its square.
    skewness
        Its third standardised moment, where it is more than that of a gamma law.
    """

    low: float
    high: float
    variance: float
    skewness: float = 0.0


def drift_of_blocks(
    a: SingularDirections,
    b: SingularDirections,
    *,
    write: bool,
    freedom: Freedom,
    cuts: Callable[[SingularDirections], list[int]],
    expected: Callable[[tuple[int, int]], ExpectedTurn],
    rounded: bool,
) -> SideDrift:
    """Drift of one side against an expectation.

    Parameters
    ----------
    a, b
        Directions of both maps.
    write
        The output side, else the input side.
    freedom
        Of the space on this side.
    cuts
        Of `a` and of `b`, numbers of directions behind which an update leaves the gap open.
    expected
        What a random update gives of the directions from a first to before a last one.
    rounded
        Whether the update is mostly rounding, so that nothing is expected of it.
    """
    most = min(a.signal.rank, b.signal.rank)
    if most == 0:
        return SideDrift(
            freedom=freedom, leading=None, blocks=[], blocks_left_out=0, status=_NOTHING_LEADS
        )
    of_b = set(cuts(b))
    common = [cut for cut in cuts(a) if cut in of_b and cut <= most]
    if not common:
        return SideDrift(
            freedom=freedom, leading=None, blocks=[], blocks_left_out=0, status=_NO_GAP
        )

    def drift(start: int, stop: int) -> BlockDrift:
        block = _block(a, b, (start, stop), write=write, expected=expected((start, stop)))
        if rounded and block.status == "ok":
            return block.model_copy(
                update={"ratio": None, "p": None, "log10_p": None, "status": _NOT_EVEN}
            )
        return block

    listed = list(pairwise([0, *common]))
    return SideDrift(
        freedom=freedom,
        leading=drift(0, common[-1]),
        blocks=[drift(*block) for block in listed[:_LISTED]],
        blocks_left_out=max(0, len(listed) - _LISTED),
        status="ok",
    )


def _cuts(side: SingularDirections, spread: float) -> list[int]:
    """Numbers of directions behind which lies a gap that entries of this spread do not close."""
    sigma = side.sigma
    whole = len(sigma)
    if not side.dense:
        sigma = torch.cat([sigma, sigma.new_tensor([min(side.following, float(sigma[-1]))])])
    blocks = singular_blocks(sigma, noise_sd=spread)
    return [cut for cut in torch.tensor(blocks.sizes).cumsum(0).tolist() if cut <= whole]


def _block(
    a: SingularDirections, b: SingularDirections, block: tuple[int, int], *, write: bool,
    expected: ExpectedTurn,
) -> BlockDrift:  # fmt: skip
    part, size = slice(*block), block[1] - block[0]
    x, y = (side.left(part) if write else side.right(part) for side in (a, b))
    sines = principal_sines(x, y).clamp(0, 1)
    mean = float(sines.square().mean())
    middle, log10_p, status = _against(expected, mean)
    resolution = max(side.turn(edge) for side in (a, b) for edge in block if edge > 0)
    if mean < 4 * resolution**2:
        log10_p, status = None, "below what the computation of the directions resolves"
    return BlockDrift(
        first=block[0],
        size=size,
        sigma_a=float(a.sigma[block[0]]),
        sigma_b=float(b.sigma[block[0]]),
        mean_square_sine=mean,
        largest_angle=math.asin(float(sines.max())),
        expected=middle,
        ratio=mean / middle if status == "ok" and middle else None,
        p=None if log10_p is None else 10.0**log10_p,
        log10_p=log10_p,
        status=status,
    )


def _expected(
    sides: tuple[SingularDirections, SingularDirections], block: tuple[int, int], *, write: bool,
    square: float, squares: tuple[float, float], square_variance: float,
) -> ExpectedTurn:  # fmt: skip
    """The mean of both maps' expectations, for independent entries of one variance."""
    shape = sides[0].shape if write else (sides[0].shape[1], sides[0].shape[0])
    variance = square / (shape[0] * shape[1])
    size = block[1] - block[0]
    bounds = [
        expected_drift(
            side.sigma,
            block,
            shape=shape,
            rest=norm - float(side.sigma.square().sum()),
            following=None if side.dense else side.following,
        )
        for side, norm in zip(sides, squares, strict=True)
    ]
    low, high, total, spread = (
        sum(getattr(bound, name) for bound in bounds) / 2
        for name in ("low", "high", "middle", "squares")
    )
    relative = 2 * spread / (total * total) + square_variance if math.isfinite(high) else math.inf
    return ExpectedTurn(low * variance / size, high * variance / size, relative)


def _against(expected: ExpectedTurn, observed: float) -> tuple[float | None, float | None, str]:
    """Expected mean sin², log10 p of the observed one, and a status."""
    low, high = expected.low, expected.high
    if not math.isfinite(high):
        return None, None, "equal singular values: first order says nothing"
    middle = (low + high) / 2
    if middle > _FIRST_ORDER:
        return middle, None, "the update is too large for first order: expected is no measure"
    if high - low > _WIDE * middle:
        return middle, None, "too few singular values are known: expected is uncertain"
    # A weighted sum of χ² variables, by the gamma law with its mean and variance. If a few outweigh
    # the others, its upper tail is heavier: that of a shifted gamma law with its third moment.
    beyond, sd = max(observed / middle - 1, -1 + 1e-12), math.sqrt(expected.variance)
    below, above = log_gamma_tails(1 / expected.variance, beyond)
    if expected.skewness > 2 * sd:
        above = log_pearson3_tails(beyond / sd, expected.skewness)[1]
    return middle, Significance.two_sided(0.0, log_cdf=below, log_sf=above).log10_p, "ok"
