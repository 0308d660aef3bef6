"""Small trainings with known truth, saved as series of checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flagscope.demo import checkpoints
from flagscope.records.series import Integrity
from flagscope.series.places import places
from flagscope.series.step import read_step
from flagscope.series.verify import verified

State = dict[str, Tensor]
Run = list[tuple[int, State]]


def mlp(seed: int, *, start: State | None = None, steps: int = 16, optimizer: str = "adamw") -> Run:
    """A classifier of random points, with a checkpoint every tenth step; or one that goes on."""
    draws = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(24, 48), torch.nn.ReLU(), torch.nn.Linear(48, 48), torch.nn.ReLU(),
            torch.nn.Linear(48, 48), torch.nn.ReLU(), torch.nn.Linear(48, 6),
        )  # fmt: skip
    if start is not None:
        net.load_state_dict(start)
    truth = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    chosen = {
        "adamw": lambda: torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01),
        "sgd": lambda: torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9),
    }[optimizer]()
    run: Run = []
    for step in range(10 * steps):
        if step % 10 == 0:
            state = net.state_dict()
            run.append((step, {name: one.detach().clone() for name, one in state.items()}))
        points = torch.randn(64, 24, generator=draws)
        loss = torch.nn.functional.cross_entropy(net(points), (points @ truth).argmax(1))
        chosen.zero_grad()
        loss.backward()
        chosen.step()
    return run


def adapters(seed: int, steps: int = 14) -> Run:
    """LoRA factors that wander from A random and B zero, with a checkpoint every fiftieth step."""
    draws = torch.Generator().manual_seed(seed)
    state: State = {}
    for layer in range(4):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            state[f"{name}.lora_A.weight"] = torch.randn(8, 64, generator=draws) / 8
            state[f"{name}.lora_B.weight"] = torch.zeros(64, 8)
    speed = {name: torch.zeros_like(one) for name, one in state.items()}
    run: Run = []
    for step in range(steps):
        run.append((50 * step, {name: one.clone() for name, one in state.items()}))
        for name, one in state.items():
            for _ in range(5):
                kick = torch.randn(one.shape, generator=draws)
                speed[name] = 0.8 * speed[name] + 0.6 * kick
                state[name] = state[name] + 2e-3 * speed[name]
    return run


RATES: dict[str, Callable[[int], float]] = {
    "constant": lambda _: 0.1,
    "warm-up": lambda n: 0.1 * min(1.0, n / 300),
    "cosine": lambda n: 0.1 * (1 + math.cos(math.pi * n / 1200)),
}
"""Learning rates of `linear`."""


@cache
def linear(
    steps: int = 12, schedule: str = "constant", decays: tuple[float, ...] = (0.02,) * 3
) -> tuple[tuple[int, State], ...]:
    """A linear network under full-batch gradient descent with L2, with λ of each layer."""
    draws = torch.Generator().manual_seed(0)
    widths = (24, *(12,) * (len(decays) - 1), 6)
    shapes = [(after, before) for before, after in pairwise(widths)]
    weights = [torch.randn(shape, generator=draws) / shape[1] ** 0.5 for shape in shapes]
    x = torch.randn(24, 256, generator=draws)
    y = 0.3 * torch.randn(6, 256, generator=draws)
    run = []
    for n in range(steps * 100 + 1):
        if n % 100 == 0:
            run.append((n, {f"{2 * i}.weight": w.clone() for i, w in enumerate(weights)}))
        weights = [w.requires_grad_() for w in weights]
        product = x
        for w in weights:
            product = w @ product
        loss = ((product - y) ** 2).sum(0).mean() / 2
        rate = RATES[schedule](n)
        weights = [
            (w - rate * (g + decay * w)).detach()
            for w, g, decay in zip(weights, torch.autograd.grad(loss, weights), decays, strict=True)
        ]
    return tuple(run)


def bundled() -> Run:
    """The five checkpoints of the bundled model."""
    return [(int(path.stem.split("-")[1]), load_file(path)) for path in checkpoints()]


def saved(run: Run, folder: Path, *, shards: int = 1) -> Path:
    """Folders checkpoint-N, each with one file or several and their index."""
    for step, state in run:
        inner = folder / f"checkpoint-{step}"
        inner.mkdir(parents=True)
        state = {name: one.contiguous() for name, one in state.items()}
        if any("lora_A" in name for name in state):
            save_file(state, inner / "adapter_model.safetensors")
            (inner / "adapter_config.json").write_text(json.dumps(_ADAPTER))
        elif shards == 1:
            save_file(state, inner / "model.safetensors")
        else:
            _save_shards(state, inner, shards)
    return folder


def parts(names: Sequence[str], shards: int) -> list[list[str]]:
    """Names of the tensors in each shard."""
    ordered = sorted(names)
    size = len(ordered)
    return [ordered[i * size // shards : (i + 1) * size // shards] for i in range(shards)]


def _save_shards(state: State, folder: Path, shards: int) -> None:
    where = {}
    for i, names in enumerate(parts(list(state), shards)):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: state[name] for name in names}, folder / file)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def checked(folder: Path) -> Integrity:
    """What is wrong with the checkpoints in a folder."""
    return verified([read_step(place) for place in places([folder])])[0]


_ADAPTER = {
    "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"],
    "base_model_name_or_path": "some/model", "task_type": "CAUSAL_LM",
}  # fmt: skip
