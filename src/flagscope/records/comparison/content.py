"""The record of what two checkpoints, A and B, have in common, tensor by tensor."""

from __future__ import annotations

from typing import Self

from flagscope.records.comparison.content_parts import ContentNumbers
from flagscope.records.comparison.content_words import worded


class ContentRecord(ContentNumbers):
    """What two checkpoints, A and B, have in common, tensor by tensor."""

    def mirrored(self) -> Self:
        """The same with the sides exchanged, the words included."""
        turned = self.model_copy(
            update={
                "tensors": tuple(tensor.mirrored() for tensor in self.tensors),
                "unpaired_a": self.unpaired_b, "unpaired_b": self.unpaired_a,
                "parts": tuple(part.mirrored() for part in self.parts),
                "layers": tuple(layers.mirrored() for layers in self.layers),
                "mixture_a": self.mixture_b, "mixture_b": self.mixture_a,
            }
        )  # fmt: skip
        return worded(turned)
