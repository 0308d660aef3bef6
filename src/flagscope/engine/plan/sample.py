"""A tiny network in memory, whose tasks tell what a record takes beside its arithmetic."""

from __future__ import annotations

import time
from typing import Literal

import torch

from flagscope.arch import build_graph
from flagscope.checkpoint import Checkpoint, from_state_dict
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.tasks import Task, plan
from flagscope.engine.run.execute import execute
from flagscope.engine.settings import Part, Settings

Kind = Literal["pair", "head", "link"]

# Seconds that a difference of two timings is worth at the least.
_LEAST = 1e-4
# Heads of 32 dimensions: in fewer, nulls are drawn, which takes longer than in most networks.
_LAYERS, _WIDTH, _HEADS = 2, 128, 4
_PARTS: dict[Kind, tuple[Part, int]] = {
    "pair": ("pairs", 0),
    "head": ("heads", 0),
    "link": ("residual", 64),
}


def record_seconds() -> dict[Kind, float]:
    """Seconds for one record of each kind, as small as its matrices may be."""
    checkpoint = _tiny()
    found: dict[Kind, float] = {}
    for kind, (part, edges) in _PARTS.items():
        taken, count = _taken(kind, part, edges, checkpoint)
        if kind == "link":
            # Pairs across the stream are measured with them, and take less than those of heads.
            taken -= _taken(kind, part, 0, checkpoint)[0]
        found[kind] = max(_LEAST, taken) / count
    return found


def _taken(kind: Kind, part: Part, edges: int, checkpoint: Checkpoint) -> tuple[float, float]:
    """Seconds of the tasks of a part, and how many records of this kind they make."""
    settings = Settings(only=(part,), device="cpu", edges=edges)
    tasks = _tasks(checkpoint, settings)
    count = sum(task.work.amounts.get((kind, 0), 0.0) for task in tasks)
    # What is done for the first time takes longer.
    return min(_seconds(tasks, checkpoint, settings) for _ in range(2)), count


def _tiny() -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    square, norm = (_WIDTH, _WIDTH), (_WIDTH,)
    shapes = {f"self_attn.{role}_proj": square for role in "qkvo"}
    shapes |= {f"mlp.{role}_proj": square for role in ("gate", "up", "down")}
    shapes |= {"input_layernorm": norm, "post_attention_layernorm": norm}
    state = {
        f"model.layers.{layer}.{name}.weight": torch.randn(shape, generator=generator)
        for layer in range(_LAYERS)
        for name, shape in shapes.items()
    }
    config = {
        "model_type": "llama", "num_hidden_layers": _LAYERS, "hidden_size": _WIDTH,
        "num_attention_heads": _HEADS, "num_key_value_heads": _HEADS,
        "intermediate_size": _WIDTH, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    }  # fmt: skip
    return from_state_dict(state, config=config)


def _tasks(checkpoint: Checkpoint, settings: Settings) -> list[Task]:
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    return plan(build_graph(shapes, checkpoint.config), settings, sizes)


def _seconds(tasks: list[Task], checkpoint: Checkpoint, settings: Settings) -> float:
    begin = time.perf_counter()
    for task in tasks:
        execute(task, TensorCache(checkpoint, [task]), settings)
    return time.perf_counter() - begin
