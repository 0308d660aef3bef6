"""What a record of content says, in short lines: a function of its numbers, for either order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from flagscope.records.comparison.content_parts import (
    ClassCount,
    ContentNumbers,
    LayerMap,
    LayerMatch,
    Mixture,
    MixtureFit,
    TensorContent,
)
from flagscope.records.comparison.content_tests import (
    LEAST_COSINE,
    LOG10_LEVEL,
    correlated,
    factor_between,
    is_evidence,
    is_rearranged,
    is_tested,
    same,
    seen_correlation,
    test_count,
)
from flagscope.records.comparison.letters import SIDE_A, SIDE_B
from flagscope.records.comparison.zeroed import worded_faults

Worded = TypeVar("Worded", bound=ContentNumbers)

_LINES = 12
_CLASSES = {
    "identical": "equal in every bit",
    "rounding": "equal up to rounding",
    "few_entries": "equal but for a few entries",
    "different": "different",
    "reshaped": "of other shapes, and not compared",
    "unread": "not compared",
}


def worded(record: Worded, *, letters: tuple[str, str] = ("A", "B")) -> Worded:
    """The record with its evidence and its open questions in words.

    Parameters
    ----------
    record
        Its numbers.
    letters
        What the two sides are called.
    """
    return record.model_copy(
        update={
            "evidence": tuple(_named_sides(line, letters) for line in _evidence(record)),
            "cannot_tell": tuple(
                _named_sides(line, letters) for line in (*record.notes, *_cannot_tell(record))
            ),
        }
    )


def _named_sides(line: str, letters: tuple[str, str]) -> str:
    return line.replace(SIDE_A, letters[0]).replace(SIDE_B, letters[1])


def _evidence(record: ContentNumbers) -> list[str]:
    lines = worded_faults(record, (("a", SIDE_A, SIDE_B), ("b", SIDE_B, SIDE_A)))
    for count in record.counts:
        if count.tensors:
            lines.append(
                f"{_counted(record, count)} ({_entries(count.parameters)}): "
                f"{_CLASSES[count.content]}"
            )
    for side, unpaired in ((SIDE_A, record.unpaired_a), (SIDE_B, record.unpaired_b)):
        if unpaired.tensors:
            lines.append(
                f"only {side} has {_tensors(unpaired.tensors)} of {_entries(unpaired.parameters)}, "
                f"such as {_short(unpaired.names[0])}"
            )
    lines += _rules(record)
    lines += _named(record.tensors)
    lines += _rows(record.tensors)
    for layers in record.layers:
        lines += _layers(layers)
    for side, other, mixture in (
        (SIDE_A, SIDE_B, record.mixture_a),
        (SIDE_B, SIDE_A, record.mixture_b),
    ):
        if mixture is not None:
            lines += _mixture(side, other, mixture)
    return [*lines, *_tests(record)]


def _counted(record: ContentNumbers, count: ClassCount) -> str:
    """Tensors of a class; pairs of them where one of a side belongs to several of the other."""
    pairs = [tensor for tensor in record.tensors if tensor.content == count.content]
    of_a, of_b = len({pair.name_a for pair in pairs}), len({pair.name_b for pair in pairs})
    if of_a == of_b == count.tensors:
        return _tensors(count.tensors)
    return (
        f"{count.tensors} pairs, of {_tensors(of_a)} of {SIDE_A} and {_tensors(of_b)} of {SIDE_B}, "
        "since some belong to several of the other side"
    )


def _tensors(count: int) -> str:
    return f"{count} tensor" if count == 1 else f"{count} tensors"


def _entries(count: int) -> str:
    return f"{count} entry" if count == 1 else f"{count:,} entries"


def _short(name: str) -> str:
    """A name, its middle left out where it is longer than any that a network has."""
    return name if len(name) <= 200 else f"{name[:120]}…{name[-60:]}"


def _rules(record: ContentNumbers) -> list[str]:
    counts: dict[str, int] = {}
    for tensor in record.tensors:
        rounding = tensor.rounding
        if rounding is None or tensor.content not in ("rounding", "few_entries"):
            continue
        if rounding.rule is None:
            text = "every entry within the half steps of both grids"
        else:
            side, other = (SIDE_A, SIDE_B) if rounding.rounded == "a" else (SIDE_B, SIDE_A)
            text = f"{side} is {other} {rounding.rule}"
        if tensor.content == "rounding" or rounding.rule is not None:
            counts[text] = counts.get(text, 0) + 1
    return [f"{_tensors(count)}: {text}" for text, count in sorted(counts.items())]


def _named(tensors: Sequence[TensorContent]) -> list[str]:
    lines = []
    for tensor in tensors:
        rounding = tensor.rounding
        if tensor.content != "few_entries" or rounding is None:
            continue
        for entry in rounding.entries:
            place = ", ".join(map(str, entry.index))
            bits = f" ({entry.bits})" if entry.bits else ""
            lines.append(
                f"{_short(tensor.name_a)} [{place}] is {entry.text_a} in {SIDE_A} and "
                f"{entry.text_b} in {SIDE_B}{bits}"
            )
        for scale in rounding.scales:
            found = "not finite" if scale.found is None else f"{scale.found:.9g}"
            bits = f" ({scale.bits})" if scale.bits else ""
            wanted = "none" if scale.expected is None else f"{scale.expected:.9g}"
            lines.append(
                f"{_short(tensor.name_a)}, {scale.place}: the scale is {found}, and the rule of "
                f"the others gives {wanted}{bits}"
            )
    return [*lines[:_LINES], *([f"and {len(lines) - _LINES} more"] if len(lines) > _LINES else [])]


def _rows(tensors: Sequence[TensorContent]) -> list[str]:
    lines = []
    for tensor in tensors:
        difference = tensor.difference
        if difference is None:
            continue
        if difference.rows_permuted:
            lines.append(
                f"{_short(tensor.name_a)}: the rows of both sides are the same, in another order"
            )
        copied = difference.scale_b
        if tensor.content == "different" and copied is not None and factor_between(copied):
            lines.append(
                f"{_short(tensor.name_a)}: {SIDE_B} is {copied:.6g} times {SIDE_A}, up to 0.2 % of "
                "its norm"
            )
        if difference.transposed:
            lines.append(f"{_short(tensor.name_a)}: one side is the transpose of the other")
        if tensor.status != "ok" and tensor.shape_a != tensor.shape_b:
            lines.append(f"{_short(tensor.name_a)}: {_row_counts(tensor)}")
    return [*lines[:_LINES], *([f"and {len(lines) - _LINES} more"] if len(lines) > _LINES else [])]


def _row_counts(tensor: TensorContent) -> str:
    a, b = tensor.shape_a, tensor.shape_b
    if tensor.difference is None:
        return f"{SIDE_A} has shape {a}, {SIDE_B} has shape {b}"
    more, side = (a[0] - b[0], SIDE_A) if a[0] > b[0] else (b[0] - a[0], SIDE_B)
    return f"{min(a[0], b[0])} rows were compared; {side} has {more} more"


def _layers(layers: LayerMap) -> list[str]:
    lines = []
    if layers.changed:
        for side, other, matches in (
            (SIDE_B, SIDE_A, layers.of_b),
            (SIDE_A, SIDE_B, layers.of_a),
        ):
            stack = layers.stack_a if side == SIDE_A else layers.stack_b
            lines.append(
                f"layers of {side} in {stack} are, in turn, layers {_runs(matches)} of {other}"
            )
    return lines


def _runs(matches: Sequence[LayerMatch]) -> str:
    """Runs of layers that follow each other: 0-3, 8-11; ? for what is like none."""
    runs: list[list[int | None]] = []
    for match in matches:
        if runs and match.like is not None and runs[-1][1] == match.like - 1:
            runs[-1][1] = match.like
        elif not (runs and match.like is None and runs[-1][0] is None):
            runs.append([match.like, match.like])
    shown = ["?" if first is None else str(first) if first == last else f"{first}-{last}"
             for first, last in runs]  # fmt: skip
    return ", ".join(shown)


def _mixture(side: str, other: str, mixture: Mixture) -> list[str]:
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


def _tests(record: ContentNumbers) -> list[str]:
    differing = [
        tensor for tensor in record.tensors
        if is_evidence(tensor) and not same(tensor) and tensor.difference
        and not is_rearranged(tensor)
    ]  # fmt: skip
    tested = [tensor for tensor in differing if is_tested(tensor)]
    lines = []
    if len(tested) < len(differing):
        lines.append(
            f"{len(differing) - len(tested)} of {len(differing)} matrices that differ could not be "
            "tested for a correlation: a side is 0, of one sign, beyond float64 or hardly finite"
        )
    if not tested:
        return lines
    tests = test_count(record)
    like = [tensor for tensor in tested if correlated(tensor, tests)]
    cosines = sorted(tensor.difference.cosine or 0.0 for tensor in tested if tensor.difference)
    verb = "is" if len(like) == 1 else "are"
    lines.append(
        f"{len(like)} of {len(tested)} matrices that differ {verb} correlated beyond chance ("
        f"signs, products and cosine, each at 10^{LOG10_LEVEL:g} for all together, cosine at least "
        f"{LEAST_COSINE:g}); cosines {cosines[0]:.3g} to {cosines[-1]:.3g}, median "
        f"{cosines[len(cosines) // 2]:.3g}"
    )
    if len(like) < len(tested):
        seen = [seen_correlation(tensor, tests) for tensor in tested]
        least, most = min(seen), max(seen)
        lines.append(
            "over what their means give, a correlation of "
            + (f"{least:.2g}" if least == most else f"{least:.2g} to {most:.2g}, by their size,")
            + " would have been seen 99 times in 100"
            if most < 1
            else "in the smallest of them no correlation would have been seen"
            + (f", in the largest one of {least:.2g} 99 times in 100" if least < 1 else "")
        )
    return lines


def _cannot_tell(record: ContentNumbers) -> list[str]:
    lines = []
    unread = [tensor for tensor in record.tensors if tensor.content in ("unread", "reshaped")]
    if unread:
        lines.append(
            f"{_tensors(len(unread))} could not be compared, such as {_short(unread[0].name_a)}: "
            f"{unread[0].status}"
        )
    if record.relation in ("unrelated", "unclear", "shares_parts", "different_architectures"):
        lines.append(
            "a change of basis that leaves the function as it is (permuted or rotated hidden "
            "units) is not undone: such a copy looks like a stranger here, but for rows in "
            "another order"
        )
    loose = [tensor for tensor in record.tensors if tensor.rounding is not None
             and tensor.content == "rounding" and tensor.rounding.rule is None
             and not _all_equal(tensor)]  # fmt: skip
    if loose:
        verb = "agrees" if len(loose) == 1 else "agree"
        lines.append(
            f"{_tensors(len(loose))} {verb} within the steps of both grids, and no rule gives one "
            "side from the other: a change smaller than a step of the coarser side is not seen"
        )
    corrected = [
        tensor for tensor in record.tensors
        if tensor.content == "different" and tensor.rounding is not None
        and (tensor.rounding.step_rms or 9.0) < 1.5 and _is_quantised(tensor)
    ]  # fmt: skip
    if corrected:
        lines.append(
            f"in {_tensors(len(corrected))} the sides differ by "
            f"{min(t.rounding.step_rms or 0.0 for t in corrected if t.rounding):.2g} to "
            f"{max(t.rounding.step_rms or 0.0 for t in corrected if t.rounding):.2g} steps of the "
            "quantised side (rounding alone: 0.29): a quantiser that looks at data gives that, "
            "and so does a small change before rounding"
        )
    clipped = [tensor for tensor in record.tensors if tensor.rounding and tensor.rounding.clipped]
    if clipped:
        count = sum(tensor.rounding.clipped for tensor in clipped if tensor.rounding)
        lines.append(
            f"{count:,} entries of {_tensors(len(clipped))} lie at an end of what the format "
            "holds there, and their counterparts beyond it: they count as rounding, and a change "
            "of them outwards is not seen"
        )
    if record.relation in ("reencoded", "identical"):
        lines.append("settings and tokenizer, which the weights do not hold, were not compared")
    return lines


def _all_equal(tensor: TensorContent) -> bool:
    difference = tensor.difference
    return difference is not None and difference.equal == difference.entries


def _is_quantised(tensor: TensorContent) -> bool:
    return any(kind[:2].isupper() or kind[:1] == "Q" or "int" in kind
               for kind in (tensor.type_a, tensor.type_b))  # fmt: skip
