"""Names under which PEFT, diffusers and kohya's scripts store the factors of a module."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

# With the adapter's own name in a live model, without it in a saved one.
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.(?P<adapter>\w+))??\.weight")
# Of kohya's scripts ("lora_down"), and of diffusers before it took PEFT's names. Down is A.
_DOWN_UP = re.compile(
    r"(?P<module>.+?)(?:\.lora_|\.lora\.|_lora\.|\.lora_linear_layer\.)(?P<side>down|up)\.weight"
)
_EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<side>[AB])(\.(?P<adapter>\w+))?")


class FactorName(NamedTuple):
    """What the name of a factor says: its module, side, adapter ("" in a saved one)."""

    module: str
    side: Literal["A", "B"]
    adapter: str
    embedding: bool


def factor_name(name: str) -> FactorName | None:
    """The parts of a factor's name; None for another tensor.

    Examples
    --------
    >>> factor_name("layers.0.q_proj.lora_A.default.weight")
    FactorName(module='layers.0.q_proj', side='A', adapter='default', embedding=False)
    >>> factor_name("lora_unet_mid_block_attn1_to_q.lora_up.weight")[:2]
    ('lora_unet_mid_block_attn1_to_q', 'B')
    >>> factor_name("layers.0.q_proj.weight") is None
    True
    """
    other = _DOWN_UP.fullmatch(name)
    if other is not None:
        return FactorName(other["module"], "A" if other["side"] == "down" else "B", "", False)
    embedding = _EMBEDDING.fullmatch(name)
    match = embedding or _FACTOR.fullmatch(name)
    if match is None:
        return None
    side = "A" if match["side"] == "A" else "B"
    return FactorName(match["module"], side, match["adapter"] or "", embedding is not None)
