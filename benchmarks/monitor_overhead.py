"""Share of the training time that the monitor takes at a budget of 1 %, on the lab's GPT.

    python -m benchmarks.monitor_overhead [--rounds 20] [--steps 100]

The calibration chooses the schedule, as in any training. Then blocks of equal numbers of steps
follow each other as ABBA, A without and B with one measurement at its start, whose after-effects on
caches and memory are thus counted. What a B block takes longer than its A is spread over the steps
that the schedule leaves between two measurements; calls of steps without a measurement are added.

The interval is the 95 % interval of the mean over rounds (Student's t). The machine should be idle:
the noise of steps is most of the spread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import mean, median, stdev
from typing import Any

import click
from scipy.stats import t as student

import flagscope
from benchmarks.monitor_alerts import holder
from flagscope.lab.gpt import GPTShape
from flagscope.lab.gpt_training import TrainingRecipe, trained
from flagscope.lab.text import pydoc_corpus

BUDGET = 0.01
CALIBRATION = 26


def training(steps: int, blocks: int) -> Iterator[tuple[int, Any, GPTShape]]:
    """A training that pauses after each step of the calibration, then after each block."""
    text = pydoc_corpus()
    shape = GPTShape(vocab_size=len(text.vocabulary))
    stops = [*range(CALIBRATION + 1), *(CALIBRATION + steps * n for n in range(1, blocks + 1))]
    recipe = TrainingRecipe("adamw", stops[-1], 32, 1e-3, 0.3)
    for step, state in trained(shape, text, recipe, seed=0, checkpoints=stops):
        yield step, state, shape


@click.command()
@click.option("--rounds", default=20, show_default=True, help="Rounds of ABBA.")
@click.option("--steps", default=100, show_default=True, help="Steps of a block.")
def main(rounds: int, steps: int) -> None:
    run = training(steps, 4 * rounds + 1)
    _, state, shape = next(run)
    monitor = flagscope.AlignmentMonitor(holder(state), budget=BUDGET, config=shape.config())
    for step, *_ in run:
        monitor.step(step)
        if monitor.schedule is not None:
            break
    schedule = monitor.schedule
    assert schedule is not None
    print(f"the calibration chose {schedule}", flush=True)
    monitor._share = None  # blocks are shorter than the schedule: nothing is skipped here
    due = schedule.every * (CALIBRATION // schedule.every + 1)

    def block(watched: bool) -> float:
        nonlocal due
        start = time.perf_counter()
        if watched:
            assert monitor.step(due) is not None
            due += schedule.every
        next(run)
        return time.perf_counter() - start

    block(False)
    extra, plain = [], []
    for _ in range(rounds):
        a, b, c, d = (block(watched) for watched in (False, True, True, False))
        extra.append((b + c - a - d) / 2)
        plain.append((a + d) / 2 / steps)
    start = time.perf_counter()
    for _ in range(100_000):
        monitor.step(0)
    calls = (time.perf_counter() - start) / 100_000
    shares = [100 * (x / schedule.every + calls) / median(plain) for x in extra]
    half = student.ppf(0.975, rounds - 1) * stdev(shares) / rounds**0.5
    print(f"a step takes {1000 * median(plain):.2f} ms, a call without measurement "
          f"{1e6 * calls:.2f} us, a measurement {mean(extra):.3f} s")  # fmt: skip
    print(f"overhead {mean(shares):.2f} % of the training, 95 % interval "
          f"{mean(shares) - half:.2f} to {mean(shares) + half:.2f} %, n = {rounds}; "
          f"rounds from {min(shares):.2f} to {max(shares):.2f} %")  # fmt: skip


if __name__ == "__main__":
    main()
