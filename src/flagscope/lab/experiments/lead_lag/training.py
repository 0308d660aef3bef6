"""Trains the small GPT, and measures all signals until the training ends or has diverged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD

from flagscope.lab.experiments.lead_lag.alarms import divergence
from flagscope.lab.experiments.lead_lag.signals import BASELINES, DIAGNOSTICS, weight_numbers
from flagscope.lab.gpt import GPTShape, State, initial_state, logits, mean_loss
from flagscope.lab.gpt_training import MOMENTUM, TrainingRecipe, trained
from flagscope.lab.text import Corpus, corpus, held_out_text, windows

# Step, weights, and the means of training loss and gradient norm since the measurement before.
Moment = tuple[int, State, float | None, float | None]


def measure_training(s: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """One training: the steps, every signal at them, and where held-out loss diverged.

    It ends with the measurement that shows the divergence. `finite` says of each measurement
    whether all weights and the held-out loss were finite numbers; signals without a number are
    None.
    """
    text = corpus(s["data"])
    shape = GPTShape(**s["shape"])
    test = held_out_text(text, "real")[: s["held_out_tokens"]]
    steps: list[int] = []
    finite: list[bool] = []
    series: dict[str, list[float | None]] = {x.name: [] for x in (*BASELINES, *DIAGNOSTICS)}
    moments = (_sgd if s["optimizer"] == "sgd" else _adamw)(s, shape, text)
    diverged = None
    for step, state, loss, norm in moments:
        report(step / s["steps"])
        with torch.no_grad():
            held_out = float(mean_loss(state, test, shape))
        whole = all(bool(weight.isfinite().all()) for weight in state.values())
        numbers = weight_numbers(state, shape) if whole else {}
        numbers |= {"gradient_norm": norm, "training_loss": loss, "held_out_loss": held_out}
        steps.append(step)
        finite.append(whole and math.isfinite(held_out))
        for name, values in series.items():
            values.append(_known(numbers.get(name)))
        diverged = divergence(steps, series["held_out_loss"])
        if diverged is not None:
            break
    return {"steps": steps, "finite": finite, "series": series, "diverged": diverged}


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _sgd(s: dict[str, Any], shape: GPTShape, text: Corpus) -> Iterator[Moment]:
    """SGD with momentum, without clipping or decay, at a constant rate after the warm-up."""
    start = initial_state(shape, torch.Generator().manual_seed(s["seed"]))
    state = {name: weight.requires_grad_() for name, weight in start.items()}
    optimizer = SGD(state.values(), lr=s["rate"], momentum=MOMENTUM, fused=True)
    generator = torch.Generator().manual_seed(2**32 + s["seed"])  # independent of the weights
    losses: list[float] = []
    norms: list[float] = []
    for step in range(s["steps"] + 1):
        # The initial weights have no training loss or gradient yet, and are left out.
        if step and step % s["every"] == 0:
            weights = {name: weight.detach() for name, weight in state.items()}
            yield step, weights, fmean(losses), fmean(norms)
            losses, norms = [], []
        window = windows(
            text, "real", rows=s["batch"], width=shape.n_positions + 1, generator=generator
        )
        scores = logits(state, window[:, :-1], shape)
        loss = functional.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        norms.append(float(clip_grad_norm_(state.values(), math.inf)))  # clips nothing
        for group in optimizer.param_groups:
            group["lr"] = s["rate"] * min(1.0, (step + 1) / max(1, s["warmup"]))
        optimizer.step()


def _adamw(s: dict[str, Any], shape: GPTShape, text: Corpus) -> Iterator[Moment]:
    """The laboratory's usual training, with warm-up, cosine, clipping and decay."""
    recipe = TrainingRecipe("adamw", s["steps"], s["batch"], s["rate"], s["decay"])
    stops = range(s["every"], s["steps"] + 1, s["every"])
    for step, state in trained(shape, text, recipe, seed=s["seed"], checkpoints=stops):
        yield step, state, None, None
