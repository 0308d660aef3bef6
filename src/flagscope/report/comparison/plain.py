"""Plain sentences of findings of a comparison, for a reader who does not know the terms.

Each claims no more than the technical sentence next to it, which has the side and the counts; has
at most 25 words and no symbol.
"""

from __future__ import annotations

PLAIN = {
    "entries-outside-rounding": "A tensor has single numbers that differ by more than rounding "
    "explains.",
    "not-finite": "Some tensors hold numbers that are not finite (NaN or infinity) in one of the "
    "two models.",
    "scaled-copy": "Some tensors of one model are those of the other, multiplied by one number "
    "each.",
    "rows-permuted": "Some tensors have the same rows in both models, in another order.",
    "transposed": "Some tensors have rows and columns exchanged between the two models.",
    "unpaired-tensors": "One model has tensors that the other lacks; nothing here is about them.",
    "reshaped-tensors": "Some tensors have another shape in each model, and were not compared as "
    "they are.",
    "unread-tensors": "Some tensors could not be read or placed, and were not compared.",
    "intruders": "One model has strong directions that are not among the other's strong ones, more "
    "than a random change of this size would make.",
    "change-in-leading-space": "In some maps the change lies among the strongest output "
    "directions, more than by chance.",
    "change-outside-leading-space": "In some maps the change avoids the strongest output "
    "directions, more than by chance.",
    "heads-moved": "Some heads changed at least twice as far as the median head.",
    "basis-changed": "Some pairs of maps were rewritten in another basis and compute nearly the "
    "same together.",
    "near-copies-changed": "Some heads are near-copies of each other in one of the two models "
    "alone.",
    "diagnostics-changed": "Some numbers of a scan differ between the two by more than their "
    "noise.",
}  # fmt: skip
"""By code of a finding on two models."""
