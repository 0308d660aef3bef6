"""What is proven of each family, as the contract tests recorded it.

The record is ``registry.json`` beside this module. A test fails where it and the proofs differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Proof:
    """What was shown of one family by changing weights of models of random weights.

    Parameters
    ----------
    models
        Classes of the models.
    model_types
        Their ``model_type`` in the config.
    pairs
        Kinds of pairs in them.
    changes
        Changes that kept the output, as "kind, what lies between, change": to 1e-11 of its
        largest entry in float64, while the same change of a shifted slice moved it by 1e-3.
    live
        Whether this was done on the names of a live transformers module.
    saved
        On the names in a saved file: "same" names as in the live module, "proven" where they
        differ, or "none".
    note
        What else is to be known.
    """

    models: tuple[str, ...]
    model_types: tuple[str, ...]
    pairs: tuple[str, ...]
    changes: tuple[str, ...]
    live: bool
    saved: str
    note: str


@cache
def proofs() -> Mapping[str, Proof]:
    """The proofs by family.

    References
    ----------
    The changes are those of Dinh et al., arXiv 1703.04933 (activations), and of the products
    W_K^T W_Q and W_O W_V in Elhage et al., "A Mathematical Framework for Transformer Circuits".

    Examples
    --------
    >>> proofs()["gpt2"].changes
    ('mlp gelu_new permutation', 'ov linear gl', 'ov linear heads', 'qk linear gl', ...)
    """
    text = resources.files("flagscope.arch").joinpath("registry.json").read_text(encoding="utf-8")
    return {
        name: Proof(
            models=tuple(one["models"]),
            model_types=tuple(one["model_types"]),
            pairs=tuple(one["pairs"]),
            changes=tuple(one["changes"]),
            live=one["live"],
            saved=one["saved"],
            note=one["note"],
        )
        for name, one in json.loads(text)["families"].items()
    }
