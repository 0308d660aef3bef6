"""What a task reads of heads that are not all finite."""

from __future__ import annotations

import math

import torch

from engine.scans import graph_of
from flagscope.checkpoint import from_state_dict
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.geometry import Matrices

D, HEADS, RANK = 24, 4, 6
CONFIG = {"model_type": "llama", "hidden_size": D, "num_attention_heads": HEADS}


def heads_read(state: dict[str, torch.Tensor]) -> tuple[Matrices, set[str]]:
    """The queries, and the names of tensors that are not finite."""
    checkpoint = from_state_dict(state, config=CONFIG)
    (group,) = [group for group in graph_of(checkpoint).heads if group.space == "q"]
    with TensorCache(checkpoint, []) as tensors:
        reader = TaskReader(tensors, device=torch.device("cpu"), precision="float64")
        return reader.maps(group.map, "read"), reader.not_finite


def test_a_head_that_is_not_finite_leaves_the_others_the_noise_of_their_storage() -> None:
    generator = torch.Generator().manual_seed(0)
    names = [f"model.layers.0.self_attn.{role}_proj.weight" for role in "qkvo"]
    state = {name: torch.randn(D, D, generator=generator).bfloat16() for name in names}
    sound, none = heads_read(state)
    state[names[0]] = state[names[0]].clone()
    state[names[0]][RANK + 1, 3] = math.nan  # of the second head
    broken, named = heads_read(state)
    others = [0, 2, 3]
    for ours, whole in ((broken.delta, sound.delta), (broken.mean_square, sound.mean_square)):
        assert torch.equal(ours[others], whole[others])
        assert ours[1] == 0 < ours[0]
    assert broken.faults() == [None, "not finite", None, None]
    assert (none, named) == (set(), {names[0]})
