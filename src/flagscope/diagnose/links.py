"""Links between heads across the residual stream: what one head writes and a later one reads.

Two numbers for each pair of heads. The overlap is Σcos² between the space that the one writes and
the space that the other reads, the projection kernel (arXiv 2601.10266). The composition score
weighs directions by what the circuits do (`geometry/composition_score.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.diagnose.second_look import (
    REASON_TO_LOOK,
    larger_log10_p,
    needs_second_look,
    p_value,
    second_log10_p,
)
from flagscope.geometry import (
    NOT_FINITE,
    HeadSpaces,
    Matrices,
    attainable_overlap,
    centred_spectrum,
    circuit_factors,
    cross_overlaps,
    even_exponents,
    head_spaces,
    of_unit_norm,
    power_of_two,
    squared_composition,
)
from flagscope.null import (
    Significance,
    Spectrum,
    correlation_null,
    gram_spectrum,
    haar_overlap,
    overlap_significance,
)
from flagscope.records import EdgeRecord, ReadSpace

# Exponents of two up to which a partner is taken as it is.
_FAR = 40

# Fields of a link's record whose names are not identifiers of Python.
_Ends = TypedDict("_Ends", {"from": str, "to": str})


@dataclass(frozen=True)
class HeadEnds:
    """What the heads of one layer write to the stream, or read from it in one of their spaces.

    Attributes
    ----------
    spaces
        The subspaces of the stream, H of them; heads that cannot be measured have rank 0.
    circuits
        Y of shape (H, r, d), ‖Y‖ = 1, such that YᵀY is the Gram matrix on the stream of a head's
        circuit: of W_OV for a writer, of W_QK, its transpose, or W_OV for a reader of queries,
        keys or values; all zero where that is not known.
    squares
        tr Z̃² of Z = YᵀY, its trace removed, shape (H,).
    spectra
        Of Z, for the null of the composition score, H of them.
    measured
        Which heads could be measured, shape (H,).
    finite
        Which heads are finite, the other factors of their circuits included, shape (H,).
    """

    spaces: HeadSpaces
    circuits: Float[Tensor, "H r d"]
    squares: Float[Tensor, " H"]
    spectra: tuple[Spectrum, ...]
    measured: Bool[Tensor, " H"]
    finite: Bool[Tensor, " H"]


def head_ends(maps: Matrices, partner: Float[Tensor, "H r s"] | None) -> HeadEnds:
    """Prepare the heads of one layer to meet others.

    Parameters
    ----------
    maps
        The maps that face the stream, shape (H, r, d): W_Q, W_K or W_V as they are, W_O transposed.
    partner
        The other factor of each head's circuit on its r dimensions, shape (H, r, s): W_V for W_O,
        W_K for W_Q, and for a key or value head that several query heads share W_Q or W_Oᵀ of all
        of them side by side. None where it is not known.
    """
    if partner is None:
        partner = torch.zeros_like(maps.values[:, :, :1])
    faults = maps.faults()
    finite = torch.tensor([fault != NOT_FINITE for fault in faults])
    finite &= torch.isfinite(partner).all(-1).all(-1).cpu()
    sound = finite & torch.tensor([fault is None for fault in faults])
    # A circuit has the norm 1 whatever the sizes of its factors, whose product may leave the range.
    maps = maps.normalised()
    exponents = even_exponents(partner.abs().amax((-2, -1), keepdim=True))
    if bool((exponents.abs() > _FAR).any()):
        partner = power_of_two(partner, -exponents)
    on = sound.to(maps.values.device)[:, None, None]
    spaces = head_spaces(torch.where(on, maps.values, 0), noise=maps.delta)
    factors = circuit_factors(torch.where(on, maps.values, 0), torch.where(on, partner, 0))
    return ends_of(spaces, factors, sound, finite)


def ends_of(
    spaces: HeadSpaces,
    circuits: Float[Tensor, "H r d"],
    measured: Bool[Tensor, " H"],
    finite: Bool[Tensor, " H"],
) -> HeadEnds:
    """Ends of these spaces and circuits of any norm; heads of rank 0 are not measured."""
    circuits = of_unit_norm(circuits)
    eigenvalues = torch.linalg.eigvalsh(circuits @ circuits.mT)
    squares = centred_spectrum(eigenvalues, spaces.d).square
    spectra = tuple(
        gram_spectrum(values, spaces.d) for values in eigenvalues.cpu().double().numpy()
    )
    measured = measured & (spaces.ranks > 0).cpu()
    return HeadEnds(spaces, circuits, squares, spectra, measured, finite)


@dataclass(frozen=True)
class LinkName:
    """Which layers a set of links joins, and which space of the reading heads.

    `across` says which ends, writing and reading, are cross-attention.
    """

    stack: str
    layer_from: int
    layer_to: int
    space: ReadSpace
    across: tuple[bool, bool] = (False, False)

    def source(self, head: int) -> str:
        """The end that writes."""
        return f"L{self.layer_from}H{head}.{'cross.' * self.across[0]}o"

    def target(self, head: int) -> str:
        """The end that reads."""
        return f"L{self.layer_to}H{head}.{'cross.' * self.across[1]}{self.space}"


@dataclass(frozen=True)
class Links:
    """All links between the heads of two layers, in tables of (writing head, reading head).

    Attributes
    ----------
    name
        Which layers and which space.
    overlap, composition
        Σcos², and the square of the composition score.
    correlation
        Of the circuits' Gram matrices, traces removed; -inf where a circuit is not known.
    z_overlap, z_composition
        Distance of both from chance; -inf where a head could not be measured.
    """

    name: LinkName
    writers: HeadEnds
    readers: HeadEnds
    overlap: np.ndarray
    composition: np.ndarray
    correlation: np.ndarray
    z_overlap: np.ndarray
    z_composition: np.ndarray

    @property
    def tested(self) -> int:
        """Number of pairs of heads that were measured."""
        return int(self.writers.measured.sum()) * int(self.readers.measured.sum())

    @property
    def not_finite(self) -> int:
        """Number of pairs of heads that were not measured as one of them is not finite."""
        whole = int(self.writers.finite.sum()) * int(self.readers.finite.sum())
        return len(self.writers.finite) * len(self.readers.finite) - whole

    def furthest(self, top: int) -> list[tuple[float, int, int]]:
        """(largest z of the two, writing head, reading head) of at most `top` links.

        Those of the largest z, half of them by the overlap and half by the composition.
        """
        return [
            (float(max(self.z_overlap[i, j], self.z_composition[i, j])), i, j)
            for i, j in _furthest(self.z_overlap, self.z_composition, top)
        ]

    def tests(self, i: int, j: int) -> tuple[Significance, Significance | None]:
        """Of the overlap of two heads, and of the composition score where it is known."""
        d = self.writers.spaces.d
        r1, r2 = int(self.writers.spaces.ranks[i]), int(self.readers.spaces.ranks[j])
        total = attainable_overlap(float(self.overlap[i, j]), r1, r2, d)
        test = overlap_significance(total, r1, r2, d)
        correlation = float(self.correlation[i, j])
        known = np.isfinite(correlation)
        null = correlation_null(self.writers.spectra[i], self.readers.spectra[j]) if known else None
        circuit = None if null is None else null.significance(min(max(correlation, -1.0), 1.0))
        return test, circuit

    def record(
        self,
        i: int,
        j: int,
        *,
        divided: Callable[[], Links | None] | None = None,
        flat: Callable[[], Significance | None] | None = None,
    ) -> EdgeRecord:
        """What is known of the link from head i to head j; its p-value is not adjusted.

        Parameters
        ----------
        i, j
            The heads.
        divided
            Gives this link alone with the scales of the stream's coordinates divided out, for a
            second look at what seems to be beyond chance.
        flat
            Gives the composition with each circuit's own scales divided out, or None where those
            do not matter, for a third look.
        """
        d, name = self.writers.spaces.d, self.name
        r1, r2 = int(self.writers.spaces.ranks[i]), int(self.readers.spaces.ranks[j])
        total = attainable_overlap(float(self.overlap[i, j]), r1, r2, d)
        composition = float(self.composition[i, j])
        known = bool(np.isfinite(self.correlation[i, j]))
        test, circuit = self.tests(i, j)
        look = divided is not None and (needs_second_look(test) or needs_second_look(circuit))
        again = divided() if look and divided is not None else None
        seconds = (None, None) if again is None else again.tests(0, 0)
        log10_p, circuit_p = (
            _larger(raw, second, again)
            for raw, second in zip((test, circuit), seconds, strict=True)
        )
        if circuit is not None and circuit_p is not None and circuit_p <= REASON_TO_LOOK:
            third = None if flat is None else flat()
            if third is not None:
                circuit_p = max(circuit_p, second_log10_p(circuit, third))
        ends: _Ends = {"from": name.source(i), "to": name.target(j)}
        return EdgeRecord(
            **ends,
            stack=name.stack,
            layer_from=name.layer_from,
            head_from=i,
            layer_to=name.layer_to,
            head_to=j,
            space=name.space,
            overlap_ratio=total * d / (r1 * r2),
            overlap_z=test.z,
            p=p_value(test, log10_p),
            log10_p=log10_p,
            p_adjusted=None,
            composition=composition**0.5 if known else None,
            composition_ratio=composition * d if known else None,
            composition_z=circuit.z if circuit else None,
            composition_log10_p=circuit_p,
        )


def _larger(
    raw: Significance | None, second: Significance | None, again: Links | None
) -> float | None:
    if raw is None:
        return None
    looked = again is not None and needs_second_look(raw)
    return larger_log10_p(raw, second_log10_p(raw, second) if looked else None)


def head_links(name: LinkName, writers: HeadEnds, readers: HeadEnds) -> Links:
    """The links between all heads of two layers.

    Parameters
    ----------
    name
        What the records say of where they are.
    writers, readers
        On one stream.

    References
    ----------
    Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), for the score; its
    null is that of ⟨X, QYQᵀ⟩ for Haar Q: the mean of its square is 1/d.
    """
    d = writers.spaces.d
    overlap = _table(cross_overlaps(writers.spaces.bases.mT, readers.spaces.bases.mT))
    composition = _table(squared_composition(writers.circuits, readers.circuits))
    ranks = writers.spaces.ranks.cpu().numpy(), readers.spaces.ranks.cpu().numpy()
    both = np.outer(writers.measured.numpy(), readers.measured.numpy())
    scale = _scale(writers, readers)
    # ⟨X, Y⟩ of the circuits' Gram matrices has the mean 1/d, as their traces are 1.
    correlation = np.where(
        scale > 0, (composition - 1 / d) / np.where(scale > 0, scale, 1), -np.inf
    )
    spread = (2 / (max(d - 1, 1) * (d + 2))) ** 0.5
    return Links(
        name, writers, readers, overlap, composition, correlation,
        z_overlap=np.where(both, _overlap_z(overlap, *ranks, d), -np.inf),
        z_composition=np.where(both, correlation / spread, -np.inf),
    )  # fmt: skip


def _table(values: Float[Tensor, "m n"]) -> np.ndarray:
    return values.cpu().double().numpy()


def _overlap_z(overlap: np.ndarray, r1: np.ndarray, r2: np.ndarray, d: int) -> np.ndarray:
    nulls = {
        (p, q): haar_overlap(p, q, d) if p and q else None
        for p in set(r1.tolist())
        for q in set(r2.tolist())
    }
    z = np.full(overlap.shape, -np.inf)
    for (p, q), null in nulls.items():
        if null is not None and null.sd > 0:
            at = np.ix_(r1 == p, r2 == q)
            z[at] = (overlap[at] - null.mean) / null.sd
    return z


def _scale(writers: HeadEnds, readers: HeadEnds) -> np.ndarray:
    """‖X̃‖ ‖Ỹ‖ of the circuits' Gram matrices without their traces."""
    one, two = (ends.squares.sqrt().cpu().double().numpy() for ends in (writers, readers))
    return np.outer(one, two)


def _furthest(one: np.ndarray, two: np.ndarray, top: int) -> Iterator[tuple[int, int]]:
    """Index pairs of the largest values of either table, best of the first table first."""
    size = one.size
    chosen: set[int] = set()
    for table, share in ((two, top // 2), (one, top)):
        order = np.argsort(-table, axis=None, kind="stable")[: min(top, size)]
        for at in order.tolist():
            if share == 0 or len(chosen) >= top or not np.isfinite(table.flat[at]):
                break
            if at not in chosen:
                chosen.add(at)
                share -= 1
    for at in sorted(chosen, key=lambda at: (-one.flat[at], at)):
        yield divmod(at, one.shape[1])
