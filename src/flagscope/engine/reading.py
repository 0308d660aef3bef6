"""The matrices of one task: read, widened, with the noise of their storage, norms folded in."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from flagscope.arch import LinearMap, Norm, Side
from flagscope.checkpoint import Checkpoint, widen
from flagscope.diagnose import Matrices
from flagscope.errors import InputError
from flagscope.null import storage_noise


class TaskReader:
    """Reads the tensors of one task, each once, and lets them go with the task."""

    def __init__(self, checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._device = device
        self._dtype = dtype
        self._stored: dict[tuple[str, str], Tensor] = {}
        self._vectors: dict[str, Tensor] = {}

    def side(self, side: Side, view: str) -> Matrices:
        """The maps of one side of a pair, as writers (n, d, m) or as readers (n, m, d)."""
        stored = self._tensor(side.map)
        return self._matrices(side.write(stored) if view == "write" else side.read(stored))

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
            self._vectors[name] = self._widened(self._checkpoint.read(name))
        return self._vectors[name]

    def _tensor(self, map_: LinearMap) -> Shaped[Tensor, "*stored"]:
        index = map_.index()
        key = (map_.tensor, repr(index))
        if key not in self._stored:
            self._stored[key] = self._checkpoint.read(map_.tensor, index).to(self._device)
        return self._stored[key]

    def _matrices(self, stored: Shaped[Tensor, "n rows columns"]) -> Matrices:
        wide = self._widened(stored)
        try:
            noise = storage_noise(stored)
        except InputError:
            return _partly_noisy(stored, wide)
        return Matrices(wide, noise.delta.cpu(), noise.mean_square.cpu())

    def _widened(self, stored: Tensor) -> Tensor:
        # float64 weights in a float32 scan are rounded on purpose; everything else widens exactly.
        wide = torch.float64 if stored.dtype == torch.float64 else self._dtype
        return widen(stored, wide).to(self._device, self._dtype)


def _partly_noisy(stored: Tensor, wide: Tensor) -> Matrices:
    """Maps of which some are not finite: those have no noise, and get a status later on."""
    finite = torch.isfinite(wide).all(-1).all(-1)
    delta, mean_square = (torch.zeros(len(wide), dtype=torch.float64) for _ in range(2))
    if bool(finite.all()):
        raise InputError(
            f"maps of shape {tuple(wide.shape)} hold no entries", hint="is the file complete?"
        )
    if bool(finite.any()):
        noise = storage_noise(stored[finite])
        at = finite.cpu()
        delta[at], mean_square[at] = noise.delta.cpu(), noise.mean_square.cpu()
    return Matrices(wide, delta, mean_square)
