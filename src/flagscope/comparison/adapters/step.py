"""One adapter of a series, from its factors, at O(d r²) a module."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint.lora import AdapterWeights
from flagscope.comparison.adapters.shared import Side, adapter_side
from flagscope.geometry import numerical_rank, signal_rank_of, singular_space
from flagscope.records.series_adapter import AdapterStep, AdapterStepModule
from flagscope.shortening import listed

_NAMED = 3
_DIGEST_BYTES = 6


def random_factors(adapter: AdapterWeights) -> dict[str, Tensor]:
    """The factor of each module that starts random, its vectors as rows, to hold later steps
    against; float32, or float64 as stored.

    Raises
    ------
    CorruptFileError
        If a factor holds NaN or infinity.
    """
    found = {}
    for module, factors in adapter.factors.items():
        name = factors.b if factors.embedding else factors.a
        rows = adapter.values(name).flatten(1)
        rows = rows.T if factors.embedding else rows
        wide = adapter.file.tensors[name].dtype == "float64"
        found[module] = (rows if wide else rows.float()).contiguous()
    return found


def adapter_step(adapter: AdapterWeights, first: Mapping[str, Tensor]) -> AdapterStep:
    """Spectrum, ranks and idle directions of each module's change s·B A, and its factor's drift.

    The change itself is never formed.

    Parameters
    ----------
    adapter
        Stays open.
    first
        `random_factors` of the first step.

    Returns
    -------
    AdapterStep
        Numbers accurate to a few ε of ‖B‖‖A‖|s|, in float64.

    Raises
    ------
    CorruptFileError
        If a factor holds NaN or infinity.

    References
    ----------
    Hu et al., "LoRA", arXiv 2106.09685, section 4.1.
    """
    modules = []
    for module in sorted(adapter.factors):
        side = adapter_side(adapter, module)
        random = _random_rows(side)
        start = first.get(module)
        drift, kept = (None, None) if start is None else _moved(random, start.double())
        modules.append(
            AdapterStepModule(
                change=side.record,
                random="lora_B" if side.factors.embedding else "lora_A",
                signal_rank=_signal_rank(side),
                zero_a=_zeros(side.a),
                zero_b=_zeros(side.b.T),
                digests=_digests(side),
                drift=drift,
                space_kept=kept,
            )
        )
    return AdapterStep(modules=modules, said=_not_measured(adapter))


def _random_rows(side: Side) -> Float[Tensor, "r n"]:
    return side.b.T if side.factors.embedding else side.a


def _zeros(rows: Tensor) -> list[int]:
    return torch.nonzero(~rows.any(1)).flatten().tolist()


def _digests(side: Side) -> list[str]:
    """A digest of column and row of each direction: equal where neither has changed."""
    # Negative zeros compare equal to positive ones, and so have to have equal bytes.
    both = (torch.cat([side.b.T, side.a], 1) + 0.0).contiguous()
    return [
        hashlib.blake2b(row.numpy().tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
        for row in both
    ]


def _moved(
    rows: Float[Tensor, "r n"], start: Float[Tensor, "s n"]
) -> tuple[float | None, float | None]:
    """‖F - F₀‖/‖F₀‖ over the rows that both have, and the mean squared cosine of row spaces."""
    count = min(len(rows), len(start))
    size = float(start[:count].norm())
    if rows.shape[1] != start.shape[1] or size == 0.0:
        return None, None
    ranks = [
        int(numerical_rank(torch.linalg.svdvals(factor), shape=(len(factor), factor.shape[1])))
        for factor in (rows, start)
    ]
    if not ranks[0]:
        return float((rows[:count] - start[:count]).norm()) / size, 0.0
    now, then = (
        singular_space(factor, rank=rank, side="right")
        for factor, rank in zip((rows, start), ranks, strict=True)
    )
    kept = float((now.T @ then).square().sum()) / ranks[1]
    return float((rows[:count] - start[:count]).norm()) / size, min(1.0, kept)


def _signal_rank(side: Side) -> int | None:
    """Directions that stand out of what a training without structure may leave, by two nulls.

    Z, the factor that starts at zero, is all movement. Its entries may be independent, or Z = G Fᵀ
    with independent entries of a gradient G and F the random factor; then those of Z (F Fᵀ)^(-1/2)
    are. What counts has to stand out under both. Columns are brought to equal size first, so that a
    direction that is one column alone does not count.
    """
    random = _random_rows(side)
    moved = side.a.T if side.factors.embedding else side.b
    used = random.any(1) & moved.any(0)
    if int(used.sum()) < 2:  # one column has no bulk
        return None
    random, moved = random[used], moved[:, used]
    squares, vectors = torch.linalg.eigh(random @ random.T)
    clear = squares > len(squares) * torch.finfo(squares.dtype).eps * squares[-1]
    whitening = (vectors[:, clear] * squares[clear].rsqrt()) @ vectors[:, clear].T
    return min(int(signal_rank_of(factor)) for factor in (moved, moved @ whitening))


def _not_measured(adapter: AdapterWeights) -> list[str]:
    said = [
        f"{variant}: numbers of adapters are those of s·B A alone, not of what the weights become."
        for variant in adapter.variants
    ]
    doubtful = [factors.module for factors in adapter.factors.values() if factors.doubt]
    if doubtful:
        said.append(
            f"An alpha_pattern was not run: the scaling of {listed(doubtful, _NAMED)} may differ."
        )
    said += [f"{doubt[0].upper()}{doubt[1:]}." for doubt in adapter.doubts]
    if adapter.whole or adapter.tokens:
        said.append("Tensors that an adapter stores whole were compared by their samples alone.")
    if any(factors.bias for factors in adapter.factors.values()):
        said.append("Biases of B were compared by their samples alone.")
    if adapter.unusable:
        names = listed([one.module for one in adapter.unusable], _NAMED)
        said.append(f"Factors that do not belong together were not measured: {names}.")
    return said
