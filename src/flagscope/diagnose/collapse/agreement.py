"""NC4: whether a classifier decides as the nearest class mean does, sample by sample."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.collapse.checks import checked_features
from flagscope.errors import InputError


class CentreAgreement:
    """How often a classifier decides as the nearest class mean would (NC4), in a second pass.

    Made by `NeuralCollapse.agreement`; fed with `update`; read by `NeuralCollapse.result`.

    Parameters
    ----------
    means
        Class means, shape (K, d), float64.
    weight, bias
        The classifier, shapes (K, d) and (K,), float64, on the device of the means.
    """

    def __init__(
        self, means: Float[Tensor, "k d"], weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]
    ) -> None:
        self._origin = means.mean(0)
        self._centres = means - self._origin
        self._offsets = self._centres.square().sum(-1) / 2
        self._weight, self._bias = weight, bias
        self.samples = 0
        self.agreeing = 0

    def update(self, features: Float[Tensor, "*n d"]) -> None:
        """Count a batch of features. Raises InputError as `NeuralCollapse.update` does."""
        device = self._centres.device
        rows = checked_features(features, self._centres.shape[1], device)
        decided = (rows @ self._weight.mT + self._bias).argmax(-1)
        # ‖h - μ_c‖² less what all classes share, about the common origin so that little cancels.
        nearest = ((rows - self._origin) @ self._centres.mT - self._offsets).argmax(-1)
        self.samples += len(rows)
        self.agreeing += int((decided == nearest).sum())

    def merge(self, other: CentreAgreement) -> None:
        """Add the counts of another part of the data, made from the same means and classifier."""
        if not all(
            torch.equal(mine, theirs.to(mine.device))
            for mine, theirs in zip(self._parts(), other._parts(), strict=True)
        ):
            raise InputError(
                "the two agreements are of different class means or classifiers",
                hint="merge the first passes, then make every second pass from the merged one",
            )
        self.samples += other.samples
        self.agreeing += other.agreeing

    @property
    def rate(self) -> float | None:
        """Share of samples on which the two decide alike; None before any sample."""
        return self.agreeing / self.samples if self.samples else None

    def _parts(self) -> tuple[Tensor, ...]:
        return self._origin, self._centres, self._weight, self._bias
