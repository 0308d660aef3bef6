"""The record of what two checkpoints, A and B, have in common, tensor by tensor."""

from __future__ import annotations

from typing import Self

from flagscope.records.comparison.content_parts import ContentNumbers
from flagscope.records.comparison.content_words import worded


class ContentRecord(ContentNumbers):
    """What two checkpoints, A and B, have in common, tensor by tensor."""

    def mirrored(self) -> Self:
        """The same with the sides exchanged, the words included."""
        return worded(super().mirrored())
