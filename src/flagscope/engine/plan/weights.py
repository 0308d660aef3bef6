"""Sorts the tensors of a checkpoint into weights, each counted once, and buffers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import prod

from flagscope.checkpoint import Checkpoint
from flagscope.checkpoint.base import TensorInfo
from flagscope.engine.plan.tied import tied_tensors

# Last parts of names that no parameter has.
_BUFFERS = frozenset({
    "running_mean", "running_var", "num_batches_tracked", "position_ids", "token_type_ids",
    "inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "masked_bias",
    "relative_position_index", "relative_coords_table",
})  # fmt: skip
# Masks, which are square.
_MASKS = frozenset({"mask", "attn_mask", "causal_mask", "tril", "triu", "weight_mask"})
# The causal mask of GPT-2 and its kin is called a bias: (1, 1, n, n) under the attention.
_MASK_BIAS = re.compile(r"(?:.*\.)?\w*att(?:n|ention)\w*\.bias")


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint by kind; quantisation scales are in none of the three.

    Attributes
    ----------
    numbers
        Number of entries of each weight; a weight with several names is listed under the first.
    unread
        The same for tensors of two or more dimensions whose dtype cannot be read as weights:
        packed values, or indices.
    buffers
        Masks, tables of positions, running statistics.
    same
        The first name of a weight, by each of its further names.
    notes
        Contradictions to the configuration, in words.
    """

    numbers: Mapping[str, int]
    unread: Mapping[str, int]
    buffers: frozenset[str]
    same: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Total number of entries."""
        return sum(self.numbers.values())


def weights_of(checkpoint: Checkpoint, *, read: bool) -> Weights:
    """The weights of a checkpoint.

    Parameters
    ----------
    checkpoint
        An open checkpoint. A live module states which tensors are buffers; in a file, names and
        shapes identify them.
    read
        Whether tensors may be read, to see whether an embedding and an output layer are equal.
        From the header alone they count as tied if the configuration says so.

    References
    ----------
    Press, Wolf, "Using the Output Embedding to Improve Language Models", arXiv 1608.05859, for
    tied weights.

    Examples
    --------
    >>> import torch
    >>> from flagscope.checkpoint import from_state_dict
    >>> table = torch.zeros(9, 4)
    >>> state = {"wte.weight": table, "h.0.attn.bias": torch.ones(1, 1, 5, 5),
    ...          "lm_head.weight": table}
    >>> weights = weights_of(from_state_dict(state), read=False)
    >>> dict(weights.numbers), sorted(weights.buffers), dict(weights.same)
    ({'wte.weight': 36}, ['h.0.attn.bias'], {'lm_head.weight': 'wte.weight'})
    """
    known = checkpoint.buffers
    numbers: dict[str, int] = {}
    unread: dict[str, int] = {}
    buffers: set[str] = set()
    places: dict[Hashable, str] = {}
    same: dict[str, str] = {}
    for name, info in checkpoint.tensors.items():
        if name in checkpoint.auxiliary:
            continue
        if name in known if known is not None else _is_buffer(name, info):
            buffers.add(name)
            continue
        if not _is_number(info.dtype) and name not in checkpoint.scaled:
            # A parameter of a module is a weight whatever its dtype.
            if known is not None:
                numbers[name] = prod(info.shape)
            elif len(info.shape) > 1:
                unread[name] = prod(info.shape)
            continue
        memory = checkpoint.memory(name)
        first = name if memory is None else places.setdefault(memory, name)
        if first == name:
            numbers[name] = prod(info.shape)
        else:
            same[name] = first
    tied = tied_tensors(checkpoint, numbers, read=read)
    for name, first in tied.same.items():
        del numbers[name]
        same[name] = first
    same = {name: tied.same.get(first, first) for name, first in same.items()}
    return Weights(numbers, unread, frozenset(buffers), same, tied.notes)


def _is_number(dtype: str) -> bool:
    return "float" in dtype or "complex" in dtype


def _is_buffer(name: str, info: TensorInfo) -> bool:
    leaf = name.rpartition(".")[2]
    if leaf in _BUFFERS or info.dtype == "bool":
        return True
    shape = info.shape
    square = len(shape) > 1 and shape[-1] == shape[-2] and prod(shape[:-2]) == 1
    if leaf in _MASKS:
        return square or info.dtype == "uint8"
    return square and len(shape) == 4 and _MASK_BIAS.fullmatch(name) is not None


def main_dtype(checkpoint: Checkpoint) -> str:
    """The dtype in which most of the bytes are stored."""
    bytes_of: Counter[str] = Counter()
    for info in checkpoint.tensors.values():
        bytes_of[info.quantised or info.dtype] += info.nbytes
    return bytes_of.most_common(1)[0][0]
