"""Why a matrix is in no pair, head group or link, as far as its name and its shape say it."""

from __future__ import annotations

import re
from typing import NamedTuple


class Reason(NamedTuple):
    """Why a matrix was not measured; expected where every model has such matrices."""

    text: str
    expected: bool = False


NOT_ASKED = Reason("not asked for (--only, --window, --edges)", True)
FAILED = Reason("the task that reads it failed")
EMPTY = Reason("empty: it holds no number")
UNREAD = Reason("of a type that is not read as weights: packed values, or indices")
UNPLACED = Reason("left unplaced: what it is connected to is not known")
_VECTOR = Reason("a single row or column: a vector, not a map between spaces", True)
_POSITIONS = Reason("table of positions", True)
_INPUT = Reason("first layer: it reads the input of the network, no map lies in front of it", True)
_EMBEDDING = Reason("embedding: it turns tokens into vectors, no map lies in front of it", True)
_OUTPUT = Reason("output layer or head, behind the last block", True)
NO_MAP = Reason("not a map between two spaces, as its family says", True)
_DEPTHWISE = Reason(
    "convolution with one input channel for each output: depthwise, or the input has one channel",
    True,
)

_ANYWHERE = re.compile(
    r"wpe|pos_?emb\w*|\w*position\w*|rel_pos\w*|relative_attention_bias|pos_embed\w*"
)
# Modules outside of the numbered layers; the first rule that fits counts.
_OUTSIDE: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (re.compile(r"\w*patch_?embed\w*|conv_?stem|conv_proj|stem"), _INPUT),
    (
        re.compile(
            r"\w*head|\w*classifier|qa_outputs|score|pooler|output_projection|embed_out|unembed"
            r"|vocab_projector|cls|visual_projection|text_projection"
        ),
        _OUTPUT,
    ),
    (
        re.compile(r"wte|shared|tok_embeddings|\w*emb|token_embd|token_types|\w*embed\w*"),
        _EMBEDDING,
    ),
)
# Last layers by a name that means something else elsewhere.
_LAST = re.compile(r"(?:model\.)?(?:output|fc|proj_out)(?:\.weight)?")


def reason_of(name: str, shape: tuple[int, ...]) -> Reason:
    """Why a matrix that no map of the graph lies in was not measured.

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
    if any(_ANYWHERE.fullmatch(part) for part in parts[-2:]):
        return _POSITIONS
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), len(parts))
    for pattern, reason in _OUTSIDE:
        if any(pattern.fullmatch(part) for part in parts[:number]):
            return reason
    if _LAST.fullmatch(name):
        return _OUTPUT
    if len(shape) > 2 and shape[1] == 1:
        return _DEPTHWISE
    return UNPLACED
