"""How often `flagscope track` claims a jump of a curve, with and without an event.

    python -m benchmarks.series_jumps            # made curves, minutes
    python -m benchmarks.series_jumps trainings  # small MLPs through `flagscope.track`

Made curves: 400 series of 10 curves and 30 steps of each kind. Trainings: 30 checkpoints of an MLP,
with AdamW and SGD; without an event (constant rate, cosine, warm-up), with a layer that starts anew
just before checkpoint 15, and with ten times the learning rate from there on.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import flagscope
from flagscope.records.series import SeriesCurve, StepRecord
from flagscope.series.changes import change_points

STEPS, CURVES, SERIES, EVENT, EVERY = 30, 10, 400, 15, 10
Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _growth(draws: np.random.Generator, s: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-s / draws.uniform(1, 15))


def _transition(draws: np.random.Generator, s: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(s - draws.uniform(8, 22)) / draws.uniform(0.5, 4)))


KINDS: dict[str, Draw] = {
    "random walk": lambda draws, s: draws.normal(size=s.size).cumsum(),
    "walk that fades": lambda draws, s: (draws.normal(size=s.size) * np.exp(-s / 8)).cumsum(),
    "integrated walk": lambda draws, s: draws.normal(size=s.size).cumsum().cumsum(),
    "exponential": _growth,
    "power law": lambda draws, s: (1 + s) ** -draws.uniform(0.3, 2),
    "transition": _transition,
    "exponential, scatter": lambda draws, s: _growth(draws, s) + 0.01 * draws.normal(size=s.size),
    "exponential, walk": lambda draws, s: (
        _growth(draws, s) + 0.01 * draws.normal(size=s.size).cumsum()
    ),
    "transition, scatter": lambda draws, s: (
        _transition(draws, s) + 0.01 * draws.normal(size=s.size)
    ),
    "walk with t3 steps": lambda draws, s: draws.standard_t(3, size=s.size).cumsum(),
}


def _curve(values: np.ndarray) -> SeriesCurve:
    chance: list[float | None] = [None] * len(values)
    return SeriesCurve(
        pair="0-2", kind="sequential", layer=0, observable="gram_correlation", label=None,
        values=values.tolist(), low=chance, high=chance,
    )  # fmt: skip


def share_with_a_claim(draw: Draw, seed: int) -> float:
    """Share of series in which any curve is said to jump."""
    draws, s = np.random.default_rng(seed), np.arange(STEPS)
    steps = [
        StepRecord(
            name=str(i), source="", number=int(i), unit="step", tensors=1, bytes_total=0,
            bytes_sampled=0,
        )
        for i in s
    ]  # fmt: skip
    claims = 0
    for _ in range(SERIES):
        claims += bool(change_points(steps, [_curve(draw(draws, s)) for _ in range(CURVES)]).points)
    return claims / SERIES


def train(folder: Path, *, seed: int, optimizer: str, event: str) -> None:
    """Save 30 checkpoints of a small MLP."""
    draws = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 6)
    )
    truth = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    adamw = optimizer == "adamw"
    rate = 1e-3 if adamw else 0.03
    steps = (
        torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
        if adamw
        else torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    )
    for step in range(EVERY * STEPS):
        if step == EVERY * EVENT and event == "new layer":
            torch.nn.init.kaiming_uniform_(net[2].weight, a=5**0.5)  # pyright: ignore[reportArgumentType]
        factor = 10.0 if event == "learning rate" and step >= EVERY * EVENT else 1.0
        if event == "cosine":
            factor = (1 + math.cos(math.pi * step / (EVERY * STEPS))) / 2
        if event == "warm-up":
            factor = min(1.0, step / (EVERY * 5))
        for group in steps.param_groups:
            group["lr"] = rate * factor
        if step % EVERY == 0:
            save_file(net.state_dict(), folder / f"step-{step}.safetensors")
        points = torch.randn(64, 24, generator=draws)
        loss = nn.functional.cross_entropy(net(points), (points @ truth).argmax(1))
        steps.zero_grad()
        loss.backward()
        steps.step()


def trainings() -> None:
    for seed in range(4):
        for optimizer in ("adamw", "sgd"):
            for event in ("none", "cosine", "warm-up", "new layer", "learning rate"):
                with tempfile.TemporaryDirectory() as folder:
                    train(Path(folder), seed=seed, optimizer=optimizer, event=event)
                    (found,) = flagscope.track(folder, progress=False).result.change_points
                between = Counter((one.after_number, one.by_number) for one in found.points)
                print(seed, optimizer, event, found.curves, dict(between), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["trainings"]:
        trainings()
    else:
        for name, draw in KINDS.items():
            shares = [share_with_a_claim(draw, seed) for seed in range(3)]
            print(f"{name}: {', '.join(f'{share:.3f}' for share in shares)}", flush=True)
