"""Reads one map of both checkpoints, in one unit, with the noise of its storage."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import LinearMap
from flagscope.checkpoint import Checkpoint, widen
from flagscope.comparison.change.pairing import MapPair, NamedMap
from flagscope.engine.cache.stored_tensor import StoredTensor, read_piece
from flagscope.engine.plan.pieces import Piece, piece_of, rest_of
from flagscope.errors import InputError
from flagscope.geometry import even_exponents, power_of_two

# Exponents of the largest entry between which maps stay as they are read: fourth powers of their
# singular values stay in the range of float32.
_PLAIN = 12


@dataclass(frozen=True)
class Noise:
    """Noise of the storage of one map: spectral norm and mean square of an entry."""

    delta: float
    mean_square: float


@dataclass(frozen=True)
class BothSides:
    """One map of both checkpoints, over 2^exponent.

    Attributes
    ----------
    a, b
        Shape (outputs, inputs), both in float32, or in float64 where one is stored so.
    noise_a, noise_b
        Noise of their storage, in the same unit.
    exponent
        Of the unit.
    """

    a: Float[Tensor, "p m"]
    b: Float[Tensor, "p m"]
    noise_a: Noise
    noise_b: Noise
    exponent: int


@dataclass(frozen=True)
class OneSide:
    """One map of one checkpoint, over 2^exponent, with the noise of its storage in that unit."""

    values: Float[Tensor, "p m"]
    noise: Noise
    exponent: int


def one_side(stored: StoredTensor) -> OneSide | None:
    """A stored map in float32, or in float64 where it is stored so; None where it is not finite."""
    noise = _noise(stored)
    if noise is None:
        return None
    wide = torch.float64 if stored.values.dtype == torch.float64 else torch.float32
    values = widen(stored.values, wide, scale=stored.scale)[0]
    largest = largest_entry(values)
    if not bool(torch.isfinite(largest)):
        return None
    exponent = _unit(largest)
    if exponent == 0:
        return OneSide(values, noise, exponent=0)
    return OneSide(power_of_two(values, torch.tensor(-exponent)), _over(noise, exponent), exponent)


def read_both(pair: MapPair, a: Checkpoint, b: Checkpoint) -> BothSides | None:
    """Both maps of a pair; None where one is not finite.

    Raises
    ------
    SourceError
        If a tensor cannot be read.
    """
    stored = stored_map(a, pair.a), stored_map(b, pair.b)
    noise_a, noise_b = (_noise(side) for side in stored)
    if noise_a is None or noise_b is None:
        return None
    wide = torch.float64 if any(s.values.dtype == torch.float64 for s in stored) else torch.float32
    of_a, of_b = (widen(side.values, wide, scale=side.scale)[0] for side in stored)
    del stored
    largest = torch.stack([largest_entry(of_a), largest_entry(of_b)]).amax()
    if not bool(torch.isfinite(largest)):
        return None
    exponent = _unit(largest)
    if exponent == 0:
        return BothSides(of_a, of_b, noise_a, noise_b, exponent=0)
    power = torch.tensor(-exponent)
    first, second = (_over(noise, exponent) for noise in (noise_a, noise_b))
    return BothSides(power_of_two(of_a, power), power_of_two(of_b, power), first, second, exponent)


def _unit(largest: Tensor) -> int:
    """Exponent of the unit of maps with this largest entry; 0 where they stay as they are."""
    exponent = int(even_exponents(largest))
    return 0 if abs(exponent) <= _PLAIN else exponent


def _over(noise: Noise, exponent: int) -> Noise:
    unit = 2.0**-exponent
    return Noise(noise.delta * unit, noise.mean_square * unit * unit)


@dataclass(frozen=True)
class MapInPiece:
    """Where a map lies: the piece of a tensor that is read, and how it is cut out of that.

    Attributes
    ----------
    piece
        Maps that lie in one tensor may share it.
    map
        A single map, or a batch of which `index` says which.
    """

    piece: Piece
    map: LinearMap
    index: int | None = None

    def cut(self, part: StoredTensor) -> StoredTensor:
        """The map, shape (1, outputs, inputs), out of its piece."""
        rest = rest_of(self.map)
        whole = part.mapped(lambda tensor: tensor[rest]).mapped(self.map.write_matrices)
        if self.index is None:
            return whole
        index = self.index
        return whole.mapped(lambda tensor: tensor[index : index + 1])


def map_in_piece(named: NamedMap) -> MapInPiece:
    """Where a map lies; of a batch of experts its rows alone are read, where they are rows."""
    map_ = named.map
    if map_.batch is None or map_.count == 1:
        return MapInPiece(piece_of(map_), map_)
    index = named.expert or 0
    if map_.groups[0] != (map_.batch,) or map_.batch in map_.window:
        return MapInPiece(piece_of(map_), map_, index)
    alone = replace(map_, shape=(1, *map_.shape[1:]), sizes={**map_.sizes, map_.batch: 1}, count=1)
    return MapInPiece(Piece(map_.tensor, index, index + 1), alone)


def stored_map(checkpoint: Checkpoint, named: NamedMap) -> StoredTensor:
    """One map as stored, shape (1, outputs, inputs)."""
    place = map_in_piece(named)
    return place.cut(read_piece(checkpoint, place.piece))


def _noise(stored: StoredTensor) -> Noise | None:
    if stored.values.numel() == 0:
        return None
    try:
        noise = stored.noise()
    except InputError:
        return None
    return Noise(float(noise.delta.max()), float(noise.mean_square.max()))


def largest_entry(w: Tensor) -> Tensor:
    """The largest magnitude; NaN and infinity survive."""
    return torch.maximum(w.amax(), -w.amin())
