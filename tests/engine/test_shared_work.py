"""What pairs and links of a task share is told apart by all that goes into it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diagnose.planted import pair_group
from engine.models import whole_gpt2
from engine.scans import graph_of
from flagscope.arch import Graph, Norm, PairGroup
from flagscope.checkpoint import Checkpoint, from_state_dict
from flagscope.engine import Settings, Task, plan
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.run.execute import execute
from geometry.planted import normal

D = 12
SETTINGS = Settings(device="cpu", rank="participation", edges=100)
# Of two norms of one kind only the gains differ, of two with one gain only the kinds.
NORMS = {
    "none": None,
    **{
        f"{kind} {gain}": Norm(
            f"{kind}.{gain}", kind, gain=gain, bias=None, mean=None, variance=None, eps=1e-5,
            offset=0.0, placement="pre",
        )
        for kind in ("rmsnorm", "layernorm")
        for gain in ("a", "b")
    },
}  # fmt: skip


def stored() -> Checkpoint:
    """Three square writers in one tensor, three readers in another, two gains."""
    maps = {name: normal(3, D, D, seed=seed) for name, seed in (("write", 1), ("read", 2))}
    return from_state_dict(
        {name: tensor.reshape(3 * D, D) for name, tensor in maps.items()}
        | {gain: 1 + 0.5 * normal(D, seed=seed) for gain, seed in (("a", 3), ("b", 4))}
    )


def group(kind: str, name: str, **changes) -> PairGroup:
    shape = torch.empty(3, D, D)
    index = changes.pop("index", (0, 0))
    pairs = replace(pair_group(shape, shape, members=[index]), kind=kind, name=name, **changes)
    return replace(pairs, members=tuple(replace(m, name=name) for m in pairs.members))


def variants(kind: str) -> list[PairGroup]:
    """Pairs that differ in one thing each, in an order in which the like ones stand together."""
    every = [group(kind, f"before {name}", read_norm=norm) for name, norm in NORMS.items()]
    every += [
        group(kind, f"behind {name}", write_norm=norm and replace(norm, placement="post"))
        for name, norm in NORMS.items()
    ]
    every += [
        group(kind, f"behind {name} before a mean", read_norm=NORMS["layernorm a"],
              write_norm=norm and replace(norm, placement="post"))
        for name, norm in NORMS.items()
    ]  # fmt: skip
    every += [group(kind, f"members {a}-{b}", index=(a, b)) for a in range(2) for b in range(2)]
    for side in ("write", "read"):
        plain = group(kind, f"turned {side}")
        every.append(replace(plain, **{side: replace(getattr(plain, side), transposed=True)}))
    return every


def task_of(checkpoint: Checkpoint, groups: list[PairGroup]) -> Task:
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    first, *_ = plan(Graph("none", tuple(groups), ()), SETTINGS, sizes)
    return replace(first, pairs=tuple(groups))


@pytest.mark.parametrize("kind", ["mlp", "residual"])
def test_pairs_of_a_task_have_the_numbers_that_they_have_alone(kind):
    checkpoint = stored()
    groups = variants(kind)
    task = task_of(checkpoint, groups)
    together = execute(task, TensorCache(checkpoint, [task]), SETTINGS).pairs
    alone = []
    for pair in groups:
        single = replace(task, pairs=(pair,))
        alone += execute(single, TensorCache(checkpoint, [single]), SETTINGS).pairs
    assert together == alone
    # All of them are different pairs.
    numbers = {(pair.commutator_ratio, pair.overlap_ratio) for pair in together}
    # "before none", "behind none" and "members 0-0" are one pair, and so are "before layernorm a"
    # and that with none behind.
    assert len(numbers) == len(groups) - 3


def test_heads_write_for_readers_behind_norms_of_either_kind():
    """One writer before a LayerNorm and before an RMSNorm: with its mean removed and without."""
    checkpoint = whole_gpt2(layers=2)
    graph = graph_of(checkpoint)
    link = next(link for link in graph.links if link.read.role == "q")
    norm = replace(link.read.norm, kind="rmsnorm", name="rms")
    other = replace(link, name="other", read=replace(link.read, norm=norm, label="rms.q"))
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    task = next(task for task in plan(graph, SETTINGS, sizes) if task.links)

    def edges(*links):
        some = replace(task, pairs=(), heads=(), links=links)
        records = execute(some, TensorCache(checkpoint, [some]), SETTINGS).edges
        return sorted((e.head_from, e.head_to, e.overlap_ratio, e.composition) for e in records)

    both = edges(link), edges(other)
    assert both[0] != both[1]
    assert edges(link, other) == sorted([*both[0], *both[1]])
    assert edges(other, link) == edges(link, other)
