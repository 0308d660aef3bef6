"""Maps used in many pairs: solve the eigenproblem once, then release the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.geometry.matrices import Matrices
from flagscope.geometry.perturbation import NoisyMaps, noisy_maps
from flagscope.geometry.profile_views import ProfileView, testable
from flagscope.geometry.rank_rule import RankRule
from flagscope.geometry.scale_profiles import (
    RowScales,
    flat_spread,
    mean_removed,
    profile_free_rows,
    profiles,
    row_scales,
)
from flagscope.geometry.spectra import Eigensystem, eigensystem, spectra_from_eigensystems
from flagscope.geometry.spectra_single import single_eigensystem


@dataclass(frozen=True)
class PreparedMap:
    """One map on the space it shares with others.

    Attributes
    ----------
    maps
        Its shape, noise and norm, a batch of one.
    system
        Eigenvalues and eigenvectors of its Gram matrix there; None where it has a fault.
    fault
        Why it cannot be measured, or None if it can be.
    scales
        The scale profile of the space in it; None where it has a fault.
    plain
        Gives the map on the coordinates of the neurons, the shared space along the rows.
    centred
        Whether the mean of these is removed.
    repeated
        Whether its values repeat, see `Matrices`.
    """

    maps: NoisyMaps
    system: Eigensystem | None
    fault: str | None
    scales: RowScales | None
    plain: Callable[[], Float[Tensor, "d m"]]
    centred: bool = False
    repeated: bool = False

    def on(self, alive: Bool[Tensor, " d"], *, unlike: bool) -> Eigensystem:
        """The eigensystem on some of the coordinates that are alive.

        With rows of norm 1 where their scales are `unlike`. Nearly always all coordinates that are
        alive are asked for, and that is solved once.
        """
        if unlike and bool((alive == self._known_scales.alive[0]).all()):
            return self._profile_free
        return self._solved_on(alive, unlike)

    @cached_property
    def _profile_free(self) -> Eigensystem:
        return self._solved_on(self._known_scales.alive[0], True)

    def _solved_on(self, alive: Bool[Tensor, " d"], unlike: bool) -> Eigensystem:
        square = self._known_scales.square[0] if unlike else None
        rows = profile_free_rows(self.plain(), alive, square=square, centred=self.centred)
        return _solved(rows[None])

    @property
    def _known_scales(self) -> RowScales:
        if self.scales is None:
            raise ValueError("a map with a fault has no scales")
        return self.scales


def prepared_map(
    again: Callable[[], Matrices],
    *,
    read: bool,
    rule: RankRule,
    plain: Callable[[], Matrices] | None = None,
) -> PreparedMap:
    """Prepare a map to meet others.

    Parameters
    ----------
    again
        Gives the map, a batch of one; called once here, and again in the rare case that a number
        needs the map itself, so that it need not stay in memory. In float32 its eigensystem is
        found in single precision, with double where it matters (see `single_eigensystem`).
    read
        True for a reader, shape (1, m, d), False for a writer, shape (1, d, m).
    rule
        How the dimension of its dominant space is chosen.
    plain
        Gives the map before a mean was removed from it, where one was; its coordinates are those
        of the stream.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import Matrices, RankRule, prepared_map
    >>> w = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64)
    >>> map_ = Matrices(w, torch.zeros(1), torch.zeros(1))
    >>> rule = RankRule.parse("participation")
    >>> prepared_map(lambda: map_, read=False, rule=rule).system.values
    tensor([[4.]], dtype=torch.float64)
    """
    maps = again()
    (fault,) = maps.faults()
    normal = maps.normalised()
    whole = normal.values if plain is None else plain().normalised().values
    signal = fault is None and rule.kind == "signal"
    noisy = noisy_maps(normal, read=read, signal=signal, plain=whole)

    def rows(make: Callable[[], Matrices]) -> Float[Tensor, "d m"]:
        values = make().normalised().values[0]
        return values.mT if read else values

    kept = replace(noisy, matrix=lambda _: rows(again))
    system = scales = None
    if fault is None:
        system = _solved(normal.values.mT if read else normal.values)
        shared = whole.mT if read else whole
        scales = (
            row_scales(shared, system.values.square().sum(-1))
            if plain is None
            else row_scales(mean_removed(shared))
        )
    centred = plain is not None
    return PreparedMap(
        kept, system, fault, scales, lambda: rows(plain or again), centred, maps.repeats(0)
    )


def _solved(w: Float[Tensor, "n d m"]) -> Eigensystem:
    return single_eigensystem(w) if w.dtype == torch.float32 else eigensystem(w)


def prepared_view(write: PreparedMap, read: PreparedMap) -> ProfileView | None:
    """A prepared pair without scale profiles; None where those cannot pass for alignment."""
    if write.scales is None or read.scales is None:
        return None
    found = profiles(write.scales, read.scales)
    if not bool(found.any[0]):
        return None
    alive, unlike = found.alive[0], bool(found.unlike[0])
    count = int(alive.sum())
    if not testable(count, unlike=unlike):
        return ProfileView(None)
    one, two = (side.on(alive, unlike=unlike) for side in (write, read))
    spectra = spectra_from_eigensystems(one, two)
    return ProfileView(spectra, flat_spread(spectra.d) if unlike else 1.0)
