"""Neural collapse in a stream: moments of the features by class, batch after batch.

One pass gives NC1 to NC3. NC4 compares each sample with the class means, which are known only
after that pass, so it takes a second one: `NeuralCollapse.agreement`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.diagnose.collapse.agreement import CentreAgreement
from flagscope.diagnose.collapse.checks import (
    checked_classifier,
    checked_features,
    checked_labels,
)
from flagscope.diagnose.collapse.metrics import Spread, self_duality, simplex_fit, spread
from flagscope.diagnose.collapse.records import CollapseRecord, SimplexFit
from flagscope.diagnose.values import first_reason
from flagscope.errors import InputError


class NeuralCollapse:
    """Accumulates what NC1 to NC3 need of the last features, in batches of any size and order.

    Memory is K·d for the class means and d² for the scatter within classes, whatever the number of
    samples. Means and scatter are updated about the current means (Chan, Golub and LeVeque) in
    float64, so a large common offset of the features costs no digits that float64 has.

    Parameters
    ----------
    classes
        K, at least 2.
    device
        Where the moments are kept and computed; it must have float64.

    Raises
    ------
    InputError
        If there are fewer than two classes.

    Notes
    -----
    Unbalanced classes: Σ_W is pooled, every *sample* counting alike, as in Fisher's discriminant;
    Σ_B and the centre of the class means give every *class* the same weight, since the frame of
    NC2 is one of class means. For balanced classes that is the definition of [1]_. The record names
    the smallest and the largest class; an empty class leaves nulls and a status.

    References
    ----------
    .. [1] V. Papyan, X. Y. Han, D. L. Donoho, Prevalence of neural collapse during the terminal
       phase of deep learning training, PNAS 117 (2020) 24652-24663.
    .. [2] T. F. Chan, G. H. Golub, R. J. LeVeque, Algorithms for computing the sample variance,
       Am. Stat. 37 (1983) 242-247.

    Examples
    --------
    Features that sit exactly on a simplex frame, and a classifier that is its own dual:

    >>> import torch
    >>> from flagscope.diagnose import NeuralCollapse
    >>> frame = torch.eye(3, dtype=torch.float64) - 1 / 3
    >>> labels = torch.tensor([0, 1, 2, 0, 1, 2])
    >>> collapse = NeuralCollapse(classes=3)
    >>> collapse.update(frame[labels], labels)
    >>> agreement = collapse.agreement(weight=2 * frame)
    >>> agreement.update(frame[labels])
    >>> record = collapse.result(2 * frame, agreement=agreement)
    >>> record.nc1, round(record.nc3, 12), record.nc4
    (0.0, 0.0, 1.0)
    """

    def __init__(self, classes: int, *, device: torch.device | str = "cpu") -> None:
        if classes < 2:
            raise InputError(
                f"{classes} classes do not make a frame", hint="neural collapse needs two or more"
            )
        self.classes = classes
        self._device = torch.device(device)
        self._counts = torch.zeros(classes, dtype=torch.int64, device=self._device)
        self._means: Tensor | None = None
        self._scatter: Tensor | None = None

    @property
    def counts(self) -> Int[Tensor, " k"]:
        """Samples of each class so far."""
        return self._counts.clone()

    @property
    def means(self) -> Float[Tensor, "k d"]:
        """Class means so far, float64; zeros for classes without a sample."""
        return self._state()[0].clone()

    @property
    def within(self) -> Float[Tensor, "d d"]:
        """Σ_W so far: mean outer product of the deviations from the class means."""
        return self._state()[1] / max(1, int(self._counts.sum()))

    def update(self, features: Float[Tensor, "*n d"], labels: Int[Tensor, "*n"]) -> None:
        """Take in one batch.

        Parameters
        ----------
        features
            Input of the last linear layer, one row a sample; leading dimensions, as of tokens, are
            run together.
        labels
            Class index of each row.

        Raises
        ------
        InputError
            Features that are not finite or of another width than before, labels that are not class
            indices. The state is then what it was.
        """
        d = None if self._means is None else self._means.shape[1]
        rows = checked_features(features, d, self._device)
        flat = checked_labels(labels, features.shape[:-1], self.classes, self._device)
        counts = torch.bincount(flat, minlength=self.classes)
        means = rows.new_zeros(self.classes, rows.shape[1]).index_add_(0, flat, rows)
        means /= counts.clamp_min(1)[:, None]
        deviations = rows - means[flat]
        self._combine(counts, means, deviations.mT @ deviations)

    def merge(self, other: NeuralCollapse) -> None:
        """Take in all that another accumulator has seen, as if its batches had come here.

        Raises
        ------
        InputError
            If the classes or the features differ in number.
        """
        if other.classes != self.classes:
            raise InputError(
                f"accumulators of {self.classes} and {other.classes} classes cannot be merged",
                hint="make both with the number of classes of the whole data set",
            )
        if other._means is None:
            return
        means, scatter = (x.to(self._device) for x in other._state())
        if self._means is not None and self._means.shape != means.shape:
            raise InputError(
                f"features have {means.shape[1]} columns, but {self._means.shape[1]} were expected",
                hint="both accumulators must be of one network",
            )
        self._combine(other._counts.to(self._device), means, scatter)

    def agreement(
        self, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"] | None = None
    ) -> CentreAgreement:
        """The second pass for NC4: feed it the features again, in any order.

        Raises
        ------
        InputError
            If a class has no sample, so no mean, or the classifier does not fit.
        """
        missing = self._empty()
        if missing:
            raise InputError(missing, hint="finish the first pass over all classes before NC4")
        means = self._state()[0]
        w, b = checked_classifier(weight, bias, self.classes, means.shape[1], self._device)
        return CentreAgreement(means.clone(), w, b)

    def result(
        self,
        weight: Float[Tensor, "k d"] | None = None,
        bias: Float[Tensor, " k"] | None = None,
        *,
        agreement: CentreAgreement | None = None,
    ) -> CollapseRecord:
        """NC1 to NC4 of all that came.

        Parameters
        ----------
        weight, bias
            The last linear layer, shapes (K, d) and (K,). Without it the numbers that need it are
            None; the bias enters NC4 alone, through `agreement`.
        agreement
            The finished second pass; without it NC4 is None.

        Raises
        ------
        InputError
            If the classifier does not fit the features.
        """
        empty = self._empty()
        if empty:
            return self._record(empty)
        means = self._state()[0]
        centred = means - means.mean(0)
        measured = spread(means, self.within)
        distinct = measured.rank > 0
        zero, of_weights, dual, dual_centred = False, None, None, None
        if weight is not None:
            w, _ = checked_classifier(weight, bias, self.classes, means.shape[1], self._device)
            zero = not bool(w.any())
            of_weights = simplex_fit(w)
            if distinct:
                dual = self_duality(w, centred)
                dual_centred = self_duality(w - w.mean(0), centred)
        status = first_reason(
            None if distinct else "all class means agree",
            "the features exceed double precision" if distinct and measured.nc1 is None else None,
            "the classifier is zero" if zero else None,
        )
        return self._record(
            status,
            measured,
            nc2_means=simplex_fit(centred) if distinct else None,
            nc2_weights=of_weights,
            nc3=dual,
            nc3_centred=dual_centred,
            nc4=None if agreement is None else agreement.rate,
        )

    def _record(
        self,
        status: str,
        measured: Spread | None = None,
        *,
        nc2_means: SimplexFit | None = None,
        nc2_weights: SimplexFit | None = None,
        nc3: float | None = None,
        nc3_centred: float | None = None,
        nc4: float | None = None,
    ) -> CollapseRecord:
        return CollapseRecord(
            classes=self.classes,
            d=0 if self._means is None else self._means.shape[1],
            samples=int(self._counts.sum()),
            smallest_class=int(self._counts.min()),
            largest_class=int(self._counts.max()),
            rank=None if measured is None else measured.rank,
            nc1=None if measured is None else measured.nc1,
            nc1_trace_ratio=None if measured is None else measured.trace_ratio,
            nc2_means=nc2_means,
            nc2_weights=nc2_weights,
            nc3=nc3,
            nc3_centred=nc3_centred,
            nc4=nc4,
            status=status,
        )

    def _state(self) -> tuple[Tensor, Tensor]:
        if self._means is None or self._scatter is None:
            raise InputError("no batch has come yet", hint="call update first")
        return self._means, self._scatter

    def _empty(self) -> str | None:
        missing = (self._counts == 0).nonzero().flatten().tolist()
        return f"no samples of {_listed(missing)}" if missing else None

    def _combine(self, counts: Tensor, means: Tensor, scatter: Tensor) -> None:
        """Means and pooled scatter of two parts of the data, from those of each."""
        if self._means is None or self._scatter is None:
            self._counts = counts.clone()
            self._means, self._scatter = means.clone(), scatter.clone()
            return
        total = self._counts + counts
        # Not counts / total, which torch would round to float32.
        share = (counts.to(means.dtype) / total.clamp_min(1))[:, None]
        # Classes that one part lacks have a share of 0 or 1: no scatter between the parts.
        shift = means - self._means
        moved = shift * share
        between = (shift * (1 - share)).mT @ (moved * total[:, None])
        self._scatter = self._scatter + scatter + between
        self._means = self._means + moved
        self._counts = total


def _listed(found: Sequence[int]) -> str:
    shown = ", ".join(str(c) for c in found[:5]) + (", …" if len(found) > 5 else "")
    return f"class {shown}" if len(found) == 1 else f"classes {shown}"
