"""Reasons why a matrix is not in any pair, head group or link, by its name and shape."""

from __future__ import annotations

import re
from typing import NamedTuple


class Reason(NamedTuple):
    """Why a matrix was not measured; `expected` if every model has such matrices."""

    text: str
    expected: bool = False


NOT_ASKED = Reason("not asked for (--only, --layers, --kinds, --window, --edges)", True)
FAILED = Reason("the task that reads it failed")
EMPTY = Reason("empty: it holds no number")
UNREAD = Reason("of a type that is not read as weights: packed values, or indices")
UNPLACED = Reason("left unplaced: what it is connected to is not known")
_VECTOR = Reason("a single row or column: a vector, not a map between spaces", True)
_POSITIONS = Reason("table of positions, by its name", True)
_INPUT = Reason("layer that reads the input of the network, by its name", True)
_EMBEDDING = Reason("embedding, by its name", True)
_OUTPUT = Reason("output layer or head, by its name", True)
NO_MAP = Reason("not a map between two spaces, as its family says", True)
_BIAS = Reason("bias: added to what a map writes, with an axis of heads, by its name", True)
_DEPTHWISE = Reason(
    "convolution with one input channel for each output: depthwise, or the input has one channel",
    True,
)

_ANYWHERE = re.compile(
    r"wpe|pos_?emb\w*|(?:\w+_)?position(?:s|al)?(?:_(?!\w*proj)\w+)?|rel_pos_\w+"
    r"|relative_attention_bias"
)
_BIASES = re.compile(r"_?b_?[QKVqkv]|(?:\w+_)?bias(?:_[kv])?")
# Modules outside of the numbered layers.
_INPUTS = re.compile(r"\w*patch_?embed\w*|conv_?stem|conv_proj|stem")
_OUTPUTS = re.compile(
    r"\w*head|\w*classifier|qa_outputs|score|pooler|output_projection|embed_out|unembed"
    r"|vocab_projector|cls|visual_projection|text_projection"
)
_TABLES = re.compile(r"wte|shared|\w*emb|token_embd|token_types|embed_\w+|\w*embed(?:dings?)?")
# Names that mean the last layer only as the whole name of a tensor.
_LAST = re.compile(r"(?:model\.)?(?:output|fc|proj_out)(?:\.weight)?")


def is_table_or_output(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a matrix is an embedding or an output layer by its name.

    Examples
    --------
    >>> is_table_or_output("lm_head.weight", (9, 4)), is_table_or_output("a.mix", (9, 4))
    (True, False)
    """
    return reason_of(name, shape) in (_EMBEDDING, _OUTPUT)


def is_bias(name: str) -> bool:
    """Whether a tensor is a bias by its name, however many axes it has."""
    return _BIASES.fullmatch(name.rpartition(".")[2]) is not None


def reason_of(name: str, shape: tuple[int, ...]) -> Reason:
    """Why a matrix without a map in the graph was not measured.

    Examples
    --------
    >>> reason_of("model.embed_tokens.weight", (9, 4)).expected
    True
    >>> reason_of("layers.0.mix.weight", (4, 4)).text
    'left unplaced: what it is connected to is not known'
    """
    if 0 in shape:
        return EMPTY
    if sum(n > 1 for n in shape) < 2:
        return _VECTOR
    parts = name.split(".")
    if _BIASES.fullmatch(parts[-1]):
        return _BIAS
    if any(_ANYWHERE.fullmatch(part) for part in parts[-2:]):
        return _POSITIONS
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), len(parts))
    outside = parts[:number]
    if any(_INPUTS.fullmatch(part) for part in outside):
        return _INPUT
    if any(_OUTPUTS.fullmatch(part) for part in outside):
        return _OUTPUT
    if len(shape) == 2 and number == len(parts):
        # The table itself, not a submodule of a module of that name: embedder.proj.weight.
        module = parts[-2] if parts[-1] == "weight" and len(parts) > 1 else parts[-1]
        if _TABLES.fullmatch(module):
            return _EMBEDDING
    if _LAST.fullmatch(name):
        return _OUTPUT
    if len(shape) > 2 and shape[1] == 1:
        return _DEPTHWISE
    return UNPLACED
