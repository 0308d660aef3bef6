"""Which numbers a pair's own function-preserving freedom can move (functional against gauge).

The freedom of an adjacent pair is the group that acts on the shared space, (W1, W2) -> (g W1,
W2 g^-1), without changing the network's function: all of GL(d) between linear maps, positive
scalings and permutations of neurons across a ReLU, permutations across any other elementwise
activation, plane rotations and scalings under a rotary embedding. A norm behind a map takes out its
size: then each map has a positive factor to itself, (W1, W2) -> (a W1, b W2), beside the orthogonal
changes that the norm lets pass.

A pair across the residual stream has no freedom of its own there, but its maps may have one on
their other sides, inside their blocks: (W1, W2) -> (W1 h^-1, k W2). That leaves ranges and kernels
alone and moves what weighs their directions.
"""

from __future__ import annotations

from flagscope.records import Freedom, Label

# Every one of these is a function of W2 W1 and of the ranks of W1 and W2.
_INVARIANT_UNDER_ALL = (
    "rank_write",
    "rank_read",
    "kernel_intersection",
    "product_spectrum",
    "product_rank",
    "product_effective_rank",
)
# These are invariant under orthogonal changes of the shared basis only.
_INVARIANT_UNDER_ORTHOGONAL = (
    "effective_rank_write",
    "effective_rank_read",
    "commutator_ratio",
    "gram_correlation",
    "commutation_defect",
    "imbalance",
    "overlap_ratio",
    "intersection_exact",
    "intersection_beyond_chance",
    "flag_defect",
    "cosines",
    "profile",
    "incidence",
)
# Of those, what depends on the ranges and kernels of the two maps alone.
_INVARIANT_UNDER_OUTER = ("rank_write", "rank_read", "kernel_intersection", "product_rank")
_ORTHOGONAL_FREEDOMS: tuple[Freedom, ...] = ("permutation", "scale", "none")
# What a factor on one of the maps moves: their sizes beside each other, and that of the product.
_SIZES = ("imbalance", "product_spectrum")


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
    moved: Label = "functional" if freedom in _ORTHOGONAL_FREEDOMS else "gauge"
    found: dict[str, Label] = {}
    for name in _INVARIANT_UNDER_ALL:
        found[name] = "functional"
    for name in _INVARIANT_UNDER_ORTHOGONAL:
        found[name] = moved
    if freedom == "outer":
        found |= {name: "gauge" for name in found if name not in _INVARIANT_UNDER_OUTER}
    if freedom == "scale":
        found |= dict.fromkeys(_SIZES, "gauge")
    return found
