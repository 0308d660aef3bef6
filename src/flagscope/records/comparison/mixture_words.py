"""What a fit of parents says, in short lines."""

from __future__ import annotations

from flagscope.records.comparison.content_parts import Mixture, MixtureFit


def mixture_lines(side: str, other: str, mixture: Mixture) -> list[str]:
    """Whether a side is a combination of its parents, and of their differences from the other."""
    lines = []
    for fit, it, of in (
        (mixture.without_base, side, "the parents"),
        (mixture.with_base, f"{side} − {other}", f"the parents' differences from {other}"),
    ):
        if fit.coefficients is None or fit.residual is None:
            lines.append(f"{it} of {of}: {fit.status}")
            continue
        if fit.agree:
            lines.append(f"{it} is {_coefficients(fit)} times {of}, up to rounding")
        elif fit.each:
            kind = "as a spherical interpolation gives" if fit.slerp else "tensor by tensor"
            lines.append(f"{it} is a combination of {of}, up to rounding, {kind}: {_ranges(fit)}")
        else:
            lines.append(
                f"{it} is not a linear combination of {of}: {fit.residual:.3g} of its norm "
                f"is left over, where rounding leaves {fit.rounding or 0:.2g}"
            )
    for pattern in mixture.patterns:
        if pattern.multiple is not None:
            lines.append(
                f"{side}, parent {pattern.parent + 1}: {pattern.equal_to_base:.1%} of sampled "
                f"entries equal {other}'s, {pattern.equal_to_parent:.1%} the parent's; "
                f"{pattern.scaled:.1%} of the changed ones are {pattern.multiple:.3g} times the "
                "parent's change"
            )
    return lines


def _coefficients(fit: MixtureFit) -> str:
    values = fit.coefficients or ()
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _ranges(fit: MixtureFit) -> str:
    if fit.lowest is None or fit.highest is None:
        return "no matrix is large enough to say by which coefficients"
    return "; ".join(
        f"{low:.3g} to {high:.3g}" for low, high in zip(fit.lowest, fit.highest, strict=True)
    )
