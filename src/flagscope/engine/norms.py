"""Norms read from a checkpoint and folded into the maps beside them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Norm
from flagscope.diagnose import Matrices
from flagscope.engine.folding import (
    centred_columns,
    centred_rows,
    rows_without_mean,
    scaled_columns,
    scaled_rows,
)
from flagscope.engine.reading import TaskReader
from flagscope.errors import ArchitectureError


def fold_before(
    maps: Matrices, norm: Norm | None, reader: TaskReader, *, centred: bool = True
) -> Matrices:
    """Readers (n, m, d) with the norm of the stream in front of them folded in.

    Behind a LayerNorm they see d - 1 dimensions, see `centred_columns`; without `centred` its mean
    is left, and the coordinates are those of the stream.
    """
    if norm is None:
        return maps
    gain = reader.gain(norm)
    if gain is not None:
        _check_length(gain, maps.values.shape[-1], norm)
        maps = scaled_columns(maps, gain)
    return centred_columns(maps) if centred and norm.kind == "layernorm" else maps


def fold_behind(
    maps: Matrices, norm: Norm | None, reader: TaskReader, *, centred: bool = False
) -> Matrices:
    """Writers (n, d, m) with the norm or layer scale behind them folded in.

    What a norm divides by differs from token to token and is left out. `centred` tells that a
    LayerNorm stands before the reader: then they are written in its d - 1 dimensions.
    """
    if norm is not None:
        if norm.kind == "layernorm":
            maps = rows_without_mean(maps)
        scale = reader.batchnorm_scale(norm) if norm.kind == "batchnorm" else reader.gain(norm)
        if scale is not None:
            _check_length(scale, maps.values.shape[-2], norm)
            maps = scaled_rows(maps, scale)
    return centred_rows(maps) if centred else maps


def _check_length(gain: Float[Tensor, " k"], length: int, norm: Norm) -> None:
    """Refuse a gain that is not one factor for each channel, or one for all of them."""
    if len(gain) not in (1, length):
        raise ArchitectureError(
            f"the norm {norm.name!r} has a gain of {len(gain)} entries, and the maps next to it "
            f"have {length} channels",
            hint="is this the family of the checkpoint? Say another one (--family NAME), or none",
        )
