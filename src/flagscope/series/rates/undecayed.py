"""Which tensors weight decay leaves out under the rule of Hugging Face's Trainer."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The patterns of transformers.Trainer.get_decay_parameter_names (5.x). It also leaves out the
# parameters of nn.LayerNorm modules whatever they are called, which names cannot show: in GPT-2
# these are ln_1, ln_2, ln_f. So vectors are taken to be undecayed here too.
_PATTERNS = (r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")
_UNDECAYED = re.compile("|".join(_PATTERNS))
RULE = (
    "matrices whose names hold neither bias nor norm (embeddings included); biases, norms and "
    "vectors are not decayed: the rule of Hugging Face's Trainer, by names"
)


def decayed_by_trainer(tensors: Iterable[tuple[str, int]]) -> dict[str, bool]:
    """Whether Hugging Face's Trainer decays each tensor, judged by its name and dimensions.

    Parameters
    ----------
    tensors
        Name and number of dimensions of each.

    Notes
    -----
    Trainer goes by names and by the class nn.LayerNorm. A checkpoint does not say the class, so
    that every vector counts as undecayed here. A model with a vector that is neither bias nor
    norm (a gate, a class token of one dimension) is judged otherwise than by Trainer.

    Examples
    --------
    >>> found = decayed_by_trainer([("h.0.attn.c_attn.weight", 2), ("h.0.ln_1.weight", 1),
    ...                             ("h.0.attn.c_attn.bias", 1), ("wte.weight", 2)])
    >>> [name for name, decayed in found.items() if decayed]
    ['h.0.attn.c_attn.weight', 'wte.weight']
    """
    return {
        name: dimensions >= 2 and not _UNDECAYED.search(name.lower())
        for name, dimensions in tensors
    }
