"""Part of a model and layer that a tensor belongs to, by its name and shape."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flagscope.checkpoint import TensorInfo
from flagscope.records.comparison.content_parts import ModelPart

# A layer's number is a part of a name by itself.
_NUMBER = re.compile(r"(?:^|(?<=\.))(\d+)(?=\.)")
# Longer numbers do not count layers.
_LONGEST_NUMBER = 6
_POSITION = re.compile(
    r"(?:^|[._])(position_embeddings?|pos_embed(?:ding)?s?|wpe|position|positional_embedding|"
    r"embed_positions|token_type_embeddings?|relative_attention_bias|alibi|freqs_cis)(?:[._]|$)"
)
_EMBEDDING = re.compile(
    r"(?:^|[._])(word_embeddings?|embed_tokens|wte|tok_embeddings?|token_embd|embed_in|"
    r"token_embedding|patch_embed\w*|patch_embeddings?|shared|embeddings?)(?:[._]|$)"
)
_HEAD = re.compile(
    r"(?:^|[._])(lm_head|embed_out|classifier|score|output_projection|predictions|cls|pooler|"
    r"fc_out|head|heads)(?:[._]|$)"
)
_BUFFER = re.compile(
    r"(?:^|[._])(position_ids|inv_freq|num_batches_tracked|masked_bias|causal_mask|"
    r"running_mean|running_var|rope_freqs)$|\.attn\.bias$"
)
_INTEGERS = ("int64", "int32", "int16", "uint64", "uint32", "uint16", "uint8", "bool")


@dataclass(frozen=True)
class Place:
    """Where a tensor stands among the layers of a model.

    Attributes
    ----------
    stack
        What stands in front of the layer's number, with its dot.
    layer
        The number.
    role
        What stands behind it.
    """

    stack: str
    layer: int
    role: str


def layer_places(names: Collection[str]) -> dict[str, Place]:
    """Layer of each tensor that has one: by the first number in its name that counts.

    A number counts where at least two numbers stand in the same place of the names.

    Examples
    --------
    >>> layer_places(["h.0.w", "h.1.w", "wte"])["h.1.w"]
    Place(stack='h.', layer=1, role='w')
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    found: dict[str, list[Place]] = defaultdict(list)
    for name in names:
        for match in _NUMBER.finditer(name):
            if len(match[1]) <= _LONGEST_NUMBER:
                place = Place(name[: match.start()], int(match[1]), name[match.end() + 1 :])
                numbers[place.stack].add(place.layer)
                found[name].append(place)
    return {
        name: next((place for place in places if len(numbers[place.stack]) > 1), places[0])
        for name, places in found.items()
    }


def model_part(info: TensorInfo, place: Place | None) -> ModelPart:
    """Part of the model that a tensor belongs to.

    Vectors whose name is not that of a buffer count as norms outside of layers and in layers:
    gains and biases start near 1 and 0 in every model, so that strangers agree in them.
    """
    if _BUFFER.search(info.name) or info.dtype in _INTEGERS:
        return "buffer"
    if _POSITION.search(info.name):
        return "position"
    if sum(size > 1 for size in info.shape) < 2:
        return "norm"
    if place is not None:
        return "block"
    if _HEAD.search(info.name):
        return "head"
    if _EMBEDDING.search(info.name):
        return "embedding"
    return "other"


def weights_of(tensors: Mapping[str, TensorInfo], auxiliary: Collection[str]) -> list[str]:
    """Names of the tensors that are compared: scales next to weights are read with those."""
    return [name for name in tensors if name not in auxiliary]
