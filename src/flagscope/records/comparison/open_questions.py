"""What a comparison of content leaves open, in short lines."""

from __future__ import annotations

from flagscope.records.comparison import nouns
from flagscope.records.comparison.content_parts import ContentNumbers, TensorContent


def open_questions(record: ContentNumbers) -> list[str]:
    """What was not compared, or would look the same if it were otherwise."""
    lines = []
    unread = [tensor for tensor in record.tensors if tensor.content in ("unread", "reshaped")]
    if unread:
        lines.append(
            f"{nouns.tensors(len(unread))} could not be compared, such as "
            f"{nouns.short(unread[0].name_a)}: {unread[0].status}"
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
            f"{nouns.tensors(len(loose))} {verb} within the steps of both grids, and no rule gives "
            "one side from the other: a change smaller than a step of the coarser side is not seen"
        )
    corrected = [
        tensor for tensor in record.tensors
        if tensor.content == "different" and tensor.rounding is not None
        and (tensor.rounding.step_rms or 9.0) < 1.5 and _is_quantised(tensor)
    ]  # fmt: skip
    if corrected:
        lines.append(
            f"in {nouns.tensors(len(corrected))} the sides differ by "
            f"{min(t.rounding.step_rms or 0.0 for t in corrected if t.rounding):.2g} to "
            f"{max(t.rounding.step_rms or 0.0 for t in corrected if t.rounding):.2g} steps of the "
            "quantised side (rounding alone: 0.29): a quantiser that looks at data gives that, "
            "and so does a small change before rounding"
        )
    clipped = [tensor for tensor in record.tensors if tensor.rounding and tensor.rounding.clipped]
    if clipped:
        count = sum(tensor.rounding.clipped for tensor in clipped if tensor.rounding)
        lines.append(
            f"{count:,} entries of {nouns.tensors(len(clipped))} lie at an end of what the format "
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
