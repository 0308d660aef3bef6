"""Which steps could be in another order, and distances would not show it?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flagscope.series.checks.order import AGREE, SHORTER
from flagscope.series.checks.untrained import untrained
from flagscope.series.compared import Compared
from flagscope.series.distances import Matrix
from flagscope.shortening import listed

_LISTED = 3


def unconfirmed(series: Compared) -> list[str]:
    """Sentences on steps whose order rests on their names alone.

    Two neighbours are exchanged in thought, and the first or the last steps turned round. What does
    not make the way through the steps plainly longer could be so, unseen.

    Parameters
    ----------
    series
        T steps without a fault, and their distances; nothing is said of fewer than four.

    Notes
    -----
    Each such thought exchanges one or two edges of the way: T numbers a tensor.
    """
    size = len(series.steps)
    if size < 4 or not series.far.size:
        return []
    names = [step.place.name for step in series.steps]
    start = untrained(series)
    known = start is not None and start.place == 0
    pairs = _open(series, _exchanged)
    pairs[0] &= not known
    said = []
    if pairs.any():
        exchanged = [f"{names[at]} and {names[at + 1]}" for at in np.flatnonzero(pairs)]
        said.append(
            f"Not known from distances: whether {listed(exchanged, _LISTED)} are exchanged."
        )
    heads = _open(series, _head_turned) & (not known)
    tails = _open(series, _tail_turned)
    turned = [
        f"the {end} {np.flatnonzero(which)[-1] + 3:,}"
        for end, which in (("first", heads), ("last", tails))
        if which.any()
    ]
    if turned:
        said.append(
            f"Not known from distances: whether {' or '.join(turned)} steps are in reverse."
        )
    return said


def _open(series: Compared, longer: Callable[[Matrix], tuple[Matrix, Matrix]]) -> NDArray[np.bool_]:
    """Where the edges of the way are not plainly shorter than those of a changed one.

    As `right_order` sees it: by all tensors together, and in most of them.
    """
    given, changed = longer(series.far)
    plain = given <= SHORTER * changed
    votes = [np.less(*longer(one.rms)) for one in series.moving]
    return ~(plain & (np.mean(votes, axis=0) >= AGREE))


def _exchanged(far: Matrix) -> tuple[Matrix, Matrix]:
    """(T - 1) lengths of the edges that an exchange of neighbours removes, and of the new ones."""
    near, past = np.diag(far, 1), np.diag(far, 2)
    given, changed = np.zeros(len(near)), np.zeros(len(near))
    given[1:] += near[:-1]
    given[:-1] += near[1:]
    changed[1:] += past
    changed[:-1] += past
    return given, changed


def _head_turned(far: Matrix) -> tuple[Matrix, Matrix]:
    """(T - 3) lengths of the edge behind the first 3, 4, … steps, and of that in reverse."""
    return np.diag(far, 1)[2:], far[0, 3:]


def _tail_turned(far: Matrix) -> tuple[Matrix, Matrix]:
    """The same of the last steps."""
    return _head_turned(far[::-1, ::-1])
