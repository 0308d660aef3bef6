"""What a scan is asked to do."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Part = Literal["pairs", "heads", "residual"]
Precision = Literal["mixed", "float64", "float32"]
PARTS: tuple[Part, ...] = ("pairs", "heads", "residual")


class Settings(BaseModel):
    """Everything that can change the numbers of a scan.

    Attributes
    ----------
    only
        The parts to compute.
    family
        Name of a model family or path of a family file (.toml), to override what the config and the
        tensor names say; "none" to take no family for its names.
    heads
        Number of attention heads, where no config gives it.
    rank
        Rule for the dimension of the dominant subspaces of a pair: "signal" (default),
        "participation", "numerical", "energy:0.9" or "fixed:8".
    fdr
        False-discovery rate below which a finding is called one.
    fold_norms
        "auto": a BatchNorm between two maps is folded into the write map and the gain of a stream
        norm into the readers of residual pairs. "all": the gain of a pre-norm also into the readers
        of head spaces. "none": weights as stored.
    window
        How many blocks further a reader of the residual stream may lie from a writer whose pair
        and links are measured; 1 by default, the rest of the block and the next one.
    edges
        How many links between heads to list, those furthest beyond chance; 0 to measure none.
    precision
        Arithmetic of Gram matrices and eigenproblems. "mixed" (default): float32 where maps are
        large (eigenproblems of 512 and more) and were not stored in float64, with float64 where
        ranks, kernels or ill-conditioned maps need it; the rest in float64. "float64": all of it.
        "float32": maps of every size as the large ones are.
    seed
        Of the Haar draws that stand in where no closed form holds.
    device
        "auto", "cpu", "cuda" or another torch device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: tuple[Part, ...] = PARTS
    family: str | None = None
    heads: int | None = Field(default=None, gt=0)
    rank: str = "signal"
    fdr: float = Field(default=0.05, gt=0, lt=1)
    fold_norms: Literal["auto", "all", "none"] = "auto"
    window: int = Field(default=1, ge=0)
    edges: int = Field(default=200, ge=0)
    precision: Precision = "mixed"
    seed: int = 0
    device: str = "auto"
