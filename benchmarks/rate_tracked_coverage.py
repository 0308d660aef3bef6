"""Coverage of the 95 % intervals of rates that `flagscope.track` finds in simulated files.

    python -m benchmarks.rate_tracked_coverage

Checkpoints of four matrices whose ‖A - B‖ is planted: c e^{-rτ} with normal scatter in its
logarithm, whose neighbours may be correlated, at 8 to 12 checkpoints over 1.2 to 5 in τ. The rest
of the weights turns steadily from step to step, which leaves A and B as they are. Schedules are
read from optimizer.pt, with names of the tensors, or given. 50 series of two pairs, each of its
own group where there are two: 100 intervals for each row.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from safetensors.torch import save_file
from scipy import stats

import flagscope
from benchmarks.rate_coverage import scatter
from benchmarks.rate_files import SCHEDULES, UPDATES
from flagscope.records.series_rates import PairRate
from flagscope.series.rates import GroupSchedule, known_rates

SIZE, SERIES = 6, 50
# Unequal, so that names and shapes say in which order the matrices come.
SIZES = ((9, 8), (8, 7))
PAIRS = {"0-1": ("0", "1"), "2-3": ("2", "3")}
_DECAY = 0.01
Weights = dict[str, torch.Tensor]


class PlantedPair:
    """Two matrices with A - B = y D: D is fixed, and what A - B does not see turns steadily."""

    def __init__(self, generator: np.random.Generator, sizes: tuple[int, int]) -> None:
        drawn = generator.normal(size=(SIZE, SIZE))
        self._d = (drawn + drawn.T) / np.linalg.norm(drawn + drawn.T)
        turns = [generator.normal(size=(size, size)) for size in sizes]
        self._turns = [(turn - turn.T) / np.linalg.norm(turn - turn.T) for turn in turns]

    def at(self, y: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Write and read map W, V with W Wᵀ - Vᵀ V = y D."""
        ends = [(4 * np.eye(SIZE) + sign * y / 2 * self._d) for sign in (1, -1)]
        write, read = (np.real(scipy.linalg.sqrtm(end)) for end in ends)
        left, right = (scipy.linalg.expm(angle * turn) for turn in self._turns)
        return write @ left[:SIZE], right[:, :SIZE] @ read


def numbers_of_updates(generator: np.random.Generator) -> list[int]:
    """8 to 12 checkpoints: evenly, in log spacing, or drawn at random."""
    points, kind = int(generator.integers(8, 13)), int(generator.integers(3))
    if kind == 0:
        return [round(UPDATES * i / (points - 1)) for i in range(points)]
    if kind == 1:
        return sorted({round(UPDATES * 40 ** (i / (points - 1) - 1)) for i in range(points)})
    return sorted(generator.choice(UPDATES + 1, points, replace=False).tolist())


def series(
    generator: np.random.Generator, schedule: str, groups: int
) -> dict[str, tuple[list[tuple[float, PairRate]], list[str]]]:
    """By source of the schedule: planted rate and answer of each pair, and codes of faults."""
    decays = [_DECAY, _DECAY / 2][:groups]
    mean = np.mean([SCHEDULES[schedule](n) for n in range(UPDATES)])
    # Of the group that decays least.
    peak = generator.uniform(1.2, 5) / (2 * min(decays) * UPDATES * mean)
    numbers = numbers_of_updates(generator)

    def rate(update: int) -> float:
        return float(peak * SCHEDULES[schedule](update))

    planted: list[tuple[float, np.ndarray, PlantedPair]] = []
    for place in range(2):
        own = GroupSchedule("", known_rates(rate, updates=UPDATES), decays[place % groups])
        time = own.decay_time(numbers).value
        r, size = generator.uniform(0.5, 1.5), 10 ** generator.uniform(-3, -0.7)
        drawn = size * scatter(generator, time, float(generator.choice([0.0, 0.3, 0.6])))
        planted.append((r, np.exp(-r * time + drawn), PlantedPair(generator, SIZES[place])))
    with tempfile.TemporaryDirectory() as path:
        for i, n in enumerate(numbers):
            state: Weights = {}
            for (write, read), (_, values, pair) in zip(PAIRS.values(), planted, strict=True):
                angle = 2 * n / UPDATES
                for name, one in zip((write, read), pair.at(values[i], angle), strict=True):
                    state[f"{name}.weight"] = torch.from_numpy(one.astype(np.float32))
            inner = Path(path) / f"checkpoint-{n}"
            inner.mkdir()
            save_file(state, inner / "model.safetensors")
            torch.save(_optimiser(state, rate(n), decays).state_dict(), inner / "optimizer.pt")
        by_names = {"[01].*": decays[0], "[23].*": decays[-1]}
        by_hand = {"learning_rate": rate, "optimiser": "sgd", "weight_decay": by_names}
        found = {}
        for source, known in (("given", by_hand), ("optimizer.pt", {})):
            report = flagscope.track(
                path, progress=False, workers=1, kinds="sequential", store=f"{path}.store", **known
            )
            answers = {one.pair: one for one in report.result.rates[0].rates}
            pairs = [(r, answers[name]) for name, (r, _, _) in zip(PAIRS, planted, strict=True)]
            found[source] = pairs, [fault.code for fault in report.faults]
        shutil.rmtree(f"{path}.store")
    return found


def _optimiser(state: Weights, rate: float, decays: list[float]) -> torch.optim.Optimizer:
    named = [(name, torch.nn.Parameter(one)) for name, one in state.items()]
    parts = (named[:2], named[2:]) if len(decays) == 2 else (named,)
    groups = [
        {"params": part, "weight_decay": decay} for part, decay in zip(parts, decays, strict=True)
    ]
    return torch.optim.SGD(groups, lr=rate)


def covered(name: str, schedule: str, groups: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    found = [series(generator, schedule, groups) for _ in range(SERIES)]
    for source in found[0]:
        own = [one for every in found for one in every[source][0]]
        known = [(rate, one) for rate, one in own if one.answer == "rate"]
        held = sum((one.low or 0) <= rate <= (one.high or 0) for rate, one in known)
        ends = stats.binomtest(held, len(known)).proportion_ci(method="exact")
        off = np.quantile([(one.rate or 0) / rate - 1 for rate, one in known], [0.05, 0.5, 0.95])
        print(
            f"{name}, {source}: {held} of {len(known)} hold it, {held / len(known):.3f} "
            f"({ends.low:.3f} to {ends.high:.3f}); relative error, 5, 50, 95 %: "
            f"{off.round(4).tolist()}; {dict(Counter(one.answer for _, one in own))}; faults "
            f"{dict(Counter(code for every in found for code in every[source][1]))}",
            flush=True,
        )


if __name__ == "__main__":
    kinds = [*SCHEDULES, "two groups"]
    for name in sys.argv[1:] or kinds:
        schedule, groups = (name, 1) if name in SCHEDULES else ("cosine", 2)
        covered(name, schedule, groups, kinds.index(name))
