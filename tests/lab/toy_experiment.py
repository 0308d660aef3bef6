"""A whole experiment in a file, as a user would write one: the mean of a fair coin is one half."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pandas as pd
import torch

from flagscope.lab import Cell, Experiment, Finding, Prediction
from flagscope.lab.figures import draw_estimates, new_figure
from flagscope.lab.intervals import band_verdict, mean_interval


class Toy(Experiment):
    """Throws coins; `data` is not used, so that settings are the seeds and the bias alone."""

    name = "toy"
    title = "A fair coin"
    claim = "A coin falls on either side alike."
    source = "folklore"
    budget_minutes = 0.1
    data_kind = "none"
    figures = (("coins", "Mean of the throws of each coin, with its interval."),)

    def cells(self, options):
        seeds = list(range(options.seeds or 4))
        biases = [float(p) for p in os.environ.get("TOY_BIASES", "0.5,0.5").split(",")]
        return [
            Cell(f"coin-{i}", {"seeds": seeds, "heads": p, "throws": 400}, cost=1 + i)
            for i, p in enumerate(biases)
        ]

    def measure(self, cell, report):
        if journal := os.environ.get("TOY_JOURNAL"):
            with Path(journal).open("a") as file:
                file.write(f"{cell.name} {os.getpid()}\n")
        if cell.name == os.environ.get("TOY_HANGS"):
            time.sleep(600)
        if cell.name == os.environ.get("TOY_FAILS"):
            raise ArithmeticError("the coin rolled away")
        if cell.name == os.environ.get("TOY_NAN"):
            return {"means": [float("nan")]}
        report(0.5)
        means = []
        for seed in cell.settings["seeds"]:
            generator = torch.Generator().manual_seed(seed)
            throws = torch.rand(cell.settings["throws"], generator=generator, dtype=torch.float64)
            means.append((throws < cell.settings["heads"]).double().mean().item())
        return {"means": means}

    def conclude(self, measured):
        estimates = tuple(mean_interval(m.cell.name, m.values["means"]) for m in measured)
        return (
            Finding(
                claim=self.claim,
                prediction=Prediction("the mean is one half, within 0.1", 0.5, "symmetry"),
                estimates=estimates,
                verdict=band_verdict(estimates, 0.4, 0.6),
                words="Thrown and counted.",
            ),
        )

    def table(self, measured):
        rows = [
            {"cell": m.cell.name, "seed": seed, "mean": mean}
            for m in measured
            for seed, mean in zip(m.cell.settings["seeds"], m.values["means"], strict=True)
        ]
        return pd.DataFrame(rows)

    def draw(self, measured, findings):
        figure, axes = new_figure()
        draw_estimates(axes[0, 0], findings[0].estimates, predicted=0.5)
        axes[0, 0].set_xlabel("mean of the throws")
        return {"coins": figure}


EXPERIMENT = Toy()
