"""What each pair of tasks loses by each merge, on sequences that no training saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from flagscope.lab.experiments.merge_prediction.merges import MERGES
from flagscope.lab.experiments.merge_prediction.tasks import PAIRS, Batch, performance
from flagscope.lab.gpt import GPTShape


def outcomes(
    network: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    updates: Sequence[Mapping[str, Tensor]],
    held_out: Sequence[Batch],
    shape: GPTShape,
) -> dict[str, Any]:
    """Performance of the base and of each fine-tuned network, and what pairs lose.

    Parameters
    ----------
    network
        The base with an update added.
    updates
        One for each task.
    held_out
        Fresh sequences of each task.
    shape
        Sizes of the network.

    Returns
    -------
    dict
        `base`, `tuned`: share of right symbols by task; `drops`, `loss_rises`: by merge, a number
        for each pair: 1 - (share after)/(share before) and the rise of the loss in nats, averaged
        over the two tasks.
    """
    base = [performance(network({}), drawn, shape)[0] for drawn in held_out]
    tuned = [
        performance(network(update), drawn, shape)
        for update, drawn in zip(updates, held_out, strict=True)
    ]
    drops: dict[str, list[float]] = {name: [] for name in MERGES}
    rises: dict[str, list[float]] = {name: [] for name in MERGES}
    for pair in PAIRS:
        for name, merge in MERGES.items():
            merged = network(merge([updates[task] for task in pair]))
            after = [performance(merged, held_out[task], shape) for task in pair]
            before = [tuned[task] for task in pair]
            # A network that was never right has nothing to lose.
            lost = [1 - a[0] / b[0] if b[0] else 0.0 for a, b in zip(after, before, strict=True)]
            rise = [a[1] - b[1] for a, b in zip(after, before, strict=True)]
            drops[name].append(float(f"{sum(lost) / 2:.8g}"))
            rises[name].append(float(f"{sum(rise) / 2:.8g}"))
    return {"base": base, "tuned": [share for share, _ in tuned], "drops": drops,
            "loss_rises": rises}  # fmt: skip
