"""Trains networks beyond zero error, and measures neural collapse and levels of alignment.

Perceptrons and residual networks of many seeds, under either loss, have the same interface:
features of a classifier, and adjacent pairs of maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose import CollapseRecord, LevelsRecord, alignment_levels, neural_collapse
from flagscope.errors import InputError
from flagscope.geometry import RankRule, neuron_scales
from flagscope.lab.data import Images
from flagscope.lab.experiments.collapse.residual_networks import (
    ResidualNetwork,
    initial_residual_network,
)
from flagscope.lab.networks import Network, activation, initial_network
from flagscope.lab.rank_rule import lab_rule
from flagscope.lab.training import (
    Optimiser,
    batch_indices,
    cross_entropy,
    mean_square,
    recording_times,
    train,
)

Pairs = Mapping[str, tuple[Tensor, Tensor]]
Series = dict[str, list[list[float | None]]]


class Classifiers(Protocol):
    """Networks of several seeds that end in a linear classifier."""

    @property
    def parameters(self) -> list[Tensor]:
        """All trained parameters."""
        ...

    @property
    def rigid(self) -> tuple[str, ...]:
        """Pairs in which a scaling of neurons would change the function."""
        ...

    def __call__(self, x: Tensor) -> Float[Tensor, "seeds n classes"]:
        """Logits of inputs (n, …), or of separate inputs for each seed (seeds, n, …)."""
        ...

    def last(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (seeds, n, d), weight (seeds, classes, d) and bias of the classifier."""
        ...

    def pairs(self, x: Tensor) -> Pairs:
        """Adjacent maps by name; "last" is the pair that ends in the classifier."""
        ...


class Perceptrons:
    """ReLU perceptrons with biases."""

    rigid: tuple[str, ...] = ()

    def __init__(self, widths: list[int], seeds: list[int]) -> None:
        self.network: Network = initial_network(
            widths, seeds, activation="relu", bias=True, scale="he", dtype=torch.float32
        )

    @property
    def parameters(self) -> list[Tensor]:
        """Weights and biases."""
        return self.network.parameters

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.network(x)

    def last(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features and classifier."""
        h = activation(self.network.activation)(self.network.preactivations(x)[-2])
        biases = self.network.biases or []
        return h, self.network.weights[-1], biases[-1]

    def pairs(self, x: Tensor) -> Pairs:  # noqa: ARG002  (weights alone say it)
        """Neighbouring weights, the first hidden layer's pair first."""
        weights = [w.detach().double() for w in self.network.weights]
        names = [f"hidden{i + 1}" for i in range(len(weights) - 2)] + ["last"]
        return dict(zip(names, pairwise(weights), strict=True))


class SmallResNets:
    """Residual networks on square images, given as rows of pixels."""

    # The shortcut bypasses the last convolution.
    rigid: tuple[str, ...] = ("last",)

    def __init__(self, channels: list[int], classes: int, seeds: list[int]) -> None:
        self.network: ResidualNetwork = initial_residual_network(channels, classes, seeds)

    @property
    def parameters(self) -> list[Tensor]:
        """Convolutions, normalisations and classifier."""
        return self.network.parameters

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.network(_pictures(x))

    def last(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features and classifier, normalised by the statistics of x."""
        return self.network.features(_pictures(x)), self.network.weight, self.network.bias

    def pairs(self, x: Tensor) -> Pairs:
        """Pairs within every block, and from the last convolution to the classifier."""
        return self.network.pairs(_pictures(x))


def _pictures(x: Tensor) -> Tensor:
    side = round(x.shape[-1] ** 0.5)
    if side * side != x.shape[-1]:
        raise InputError(
            f"{x.shape[-1]} pixels are not a square picture", hint="give images as wide as high"
        )
    return x.unflatten(-1, (side, side))


def balanced_part(images: Images, per_class: int) -> Images:
    """The first samples of every class, equally many of each, at most `per_class`."""
    size = min(per_class, int(torch.bincount(images.labels, minlength=images.classes).min()))
    picked = [(images.labels == c).nonzero().flatten()[:size] for c in range(images.classes)]
    rows = torch.cat(picked).sort().values
    return Images(images.name, images.inputs[rows], images.labels[rows], images.classes)


def terminal_phase(
    networks: Classifiers,
    images: Images,
    *,
    seeds: list[int],
    loss: str,
    optimiser: Optimiser,
    steps: int,
    batch: int,
    records: int,
    report: Callable[[float], None],
) -> dict[str, Any]:
    """Train by minibatches, and measure at moments evenly spaced in log time.

    Returns
    -------
    dict
        "steps", the moments, and "series", for each quantity one list of values per seed.
        Quantities are `accuracy`, `nc1` to `nc4`, and PAIR/GRADE for each adjacent pair, as in
        `pair_grades`.
    """
    generators = [torch.Generator().manual_seed(1_000_003 + seed) for seed in seeds]
    times = recording_times(steps, records, first=max(1, steps // 300))
    series: Series = {}
    targets = images.one_hot()

    def loss_of_batch(_: int) -> Float[Tensor, ""]:
        rows = batch_indices(len(images.labels), batch, generators)
        output = networks(images.inputs[rows])
        if loss == "mse":
            return mean_square(output, targets[rows])
        return cross_entropy(output, images.labels[rows])

    def record(_: int) -> None:
        with torch.no_grad():
            rows = measure(networks, images, len(seeds))
        for i, row in enumerate(rows):
            for name, value in row.items():
                series.setdefault(name, [[] for _ in seeds])[i].append(value)

    train(
        optimiser.build(networks.parameters),
        loss_of_batch, steps=steps, record=record, at=times, report=report,
    )  # fmt: skip
    return {"steps": times, "series": series}


def measure(networks: Classifiers, images: Images, seeds: int) -> list[dict[str, float | None]]:
    """Current value of every quantity for every seed."""
    h, weight, bias = networks.last(images.inputs)
    correct = torch.baddbmm(bias[:, None], h, weight.mT).argmax(-1) == images.labels
    rows: list[dict[str, float | None]] = []
    for i in range(seeds):
        collapse = neural_collapse([(h[i], images.labels)], weight[i], bias[i])
        rows.append({"accuracy": float(correct[i].double().mean()), **_collapse_row(collapse)})
    for name, (w1, w2) in networks.pairs(images.inputs).items():
        for row, grades in zip(rows, pair_grades(w1, w2, images.classes), strict=True):
            known = {
                f"{name}/{grade}": value
                for grade, value in grades.items()
                if not (name in networks.rigid and grade.startswith("balanced"))
            }
            row.update(known)
    return rows


def _collapse_row(record: CollapseRecord) -> dict[str, float | None]:
    return {
        "nc1": record.nc1,
        "nc2": None if record.nc2_means is None else record.nc2_means.simplex_distance,
        "nc3": record.nc3,
        "nc4": record.nc4,
    }


def pair_grades(
    w1: Float[Tensor, "seeds d m1"], w2: Float[Tensor, "seeds m2 d"], classes: int
) -> list[dict[str, float | None]]:
    """Grades of levels 1 to 3 of a pair in every seed.

    `rank` is read at the ranks of the laboratory's rule, the participation ratios; `subspace` and
    `basis` at the K - 1 leading directions, the dimension to which collapse confines the features:
    rounding a participation ratio to 8 here and 9 there would otherwise decide. `balanced …` are
    the same after the gauge of ReLU, scales of neurons, is fixed by diag A = diag B.
    """
    rows, columns = w1.square().sum(-1), w2.square().sum(-2)
    scales = neuron_scales(rows, columns).scales
    leading = RankRule("fixed", classes - 1)
    read = alignment_levels(w1, w2, rule=lab_rule())
    raw = alignment_levels(w1, w2, rule=leading)
    fixed = alignment_levels(scales[..., None] * w1, w2 / scales[:, None, :], rule=leading)
    return [_grades(*records) for records in zip(read, raw, fixed, strict=True)]


def _grades(read: LevelsRecord, raw: LevelsRecord, fixed: LevelsRecord) -> dict[str, float | None]:
    return {
        "rank": read.rank,
        "rank write": read.rank_write,
        "rank read": read.rank_read,
        "subspace": raw.subspace,
        "commutation": raw.commutation,
        "within": raw.commutation_within,
        "blocks": raw.blocks,
        "blocks chance": raw.blocks_chance,
        "basis": raw.basis,
        "balanced subspace": fixed.subspace,
        "balanced basis": fixed.basis,
    }
