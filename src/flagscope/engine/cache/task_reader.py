"""Reads the matrices of one task: widened, with their storage noise."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import LinearMap, Norm, Side
from flagscope.checkpoint import widen
from flagscope.engine.cache.stored_tensor import StoredTensor
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.pieces import Piece, piece_of, rest_of
from flagscope.errors import InputError
from flagscope.geometry import NOT_FINITE, SINGLE_FROM, Matrices
from flagscope.null import StorageNoise
from flagscope.records import Precision

T = TypeVar("T")


class TaskReader:
    """Matrices of one task, made from the tensors that all tasks share.

    On a device other than the CPU, tensors that were copied to it stay there until the task ends.

    Attributes
    ----------
    not_finite
        Names of the tensors read so far that hold NaN or infinity.
    """

    def __init__(self, tensors: TensorCache, *, device: torch.device, precision: Precision) -> None:
        self._tensors = tensors
        self._device = device
        self._precision: Precision = precision
        self._dtype = torch.float32 if precision == "float32" else torch.float64
        self._there: dict[Piece, StoredTensor] = {}
        self._vectors: dict[str, Tensor] = {}
        self.not_finite: set[str] = set()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its matrices."""
        return self._dtype

    def for_size(self, size: int, maps: Iterable[LinearMap]) -> TaskReader:
        """A reader for these maps, in the precision for eigenproblems of a size.

        In mixed precision that is float32 for large problems; float64 weights are never rounded.
        """
        narrow = (
            self._precision == "mixed"
            and size >= SINGLE_FROM
            and all(self._tensors.dtype(map_.tensor) != "float64" for map_ in maps)
        )
        if not narrow:
            return self
        reader = TaskReader(self._tensors, device=self._device, precision="float32")
        reader._there, reader.not_finite = self._there, self.not_finite
        return reader

    def shared_value(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """A value that this task shares with others; see `TensorCache.shared_value`.

        On a device other than the CPU, whose memory the cache does not count, each task computes
        its own. Tasks with other numbers of threads may round differently, so they share nothing.
        """
        if self._device.type != "cpu":
            return make()
        return self._tensors.shared_value(key, (torch.get_num_threads(), self._dtype), make, size)

    def side(self, side: Side, view: str) -> Matrices:
        """The maps of one side of a pair, as writers (n, d, m) or as readers (n, m, d)."""
        map_, stored = side.map, self._tensor(side.map)
        # Measured on the maps before a view is chosen, so that all uses have the same digits.
        standing = "write" if (view == "write") != side.transposed else "read"
        maps = stored.mapped(map_.write_matrices if standing == "write" else map_.read_matrices)
        noise = self._tensors.noise((map_.place, standing if map_.spatial else None), maps)
        if side.transposed:
            maps = maps.mapped(lambda tensor: tensor.mT)
        matrices = self._matrices(maps, noise)
        if NOT_FINITE in matrices.faults():
            self.not_finite.add(map_.tensor)
        return matrices

    def maps(self, map_: LinearMap, view: str = "write") -> Matrices:
        """The maps as they act on columns: (n, out, in)."""
        return self.side(Side(map_), view)

    def batchnorm_scale(self, norm: Norm) -> Float[Tensor, " d"] | None:
        """γ / √(σ² + ε), by which a BatchNorm multiplies its channels; None without statistics."""
        gain = self.gain(norm)
        if norm.variance is None:
            return gain
        scale = (self._vector(norm.variance) + norm.eps).rsqrt()
        return scale if gain is None else scale * gain

    def gain(self, norm: Norm) -> Float[Tensor, " d"] | None:
        """The gain of a norm, offset included; None if it has none."""
        if norm.gain is None:
            return None
        return self._vector(norm.gain) + norm.offset

    def _vector(self, name: str) -> Float[Tensor, " d"]:
        if name not in self._vectors:
            # StoredTensor with axes of length one, it is the same vector.
            self._vectors[name] = self._wide(self._tensors.whole(name)).flatten()
            if not bool(torch.isfinite(self._vectors[name]).all()):
                self.not_finite.add(name)
        return self._vectors[name]

    def _tensor(self, map_: LinearMap) -> StoredTensor:
        piece, index = piece_of(map_), rest_of(map_)
        stored = self._there.get(piece)
        if stored is None:
            stored = self._tensors.get(piece).to(self._device)
            if self._device.type != "cpu":
                self._there[piece] = stored
        return stored.mapped(lambda tensor: tensor[index])

    def _matrices(self, stored: StoredTensor, noise: StorageNoise | None) -> Matrices:
        wide = self._wide(stored)
        maps = (
            _partly_noisy(stored, wide)
            if noise is None
            else Matrices(
                wide, noise.delta.cpu(), noise.mean_square.cpu(), noise.repeated.cpu().reshape(-1)
            )
        )
        # float64 weights in a float32 scan are rounded on purpose, in units within float32's range.
        return maps.with_room(self._dtype)

    def _wide(self, stored: StoredTensor) -> Tensor:
        """The exact stored values on the device: in the dtype of the matrices, or in float64."""
        wide = torch.float64 if stored.values.dtype == torch.float64 else self._dtype
        return widen(stored.values, wide, scale=stored.scale).to(self._device)


def _partly_noisy(stored: StoredTensor, wide: Tensor) -> Matrices:
    """Maps of which some are not finite: these have no noise, and get a status later."""
    finite = torch.isfinite(wide).all(-1).all(-1)
    delta, mean_square = (torch.zeros(len(wide), dtype=torch.float64) for _ in range(2))
    if bool(finite.all()):
        raise InputError(
            f"maps of shape {tuple(wide.shape)} hold no entries", hint="is the file complete?"
        )
    if bool(finite.any()):
        noise = stored.mapped(lambda tensor: tensor[finite]).noise()
        sound = finite.cpu()
        delta[sound], mean_square[sound] = noise.delta.cpu(), noise.mean_square.cpu()
    return Matrices(wide, delta, mean_square)
