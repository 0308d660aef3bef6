"""Whether an embedding and an output layer that are stored twice are one weight."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from flagscope.checkpoint import Checkpoint
from flagscope.errors import FlagscopeError

# Names of the table of token vectors, and of the layer that gives a number for each token, in the
# common implementations.
_INPUTS = re.compile(
    r"(?:.*\.)?(?:embed_tokens|wte|word_embeddings?|shared|tok_embeddings|embed_in|token_emb\w*"
    r"|tok_emb|embeddings?|embed|token_embd)(?:\.weight)?"
)
_OUTPUTS = re.compile(
    r"(?:.*\.)?(?:lm_head(?:\.decoder)?|embed_out|output|output_projection|proj_out|unembed"
    r"|vocab_projector|generator_lm_head|predictions\.decoder|lm_head_proj)(?:\.weight)?"
)
_KEY = "tie_word_embeddings"
_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Tied:
    """For each further name of a tied weight its first one, and what contradicts the config."""

    same: Mapping[str, str]
    notes: tuple[str, ...] = ()


def tied_tensors(checkpoint: Checkpoint, names: Iterable[str], *, read: bool) -> Tied:
    """Which of the embeddings and output layers are copies of the first embedding.

    Parameters
    ----------
    checkpoint
        Where they are stored.
    names
        Of its weights.
    read
        Whether both may be read and compared. If not, or if they lie far away, they are one where
        the configuration says that they are tied.
    """
    tables: dict[tuple[tuple[int, ...], str], str] = {}
    same: dict[str, str] = {}
    notes: list[str] = []
    said = _said(checkpoint.config)
    # A live module shows by its memory what is one.
    if said is False or checkpoint.buffers is not None:
        return Tied({})
    ordered = sorted(names, key=lambda name: _INPUTS.fullmatch(name) is None)
    for name in ordered:
        table = _INPUTS.fullmatch(name) is not None
        info = checkpoint.tensors[name]
        if len(info.shape) != 2 or not (table or _OUTPUTS.fullmatch(name)):
            continue
        first = tables.get((info.shape, info.dtype))
        if first is None:
            if table:
                tables[info.shape, info.dtype] = name
            continue
        if not read or checkpoint.is_remote:
            is_tied = said is True and not table
        else:
            is_tied = _equal(checkpoint, first, name)
            if not is_tied and said is True and not table:
                notes.append(
                    f"the config says that {name} is tied to {first} ({_KEY}), and the two differ "
                    "as they are stored: both are counted"
                )
        if is_tied:
            same[name] = first
    return Tied(same, tuple(notes))


def _said(config: Mapping[str, Any] | None) -> bool | None:
    """What the configuration says of the model, or else of the language model in it."""
    if config is None:
        return None
    parts = [config, *(config[key] for key in ("text_config", "llm_config") if key in config)]
    values = [part[_KEY] for part in parts if isinstance(part, Mapping) and _KEY in part]
    return values[0] if values and isinstance(values[0], bool) else None


def _equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Whether two tensors of one shape and type hold the same bytes; read a block at a time."""
    info = checkpoint.tensors[first]
    rows = max(1, _BLOCK_BYTES // max(1, info.nbytes // max(1, info.shape[0])))
    try:
        for start in range(0, info.shape[0], rows):
            index = (slice(start, min(start + rows, info.shape[0])),)
            pair = [checkpoint.read(name, index).contiguous() for name in (first, second)]
            if not torch.equal(*(block.view(torch.uint8) for block in pair)):
                return False
    except FlagscopeError:  # what cannot be read is not known to be one
        return False
    return True
