"""Rates that `flagscope.track` finds in the files of linear networks, and of AdamW's turns.

    python -m benchmarks.rate_tracked

Networks of 12 neurons a layer on scikit-learn's digits, 1,000 updates, 13 checkpoints, 20 seeds.
Each training is saved as its trainer saves it. Its schedule is read from that, and then given.
Under SGD with L2 theory predicts a rate of 1 in decay time.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import flagscope
from benchmarks.rate_files import Training, add_trainer_files, save_training
from flagscope.records.series_rates import SeriesRates

SEEDS = range(20)
ONE, TWO = (0.01,) * 3, (0.02, 0.02, 0.01, 0.01)
SCHEDULES = ("constant", "constant_with_warmup", "cosine")
BY_NAMES = {"[01].weight": 0.02, "[23].weight": 0.01}


def rates_in(folder: Path, **given: Any) -> SeriesRates:
    report = flagscope.track(folder, progress=False, workers=1, kinds="sequential", **given)
    assert report.faults == [], report.faults
    return report.result.rates[0]


def of_training(training: Training, seed: int) -> dict[str, SeriesRates]:
    """Rates by what the schedule was read from."""
    decay = BY_NAMES if training.decays == TWO else training.decays[0]
    by_hand = {"learning_rate": training.rate, "optimiser": training.optimiser,
               "momentum": training.momentum, "weight_decay": decay}  # fmt: skip
    found = {}
    with tempfile.TemporaryDirectory() as path:
        folder, store = Path(path) / "run", Path(path) / "store"
        save_training(training, seed, folder)
        if training.decays == ONE and not training.momentum:
            add_trainer_files(training, folder)
        # Scans are kept, so that only the schedule is read anew.
        for known in ({}, by_hand):
            rates = rates_in(folder, store=store, **known)
            found[rates.source] = rates
    return found


def said(rates: Sequence[SeriesRates], pairs: Sequence[str]) -> str:
    own = [one for series in rates for one in series.rates if one.pair in pairs]
    answers = dict(Counter(one.answer for one in own))
    known = [one for one in own if one.rate is not None]
    if not known:
        return f"{answers}"
    off = np.array([(one.rate or 0) - 1 for one in known])
    held = sum((one.low or 0) <= 1 <= (one.high or 0) for one in known)
    width = np.median([(one.high or 0) - (one.low or 0) for one in known])
    worst = np.abs(off).max()
    return (
        f"{answers}; rate - 1: median {np.median(off):+.4f}, 5 to 95 % "
        f"{np.quantile(off, 0.05):+.4f} to {np.quantile(off, 0.95):+.4f}, largest {worst:.4f}; "
        f"within 2 %: {(np.abs(off) < 0.02).sum()}; 1 in {held} of {len(known)} intervals, of "
        f"median width {width:.4f}; predicted {sorted({str(one.predicted) for one in known})}"
    )


def trainings(cases: Mapping[str, Training]) -> None:
    for name, training in cases.items():
        found = [of_training(training, seed) for seed in SEEDS]
        groups = {"every pair": ("0-1", "1-2", "2-3")}
        if training.decays == TWO:
            groups = {"λ = 0.02": ("0-1",), "across": ("1-2",), "λ = 0.01": ("2-3",)}
        for source in found[0]:
            for what, pairs in groups.items():
                line = said([one[source] for one in found], pairs)
                print(f"{name}, {what} ({source}): {line}", flush=True)


def turns_of_noise() -> None:
    """AdamW on gradients that are noise, with two groups of their own λ, by optimizer.pt."""
    ratios, kept = [], []
    for seed in SEEDS:
        draws = torch.Generator().manual_seed(seed)
        weights = {
            f"{i}.weight": torch.nn.Parameter(0.1 * torch.randn(32, 32, generator=draws))
            for i in range(4)
        }
        named = list(weights.items())
        optimizer = torch.optim.AdamW(
            [{"params": named[:2], "weight_decay": 0.5}, {"params": named[2:], "weight_decay": 1}],
            lr=0.01,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as path:
            for n in range(1201):
                if n % 100 == 0:
                    inner = Path(path) / f"checkpoint-{n}"
                    inner.mkdir()
                    state = {name: one.detach().clone() for name, one in weights.items()}
                    save_file(state, inner / "model.safetensors")
                    torch.save(optimizer.state_dict(), inner / "optimizer.pt")
                for one in weights.values():
                    one.grad = torch.randn(one.shape, generator=draws)
                optimizer.step()
            late = [one for one in rates_in(Path(path)).rotations if one.settled]
        ratios.append(np.mean([one.angle_ratio or 0 for one in late]))
        kept.append(np.mean([(one.kept or 0) - (one.decay_leaves or 0) for one in late]))
    print(f"noise under AdamW, two groups: angle over predicted {np.mean(ratios):.4f} "
          f"({min(ratios):.4f} to {max(ratios):.4f} over seeds); kept - decay leaves "
          f"{np.mean(kept):+.4f} ({min(kept):+.4f} to {max(kept):+.4f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    cases = {f"{name}, one λ": Training(name, ONE) for name in SCHEDULES}
    cases |= {f"{name}, two groups": Training(name, TWO) for name in SCHEDULES}
    cases["momentum 0.9"] = Training("constant", ONE, peak=0.02, momentum=0.9)
    cases["batches of 64"] = Training("constant", ONE, batch=64)
    cases["AdamW"] = Training("constant", (2.0,) * 3, optimiser="adamw", peak=0.001)
    trainings(cases)
    turns_of_noise()
