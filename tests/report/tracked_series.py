"""Records of small trainings that were really tracked: several runs, adapters, a known rate."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import flagscope
from flagscope.records.series import SeriesRecord
from flagscope.records.series_changes import ChangePoint
from series.made import Run, adapters, linear, mlp, saved

_FACTORS = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"


@cache
def made(name: str) -> SeriesRecord:
    """The series "runs", "adapters" or "rates"."""
    with tempfile.TemporaryDirectory() as folder:
        return {"runs": _runs, "adapters": _adapters, "rates": _rates}[name](Path(folder))


def _runs(folder: Path) -> SeriesRecord:
    """Three seeds, the first with a step more, and a jump that is put in by hand."""
    for seed in range(3):
        saved(mlp(seed, steps=4 if seed == 0 else 3), folder / f"seed-{seed}")
    record = flagscope.track(f"{folder}/*").result
    jump = ChangePoint(
        pair="0-2", kind="sequential", layer=None, observable="gram_correlation",
        after="seed-0/checkpoint-10", by="seed-0/checkpoint-20", after_number=10, by_number=20,
        jump=0.5, p_familywise=1e-4,
    )  # fmt: skip
    first, *others = record.change_points
    first = first.model_copy(update={"points": [jump], "tests": 8, "curves": 4})
    return record.model_copy(update={"change_points": [first, *others]})


def _adapters(folder: Path) -> SeriesRecord:
    """One module whose leading direction grows, one with three dead directions."""
    run: Run = adapters(0)
    for place, (_, state) in enumerate(run):
        state[_FACTORS.format(1, "v_proj", "A")][5:] = 0
        state[_FACTORS.format(1, "v_proj", "B")][:, 5:] = 0
        state[_FACTORS.format(2, "q_proj", "B")][:, 0] *= 1 + 1.5 * place
    return flagscope.track(saved(run, folder / "lora")).result


def _rates(folder: Path) -> SeriesRecord:
    """A linear network under SGD with L2."""
    source = saved(list(linear()), folder / "linear")
    return flagscope.track(source, learning_rate=0.1, weight_decay=0.02, optimiser="sgd").result
