"""Numbers that a pair's own function-preserving freedom can move (functional against gauge).

The freedom of an adjacent pair is the group that acts on the shared space, (W1, W2) -> (g W1,
W2 g^-1), without changing the network's function: all of GL(d) between linear maps, positive
scalings and permutations of neurons across a ReLU, permutations across any other elementwise
activation, plane rotations and scalings under a rotary embedding. A norm behind a map takes out its
size: then each map has a positive factor to itself, (W1, W2) -> (a W1, b W2), next to the
orthogonal changes that the norm lets pass.

A pair across the residual stream has no freedom of its own there, but its maps may have one on
their other sides, inside their blocks: (W1, W2) -> (W1 h^-1, k W2). That leaves ranges and kernels
alone and moves what weighs their directions.
"""

from __future__ import annotations

from flagscope.observables import PAIR_OBSERVABLES, Observable
from flagscope.records import Freedom, Functional, Label, PairRecord

_ORTHOGONAL_FREEDOMS: tuple[Freedom, ...] = ("permutation", "scale", "none")
_FIELDS = (*PairRecord.model_fields, *Functional.model_fields)
# What no change moves first, and each in the order of the record.
_IN_ORDER = sorted(
    PAIR_OBSERVABLES,
    key=lambda entry: (entry.invariance != "product", _FIELDS.index(entry.field)),
)


def labels(freedom: Freedom) -> dict[str, Label]:
    """Label of each observable of a pair with this freedom (arXiv 2605.09861, section 3).

    Examples
    --------
    >>> labels("gl")["commutator_ratio"], labels("gl")["kernel_intersection"]
    ('gauge', 'functional')
    >>> labels("outer")["product_spectrum"], labels("outer")["kernel_intersection"]
    ('gauge', 'functional')
    >>> labels("scale")["commutator_ratio"], labels("scale")["imbalance"]
    ('functional', 'gauge')
    """
    rigid = freedom in _ORTHOGONAL_FREEDOMS

    def moved(entry: Observable) -> bool:
        return (
            (entry.invariance == "orthogonal" and not rigid)
            or (freedom == "outer" and not entry.of_ranges)
            or (freedom == "scale" and entry.sized)
        )

    return {entry.field: "gauge" if moved(entry) else "functional" for entry in _IN_ORDER}
