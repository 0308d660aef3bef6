"""LoRA trainings, healthy and with planted faults, under the monitor and as tracked series.

    python -m benchmarks.lora_series [--seeds 12] [--planted 8]

A small GPT is trained on text; LoRA of rank 8 then trains all maps of its blocks on held-out text,
with SGD and with AdamW, odd seeds at three times the learning rate. Each training is measured at
its start and ten times; it is healthy if its loss has fallen from the first twenty steps to the
last. A fault is named where `dead-lora-rank` fires at its block within five
measurements.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import flagscope
import flagscope.monitor
from benchmarks.monitor_alerts import holder
from flagscope.lab.gpt import GPTShape, logits
from flagscope.lab.gpt_training import TrainingRecipe, trained
from flagscope.lab.text import Corpus, pydoc_corpus
from flagscope.records.series_adapter import AdapterCurves

RANK, ALPHA = 8, 16
BLOCK = "base_model.model.transformer.h.1"
MODULE = f"{BLOCK}.attn.c_attn"
MAPS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
MEASUREMENTS, PLANTED_AT, EACH = 10, 5, 20
Named = dict[str, Tensor]


@functools.cache
def base() -> tuple[Named, GPTShape, Corpus]:
    """A GPT after 300 steps, its shape and its text."""
    text = pydoc_corpus()
    shape = GPTShape(len(text.vocabulary), n_layer=2, n_head=4, n_embd=32, n_positions=32)
    recipe = TrainingRecipe("adamw", 300, 16, 3e-3, 0.3)
    *_, (_, state) = trained(shape, text, recipe, seed=0, checkpoints=[300])
    return {name: tensor.clone() for name, tensor in state.items()}, shape, text


@dataclass
class Training:
    """LoRA on the GPT. Hooks of a fault change factors before, or after, each step.

    Attributes
    ----------
    factors
        A (r, in) and B (out, r) under PEFT's names of a live model.
    """

    seed: int
    optimizer: str = "adamw"
    factors: Named = field(default_factory=dict)
    after: Callable[[Training], None] | None = None
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draws = torch.Generator().manual_seed(self.seed)
        weights, shape, _ = base()
        for layer in range(shape.n_layer):
            for part in MAPS:
                rows, columns = weights[f"transformer.h.{layer}.{part}.weight"].shape
                name = f"base_model.model.transformer.h.{layer}.{part}"
                a = torch.randn(RANK, rows, generator=self.draws) / rows**0.5
                self.factors[f"{name}.lora_A.default.weight"] = a
                self.factors[f"{name}.lora_B.default.weight"] = torch.zeros(columns, RANK)
        self.rule = self.new_rule()

    def new_rule(self) -> torch.optim.Optimizer:
        """An optimiser of the factors."""
        rate = 3.0 if self.seed % 2 else 1.0  # SGD at 0.3 leaves what the base had learned
        leaves = [factor.requires_grad_() for factor in self.factors.values()]
        if self.optimizer == "sgd":
            return torch.optim.SGD(leaves, lr=0.05 * rate, momentum=0.9)
        return torch.optim.AdamW(leaves, lr=2e-3 * rate, weight_decay=0.01)

    def state(self) -> Named:
        """Base and factors as a live model of PEFT has them."""
        found = {}
        for name, tensor in base()[0].items():
            module, _, kind = f"base_model.model.{name}".rpartition(".")
            adapted = f"{module}.lora_A.default.weight" in self.factors
            found[f"{module}.base_layer.{kind}" if adapted else f"{module}.{kind}"] = tensor
        return found | {name: factor.detach() for name, factor in self.factors.items()}

    @property
    def learned(self) -> bool:
        """Whether the loss has fallen."""
        return sum(self.losses[-EACH:]) < sum(self.losses[:EACH])

    def step(self) -> None:
        """One step of training."""
        weights, shape, text = base()
        merged = dict(weights)
        for name in self.factors:
            if ".lora_A." in name:
                module = name.partition(".lora_A.")[0]
                a, b = self.factors[name], self.factors[name.replace("lora_A", "lora_B")]
                target = module.removeprefix("base_model.model.") + ".weight"
                merged[target] = weights[target] + ALPHA / len(a) * (b @ a).T  # (in, out)
        width, data = shape.n_positions + 1, text.validation
        starts = torch.randint(0, len(data) - width, (16,), generator=self.draws)
        window = torch.stack([data[i : i + width] for i in starts.tolist()])
        scores = logits(merged, window[:, :-1], shape)
        loss = functional.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        self.rule.zero_grad()
        loss.backward()
        self.rule.step()
        if self.after is not None:
            with torch.no_grad():
                self.after(self)
        self.losses.append(float(loss.detach()))

    def measured(
        self, plant: Callable[[Training], None] | None = None, at: int = PLANTED_AT
    ) -> Iterator[int]:
        """Steps of the measurements; a fault is planted before that of its number."""
        for number in range(MEASUREMENTS + 1):
            if plant is not None and number == at:
                with torch.no_grad():
                    plant(self)
            yield number * EACH
            for _ in range(EACH):
                self.step()


# Faults, planted once; `after` repeats what has to persist -----------------------------------


def expanded(run: Training) -> None:
    """Rank 8 becomes 12 by rows and columns of zeros, as in ostris/ai-toolkit issue 1056."""
    for name, factor in run.factors.items():
        pad = (0, 0, 0, 4) if "lora_A" in name else (0, 4)
        run.factors[name] = functional.pad(factor.detach(), pad)
    run.rule = run.new_rule()


def both_zero(run: Training) -> None:
    run.factors[f"{MODULE}.lora_A.default.weight"][5:] = 0
    run.factors[f"{MODULE}.lora_B.default.weight"][:, 5:] = 0
    run.rule = run.new_rule()


def masked_column(run: Training) -> None:
    def mask(run: Training) -> None:
        run.factors[f"{MODULE}.lora_B.default.weight"][:, 2] = 0

    mask(run)
    run.after = mask


def frozen(run: Training) -> None:
    kept = {name: factor.detach().clone() for name, factor in run.factors.items()}

    def restore(run: Training) -> None:
        run.factors[f"{MODULE}.lora_A.default.weight"][3] = kept[f"{MODULE}.lora_A.default.weight"][
            3
        ]
        run.factors[f"{MODULE}.lora_B.default.weight"][:, 3] = kept[
            f"{MODULE}.lora_B.default.weight"
        ][:, 3]

    run.after = restore


FAULTS: dict[str, tuple[Callable[[Training], None], int]] = {
    "rank expanded by zeros": (expanded, PLANTED_AT),
    "three directions zero from the start": (both_zero, 0),
    "three directions set to zero": (both_zero, PLANTED_AT),
    "a column of B masked from the start": (masked_column, 0),
    "a column of B masked": (masked_column, PLANTED_AT),
    "a frozen direction": (frozen, PLANTED_AT),
}


def watched(
    run: Training, plant: Callable[[Training], None] | None = None, at: int = PLANTED_AT,
    **settings: Any,
) -> tuple[list[tuple[int, flagscope.monitor.Alert]], list[Named]]:  # fmt: skip
    """Alerts with the number of their measurement, and the factors at each measurement."""
    live = holder(run.state())
    monitor = flagscope.AlignmentMonitor(live, every=1, **{"only": "health", **settings})
    alerts: list[tuple[int, flagscope.monitor.Alert]] = []
    states = []
    for number, step in enumerate(run.measured(plant, at)):
        _put(live, run.state())
        before = len(monitor.alerts)
        monitor.step(step)
        alerts += [(number, alert) for alert in monitor.alerts[before:]]
        states.append({name: factor.detach().clone() for name, factor in run.factors.items()})
    return alerts, states


def _put(live: nn.Module, state: Named) -> None:
    for name, tensor in state.items():
        module, _, last = name.rpartition(".")
        live.get_submodule(module)._parameters[last] = nn.Parameter(
            tensor.clone(), requires_grad="lora_" in name
        )


def saved(states: list[Named], folder: Path) -> Path:
    """Checkpoints as PEFT writes them."""
    for number, factors in enumerate(states):
        inner = folder / f"checkpoint-{number * EACH}"
        inner.mkdir(parents=True)
        rank = len(next(iter(factors.values())))
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": ALPHA, "fan_in_fan_out": True}
        (inner / "adapter_config.json").write_text(json.dumps(settings))
        plain = {name.replace(".default", ""): tensor for name, tensor in factors.items()}
        save_file(plain, inner / "adapter_model.safetensors")
    return folder


def tracked(states: list[Named]) -> list[AdapterCurves]:
    with tempfile.TemporaryDirectory() as folder:
        return flagscope.track(saved(states, Path(folder))).result.adapters


def random_signal(seeds: int, modules: int = 50) -> tuple[int, int]:
    """Modules of a positive signal rank among those of random factors, and all of them."""
    found = total = 0
    for seed in range(seeds):
        draws = torch.Generator().manual_seed(seed)
        states = [{}]
        for module in range(modules):
            rows, columns = (96, 64) if module % 2 else (256, 512)
            name = f"base_model.model.layers.{module}.q"
            states[0][f"{name}.lora_A.default.weight"] = torch.randn(RANK, rows, generator=draws)
            states[0][f"{name}.lora_B.default.weight"] = torch.randn(columns, RANK, generator=draws)
        ranks = [curves.values("signal_rank")[0] for curves in tracked(states)]
        found, total = found + sum(rank != 0 for rank in ranks), total + len(ranks)
    return found, total


@click.command()
@click.option("--seeds", default=12, show_default=True, help="Healthy trainings of each optimiser.")
@click.option("--planted", "plants", default=8, show_default=True, help="Trainings of each fault.")
def main(seeds: int, plants: int) -> None:
    counts = {True: Counter[str](), False: Counter[str]()}
    ratios: list[float] = []
    for optimizer in ("sgd", "adamw"):
        for seed in range(seeds):
            run = Training(seed, optimizer)
            alerts, states = watched(run, only=("health", "pairs"))
            curves = tracked(states)
            counts[run.learned].update(
                runs=1,
                alerts=bool(alerts),
                spikes=any(one.spike_since is not None for one in curves),
                dead=any(one.dead for one in curves),
            )
            if run.learned:
                ratios += [one.values("leading_ratio")[-1] or 0.0 for one in curves]
            for number, alert in alerts:
                print(f"  {optimizer} {seed}: measurement {number} {alert}")
    print(f"healthy: {dict(counts[True])}; largest leading ratio {max(ratios, default=0):.2f}; "
          f"loss did not fall: {dict(counts[False])}", flush=True)  # fmt: skip
    total = Counter[bool]()
    for fault, (plant, at) in FAULTS.items():
        after, others, seen = [], Counter[str](), 0
        for seed in range(plants):
            alerts, states = watched(Training(seed, ("adamw", "sgd")[seed % 2]), plant, at)
            own = [n for n, alert in alerts if alert.code == "dead-lora-rank"
                   and alert.place == BLOCK and n >= at]  # fmt: skip
            after += [own[0] - at + 1] if own else []
            others.update(a.code for _, a in alerts if a.code != "dead-lora-rank")
            seen += any(one.dead for one in tracked(states) if one.module in MODULE)
        total.update(count <= 5 for count in after)
        total[False] += plants - len(after)
        print(f"{fault}: named in {len(after)} of {plants}, after {after} measurements; in the "
              f"series in {seen}; others: {dict(others)}", flush=True)  # fmt: skip
    print(f"planted: {total[True]} of {total.total()} named within 5 measurements")
    found, modules = random_signal(20)
    print(f"random factors: signal rank above 0 in {found} of {modules} modules")


if __name__ == "__main__":
    main()
