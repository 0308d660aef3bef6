"""Maps of sharp scans: ranks, noise and the leading space of each, without its spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.diagnose.bare_map import Folding, numerical_rank_of, random_vectors
from flagscope.geometry import (
    GramSide,
    LeadingSpace,
    Matrices,
    NoisyMap,
    RankRule,
    RowScales,
    counted_signal_rank,
    energy_rank,
    gram_side,
    mean_removed,
    profile_free_rows,
    restricted_side,
    row_scales,
)
from flagscope.null import Spectrum, spectrum_of_moments

# Scales of rows further apart than this are divided out of the map itself, not of its Gram matrix.
_WIDEST = 1e6


@dataclass(frozen=True)
class SharpSide:
    """A Gram side and its leading space.

    Attributes
    ----------
    side
        The map by its Gram matrix.
    leading
        Its leading singular vectors.
    """

    side: GramSide
    leading: LeadingSpace

    @cached_property
    def spectrum(self) -> Spectrum:
        """What nulls need of the spectrum of the Gram matrix."""
        side = self.side
        return spectrum_of_moments(
            (self.leading.values - side.mean).cpu().numpy(), d=side.d, square=side.square,
            cube=side.cube, fourth=side.fourth, least=-side.mean,
        )  # fmt: skip


@dataclass(frozen=True)
class SharpMap:
    """One map on the space it shares with others, as a sharp scan knows it.

    Attributes
    ----------
    shape
        (shared dimension, other dimension).
    delta, mean_square
        Noise of its storage, as in `Matrices`.
    exponent
        Of its unit.
    fault
        Why it cannot be measured, or None; all below is then None.
    repeated
        Whether its values repeat, see `Matrices`.
    known
        Its Gram side and its leading space, of the dimension `effective`.
    numerical
        Numerical rank.
    least
        A lower bound of the singular values that count in it.
    top
        Largest singular value.
    scales
        The scale profile of the shared space in it.
    plain
        Gives the map on the coordinates of the neurons.
    centred
        Whether the mean of these is removed.
    """

    shape: tuple[int, int]
    delta: float
    mean_square: float
    exponent: int
    fault: str | None
    repeated: bool
    known: SharpSide | None
    numerical: int
    least: float
    top: float
    scales: RowScales | None
    plain: Callable[[], Float[Tensor, "d m"]]
    centred: bool
    seed: int

    @property
    def effective(self) -> int:
        """Dimension of the dominant space."""
        return 0 if self.known is None else len(self.known.leading.values)

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        side = self.side.side
        return math.sqrt(max(0.0, side.d * side.mean))

    @property
    def gram_noise(self) -> float:
        """Estimate of the Frobenius norm of the error of W Wᵀ, as `gram_error` has it."""
        error = math.sqrt(self.mean_square * self.shape[0] * self.shape[1])
        rounding = torch.finfo(self.side.side.centred.dtype).eps * self.norm
        return 2 * self.norm * (error + rounding)

    @property
    def noisy(self) -> NoisyMap:
        """Its leading singular values and the next one; the largest alone where nothing leads."""
        leading = self.side.leading
        sigma = torch.tensor([self.top], dtype=torch.float64)
        if self.effective:
            following = leading.values.new_tensor([leading.following])
            sigma = torch.cat([leading.values, following]).clamp_min(0).sqrt()
        dtype = self.side.side.centred.dtype
        return NoisyMap(
            self.shape, sigma, self.delta, torch.finfo(dtype).eps,
            self.side.side.matrix,
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes that it holds: Gram matrix and leading space, and once more without scales."""
        if self.known is None:
            return 0
        side = self.known.side
        held = side.centred.nbytes + self.known.leading.vectors.nbytes
        thin = 0 if side.full else self.shape[0] * self.shape[1] * side.centred.element_size()
        return 2 * held + thin

    def on(self, alive: Bool[Tensor, " d"], *, unlike: bool) -> SharpSide:
        """The side on some coordinates that are alive, with rows of norm 1 where `unlike`."""
        if unlike and bool((alive == self._scales.alive[0]).all()):
            return self._profile_free
        return self._on(alive, unlike)

    @cached_property
    def _profile_free(self) -> SharpSide:
        return self._on(self._scales.alive[0], True)

    def _on(self, alive: Bool[Tensor, " d"], unlike: bool) -> SharpSide:
        square = self._scales.square[0][alive]
        near = not unlike or float(square.amax()) < _WIDEST * float(square.amin())
        if not self.centred and self.side.side.full and near:
            side = restricted_side(self.side.side, alive, square.rsqrt() if unlike else None)
        else:
            every = self._scales.square[0] if unlike else None
            side = gram_side(
                profile_free_rows(self.plain(), alive, square=every, centred=self.centred)
            )
        return SharpSide(side, side.leading(self.effective, generator=random_vectors(self.seed)))

    @property
    def side(self) -> SharpSide:
        """Its Gram side and its leading space.

        Raises
        ------
        ValueError
            If it has a fault.
        """
        if self.known is None:
            raise ValueError("a map with a fault has no numbers")
        return self.known

    @property
    def _scales(self) -> RowScales:
        if self.scales is None:
            raise ValueError("a map with a fault has no scales")
        return self.scales


def sharp_map(
    again: Callable[[], Matrices],
    *,
    read: bool,
    rule: RankRule,
    seed: int = 0,
    plain: Callable[[], Matrices] | None = None,
    folding: Callable[[], Folding | None] = lambda: None,
) -> SharpMap:
    """Prepare a map to meet others in a sharp scan.

    Parameters
    ----------
    again
        Gives the map, a batch of one; called once here, and again where a number needs it.
    read
        True for a reader, shape (1, m, d), False for a writer, shape (1, d, m).
    rule
        How the dimension of its dominant space is chosen.
    seed
        Of random vectors.
    plain
        Gives the map before a mean was removed from it, where one was.
    folding
        Gives how it, or `plain`, comes about from a map that is measured already, if it does.

    Examples
    --------
    >>> w = torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0]))[None]
    >>> maps = Matrices(w, torch.zeros(1), torch.zeros(1))
    >>> made = sharp_map(lambda: maps, read=False, rule=RankRule.parse("fixed:1"))
    >>> made.effective, made.numerical, round(made.top * 2**made.exponent, 3)
    (1, 4, 4.0)
    """
    maps = again()
    (fault,) = maps.faults()
    normal = maps.normalised()

    def rows(make: Callable[[], Matrices]) -> Float[Tensor, "d m"]:
        values = make().normalised().values[0]
        return values.mT if read else values

    values = normal.values[0].mT if read else normal.values[0]
    blank = SharpMap(
        (values.shape[0], values.shape[1]), float(maps.delta[0]), float(normal.mean_square[0]),
        int(normal.exponents[0]), fault, maps.repeats(0), None, 0, 0.0, 0.0, None,
        lambda: rows(plain or again), plain is not None, seed,
    )  # fmt: skip
    if fault is not None:
        return blank
    # A thin map is needed in every product, a wide one hardly ever.
    thin = values.shape[0] > values.shape[1]
    matrix = (lambda: values) if thin else (lambda: rows(again))
    known = folding()
    folded = None
    if known is not None and plain is None:
        folded = known.side(blank.shape, blank.exponent, matrix)
    side = gram_side(values, matrix) if folded is None else folded.side
    delta = float(normal.delta[0])
    generator = random_vectors(seed)
    numerical, least, sigma = numerical_rank_of(
        side.uncentred, values, delta, generator, folded=folded
    )
    signal = None if known is None else known.signal
    if signal is None and rule.kind == "signal":
        signal = counted_signal_rank(rows(plain) if plain else values, generator=generator)
    effective = min(numerical, _dimension(rule, side, numerical, signal))
    leading = side.leading(effective, generator=generator)
    if len(leading.values):
        sigma = math.sqrt(float(leading.values[0]))
    scales = (
        row_scales(values[None], values.new_tensor([side.gram_norm**2], dtype=torch.float64))
        if plain is None
        else row_scales(mean_removed(rows(plain))[None])
    )
    return replace(
        blank, delta=delta, known=SharpSide(side, leading), numerical=numerical, least=least,
        top=sigma, scales=scales,
    )  # fmt: skip


def _dimension(rule: RankRule, side: GramSide, numerical: int, signal: int | None) -> int:
    """Dimension of the dominant space by the rule of the scan."""
    if signal is not None:
        return signal
    if rule.kind == "fixed" and rule.value is not None:
        return int(rule.value)
    if rule.kind == "numerical":
        return numerical
    if rule.kind == "participation":
        return max(1, round(side.participation))
    sigma = torch.linalg.eigvalsh(side.uncentred).double().clamp_min(0).sqrt()
    return max(1, int(energy_rank(sigma, fraction=rule.value or 1.0)))
