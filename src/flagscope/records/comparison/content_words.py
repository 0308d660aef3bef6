"""What a record of content says, in short lines: a function of its numbers, for either order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from flagscope.records.comparison import nouns
from flagscope.records.comparison.content_parts import (
    ClassCount,
    ContentNumbers,
    LayerMap,
    LayerMatch,
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
from flagscope.records.comparison.mixture_words import mixture_lines
from flagscope.records.comparison.open_questions import open_questions
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
                _named_sides(line, letters) for line in (*record.notes, *open_questions(record))
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
                f"{_counted(record, count)} ({nouns.entries(count.parameters)}): "
                f"{_CLASSES[count.content]}"
            )
    for side, unpaired in ((SIDE_A, record.unpaired_a), (SIDE_B, record.unpaired_b)):
        if unpaired.tensors:
            lines.append(
                f"only {side} has {nouns.tensors(unpaired.tensors)} of "
                f"{nouns.entries(unpaired.parameters)}, such as {nouns.short(unpaired.names[0])}"
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
            lines += mixture_lines(side, other, mixture)
    return [*lines, *_tests(record)]


def _counted(record: ContentNumbers, count: ClassCount) -> str:
    """Tensors of a class; pairs of them where one of a side belongs to several of the other."""
    pairs = [tensor for tensor in record.tensors if tensor.content == count.content]
    of_a, of_b = len({pair.name_a for pair in pairs}), len({pair.name_b for pair in pairs})
    if of_a == of_b == count.tensors:
        return nouns.tensors(count.tensors)
    return (
        f"{count.tensors} pairs, of {nouns.tensors(of_a)} of {SIDE_A} and {nouns.tensors(of_b)} of "
        f"{SIDE_B}, since some belong to several of the other side"
    )


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
    return [f"{nouns.tensors(count)}: {text}" for text, count in sorted(counts.items())]


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
                f"{nouns.short(tensor.name_a)} [{place}] is {entry.text_a} in {SIDE_A} and "
                f"{entry.text_b} in {SIDE_B}{bits}"
            )
        for scale in rounding.scales:
            found = "not finite" if scale.found is None else f"{scale.found:.9g}"
            bits = f" ({scale.bits})" if scale.bits else ""
            wanted = "none" if scale.expected is None else f"{scale.expected:.9g}"
            lines.append(
                f"{nouns.short(tensor.name_a)}, {scale.place}: the scale is {found}, and the rule "
                f"of the others gives {wanted}{bits}"
            )
    return _first(lines)


def _rows(tensors: Sequence[TensorContent]) -> list[str]:
    lines = []
    for tensor in tensors:
        difference, name = tensor.difference, nouns.short(tensor.name_a)
        if difference is None:
            continue
        if difference.rows_permuted:
            lines.append(f"{name}: the rows of both sides are the same, in another order")
        copied = difference.scale_b
        if tensor.content == "different" and copied is not None and factor_between(copied):
            lines.append(
                f"{name}: {SIDE_B} is {copied:.6g} times {SIDE_A}, up to 0.2 % of its norm"
            )
        if difference.transposed:
            lines.append(f"{name}: one side is the transpose of the other")
        if tensor.status != "ok" and tensor.shape_a != tensor.shape_b:
            lines.append(f"{name}: {_row_counts(tensor)}")
    return _first(lines)


def _first(lines: list[str]) -> list[str]:
    more = [f"and {len(lines) - _LINES} more"] if len(lines) > _LINES else []
    return [*lines[:_LINES], *more]


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
