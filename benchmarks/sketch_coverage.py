"""How often the intervals of sketched commutators hold the exact values.

Pairs as scans sketch them, `commutator_of_grams` with its defaults and no exact product. A sketch
whose stated error is round-off, since it took every direction or nothing was left behind those it
takes exactly, is no part of the coverage: it is told apart, with how far it is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest.mock import patch

import torch
from scipy import stats
from torch import Tensor

import flagscope
from flagscope.diagnose import sharp_pairs
from flagscope.geometry import CommutatorSketch, GramSide, commutator_of_grams, gram_side

KINDS = ("flat", "decaying", "spiked", "low rank", "near commuting", "rank 8")
LEVEL = 0.95


@dataclass(frozen=True)
class Pair:
    """Two maps on one space, and what their sketches estimate."""

    name: str
    write: GramSide
    read: GramSide
    commutator: float
    defect: float


def pair_of(name: str, write: GramSide, read: GramSide) -> Pair:
    """The exact values are those of the matrices that the sketch is given, in float64."""
    product = _centred(write) @ _centred(read)
    commutator = float((product - product.mT).square().sum())
    return Pair(name, write, read, commutator, commutator / (2 * float(product.square().sum())))


def _centred(side: GramSide) -> Tensor:
    if side.full:
        return side.centred.double()
    w = side.matrix().double()
    return w @ w.mT - side.mean * torch.eye(side.d, dtype=torch.float64)


def drawn_pair(kind: str, d: int) -> Pair:
    """Maps with given spectra, in random bases.

    `flat` is a Marchenko-Pastur bulk, `spiked` the same and five values of 10, `near commuting`
    has a common basis below bulks a thousandth as large. Of `rank 8` each commutator is exact.
    """
    generator = torch.Generator().manual_seed(1 + KINDS.index(kind))
    line = torch.arange(1, d + 1, dtype=torch.float64)

    def entries(columns: int) -> Tensor:
        return torch.randn(d, columns, generator=generator, dtype=torch.float64)

    def bulk() -> Tensor:
        return entries(4 * d) / (4 * d) ** 0.5

    def turned(eigenvalues: Tensor, basis: Tensor | None = None) -> Tensor:
        if basis is None:
            basis = torch.linalg.qr(entries(len(eigenvalues)))[0]
        return basis * eigenvalues.sqrt()

    common = torch.linalg.qr(entries(d))[0]
    spikes = torch.full((5,), 10.0, dtype=torch.float64)
    makes: dict[str, Callable[[int], Tensor]] = {
        "flat": lambda _: bulk(),
        "decaying": lambda i: turned(line ** (-1.0, -0.6)[i]),
        "spiked": lambda _: torch.cat([turned(spikes), bulk()], dim=1),
        "low rank": lambda _: turned(torch.ones_like(line[: d // 8])),
        "near commuting": lambda i: torch.cat(
            [turned(line ** (-0.5, -0.7)[i], common), 1e-3**0.5 * bulk()], dim=1
        ),
        "rank 8": lambda _: turned(torch.ones_like(line[:8])),
    }
    return pair_of(f"{kind}, d {d}", *(gram_side(makes[kind](i).float()) for i in range(2)))


def trained_pairs(source: str, most: int) -> Iterator[Pair]:
    """Pairs of a network that a sharp scan samples, spread over the network."""
    met: list[tuple[GramSide, GramSide]] = []

    def noted(write: GramSide, read: GramSide, **_: object) -> CommutatorSketch:
        made = sketched(write, read, 0)
        if made.degrees:
            met.append((write, read))
        return made

    with patch.object(sharp_pairs, "commutator_of_grams", noted):
        flagscope.scan(source, depth="sharp", only=("pairs", "residual"), edges=0, workers=1)
    count = min(most, len(met))
    for i in range(count):
        write, read = met[i * len(met) // count]
        yield pair_of(f"trained {i}, d {write.d}", write, read)


def sketched(write: GramSide, read: GramSide, seed: int) -> CommutatorSketch:
    """The sketch as in a scan."""
    generator = torch.Generator().manual_seed(seed)
    return commutator_of_grams(write, read, generator=generator, product_up_to=0)


@dataclass
class Coverage:
    """Of C and ν over sketches of one pair, and of the sketches that are exact."""

    pair: Pair
    sampled: int = 0
    hits: list[int] = field(default_factory=lambda: [0, 0])
    stated: list[float] = field(default_factory=lambda: [0.0, 0.0])
    scores: list[float] = field(default_factory=lambda: [0.0, 0.0])
    probes: int = 0
    exact: int = 0
    worst: float = 0.0

    @property
    def rounding(self) -> float:
        """A relative error that is round-off, a little above the least that sketches state."""
        side = self.pair.write
        return 11 * torch.finfo(side.centred.dtype).eps * side.d**0.5

    def add(self, made: CommutatorSketch) -> None:
        """Count one sketch."""
        found = (
            (made.commutator, made.commutator_error, self.pair.commutator),
            (made.defect, made.defect_error, self.pair.defect),
        )
        relative = max(abs(value / true - 1) for value, _, true in found)
        if made.degrees == 0 or made.commutator_error <= self.rounding * made.commutator:
            self.exact += 1
            self.worst = max(self.worst, relative)
            return
        self.sampled += 1
        self.probes += made.degrees + 1
        reach = float(stats.t.ppf((1 + LEVEL) / 2, made.degrees))
        for i, (value, error, true) in enumerate(found):
            self.hits[i] += abs(value - true) <= reach * error
            self.stated[i] += error / true
            self.scores[i] += (value - true) / error

    def line(self) -> str:
        """A row of the table."""
        cells = [self.pair.name, f"{self.pair.defect:.2g}", str(self.sampled)]
        if self.sampled:
            cells += [f"{hit / self.sampled:.1%}" for hit in self.hits]
            cells += [f"{total / self.sampled:+.2f}" for total in self.scores]
            cells += [f"{100 * total / self.sampled:.2g} %" for total in self.stated]
            cells.append(f"{self.probes / self.sampled:.0f}")
        else:
            cells += ["–"] * 7
        cells += [str(self.exact), f"{self.worst:.0e}" if self.exact else "–"]
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| pair | ν | sampled | C covered | ν covered | mean score of C | of ν | s.e. of C | of ν | "
    "probes | exact | off by at most |\n|" + "---|" * 12
)


def measured_coverage(sizes: list[int], seeds: int, checkpoints: list[str]) -> None:
    """Print the coverage of each pair, and of all of them together."""

    def pairs() -> Iterator[Pair]:
        for d in sizes:
            for kind in KINDS:
                yield drawn_pair(kind, d)
        for source in checkpoints:
            yield from trained_pairs(source, 4)

    print(HEAD)
    hits, count = 0, 0
    for pair in pairs():
        cell = Coverage(pair)
        for seed in range(seeds):
            cell.add(sketched(pair.write, pair.read, seed))
        print(cell.line(), flush=True)
        hits, count = hits + sum(cell.hits), count + 2 * cell.sampled
    if count:
        # C and ν of one sketch hang together: the interval is that of half as many.
        reach = 1.96 * math.sqrt(LEVEL * (1 - LEVEL) / (count / 2))
        print(f"pooled: {hits / count:.2%} of {count} (chance: ± {reach:.2%})")
