"""Where an update lies in the leading and trailing singular spaces of one side."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from flagscope.comparison.change.leading import Directions, squared_norm
from flagscope.comparison.change.update import Update
from flagscope.null import energy_share_significance
from flagscope.records.comparison.change import ChangeEnergies, EnergyShare

# The guard against unequal lines costs a product, so it waits for something to doubt.
_DOUBT = math.log10(0.05)

_NOTHING_LEADS = "no direction of the map stands out of the bulk"
_NOT_COMPUTED = "trailing directions are computed for maps up to 1,024"
_KERNEL = "the trailing directions of the longer side are the map's kernel"
_HIDDEN = "the trailing directions lie below the map's storage noise"


def change_energies(update: Update, side: Directions, *, delta: float) -> ChangeEnergies:
    """The shares of an update in the spaces of one side.

    Parameters
    ----------
    update
        ΔW.
    side
        Of the map before or after.
    delta
        Spectral norm of that map's storage noise.
    """
    signal = side.signal
    p, m = side.shape
    k = signal.rank
    leading = [
        _share(update, side, slice(0, k), write=True, missing=None if k else _NOTHING_LEADS),
        _share(update, side, slice(0, k), write=False, missing=None if k else _NOTHING_LEADS),
    ]
    trailing = []
    for write in (True, False):
        d = p if write else m
        missing = None
        if not k:
            missing = _NOTHING_LEADS
        elif not side.dense:
            missing = _NOT_COMPUTED
        elif d > min(p, m):
            missing = _KERNEL
        elif k < d and float(side.sigma[d - k]) <= delta:
            missing = _HIDDEN
        trailing.append(_share(update, side, slice(d - k, d), write=write, missing=missing))
    return ChangeEnergies(
        signal_rank=k,
        signal_rank_complete=signal.complete,
        write_leading=leading[0],
        read_leading=leading[1],
        write_trailing=trailing[0],
        read_trailing=trailing[1],
    )


def _share(
    update: Update, side: Directions, part: slice, *, write: bool, missing: str | None
) -> EnergyShare:
    d = side.shape[0 if write else 1]
    k = part.stop - part.start
    if missing is not None:
        return EnergyShare(
            rank=k, d=d, share=None, ratio=None, p=None, log10_p=None, status=missing
        )
    basis = side.left(part) if write else side.right(part)
    share = _inside(update.values, basis, update.values_square, write=write)
    test = energy_share_significance(share, k, d, _on(update.participation, d)) if d > 1 else None
    status, log10_p = ("no freedom", None) if test is None else (test.status, test.log10_p)
    if log10_p is not None and log10_p < _DOUBT:
        # Rows have the sizes of output coordinates, which the write spaces see.
        even, participation = update.even(rows=write)
        square = squared_norm(even)
        guarded = _inside(even, basis, square, write=write)
        again = energy_share_significance(guarded, k, d, _on(participation, d))
        log10_p = None if again.log10_p is None else max(log10_p, again.log10_p)
        status = again.status
    return EnergyShare(
        rank=k, d=d, share=share, ratio=share * d / k,
        p=None if log10_p is None else 10.0**log10_p, log10_p=log10_p, status=status,
    )  # fmt: skip


def _on(participation: float, d: int) -> float:
    return min(max(participation, 1.0), float(d))


def _inside(
    delta: Float[Tensor, "p m"], basis: Float[Tensor, "d k"], square: float, *, write: bool
) -> float:
    axes = basis.to(delta)
    part = axes.mT @ delta if write else delta @ axes
    return min(1.0, squared_norm(part) / square)
