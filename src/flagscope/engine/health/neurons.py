"""Neurons that carry nothing from the input of a block to its output, and copies of neurons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flagscope.arch import Graph, LinearMap, PairGroup
from flagscope.engine.health.map_flags import End
from flagscope.engine.health.shown import Shown

_KINDS = ("mlp", "conv", "sequential")
# Freedoms under which what lies between two maps acts on single neurons, and no one else reads
# them: only then does a neuron without weights carry nothing.
_ELEMENTWISE = ("gl", "scaling", "permutation")
# Activations that are zero at zero, by their names in configs.
_ZERO_AT_ZERO = frozenset({
    "gated", "linear", "identity", "none", "relu", "leaky_relu", "leakyrelu", "prelu", "relu2",
    "relu6", "relu_squared", "squared_relu", "gelu", "gelu_10", "gelu_fast", "gelu_new",
    "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_tanh",
    "gelu_exact", "quick_gelu", "quickgelu", "silu", "swish", "mish", "elu", "selu", "celu",
    "tanh", "hard_tanh", "hardtanh", "hard_swish", "hardswish", "softsign", "tanhshrink",
    "softshrink", "hardshrink", "sin", "sine", "square", "erf",
})  # fmt: skip


@dataclass(frozen=True)
class Neurons:
    """The neurons between the maps of one block.

    Attributes
    ----------
    pair
        A pair of the block.
    count
        Number of neurons, those of all experts together.
    is_known
        Whether it is known what lies between, and that nothing else reads them.
    dead
        Flags of those that carry nothing; of none where it is not known.
    unread, unfed
        Flags of those whose outgoing weights, or all of whose incoming weights, are zero.
    unfactored
        Flags of the other dead ones: of a gated MLP's two factors one is always zero.
    copies
        Flags of those that equal an earlier one in everything that they read.
    biased
        Flags of those with a bias that is not zero; None where that is not known.
    zeros
        Maps, the end at which the neurons lie, and how many of these have weights of zero there.
    writers
        The first maps of the block.
    """

    pair: PairGroup
    count: int
    is_known: bool
    dead: np.ndarray
    unread: np.ndarray
    unfed: np.ndarray
    unfactored: np.ndarray
    copies: np.ndarray
    biased: np.ndarray | None
    zeros: tuple[tuple[LinearMap, End, int], ...]
    writers: tuple[LinearMap, ...]


def neurons_of(graph: Graph, shown: Shown) -> Iterator[Neurons]:
    """Yield the neurons of each block whose tensors were looked at."""
    blocks: dict[object, list[PairGroup]] = {}
    for pair in graph.pairs:
        if pair.kind in _KINDS and not (pair.write.transposed or pair.read.transposed):
            blocks.setdefault((pair.read.map.place, pair.layer, pair.stack), []).append(pair)
    for pairs in blocks.values():
        neurons = _neurons(pairs, shown)
        if neurons is not None:
            yield neurons


def _neurons(pairs: Sequence[PairGroup], shown: Shown) -> Neurons | None:
    first = pairs[0]
    read = shown.zero(first.read.map, "inp")
    writes = [shown.zero(pair.write.map, "out") for pair in pairs]
    if read is None or any(write is None for write in writes):
        return None
    unread = read[[member.read_index for member in first.members]]
    by_pair = [
        write[[member.write_index for member in pair.members]]
        for pair, write in zip(pairs, writes, strict=True) if write is not None
    ]  # fmt: skip
    fed_by = [
        flags | shown.gain_is_zero(pair.write_norm, pair.d)
        for pair, flags in zip(pairs, by_pair, strict=True)
    ]
    if any(flags.shape != unread.shape for flags in fed_by):
        return None
    unfed = np.logical_and.reduce(fed_by)
    dead = np.zeros_like(unread)
    is_known = all(pair.freedom in _ELEMENTWISE for pair in pairs)
    if is_known:
        dead = unread | unfed
        if len(pairs) > 1 and _is_plain_product(pairs):
            for pair, flags in zip(pairs, fed_by, strict=True):
                dead |= flags & _gives_zero(pair, shown)
    copies = _copies(pairs, shown, unread | unfed | dead) if is_known else np.zeros_like(dead)
    every = (dead, unread, unfed, dead & ~unread & ~unfed, copies)
    zeros: list[tuple[LinearMap, End, int]] = [(first.read.map, "inp", int(unread.sum()))]
    for pair, flags in zip(pairs, by_pair, strict=True):
        zeros.append((pair.write.map, "out", int((flags & (dead | unfed)).sum())))
    writers = tuple(pair.write.map for pair in pairs)
    flat = (flags.reshape(-1) for flags in every)
    biased = _biased(pairs, shown) if unfed.any() else None
    return Neurons(
        first, unread.size, is_known, *flat, biased=biased, zeros=tuple(zeros), writers=writers
    )


def _biased(pairs: Sequence[PairGroup], shown: Shown) -> np.ndarray | None:
    """Neurons with a bias that is not zero; None where it, or what a norm adds, is not known."""
    found = np.zeros((len(pairs[0].members), pairs[0].d), dtype=bool)
    for pair in pairs:
        bias = shown.bias_is_zero(pair.write.map)
        if bias is None or pair.write_norm is not None:
            return None
        indices = [member.write_index if len(bias) > 1 else 0 for member in pair.members]
        found |= ~bias[indices]
    return found.reshape(-1)


def _is_plain_product(pairs: Sequence[PairGroup]) -> bool:
    """Whether the writers meet in a product without a clip or a shift of a factor."""
    return all(pair.kind == "mlp" for pair in pairs) and any(
        pair.between == "gated" and pair.freedom == "scaling" for pair in pairs
    )


def _gives_zero(pair: PairGroup, shown: Shown) -> np.ndarray:
    """Where a factor with zero weights is zero: no bias, and an activation that is zero at zero."""
    none = np.zeros((len(pair.members), pair.d), dtype=bool)
    bias = shown.bias_is_zero(pair.write.map)
    if bias is None or pair.write_norm is not None or pair.between not in _ZERO_AT_ZERO:
        return none
    indices = [member.write_index if len(bias) > 1 else 0 for member in pair.members]
    return none | bias[indices]


def _copies(pairs: Sequence[PairGroup], shown: Shown, without: np.ndarray) -> np.ndarray:
    """Neurons that read the same as an earlier one: weights, biases, statistics of a BatchNorm."""
    copies = np.zeros_like(without)
    if not all(shown.has_copies(pair.write.map) for pair in pairs):
        return copies
    keys: list[np.ndarray] = []  # each of shape (members, neurons)
    for pair in pairs:
        labels = shown.labels(pair.write.map)
        vectors = None if labels is None else _vectors(pair, shown)
        if labels is None or vectors is None:
            return copies
        keys.append(labels[[member.write_index for member in pair.members]].astype(np.float64))
        keys += vectors
    for number in range(len(copies)):
        columns = np.stack([key[number if len(key) > 1 else 0] for key in keys], axis=1)
        seen: set[bytes] = set()
        for neuron, column in enumerate(columns + 0.0):
            if without[number, neuron]:
                continue
            key = column.tobytes()
            copies[number, neuron] = key in seen
            seen.add(key)
    return copies


def _vectors(pair: PairGroup, shown: Shown) -> list[np.ndarray] | None:
    """Entries of the bias and of the norm behind a writer; None where they are not known."""
    vectors: list[np.ndarray] = []
    if pair.write.map.bias is not None:
        bias = shown.bias(pair.write.map)
        if bias is None:
            return None
        indices = [member.write_index if len(bias) > 1 else 0 for member in pair.members]
        vectors.append(bias[indices])
    norm = pair.write_norm
    names = () if norm is None else (norm.gain, norm.bias, norm.mean, norm.variance)
    for name in names:
        values = None if name is None else shown.values(name)
        if name is not None and (values is None or values.size != pair.d):
            return None
        if values is not None:
            vectors.append(values.reshape(1, -1))
    return vectors
