"""What a measured tensor is called, and the record of it."""

from __future__ import annotations

import math

from flagscope.comparison.adapters.blocks import Source
from flagscope.comparison.adapters.module import Measured
from flagscope.records.comparison.adapters import ModuleReplay, ModuleStatus

# An interval of strengths is named by what lies in it if its relative width is at most this.
_NARROW = 0.1
# A strength by least squares is distinguished from 0, and from 1, at so many standard errors.
_CLEAR = 5.0
# And as near to a named strength as this, relative, besides.
_NEAR = 0.02
# Residuals up to so many times what rounding explains are rounding: errors are not independent.
_ROUNDING = 2.0
# Entries that differ from the replay, of those that the merge moves: so few are damage, or an edit,
# of a tensor that holds the adapter.
_FEW = 1e-3
# A change lies in the factors' span if it has this share there, and this many times chance.
_IN_SPAN, _BEYOND_CHANCE = 0.5, 2.0


def module_record(source: Source, found: Measured) -> ModuleReplay:
    """The record of one module."""
    fit = found.fit
    status, detail = _status(source, found)
    best = found.replayed or found.best
    interval = found.interval
    strength = fit.strength if interval is None else sum(interval) / 2
    if found.unchanged:
        strength = 0.0 if status == "not_applied" else None
    rounding = math.sqrt(fit.merged_noise + (fit.base_noise if _retyped(source) else 0.0))
    numbers: dict[str, float | None] = {
        "strength": strength,
        "standard_error": fit.standard_error(),
        "change_norm": math.sqrt(fit.change),
        "adapter_norm": math.sqrt(fit.product),
        "residual_norm": fit.residual,
        "rounding_norm": rounding,
        "share_in_span": fit.share_in_span,
        "chance_share": fit.chance_share,
    }
    return ModuleReplay(
        module=source.factors.module, tensor=source.tensor, merged_tensor=source.merged_tensor,
        rank=source.factors.rank, scaling=source.factors.scaling, status=status,
        rounding=_rounding(found, status), entries=fit.entries,
        entries_equal=None if best is None else best.equal,
        entries_outside=None if best is None else best.outside,
        entries_unchanged=fit.unchanged, strength_interval=interval, detail=detail,
        **{name: value if value is None or math.isfinite(value) else None
           for name, value in numbers.items()},
    )  # fmt: skip


def _retyped(source: Source) -> bool:
    first, second = source.types
    return first != second


def _rounding(found: Measured, status: ModuleStatus) -> str | None:
    if status in ("applied", "dora_without_magnitudes") and found.replayed is not None:
        return found.replayed.rounding.text
    if status == "twice":
        return next((r.rounding.text for r in found.twice if r.holds), None)
    if status == "exchanged":
        return next((r.rounding.text for r in found.exchanged if r.holds), None)
    return None


def _status(source: Source, found: Measured) -> tuple[ModuleStatus, str]:
    fit = found.fit
    if not fit.finite:
        return "not_finite", "base or merged tensor holds NaN or infinity"
    if found.unchanged:
        return _of_unchanged(found)
    if any(replay.holds for replay in found.rescaled):
        return "dora", "DoRA's rows, brought to their magnitudes, give every entry"
    if found.replayed is not None:
        if found.rescaled:
            return (
                "dora_without_magnitudes",
                "the base plus the change gives every entry, with magnitudes not",
            )
        return "applied", ""
    nearly = _nearly(found)
    if nearly is not None and not found.rescaled:
        return "applied", nearly
    if found.interval is not None:
        named = _of_interval(source, found.interval)
        if named is not None:
            return named
    return _of_second(source, found)


def _of_unchanged(found: Measured) -> tuple[ModuleStatus, str]:
    if found.added and all(replay.moved == 0 for replay in found.added):
        return "zero_effect", "the change lies below rounding in every entry"
    if found.fit.product == 0 and not found.rescaled:
        return "zero_effect", "the product of the factors is 0"
    if found.replayed is not None or any(replay.holds for replay in found.rescaled):
        return "zero_effect", "the merge can leave every entry as it is"
    return "not_applied", "equal to the base in every entry"


def _nearly(found: Measured) -> str | None:
    """How many entries differ, where all but very few of those that the merge moves fit."""
    best = found.best
    if best is None or not 0 < best.outside <= _FEW * best.moved:
        return None
    return f"{best.outside} of {best.entries} entries cannot come from the merge"


def _of_interval(source: Source, interval: tuple[float, float]) -> tuple[ModuleStatus, str] | None:
    low, high = interval
    text = f"strengths {low:.6g} to {high:.6g} give every entry"
    if low <= 1 <= high:
        return "applied", text
    hits: list[ModuleStatus] = [
        name for name, value in _named(source).items() if low <= value <= high
    ]
    middle = (low + high) / 2
    if high - low > _NARROW * max(abs(middle), _NARROW):
        return ("unclear", text) if hits or low <= 0 <= high else ("at_strength", text)
    status: ModuleStatus = hits[0] if hits else "at_strength"
    return status, text


def _named(source: Source) -> dict[ModuleStatus, float]:
    """Strengths with a name of their own, the likeliest first where two are equal."""
    root = math.sqrt(source.factors.rank)
    found: dict[ModuleStatus, float] = {"twice": 2.0, "subtracted": -1.0}
    if source.factors.rank > 1:
        found["other_scaling"] = 1 / root if source.factors.stabilised else root
    return found


def _of_second(source: Source, found: Measured) -> tuple[ModuleStatus, str]:
    fit = found.fit
    if any(replay.holds for replay in found.twice):
        return "twice", "added and rounded two times it gives every entry"
    if any(replay.holds for replay in found.exchanged):
        return "exchanged", "the tensor given as base is the merged one plus the change"
    for strengths in found.transposed:
        if strengths.interval is not None and strengths.low <= 1 <= strengths.high:
            return "transposed", "the base plus the transposed change gives every entry"
    grid = next((rounded for rounded in found.rounded if rounded.holds), None)
    if grid is not None:
        return (
            "requantised",
            f"the base plus the change, {grid.text}; error {math.sqrt(grid.ratio):.2f} of it",
        )
    own = next((r for r in found.rounded if r.grid is None and r.beyond == 0), None)
    error, strength = fit.inflated_error, fit.strength
    if strength is None or error is None or fit.share_in_span is None:
        return "other_change", "the adapter changes nothing here, and the tensor differs"
    if own is not None and abs(strength) > _CLEAR * error:
        return "requantised", f"the base plus the change, {own.text}"
    return _of_squares(source, found, strength, error)


def _of_squares(
    source: Source, found: Measured, strength: float, error: float
) -> tuple[ModuleStatus, str]:
    """By least squares alone, where no replay gives every entry."""
    fit = found.fit
    noise = math.sqrt(fit.merged_noise + fit.base_noise)
    share = fit.share_in_span or 0.0
    text = (
        f"strength {strength:.4g} ± {error:.2g}, residual {fit.residual:.3g} where rounding "
        f"gives {noise:.3g}, share in the factors' span {share:.3g} (chance "
        f"{fit.chance_share:.3g})"
    )
    clear = abs(strength) > _CLEAR * error
    if fit.residual <= _ROUNDING * noise:
        if not clear:
            return "unclear", text
        if abs(strength - 1) <= max(_NEAR, 3 * error):
            return "applied", f"within rounding, and not bit for bit: {text}"
        near: list[ModuleStatus] = [
            n for n, v in _named(source).items() if abs(strength / v - 1) <= _NEAR
        ]
        status: ModuleStatus = near[0] if near else "at_strength"
        return status, text
    if clear and abs(strength - 1) <= max(_NEAR, _CLEAR * error):
        return "applied_and_more", text
    if share > max(_IN_SPAN, _BEYOND_CHANCE * fit.chance_share) and clear:
        return "at_strength", text
    return "other_change", text
