"""What moved in one map."""

from __future__ import annotations

import math

import torch

from flagscope.checkpoint import Checkpoint
from flagscope.comparison.change.drift import side_drift
from flagscope.comparison.change.energies import change_energies
from flagscope.comparison.change.intruders import intruders_of
from flagscope.comparison.change.layers import (
    BEYOND,
    IDENTICAL,
    ROUNDING,
    over,
    scaled,
    within_rounding,
)
from flagscope.comparison.change.leading import Directions, is_dense, squared_norm
from flagscope.comparison.change.pairing import MapPair
from flagscope.comparison.change.reading import BothSides, read_both
from flagscope.comparison.change.update import Update
from flagscope.geometry.matrices import NOT_FINITE
from flagscope.records.comparison.change import MapChange

_EMPTY = "a map without entries"


def measured_map(
    pair: MapPair, a: Checkpoint, b: Checkpoint, *, seed: int, intruders: bool
) -> MapChange:
    """Read one map of both checkpoints and measure what moved.

    Raises
    ------
    SourceError
        If a tensor cannot be read.
    """
    if 0 in pair.a.map.shape:
        return _bare(pair, _EMPTY)
    both = read_both(pair, a, b)
    if both is None:
        return _bare(pair, NOT_FINITE)
    squares = squared_norm(both.a), squared_norm(both.b)
    norms = [math.sqrt(square) for square in squares]
    if torch.equal(both.a, both.b):
        return _sized(_bare(pair, IDENTICAL), both, norms, 0.0)
    update = Update(both.b - both.a, seed=seed)
    rounding = _rounding(both)
    within = within_rounding(update.square, rounding, both.a.numel())
    record = _sized(
        _bare(pair, ROUNDING if within else "ok"), both, norms, math.sqrt(update.square)
    )
    if record.change is None or not update.square:
        return record
    record = record.model_copy(
        update={
            "spectral_norm": scaled(update.spectral_norm, both.exponent),
            "signal_rank": update.signal.rank,
            "signal_rank_complete": update.signal.complete,
            "participation": update.participation,
            "rounding_share": rounding / update.square,
        }
    )
    return _with_directions(
        record, pair, both, update, (rounding, squares), seed=seed, intruders=intruders
    )


def _with_directions(
    record: MapChange, pair: MapPair, both: BothSides, update: Update,
    sizes: tuple[float, tuple[float, float]], *, seed: int, intruders: bool,
) -> MapChange:  # fmt: skip
    """The numbers that take the singular directions of both sides.

    `sizes` are the expected squared norm of the rounding of both maps, and their squared norms.
    """
    rounding, squares = sizes
    a, b = (Directions(w, seed=seed, whole=intruders) for w in (both.a, both.b))
    norm = both.noise_a.delta + both.noise_b.delta
    left = _stored_by_rows(pair)
    part = pair.a.map.index() is not None or pair.a.map.batch is not None

    def drift(*, write: bool) -> object:
        return side_drift(
            a, b, write=write, square=update.square, rounding=rounding,
            squares=squares,
            freedom=pair.a.write_freedom if write else pair.a.read_freedom,
        )  # fmt: skip

    def lacking(side: Directions, other: Directions) -> object:
        return intruders_of(side, other, square=update.square, rounding=norm, left=left, part=part)

    if min(a.shape) < 2 or 0.0 in squares:
        return record
    if a.signal.rank == b.signal.rank == 0:
        # All that is left are cosines of directions for peft's count.
        a.coarse = b.coarse = True
    return record.model_copy(
        update={
            "energies_a": change_energies(update, a, delta=both.noise_a.delta),
            "energies_b": change_energies(update, b, delta=both.noise_b.delta),
            "drift_write": drift(write=True),
            "drift_read": drift(write=False),
            "intruders_a": lacking(a, b),
            "intruders_b": lacking(b, a),
        }
    )


def _stored_by_rows(pair: MapPair) -> bool:
    """Whether the first stored dimension is the output, as in `torch.nn.Linear`."""
    map_ = pair.a.map
    return bool(set(map_.groups[0]) & {*map_.out_axes, *map_.batch_axes})


def _rounding(both: BothSides) -> float:
    """Expected squared norm of the storage rounding of both sides."""
    return both.a.numel() * (both.noise_a.mean_square + both.noise_b.mean_square)


def _sized(record: MapChange, both: BothSides, norms: list[float], change: float) -> MapChange:
    sizes = [scaled(value, both.exponent) for value in (*norms, change)]
    if any(size is None for size in sizes):
        return record.model_copy(update={"status": BEYOND})
    return record.model_copy(
        update={
            "norm_a": sizes[0],
            "norm_b": sizes[1],
            "change": sizes[2],
            "relative_a": over(change, norms[0]),
            "relative_b": over(change, norms[1]),
        }
    )


def _bare(pair: MapPair, status: str) -> MapChange:
    a, map_ = pair.a, pair.a.map
    kernel = math.prod(map_.extent(axis) for axis in map_.spatial)
    shape = map_.outputs, map_.inputs * kernel
    place = map_.slice_text(a.expert or 0) if map_.batch and map_.count > 1 else map_.slice_text(0)
    return MapChange(
        name=a.title, role=map_.role, stack=a.stack, attention=a.attention,
        layer=None if a.in_sequence else a.layer,
        expert=a.expert, tensor_a=map_.tensor, tensor_b=pair.b.map.tensor, slice=place,
        shape=shape, norm_a=None, norm_b=None, change=None, relative_a=None, relative_b=None,
        spectral_norm=None, signal_rank=None, participation=None, rounding_share=None,
        depth="full" if is_dense(shape) else "leading", energies_a=None, energies_b=None,
        drift_write=None, drift_read=None, intruders_a=None, intruders_b=None, status=status,
    )  # fmt: skip
