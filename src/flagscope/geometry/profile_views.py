"""Views of pairs without the scale profiles of their shared space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry.scale_profiles import (
    FEWEST,
    flat_spread,
    in_complement_of_mean,
    mean_removed,
    profiles,
    row_scales,
    unit_rows,
)
from flagscope.geometry.spectra import PairSpectra

Measure = Callable[[Float[Tensor, "n d m1"], Float[Tensor, "n m2 d"]], PairSpectra]


@dataclass(frozen=True)
class ProfileView:
    """One pair without the scale profiles of its shared space.

    Attributes
    ----------
    spectra
        Of this pair alone; None where too few coordinates are left for a null to be known.
    spread
        Spread of ⟨Ã, B̃⟩ in units of its Haar value, see `flat_spread`.
    """

    spectra: PairSpectra | None
    spread: float = 1.0


def profile_views(
    w1: Float[Tensor, "n d m1"],
    w2: Float[Tensor, "n m2 d"],
    spectra: PairSpectra,
    indices: Sequence[int],
    *,
    measure: Measure,
) -> list[ProfileView | None]:
    """Some pairs of a batch without their scale profiles.

    Parameters
    ----------
    w1, w2
        The maps of all pairs, on the coordinates of the neurons.
    spectra
        Theirs, as they are; of one dimension less where the mean of these coordinates is removed.
    indices
        The pairs that are asked for.
    measure
        Gives the spectra of other maps of the same kind.

    Returns
    -------
    list of ProfileView or None
        None where scale profiles could not pass for alignment, see `profiles`: then one of the
        maps is in general position as far as scales go, and the Haar null holds as it is.
    """
    at = torch.tensor(list(indices), device=w1.device)
    left, right = w1[at], w2[at].mT
    squares = spectra.alpha[at].square().sum(-1), spectra.beta[at].square().sum(-1)
    centred = spectra.d < left.shape[1]
    if centred:
        # The mean is not a direction of the pair, and would be one that both maps share.
        left, right, squares = mean_removed(left), mean_removed(right), (None, None)
    write, read = row_scales(left, squares[0]), row_scales(right, squares[1])
    found = profiles(write, read)
    alike: dict[tuple[bytes, bool], list[int]] = {}
    for k in torch.nonzero(found.any).flatten().tolist():
        coordinates = found.alive[k].cpu().numpy().tobytes()
        alike.setdefault((coordinates, bool(found.unlike[k])), []).append(k)
    views: list[ProfileView | None] = [None] * len(at)
    for (_, unlike), some in alike.items():
        alive = found.alive[some[0]]
        count = int(alive.sum())
        if not testable(count, unlike=unlike):
            for k in some:
                views[k] = ProfileView(None)
            continue
        one, two = left[some][:, alive], right[some][:, alive]
        if unlike:
            one, two = (
                unit_rows(w, side.square[some][:, alive]) for w, side in ((one, write), (two, read))
            )
        if centred:
            one, two, count = in_complement_of_mean(one), in_complement_of_mean(two), count - 1
        made = measure(one, two.mT)
        for number, k in enumerate(some):
            views[k] = ProfileView(one_pair(made, number), flat_spread(count) if unlike else 1.0)
    return views


def testable(count: int, *, unlike: bool) -> bool:
    """Whether a null is known for so many coordinates, with scales to divide out or without."""
    return count >= (FEWEST if unlike else 2)


def one_pair(spectra: PairSpectra, i: int) -> PairSpectra:
    """The spectra of one pair of a batch, as a batch of one."""
    parts = {
        field.name: value[i : i + 1]
        for field in fields(spectra)
        if isinstance(value := getattr(spectra, field.name), Tensor)
    }
    return PairSpectra(spectra.d, **parts)
