"""Detects tied weights: an embedding and an output layer stored twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from flagscope.checkpoint import Checkpoint
from flagscope.errors import FlagscopeError

# Names of token embeddings, and of output layers over tokens, in the common implementations.
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
    """The first name of a tied weight, by each further name; and contradictions to the config."""

    same: Mapping[str, str]
    notes: tuple[str, ...] = ()


def tied_tensors(checkpoint: Checkpoint, names: Iterable[str], *, read: bool) -> Tied:
    """Embeddings and output layers that are copies of the first embedding.

    Parameters
    ----------
    checkpoint
        The checkpoint that stores them.
    names
        Names of its weights.
    read
        Whether both may be read and compared. If not, or if the checkpoint is remote, they count as
        tied if the configuration says so.
    """
    tables: dict[tuple[tuple[int, ...], str], str] = {}
    same: dict[str, str] = {}
    notes: list[str] = []
    said = _said(checkpoint.config)
    # In a live module, tied weights share memory and are known already.
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
    """What the configuration says about the model, or else about its language model."""
    if config is None:
        return None
    configs = [config, *(config[key] for key in ("text_config", "llm_config") if key in config)]
    values = [entry[_KEY] for entry in configs if isinstance(entry, Mapping) and _KEY in entry]
    return values[0] if values and isinstance(values[0], bool) else None


def _equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Whether two tensors of equal shape and dtype hold the same bytes, compared block by block."""
    info = checkpoint.tensors[first]
    rows = max(1, _BLOCK_BYTES // max(1, info.nbytes // max(1, info.shape[0])))
    try:
        for start in range(0, info.shape[0], rows):
            index = (slice(start, min(start + rows, info.shape[0])),)
            pair = [checkpoint.read(name, index).contiguous() for name in (first, second)]
            if not torch.equal(*(block.view(torch.uint8) for block in pair)):
                return False
    except FlagscopeError:  # unreadable tensors are not known to be equal
        return False
    return True
