"""Reads what the contract tests have proven and recorded for each family.

The record is ``registry.json`` next to this module. A test fails if it differs from the proofs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Proof:
    """What was shown for one family by changing the weights of randomly initialised models.

    Parameters
    ----------
    models
        Classes of the models.
    model_types
        Their ``model_type`` in the config.
    pairs
        Kinds of pairs in them.
    changes
        Changes that preserve the output, as "kind, operation between, change": to 1e-11 of its
        largest entry in float64, while the same change of a shifted slice altered it by 1e-3.
    live
        Whether this was shown for the names of a live transformers module.
    saved
        For the names in a saved file: "same" as in the live module, "proven" if they differ, or
        "none".
    note
        Further remarks.
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
            models=tuple(record["models"]),
            model_types=tuple(record["model_types"]),
            pairs=tuple(record["pairs"]),
            changes=tuple(record["changes"]),
            live=record["live"],
            saved=record["saved"],
            note=record["note"],
        )
        for name, record in json.loads(text)["families"].items()
    }
