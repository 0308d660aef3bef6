"""Share of the training time that the monitor takes at a budget of 1 %, next to `wandb.watch`.

    python -m benchmarks.monitor_overhead [--rounds 20] [--steps 20]

The training is that of the lab's GPT (3 layers, width 64, batches of 32 texts of 64 characters).
The monitor's calibration chooses its schedule, as in any training. Then blocks of equal numbers of
steps follow each other, forward and backward through the kinds: plain, with one measurement of the
monitor, with one of `wandb.watch(log="all")`, and these in reverse. After-effects on caches and
memory are thus counted. What a block takes longer than the plain ones of its round is spread over
the steps between two measurements: those of the monitor's schedule, and for `wandb.watch` those and
its default of 1,000. What calls and hooks cost at steps without a measurement is added; that of the
hooks is measured without the forward and backward passes, in whose noise it is lost.

Weights & Biases runs offline, and its rows are left out where it is not installed. Times are those
of the processor, of all threads of this process (the training has one), and the wall clock's; a
process of its own, which Weights & Biases starts, is in neither. The interval is the 95 % interval
of the mean over rounds (Student's t).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import mean, median, stdev
from typing import Any

import click
import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

import flagscope
from benchmarks.monitor_alerts import holder
from flagscope.lab.gpt import GPTShape, initial_state, logits
from flagscope.lab.text import pydoc_corpus, windows

BUDGET = 0.01
DEFAULT = 1000  # log_freq of wandb.watch
_HOOKED = 200  # steps of a block that times hooks alone
Times = tuple[float, float]  # processor and wall


class LabGPT(nn.Module):
    """The lab's GPT as a module, so that hooks on modules and parameters see its training."""

    def __init__(self, shape: GPTShape) -> None:
        super().__init__()
        self.shape = shape
        self.transformer = holder(initial_state(shape, torch.Generator().manual_seed(0)))
        self.transformer = self.transformer.get_submodule("transformer")
        self.state = dict(self.named_parameters())

    def forward(self, tokens: Tensor) -> Tensor:
        return logits(self.state, tokens, self.shape)


class Training:
    """A training that is carried on by some steps at a time."""

    def __init__(self) -> None:
        self._text = pydoc_corpus()
        self.model = LabGPT(GPTShape(vocab_size=len(self._text.vocabulary)))
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True
        )
        self._generator = torch.Generator().manual_seed(1)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            window = windows(self._text, "real", rows=32, width=65, generator=self._generator)
            scores = self.model(window[:, :-1])
            loss = functional.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
            self._optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(self.model.parameters(), 1.0)
            self._optimizer.step()


def timed(work: Callable[[], Any]) -> Times:
    start = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def extra(blocks: Sequence[Times], plain: Sequence[Times]) -> Times:
    """What blocks take longer than plain ones, on both clocks."""
    longer, short = ([mean(clock) for clock in zip(*kind, strict=True)] for kind in (blocks, plain))
    return longer[0] - short[0], longer[1] - short[1]


@contextmanager
def wandb_run() -> Iterator[Any]:
    """An offline run; None where Weights & Biases is not installed."""
    try:
        import wandb
    except ImportError:
        print("wandb is not installed: its rows are left out")
        yield None
        return
    os.environ["WANDB_SILENT"] = "true"
    with (
        tempfile.TemporaryDirectory() as folder,
        wandb.init(mode="offline", dir=folder, project="overhead") as run,
    ):
        print(f"wandb {wandb.__version__}")
        yield run


def hook_seconds(model: nn.Module, run: Any, rounds: int) -> list[Times]:
    """What the hooks of `wandb.watch` add to a step at which they do nothing; one a round.

    The gradients are handed to the parameters as a backward pass does it, without the pass.
    """
    weights = list(model.parameters())
    gradients = [torch.zeros_like(weight) for weight in weights]

    def steps() -> None:
        for _ in range(_HOOKED):
            for hook in model._forward_hooks.values():
                hook(model, (), None)
            torch.autograd.backward(weights, gradients)

    found = []
    for _ in range(rounds):
        blocks: dict[bool, list[Times]] = {False: [], True: []}
        for hooked in (False, True, True, False):
            if hooked:
                run.watch(model, log="all", log_freq=10**9)
            blocks[hooked].append(timed(steps))
            if hooked:
                run.unwatch(model)
        cpu, wall = extra(blocks[True], blocks[False])
        found.append((cpu / _HOOKED, wall / _HOOKED))
    model.zero_grad()
    return found


def interval(values: Sequence[float]) -> str:
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.2f} ({mean(values) - half:.2f} to {mean(values) + half:.2f})"


@click.command()
@click.option("--rounds", default=20, show_default=True, help="Rounds through all kinds and back.")
@click.option("--steps", default=20, show_default=True, help="Steps of a block.")
def main(rounds: int, steps: int) -> None:
    training = Training()
    monitor = flagscope.AlignmentMonitor(
        training.model, budget=BUDGET, config=training.model.shape.config()
    )
    step = 0
    while monitor.schedule is None:
        training.run(1)
        step += 1
        monitor.step(step)
    every = monitor.schedule.every
    print(f"the calibration chose {monitor.schedule}", flush=True)
    monitor._share = None  # blocks are shorter than the schedule: nothing is skipped here
    due = every * (step // every + 1)

    def watched() -> None:
        nonlocal due
        assert monitor.step(due) is not None
        due += every
        training.run(steps)

    with wandb_run() as run:

        def block(kind: str) -> Times:
            if kind == "wandb":
                # Fires once, in the middle; the next log sends what was gathered.
                run.watch(training.model, log="all", log_freq=steps // 2 + 1)

            def work() -> None:
                watched() if kind == "monitor" else training.run(steps)
                if run is not None:
                    run.log({"flagscope": 1.0})

            times = timed(work)
            if kind == "wandb":
                run.unwatch(training.model)
            return times

        kinds = ("plain", "monitor", *(("wandb",) if run is not None else ()))
        for kind in kinds:
            block(kind)
        measured: dict[str, list[Times]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            blocks: dict[str, list[Times]] = {kind: [] for kind in kinds}
            for kind in (*kinds, *reversed(kinds)):
                blocks[kind].append(block(kind))
            for kind in kinds[1:]:
                measured[kind].append(extra(blocks[kind], blocks["plain"]))
            measured["plain"] += blocks["plain"]
        hooks = hook_seconds(training.model, run, rounds) if run is not None else []
    calls = timed(lambda: [monitor.step(0) for _ in range(100_000)])
    calls = [(calls[0] / 100_000, calls[1] / 100_000)] * rounds
    table = [("AlignmentMonitor, budget 1 %", "monitor", calls, every)]
    if hooks:
        name = 'wandb.watch(log="all")'
        table += [
            (f"{name}, log_freq={DEFAULT:,} (default)", "wandb", hooks, DEFAULT),
            (f"{name}, log_freq={every:,}", "wandb", hooks, every),
        ]
    print(f"n = {rounds} rounds; load {os.getloadavg()[0]:.1f}")
    print(
        "| watched by | every | one measurement, s | each other step, ms | share of the training, %"
        " | by the wall clock, % |\n|---|---:|---:|---:|---:|---:|"
    )
    plain = [median(clock) / steps for clock in zip(*measured["plain"], strict=True)]
    for name, kind, idle, steps_between in table:
        shares = [
            [
                100 * (x[clock] / steps_between + y[clock]) / plain[clock]
                for x, y in zip(measured[kind], idle, strict=True)
            ]
            for clock in (0, 1)
        ]
        print(
            f"| {name} | {steps_between:,} | {mean(x[0] for x in measured[kind]):.3f} | "
            f"{1000 * mean(y[0] for y in idle):.4f} | {interval(shares[0])} | "
            f"{interval(shares[1])} |"
        )
    print(
        f"a step takes {1000 * plain[0]:.1f} ms of the processor, {1000 * plain[1]:.1f} ms in all"
    )


if __name__ == "__main__":
    main()
