"""A normalisation layer: its kind, its place, and the names of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NormKind = Literal["layernorm", "rmsnorm", "batchnorm", "scale"]


@dataclass(frozen=True)
class Norm:
    """A normalisation layer: the names of its tensors, None for those it lacks.

    The gain is `offset` + stored gain. `placement` is "pre" before the reader, "post" after the
    sum with the stream, or "map" directly after a map. `shape` is that of the gain. Kind "scale"
    is a gain alone, such as the layer scale of a vision transformer.
    """

    name: str
    kind: NormKind
    gain: str | None
    bias: str | None
    mean: str | None
    variance: str | None
    eps: float
    offset: float
    placement: str
    shape: tuple[int, ...] | None = None
