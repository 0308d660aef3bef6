"""What a merged model is, from what its modules are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.records.comparison.adapters import (
    CoverageRecord,
    ModuleReplay,
    ModuleStatus,
    ReplayOutcome,
    UntouchedRecord,
    WholeReplay,
)

# Statuses of modules that say something about the merged model.
_SILENT = {
    "zero_effect", "no_target", "no_merged_tensor", "shape_mismatch", "unusable", "not_replayed",
    "not_finite", "replaced",
}  # fmt: skip
_LOST = {"no_target", "no_merged_tensor", "shape_mismatch", "unusable"}
# Statuses that say all by themselves; the others hang on strengths, or on what is outside modules.
_SINGLE: dict[ModuleStatus, ReplayOutcome] = {
    "applied": "applied",
    "subtracted": "subtracted",
    "exchanged": "exchanged",
    "transposed": "transposed",
    "requantised": "requantised",
    "dora": "dora",
    "dora_without_magnitudes": "dora_without_magnitudes",
    "applied_and_more": "applied_and_more",
    "unclear": "unclear",
}
# Statuses that small or narrow tensors may have next to the one that the others have.
_BESIDE: dict[ModuleStatus, set[ModuleStatus]] = {
    "transposed": {"applied", "unclear", "other_change"},
    "requantised": {"applied", "unclear", "applied_and_more"},
    "exchanged": {"subtracted", "unclear"},
    "subtracted": {"unclear"},
    "twice": {"at_strength", "unclear", "applied"},
    "applied": {"unclear"},
    "dora": {"unclear"},
}
# Tensors that the adapter does not touch and that differ all the same: from this share of the
# entries on the base is taken to be another one.
_OTHER_BASE = 0.5


@dataclass(frozen=True)
class Seen:
    """What the outcome is made of.

    Attributes
    ----------
    modules, whole, untouched, coverage
        Records of the parts.
    not_unloaded
        Tensors of the merged model that are an adapter's factors.
    low_rank
        Whether the change is of low rank, where that was looked at.
    """

    modules: Sequence[ModuleReplay]
    whole: Sequence[WholeReplay]
    untouched: UntouchedRecord
    coverage: CoverageRecord
    not_unloaded: int
    low_rank: bool | None

    @property
    def active(self) -> list[ModuleReplay]:
        """Modules that say something."""
        return [module for module in self.modules if module.status not in _SILENT]

    @property
    def counts(self) -> Counter[ModuleStatus]:
        """Their statuses."""
        return Counter(module.status for module in self.active)

    @property
    def lost(self) -> int:
        """Modules of the adapter that cannot be in the merged model, or not as they are."""
        return sum(module.status in _LOST for module in self.modules)

    @property
    def base_differs(self) -> bool:
        """Whether most of what the adapter does not touch differs."""
        share = self.untouched.changed_share
        return share is not None and share >= _OTHER_BASE


def outcome(seen: Seen) -> ReplayOutcome:
    """One word for the merged model."""
    counts, left_out = seen.counts, any(w.status == "left_out" for w in seen.whole)
    if seen.not_unloaded:
        return "not_unloaded"
    if not counts:
        return _without_modules(seen)
    if counts["other_change"] + counts["applied_and_more"] > 0 and seen.base_differs:
        return "other_base"
    kinds = set(counts)
    single = next(iter(kinds)) if len(kinds) == 1 else _leading(kinds)
    if single == "not_applied":
        whole_applied = any(w.status == "applied" for w in seen.whole)
        if whole_applied:
            return "partly"
        return "other_adapter" if seen.untouched.changed else "not_applied"
    if single in ("applied", "dora") and (left_out or seen.lost):
        return "partly"
    if single in ("at_strength", "twice", "other_scaling"):
        return _scaled(seen, single)
    if single in _SINGLE:
        return _SINGLE[single]
    if single == "other_change":
        return "other_adapter" if seen.low_rank else "other_change"
    if counts["not_applied"] and kinds <= {"not_applied", "applied", "dora", "at_strength",
                                           "twice", "requantised", "unclear"}:  # fmt: skip
        return "partly"
    if kinds <= {"applied", "at_strength", "twice", "other_scaling", "subtracted", "unclear"}:
        return _scaled(seen, "at_strength")
    if counts["other_change"] and seen.low_rank:
        return "other_adapter"
    return "other_change" if counts["other_change"] else "unclear"


def _without_modules(seen: Seen) -> ReplayOutcome:
    statuses = Counter(whole.status for whole in seen.whole)
    if statuses["applied"] and not statuses["left_out"] + statuses["other"]:
        return "applied"
    if statuses["left_out"]:
        return "partly" if statuses["applied"] else "not_applied"
    silent = Counter(module.status for module in seen.modules)
    if silent["zero_effect"]:
        return "zero_effect"
    matched = silent["no_merged_tensor"] + silent["not_replayed"] + silent["not_finite"]
    return "unclear" if matched else "nothing_matches"


def _leading(kinds: set[ModuleStatus]) -> ModuleStatus | None:
    """The status that all others go together with."""
    for kind, beside in _BESIDE.items():
        if kind in kinds and kinds - {kind} <= beside:
            return kind
    return None


def _scaled(seen: Seen, single: ModuleStatus) -> ReplayOutcome:
    """A strength of its own: one for all modules, or that of the other scaling of each."""
    fits = rank_scaled(seen.active)
    one = pooled_strength(seen.active)[0]
    ranks = {module.rank for module in seen.active}
    if fits and (len(ranks) > 1 or single == "other_scaling"):
        return "other_scaling"
    if one is not None and math.isclose(one, 2, rel_tol=0.02) and single != "at_strength":
        return "applied_twice"
    return "other_scaling" if fits else "applied_at_strength"


def rank_scaled(modules: Sequence[ModuleReplay]) -> bool:
    """Whether every strength is √r, or every one 1/√r: α/r taken for α/√r, or the reverse."""
    known = [(m.strength, m.rank) for m in modules if m.strength is not None and m.rank]
    if not known or all(rank == 1 for _, rank in known):
        return False
    return any(all(abs(c / r**power - 1) < 0.02 for c, r in known) for power in (0.5, -0.5))


def pooled_strength(
    modules: Sequence[ModuleReplay],
) -> tuple[float | None, float | None]:
    """Mean strength with its standard error; None where modules do not agree."""
    known = [
        (m.strength, max(m.standard_error, 1e-12 * abs(m.strength)) or 1e-300)
        for m in modules
        if m.strength is not None and m.standard_error is not None and m.status != "unclear"
    ]
    if not known:
        return None, None
    weights = [1 / error**2 for _, error in known]
    total = sum(weights)
    mean = sum(w * c for w, (c, _) in zip(weights, known, strict=True)) / total
    apart = any(abs(c - mean) > max(0.02 * max(abs(mean), 0.1), 5 * error) for c, error in known)
    return (None, None) if apart else (mean, 1 / math.sqrt(total))
