"""Trains with AdamW at a constant learning rate, and measures how far weights turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flagscope.lab.data import load_images
from flagscope.lab.gpt import GPTShape, initial_state, logits
from flagscope.lab.imbalance import imbalance_matrix
from flagscope.lab.linear import class_regression, covariances, linear_gradients
from flagscope.lab.networks import initial_network
from flagscope.lab.text import pydoc_corpus, windows
from flagscope.lab.training import batch_indices
from flagscope.series.rates import GroupSchedule, fitted_rate, known_rates, rotations

# Σ ηλ before anything is measured, and how long it is then measured.
SETTLE, OBSERVE = 3.0, 1.5
LAGS = (1, 10, 100)
# Moments, as a share of 1/(ηλ) after the weights have settled, from which turns are measured.
_STARTS = (0.0, 0.25, 0.5)
_MOMENTS = 24  # of the series of ‖A - B‖


def measure_turns(s: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Turns at several lags, by seed: means over tensors and moments, and those of each tensor."""
    rows: list[dict[str, Any]] = []
    for i, seed in enumerate(s["seeds"]):
        fraction = i / len(s["seeds"])

        def told(part: float, fraction: float = fraction) -> None:
            report(fraction + part / len(s["seeds"]))

        rows += [row | {"seed": seed} for row in _turns(s, seed, told)]
    return {"turns": rows}


def _turns(
    s: dict[str, Any], seed: int, report: Callable[[float], None]
) -> Iterator[dict[str, Any]]:
    unit = round(1 / (s["rate"] * s["decay"]))
    settle, end = round(SETTLE * unit), round((SETTLE + OBSERVE) * unit)
    group = GroupSchedule(
        "maps",
        known_rates(s["rate"], updates=end),
        decay=s["decay"],
        betas=(s["beta1"], s["beta2"]),
    )
    starts = [settle + round(share * unit) for share in _STARTS]
    lags = [*(lag for lag in LAGS if lag < unit), unit]
    wanted = {start + lag for start in starts for lag in (0, *lags)}
    kept: dict[int, dict[str, Tensor]] = {}
    for step, maps in (_noise if s["kind"] == "noise" else _language)(s, seed, end):
        if step in wanted:
            kept[step] = {name: tensor.detach().clone() for name, tensor in maps.items()}
        if step % 50 == 0:
            report(step / end)
    for lag in lags:
        for name in kept[starts[0]]:
            turns = [
                rotations({t: kept[t][name], t + lag: kept[t + lag][name]}, group)[0]
                for t in starts
            ]
            yield {
                "tensor": name,
                "lag": lag,
                "whole": lag == unit,
                "angle": fmean(turn.angle for turn in turns),
                "angle_ratio": fmean(turn.angle_ratio for turn in turns),
                "kept_ratio": fmean(turn.kept / turn.decay_leaves for turn in turns),
                "norm_ratio": fmean(turn.norm_ratio for turn in turns),
            }


def _optimiser(parameters: list[Tensor], s: dict[str, Any]) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters, lr=s["rate"], betas=(s["beta1"], s["beta2"]), weight_decay=s["decay"]
    )


def _noise(s: dict[str, Any], seed: int, end: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """A matrix whose gradients are independent normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    weight = 0.02 * torch.randn(s["width"], s["width"], generator=generator)
    optimiser = _optimiser([weight], s)
    for step in range(end + 1):
        yield step, {"matrix": weight}
        weight.grad = torch.randn(weight.shape, generator=generator)
        optimiser.step()


def _language(s: dict[str, Any], seed: int, end: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The small GPT of the laboratory on Python's help topics; the maps of its layers."""
    text = pydoc_corpus()
    shape = GPTShape(vocab_size=len(text.vocabulary), n_layer=1, n_embd=s["width"], n_positions=32)
    start = initial_state(shape, torch.Generator().manual_seed(seed))
    state = {name: weight.requires_grad_() for name, weight in start.items()}
    maps = {
        name.removeprefix("transformer.h.").removesuffix(".weight"): weight
        for name, weight in state.items()
        if ".h." in name and weight.ndim == 2
    }
    optimiser = _optimiser(list(state.values()), s)
    generator = torch.Generator().manual_seed(2**32 + seed)
    for step in range(end + 1):
        yield step, maps
        window = windows(text, s["task"], rows=8, width=33, generator=generator)
        scores = logits(state, window[:, :-1], shape)
        loss = functional.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def measure_imbalance(s: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Rate of ‖A - B‖ of a linear pair in decay time under minibatches, by seed."""
    task = class_regression(load_images(s["data"]))
    widths = [task.inputs.shape[1], s["width"], task.targets.shape[1]]
    weights = [w.detach() for w in initial_network(widths, s["seeds"]).weights]
    sgd = s["optimiser"] == "sgd"
    optimiser = (
        torch.optim.SGD(weights, lr=s["rate"], weight_decay=s["decay"])
        if sgd
        else torch.optim.AdamW(weights, lr=s["rate"], weight_decay=s["decay"])
    )
    updates = round(s["until"] / (2 * s["rate"] * s["decay"]))
    generators = [torch.Generator().manual_seed(7919 + seed) for seed in s["seeds"]]
    moments = sorted({round(updates * i / _MOMENTS) for i in range(_MOMENTS + 1)})
    sizes = []
    for step in range(updates + 1):
        if step in moments:
            difference = imbalance_matrix(weights[0], weights[1])
            sizes.append(torch.linalg.matrix_norm(difference).tolist())
        if step % 100 == 0:
            report(step / updates)
        chosen = batch_indices(len(task.inputs), s["batch"], generators)
        gradients = linear_gradients(
            weights, *covariances(task.inputs[chosen], task.targets[chosen])
        )
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
    group = GroupSchedule("all", known_rates(s["rate"], updates=updates), decay=s["decay"])
    time = group.decay_time(moments)
    by_seed = [list(series) for series in zip(*sizes, strict=True)]
    fits = [fitted_rate(time, series) for series in by_seed]
    return {
        "time": time.value.tolist(),
        "size": by_seed,
        "answers": [fit.answer for fit in fits],
        # One number for each seed, whatever the fit says of its shape: the fall from end to end.
        "overall": [_overall(time.value.tolist(), series) for series in by_seed],
        "rates": [fit.rate for fit in fits],
    }


def _overall(time: list[float], series: list[float]) -> float:
    """-Δ log ‖A - B‖ / Δτ from the first to the last moment."""
    first, last = torch.tensor([series[0], series[-1]]).log().tolist()
    return (first - last) / (time[-1] - time[0])
