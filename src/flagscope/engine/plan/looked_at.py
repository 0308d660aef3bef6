"""Which tensors a health check looks at, and why not at the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from flagscope.arch import Graph, Norm
from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.dtypes import torch_dtype
from flagscope.engine.plan.unplaced import EMPTY, UNREAD, Reason
from flagscope.engine.plan.weights import Weights
from flagscope.engine.settings import Settings

BUFFER = Reason("buffers, which are not weights", True)
SAME = Reason("the same weights under another name", True)
NOT_ASKED = Reason("in layers that were not asked for (--layers)", True)
_STATISTICS = frozenset({"running_mean", "running_var"})
# The name of a module up to its first number: "model.layers.3.".
_PREFIX = re.compile(r"(?:[^.]+\.)*?[0-9]+\.")


@dataclass(frozen=True)
class Chosen:
    """Names of the tensors to look at, and of the others by reason, in the order of the file."""

    names: list[str]
    left: dict[Reason, list[str]]


def looked_at(checkpoint: Checkpoint, graph: Graph, settings: Settings, weights: Weights) -> Chosen:
    """The tensors that a health check looks at.

    Every weight is looked at once, and the statistics of BatchNorms, though these are buffers.
    Scales of quantised weights are read with the weights.
    """
    statistics = {name for norm in norms_of(graph) for name in (norm.mean, norm.variance) if name}
    prefixes = None if settings.layers is None else _prefixes(graph, settings.layers)
    chosen = Chosen([], {})
    for name, info in checkpoint.tensors.items():
        if name in checkpoint.auxiliary:
            continue
        statistic = name in statistics or name.rpartition(".")[2] in _STATISTICS
        reason = None
        if name in weights.buffers and not (statistic and "float" in info.dtype):
            reason = BUFFER
        elif 0 in info.shape:
            reason = EMPTY
        elif name in weights.same:
            reason = SAME
        elif not _is_read(checkpoint, name):
            reason = UNREAD
        elif prefixes is not None and module_prefix(name) not in prefixes:
            reason = NOT_ASKED
        if reason is None:
            chosen.names.append(name)
        else:
            chosen.left.setdefault(reason, []).append(name)
    return chosen


def norms_of(graph: Graph) -> Iterator[Norm]:
    """Every norm that the graph knows, once for each pair and head group that it acts on."""
    for pair in graph.pairs:
        for norm in (pair.write_norm, pair.read_norm, pair.query_norm, pair.key_norm):
            if norm is not None:
                yield norm
    yield from (head.norm for head in graph.heads if head.norm is not None)


def module_prefix(name: str) -> str:
    """The name of a tensor up to its first number, or nothing.

    Examples
    --------
    >>> module_prefix("model.layers.3.mlp.experts.7.up.weight"), module_prefix("wte.weight")
    ('model.layers.3.', '')
    """
    match = _PREFIX.match(name)
    return match[0] if match else ""


def _is_read(checkpoint: Checkpoint, name: str) -> bool:
    dtype = checkpoint.tensors[name].dtype
    return torch_dtype(dtype) is not None and ("float" in dtype or name in checkpoint.scaled)


def _prefixes(graph: Graph, layers: tuple[int, ...]) -> set[str]:
    """Prefixes of the modules that hold maps of these layers."""
    prefixes: set[str] = set()
    for pair in graph.pairs:
        if pair.kind != "residual" and pair.layer in layers:
            prefixes |= {module_prefix(side.map.tensor) for side in (pair.write, pair.read)}
    prefixes |= {module_prefix(head.map.tensor) for head in graph.heads if head.layer in layers}
    return prefixes
