"""The matrices of one task: read, widened, with the noise of their storage, norms folded in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from flagscope.arch import LinearMap, Norm, Side
from flagscope.checkpoint import Checkpoint, widen
from flagscope.diagnose import Matrices
from flagscope.errors import InputError
from flagscope.null import StorageNoise, grid_noise, storage_noise


@dataclass(frozen=True)
class _Stored:
    """A tensor as stored, its scale, and the spacing of its grid where the dtype does not tell."""

    values: Shaped[Tensor, "*stored"]
    scale: Tensor | None
    step: Tensor | None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> _Stored:
        """The same change of axes, or choice of maps, for all three."""
        scale = self.scale
        if scale is not None and scale.ndim:
            scale = change(scale)
        return _Stored(change(self.values), scale, None if self.step is None else change(self.step))

    def noise(self) -> StorageNoise:
        if self.step is not None:
            return grid_noise(self.step)
        return storage_noise(self.values, scale=1.0 if self.scale is None else self.scale)


class TaskReader:
    """Reads the tensors of one task, each once, and lets them go with the task."""

    def __init__(self, checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._device = device
        self._dtype = dtype
        self._stored: dict[tuple[str, str], _Stored] = {}
        self._vectors: dict[str, Tensor] = {}

    def side(self, side: Side, view: str) -> Matrices:
        """The maps of one side of a pair, as writers (n, d, m) or as readers (n, m, d)."""
        stored = self._tensor(side.map)
        return self._matrices(stored.mapped(side.write if view == "write" else side.read))

    def maps(self, map_: LinearMap, view: str = "write") -> Matrices:
        """The maps as they act on columns: (n, out, in)."""
        return self.side(Side(map_), view)

    def batchnorm_scale(self, norm: Norm) -> Float[Tensor, " d"] | None:
        """γ / √(σ² + ε): what a BatchNorm multiplies its channels by; None if by nothing."""
        gain = self.gain(norm)
        if norm.variance is None:
            return gain
        scale = (self._vector(norm.variance) + norm.eps).rsqrt()
        return scale if gain is None else scale * gain

    def gain(self, norm: Norm) -> Float[Tensor, " d"] | None:
        """The gain of a norm, offset included; None where it has none."""
        if norm.gain is None:
            return None
        return self._vector(norm.gain) + norm.offset

    def _vector(self, name: str) -> Float[Tensor, " d"]:
        if name not in self._vectors:
            values, scale = self._checkpoint.read(name), self._checkpoint.scale(name)
            self._vectors[name] = self._widened(_Stored(values, scale, None))
        return self._vectors[name]

    def _tensor(self, map_: LinearMap) -> _Stored:
        index = map_.index()
        key = (map_.tensor, repr(index))
        if key not in self._stored:
            values = self._checkpoint.read(map_.tensor, index).to(self._device)
            beside = (
                None if one is None else one.to(self._device)
                for one in (
                    self._checkpoint.scale(map_.tensor, index),
                    self._checkpoint.step(map_.tensor, index),
                )
            )
            self._stored[key] = _Stored(values, *beside)
        return self._stored[key]

    def _matrices(self, stored: _Stored) -> Matrices:
        wide = self._widened(stored)
        try:
            noise = stored.noise()
        except InputError:
            return _partly_noisy(stored, wide)
        return Matrices(wide, noise.delta.cpu(), noise.mean_square.cpu())

    def _widened(self, stored: _Stored) -> Tensor:
        # float64 weights in a float32 scan are rounded on purpose; everything else widens exactly.
        wide = torch.float64 if stored.values.dtype == torch.float64 else self._dtype
        return widen(stored.values, wide, scale=stored.scale).to(self._device, self._dtype)


def _partly_noisy(stored: _Stored, wide: Tensor) -> Matrices:
    """Maps of which some are not finite: those have no noise, and get a status later on."""
    finite = torch.isfinite(wide).all(-1).all(-1)
    delta, mean_square = (torch.zeros(len(wide), dtype=torch.float64) for _ in range(2))
    if bool(finite.all()):
        raise InputError(
            f"maps of shape {tuple(wide.shape)} hold no entries", hint="is the file complete?"
        )
    if bool(finite.any()):
        noise = stored.mapped(lambda one: one[finite]).noise()
        at = finite.cpu()
        delta[at], mean_square[at] = noise.delta.cpu(), noise.mean_square.cpu()
    return Matrices(wide, delta, mean_square)
