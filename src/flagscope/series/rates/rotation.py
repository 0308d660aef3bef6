"""How far AdamW turns a weight between two checkpoints, against rotational equilibrium.

Under decoupled decay w ← (1 - ηλ) w - η u. Let the updates u be a moving average, of memory β1, of
increments that are independent of each other and of w. Once decay and increments balance, w is a
stationary process of second order with the roots a = 1 - ηλ and b = β1, so that in many dimensions
the cosine between w and itself n steps later is

    ρ(n) = (a^{n+1} (1 - b²) - b^{n+1} (1 - a²)) / ((a - b)(1 + ab)).

For n = 1 this is 1 - ηλ (1-β1)/(1+β1) + …: the angle of one step is √(2ηλ (1-β1)/(1+β1)), which is
√(2ηλ) only without momentum. For n far beyond 1/(1-β1) it is e^{-nηλ} = e^{-τ/2}, whatever β1.

Whether in equilibrium or not, if what was added since is orthogonal to the earlier w, then
⟨w_t, w_s⟩ / ‖w_s‖² = Π (1 - η_n λ) = e^{-τ/2}: what is left of the earlier weight is what decay
leaves. Momentum makes that only approximately true, for the updates of the last 1/(1-β1) steps
before s continue after it.

References
----------
.. [1] A. Kosson, B. Messmer, M. Jaggi, Rotational Equilibrium: How Weight Decay Balances Learning
   Across Neural Networks, ICML 2024, arXiv 2305.17212: √(2ηλ (1-β1)/(1+β1)) for AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.series.rates.schedule import GroupSchedule

# Σ ηλ after which a weight may be in equilibrium: e^-2 of the start is left in w.
SETTLED = 2.0


def equilibrium_cosine(rate: float, decay: float, beta1: float, steps: float) -> float:
    """ρ(n): cosine between a weight in equilibrium and itself n steps later.

    Parameters
    ----------
    rate, decay, beta1
        η, λ and β1 of AdamW.
    steps
        n.

    Raises
    ------
    InputError
        If ηλ is not in (0, 1), or β1 not in [0, 1).

    Examples
    --------
    >>> c = equilibrium_cosine(1e-3, 0.1, 0.9, 1)
    >>> round(math.acos(c) / math.sqrt(2 * 1e-3 * 0.1 * 0.1 / 1.9), 3)
    1.0
    """
    if not 0 < rate * decay < 1 or not 0 <= beta1 < 1:
        raise InputError(
            f"learning rate times weight decay is {rate * decay:g}, β1 {beta1:g}: there is no "
            "equilibrium"
        )
    a, b = 1 - rate * decay, beta1
    if math.isclose(a, b, rel_tol=1e-9):
        return a**steps * (1 + steps * (1 - a**2) / (1 + a**2))
    kept = a ** (steps + 1) * (1 - b**2) - b ** (steps + 1) * (1 - a**2)
    return kept / ((a - b) * (1 + a * b))


@dataclass(frozen=True)
class Rotation:
    """The turn of one tensor between two checkpoints, predicted and measured.

    Attributes
    ----------
    start, stop
        Updates done at the two checkpoints.
    angle
        Measured angle between the two tensors as vectors, in radians.
    equilibrium_angle
        Predicted angle in equilibrium.
    kept
        Measured ⟨w_stop, w_start⟩ / ‖w_start‖².
    decay_leaves
        e^{-τ/2} between them: predicted for `kept` without equilibrium.
    norm_ratio
        ‖w_stop‖ / ‖w_start‖: 1 in equilibrium.
    settled
        Whether Σ ηλ up to `start` is at least 2; before, equilibrium is not to be expected.
    """

    start: int
    stop: int
    angle: float
    equilibrium_angle: float
    kept: float
    decay_leaves: float
    norm_ratio: float
    settled: bool

    @property
    def angle_ratio(self) -> float:
        """Measured over predicted angle."""
        return self.angle / self.equilibrium_angle


def rotations(
    tensors: Mapping[int, Float[Tensor, "*shape"]], group: GroupSchedule
) -> list[Rotation]:
    """Turns of one tensor between consecutive checkpoints.

    Assumed: AdamW with constant λ; for the equilibrium angle also a learning rate that changes
    little within 1/(ηλ) steps (its mean between the checkpoints is used), updates that are noise of
    memory β1 alone, without a direction of their own, and many dimensions. A gradient that keeps
    pulling in one direction makes the angle smaller. The angle is that of the whole tensor.

    Parameters
    ----------
    tensors
        The tensor by number of updates done. Keep those of a slice if memory is short.
    group
        Its schedule, with λ > 0; β1 is taken to be 0.9 where its betas are not known.

    Raises
    ------
    InputError
        If there are fewer than two, shapes differ, a tensor is zero or not finite, or λ is 0 or not
        known.

    Examples
    --------
    >>> import torch
    >>> from flagscope.series.rates import known_rates
    >>> group = GroupSchedule("all", known_rates(0.01, updates=100), decay=0.1, betas=(0.9, 0.99))
    >>> w = torch.eye(3)
    >>> turn = rotations({0: w, 100: 0.9 * w}, group)[0]
    >>> round(turn.angle, 9), round(turn.kept, 3), round(turn.decay_leaves, 3), turn.settled
    (0.0, 0.9, 0.905, False)
    """
    if len(tensors) < 2:
        raise InputError("a rotation needs two checkpoints")
    if not group.decay:
        raise InputError(f"group {group.name!r} has no weight decay, or it is not known")
    steps = sorted(tensors)
    time = group.decay_time(steps).value
    beta1 = 0.9 if group.betas is None else group.betas[0]
    turns = []
    for i, (start, stop) in enumerate(pairwise(steps)):
        first, second = (_vector(tensors[step], step) for step in (start, stop))
        if tensors[start].shape != tensors[stop].shape:
            raise InputError(f"the tensors of steps {start} and {stop} differ in shape")
        length = float(first.norm())
        product = float(first @ second)
        decayed = float(time[i + 1] - time[i]) / 2
        # The constant rate with the same total decay over these steps.
        mean = -math.expm1(-decayed / (stop - start)) / group.decay
        turns.append(
            Rotation(
                start=start,
                stop=stop,
                angle=_angle(first, second),
                equilibrium_angle=math.acos(
                    max(-1.0, min(1.0, equilibrium_cosine(mean, group.decay, beta1, stop - start)))
                ),
                kept=product / length**2,
                decay_leaves=math.exp(-decayed),
                norm_ratio=float(second.norm()) / length,
                settled=bool(time[i] / 2 >= SETTLED),
            )
        )
    return turns


def _vector(tensor: Tensor, step: int) -> Float[Tensor, " n"]:
    # Cosines near 1 are needed to many digits.
    vector = tensor.detach().reshape(-1).double()
    if not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise InputError(f"the tensor of step {step} is zero or not finite")
    return vector


def _angle(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Angle by Kahan's formula, which is accurate for small ones too."""
    u, v = a / a.norm(), b / b.norm()
    return 2 * math.atan2(float((u - v).norm()), float((u + v).norm()))
