"""The record of what a scan was asked to do."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainSerializer

from flagscope.records.literals import PARTS, Depth, FoldNorms, PairKind, Part, Precision
from flagscope.records.record import Record


class ScanSettings(Record):
    """Everything that can change the numbers of a scan.

    A file may state fewer settings, or more of a later release: those that it states are kept and
    written again, and no others.

    Attributes
    ----------
    only
        The parts to compute.
    layers
        Numbers of the layers to look at, of which all results have both of their ends; None for
        all, and for what has no number.
    kinds
        Kinds of pairs to look at; None for all.
    family
        Name of a model family or path of a family file (.toml), to override what the config and the
        tensor names say; "none" to take no family for its names.
    heads
        Number of attention heads, where no config says it.
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
    depth
        "full": all singular values and vectors of every pair. "sharp": of pairs whose smaller side
        is larger than 256, products and the leading directions alone; what takes the whole spectrum
        is null. "auto" (default): sharp from 1,024 on.
    precision
        Arithmetic of Gram matrices and eigenproblems. "mixed" (default): float32 where maps are
        large (eigenproblems of 512 and more) and were not stored in float64, with float64 where
        ranks, kernels or ill-conditioned maps need it; the rest in float64. "float64": all of it.
        "float32": maps of every size as the large ones are.
    seed
        Of the Haar draws that stand in where no closed form holds.
    """

    model_config = ConfigDict(extra="allow")

    only: tuple[Part, ...] = PARTS
    layers: tuple[int, ...] | None = None
    kinds: tuple[PairKind, ...] | None = None
    family: str | None = None
    heads: int | None = Field(default=None, gt=0)
    rank: str = "signal"
    fdr: float = Field(default=0.05, gt=0, lt=1)
    fold_norms: FoldNorms = "auto"
    window: int = Field(default=1, ge=0)
    edges: int = Field(default=200, ge=0)
    depth: Depth = "auto"
    precision: Precision = "mixed"
    seed: int = 0

    def stated(self) -> dict[str, Any]:
        """The settings that were stated, by name."""
        return {name: value for name, value in self if name in self.model_fields_set}


def _stated_alone(settings: ScanSettings) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.stated().items()
    }


StatedSettings = Annotated[ScanSettings, PlainSerializer(_stated_alone)]
"""Settings that are written as they were stated."""
