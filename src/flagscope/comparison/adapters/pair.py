"""Two adapters against each other, from their factors, at O(d r²)."""

from __future__ import annotations

import math
from collections import Counter

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.lora import AdapterWeights, TargetNames
from flagscope.comparison.adapters.coverage import fault
from flagscope.comparison.adapters.shared import adapter_side, module_pair
from flagscope.comparison.adapters.targets import adapter_targets
from flagscope.records.comparison.adapter_pairs import AdapterPairRecord, ModulePair, PairOutcome
from flagscope.records.comparison.adapters import Fault

# A cosine as near to 1 is that of one change and a multiple of it, in the factors' own rounding.
_MULTIPLE = 1e-6


def compared_adapters(
    a: AdapterWeights, b: AdapterWeights, *, base: Checkpoint | None = None
) -> AdapterPairRecord:
    """What two adapters share: norms, energy cosine, write and read spaces, and their start.

    ΔW itself is never formed: time is O(d r²) a module, memory O(d r).

    Parameters
    ----------
    a, b
        The adapters; both stay open. The record is that of this order, see its `mirrored`.
    base
        The model of both, whose names say which modules find their place; no tensor is read.

    Returns
    -------
    AdapterPairRecord

    Raises
    ------
    CorruptFileError
        If a factor holds NaN or infinity.

    Notes
    -----
    LoRA's A starts random, so two adapters trained with one seed share most of it. What that
    explains is measured row by row (`flagscope.null.common_start`) and taken out before anything is
    called shared.

    References
    ----------
    Hu et al., "LoRA", arXiv 2106.09685.
    """
    partners = _partners(a, b)
    pairs: list[ModulePair] = []
    refused: list[str] = []
    squares = [0.0, 0.0]
    # One module of each at a time, so that no adapter is held whole.
    for first, second in partners:
        one, two = adapter_side(a, first), adapter_side(b, second)
        squares[0] += one.change.norm**2
        squares[1] += two.change.norm**2
        if one.shape != two.shape:
            # In an order that is that of neither side.
            shapes = sorted((one.shape, two.shape))
            refused.append(f"{min(first, second)}: changes of shapes {shapes[0]} and {shapes[1]}")
            continue
        pairs.append(module_pair(one, two))
    ours, theirs = {one for one, _ in partners}, {two for _, two in partners}
    only_a = [module for module in a.factors if module not in ours]
    only_b = [module for module in b.factors if module not in theirs]
    squares[0] += sum(adapter_side(a, module).change.norm ** 2 for module in only_a)
    squares[1] += sum(adapter_side(b, module).change.norm ** 2 for module in only_b)
    norms = math.sqrt(squares[0]), math.sqrt(squares[1])
    counts = dict(sorted(Counter(pair.status for pair in pairs).items()))
    cosine, left = _totals(pairs, norms)
    correlation = _correlation(pairs)
    return AdapterPairRecord(
        outcome=_outcome(pairs, whole=not (only_a or only_b or refused)),
        norm_a=norms[0], norm_b=norms[1],
        energy_cosine=cosine, energy_cosine_left=left, start_correlation=correlation,
        modules=pairs, only_a=only_a, only_b=only_b, counts=counts,
        evidence=_evidence(pairs, cosine, left, correlation, len(only_a) + len(only_b)),
        cannot_tell=_cannot_tell(a, b, refused, pairs),
        faults_a=_faults(a, [pair.a.module for pair in pairs if pair.a.used_rank == 0], base),
        faults_b=_faults(b, [pair.b.module for pair in pairs if pair.b.used_rank == 0], base),
    )  # fmt: skip


def _partners(a: AdapterWeights, b: AdapterWeights) -> list[tuple[str, str]]:
    """Modules of both, by name; where one has a prefix that the other lacks, without it."""
    names = TargetNames(factors.target for factors in b.factors.values())
    found, taken = [], set()
    for module, factors in a.factors.items():
        target = names.found(factors.target)
        if target is not None and target not in taken:
            taken.add(target)
            found.append((module, target.removesuffix(".weight")))
    return found


def _totals(
    pairs: list[ModulePair], norms: tuple[float, float]
) -> tuple[float | None, float | None]:
    size = norms[0] * norms[1]
    if size == 0 or not pairs:
        return None, None
    left = sum((p.energy_cosine_left or 0.0) * p.a.norm * p.b.norm for p in pairs)
    return sum(pair.inner for pair in pairs) / size, left / size


def _correlation(pairs: list[ModulePair]) -> float | None:
    """Mean over modules: each has the same weight, whatever its size."""
    known = [pair.start.correlation for pair in pairs if pair.start is not None]
    return math.fsum(known) / len(known) if known else None


def _outcome(pairs: list[ModulePair], *, whole: bool) -> PairOutcome:
    if not pairs:
        return "nothing_in_common"
    counts = Counter(pair.status for pair in pairs if pair.status != "zero")
    total = sum(counts.values())
    if not total:
        return "unclear"
    if counts["same"] == total and whole:
        return "same"
    # A few modules may stand out by chance or by one task; the others still say what they say.
    if (counts["shared_beyond_start"] + counts["same"]) * 2 > total:
        return "shared_beyond_start"
    if counts["shared_by_start"] * 2 > total:
        return "shared_by_start"
    return "chance" if counts["chance"] * 2 > total else "unclear"


def _evidence(
    pairs: list[ModulePair],
    cosine: float | None,
    left: float | None,
    correlation: float | None,
    alone: int,
) -> list[str]:
    if not pairs:
        return ["the two adapters have no module in common"]
    lines = [f"{len(pairs)} modules in both, {alone} in one of the two alone"]
    multiples = sum(abs(abs(p.energy_cosine or 0.0) - 1) < _MULTIPLE for p in pairs)
    if multiples:
        lines.append(f"in {multiples} of them one change is the other times a factor")
    if cosine is not None and left is not None:
        lines.append(
            f"energy cosine {cosine:.4g} over all modules; {left:.4g} with what the common start "
            "explains taken out"
        )
    common = [pair for pair in pairs if pair.start is not None and pair.start.common]
    if correlation is not None:
        lines.append(
            f"entries of the factor that starts random correlate by {correlation:.3g}; a common "
            f"start is plain in {len(common)} of {len(pairs)} modules"
        )
    for kind in ("write", "read"):
        ratios = sorted(
            overlap.ratio for pair in pairs
            if (overlap := pair.write if kind == "write" else pair.read).ratio is not None
        )  # fmt: skip
        if ratios:
            lines.append(f"{kind} spaces overlap {ratios[len(ratios) // 2]:.3g} times chance "
                         f"(median; at most {ratios[-1]:.3g})")  # fmt: skip
    zs = sorted(abs(p.read.left_z) for p in pairs if p.read.left_z is not None)
    if zs:
        lines.append(
            f"with the common start taken out the read overlap is {zs[len(zs) // 2]:.2g} standard "
            f"deviations from what it gives (median; at most {zs[-1]:.2g})"
        )
    return lines


def _cannot_tell(
    a: AdapterWeights, b: AdapterWeights, refused: list[str], pairs: list[ModulePair]
) -> list[str]:
    lines = [f"{variant}: not in the product of the factors" for variant in dict.fromkeys(
        sorted({*a.variants, *b.variants}))]  # fmt: skip
    lines += [*dict.fromkeys(sorted([*a.doubts, *b.doubts])), *refused]
    if a.whole or b.whole or a.tokens or b.tokens:
        lines.append("tensors that an adapter stores whole are not compared here")
    if any(pair.start is not None and pair.start.common for pair in pairs):
        lines.append(
            "whether what lies along the common start was learned by both: it is counted to the "
            "start"
        )
    return lines


def _faults(adapter: AdapterWeights, zero: list[str], base: Checkpoint | None) -> list[Fault]:
    found = []
    if zero:
        found.append(fault("zero_effect", "modules change nothing", zero))
    if adapter.unusable:
        names = [module.module for module in adapter.unusable]
        found.append(fault("unusable_factors", "factors do not belong together", names))
    if base is not None:
        lost = [t.module for t in adapter_targets(adapter, base) if t.status == "no_target"]
        if lost:
            found.append(fault("names_match_nothing", "names match nothing of the base", lost))
    return found
