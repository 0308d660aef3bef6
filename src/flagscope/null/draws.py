"""Haar draws of the commutator ratio and the commutation defect, and the tails of such draws."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flagscope.null.haar import haar_bases

# Floating-point operations spent on one pair: about a second on one core.
_BUDGET = 5e9
# Fewer draws than this say too little about a tail.
FEWEST = 999
# Of the draws so many make up a tail from which it is continued.
_TAIL = 50
# Share of a spectrum's energy about its median that may be left out; C moves by about as much.
_DROPPED = 1e-6
# Numbers held at a time.
_BLOCK = 1 << 21


@dataclass(frozen=True)
class HaarDraws:
    """Commutator ratios and commutation defects of independent Haar draws."""

    ratio: NDArray[np.float64]
    defect: NDArray[np.float64]


def haar_draws(
    write: NDArray[np.float64], read: NDArray[np.float64], *, draws: int, seed: int
) -> HaarDraws | None:
    """Sample C and ν for spectra of mean 0 and norm 1 in independent Haar orientation.

    Commutators do not feel multiples of the identity, so each spectrum is taken about its median:
    for nearly low-rank (or nearly two-valued) ones only a few eigenvalues are then left, and of the
    orthogonal matrix only the block that joins them is drawn.

    Parameters
    ----------
    write, read
        Centred eigenvalues of norm 1, shape (d,).
    draws
        Largest number of draws.
    seed
        Of the generator.

    Returns
    -------
    HaarDraws or None
        None where the budget allows fewer than 999, or `draws` asks for fewer.

    Examples
    --------
    >>> alpha = np.array([3.0, -1.0, -1.0, -1.0]) / 12**0.5
    >>> len(haar_draws(alpha, alpha, draws=1999, seed=0).ratio)
    1999
    """
    return _draws_of(write.tobytes(), read.tobytes(), draws, seed)


# Weights that are scanned again have the same spectra: up to 160 kB each.
@lru_cache(maxsize=64)
def _draws_of(write_bytes: bytes, read_bytes: bytes, draws: int, seed: int) -> HaarDraws | None:
    write, read = np.frombuffer(write_bytes), np.frombuffer(read_bytes)
    d = len(write)
    (a, a_shift), (b, b_shift) = _kept(write), _kept(read)
    # The wider block is drawn as columns of the other: QR of d x m costs 4 d m².
    if len(b) > len(a):
        a, a_shift, b, b_shift = b, b_shift, a, a_shift
    cost = 4.0 * d * len(b) ** 2 + 2.0 * len(a) ** 2 * len(b)
    draws = min(draws, int(_BUDGET / cost))
    if draws < FEWEST:
        return None
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // (d * len(b) + len(a) ** 2))
    ratio, defect = [], []
    norm = (d - 1) * (d + 2) / (2.0 * d)
    # (a_i + s)² = (a_i² + 2 s a_i) + s², the first part zero outside the block.
    a_part, b_part = a * a + 2.0 * a_shift * a, b * b + 2.0 * b_shift * b
    rest = b_shift**2 * a_part.sum() + a_shift**2 * b_part.sum() + d * (a_shift * b_shift) ** 2
    for start in range(0, draws, step):
        size = min(step, draws - start)
        basis = haar_bases(generator.standard_normal((size, d, len(b))))
        block = basis[:, : len(a), :]
        square = block * block
        gram = (block * b) @ block.swapaxes(-1, -2)
        # ‖[A, B]‖² = 2 tr A²B² - 2 tr ABAB
        crossed = np.einsum("nij,i,j->n", gram * gram, a, a)
        commutator = 2.0 * (np.einsum("nik,i,k->n", square, a * a, b * b) - crossed)
        commutator = np.maximum(commutator, 0.0)
        product = np.einsum("nik,i,k->n", square, a_part, b_part) + rest
        ratio.append(commutator * norm)
        defect.append(commutator / (2.0 * product))
    made = HaarDraws(np.concatenate(ratio), np.concatenate(defect))
    made.ratio.flags.writeable = made.defect.flags.writeable = False
    return made


def _kept(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Eigenvalues about their median that carry nearly all of the energy, and the median."""
    shift = float(np.median(values))
    about = values - shift
    order = np.argsort(-np.abs(about))
    energy = np.cumsum(about[order] ** 2)
    count = 1 + int(np.searchsorted(energy, (1.0 - _DROPPED) * energy[-1]))
    return about[order[:count]], shift


def log_tails_of_draws(sample: NDArray[np.float64], value: float) -> tuple[float, float]:
    """Log of the lower and upper tail of a positive variable, from independent draws.

    Parameters
    ----------
    sample
        Sorted draws, at least 999.
    value
        Not negative.

    Returns
    -------
    log_cdf, log_sf
        (1 + draws beyond)/(1 + n), and beyond the fiftieth from an end a power law of the value,
        whose exponent those fifty give: its predictive law, for the exponent is not known exactly.
        The tails of laws that are bounded, or fall like exponentials, lie below such a power.

    References
    ----------
    B. M. Hill, Ann. Stat. 3 (1975) 1163-1174.

    Examples
    --------
    >>> uniform = (np.arange(999) + 0.5) / 999
    >>> [round(math.exp(log_tails_of_draws(uniform, x)[0]), 3) for x in (0.5, 0.005)]
    [0.501, 0.005]
    """
    positive = np.maximum(sample, sys.float_info.min)
    value = max(value, sys.float_info.min)
    return _log_tail_of_draws(np.log(positive), math.log(value)), _log_tail_of_draws(
        -np.log(positive[::-1]), -math.log(value)
    )


def _log_tail_of_draws(logs: NDArray[np.float64], value: float) -> float:
    """Log of the lower tail, of sorted logarithms."""
    n = len(logs)
    if value >= logs[_TAIL - 1]:
        return math.log((1 + int(np.searchsorted(logs, value, side="right"))) / (1 + n))
    excess = float((logs[_TAIL - 1] - logs[: _TAIL - 1]).sum()) / (_TAIL - 1)
    distance = (float(logs[_TAIL - 1]) - value) / max(excess, sys.float_info.min)
    return math.log((1 + _TAIL) / (1 + n)) - _TAIL * math.log1p(distance / _TAIL)
