"""The observables of groups of heads and of links between heads, in words."""

from __future__ import annotations

from flagscope.observables.observable import Explanation

NEAR_COPY = 0.5
"""The part of the way from chance, r/d, to a copy, 1, from which on heads are near-copies."""

LISTED_PAIRS = 8
"""How many of the nearest pairs of heads of a layer in one space a scan lists."""

HEAD_EXPLANATIONS: dict[str, Explanation] = {
    "head_overlap_ratio": Explanation(
        "Head overlap ratio",
        "R",
        "Do the heads of a layer use the same directions of the stream?",
        "Mean over head pairs of ‖Q_iᵀ Q_j‖² / (r_i r_j / d), where Q_h is an orthonormal basis "
        "of what head h reads (q, k, v) or writes (o).",
        "1 on average for random heads. It is d/r if all heads coincide. It can be 0 only if the "
        "spaces of all heads fit next to each other (H·r ≤ d).",
        "Above 1, the heads share directions more than by chance. Below 1, they divide the stream "
        "among them.",
        "R cannot distinguish a diffuse common preference from a few near-copies; the matrix and "
        "the spectrum below can. It is functional: no rewriting of a head changes the space that "
        "it reads or writes.",
        "two heads of a layer, on average; 1: coincide as by chance, above 1: more, below 1: less",
    ),
    "shared_directions": Explanation(
        "Shared head directions",
        "λ",
        "Which directions do many heads share?",
        "Eigenvalues of Σ_h P_h that exceed the critical level: the largest eigenvalue of random "
        "heads exceeds it in 1 % of cases. P_h is the projector on the space of head h.",
        "No direction exceeds the level. An eigenvalue of m means that m heads contain the "
        "direction.",
        "Each is a direction of the stream in which several heads read or write.",
        "Directions shared by only two heads do not show here; they show in the matrix. The list "
        "of heads of a direction is reliable from three heads on.",
    ),
    "near_copies": Explanation(
        "Close heads",
        "cos²",
        "Which heads resemble each other?",
        "Each cell of the matrix is ‖Q_iᵀQ_j‖² / (r²/d): the mean squared cosine between two "
        "heads, divided by its value by chance, r/d. Near-copies have a mean squared cosine at "
        "least halfway between r/d and 1.",
        "1 in the matrix; an exact copy has d/r. In 99 of 100 cases, all principal angles of "
        "random heads exceed the 1 % critical value of the smallest angle.",
        "Near-copies use nearly the same part of the stream. Related heads share part of it.",
        "All principal angles of two heads can be smaller than chance allows while their mean "
        "squared cosine is only 0.3: such heads are related, not copies. Equal spaces do not mean "
        "equal behaviour either: two heads can read the same directions and match them "
        "differently.",
    ),
    "edge_overlap_ratio": Explanation(
        "Link overlap",
        "Σcos²/E",
        "Does a head read where an earlier head writes?",
        "Σcos²θ / (r1 r2 / d), where θ are the principal angles between what one head's W_O "
        "writes to the stream and what a later head's W_Q, W_K or W_V reads from it. Both spaces "
        "are taken at full rank (the projection kernel of arXiv 2601.10266, in units of chance).",
        "1 on average at a random position, as for any two subspaces. At most d / max(r1, r2). It "
        "is 0 if the later head cannot read anything that the earlier head writes.",
        "Above 1, more of the earlier head's output can reach the later head than by chance: "
        "there is a channel that the two may use.",
        "All directions count alike, however weakly they are written or read, and an open channel "
        "need not be used. Heads that crowd into common directions of the stream all overlap, so "
        "compare a link with its neighbours.",
        "reading where an earlier head writes; 1: as by chance, above 1: more, below 1: less",
    ),
    "composition": Explanation(
        "Composition score",
        "comp",
        "Does a head's circuit act on what an earlier head's circuit writes?",
        "Links to queries: ‖W_QKᵀ W_OV‖ / (‖W_QK‖ ‖W_OV‖). Links to keys have W_QK in place of "
        "its transpose, and links to values the reader's own W_OV (Elhage et al. 2021). Here W_QK "
        "= W_Qᵀ W_K and W_OV = W_O W_V, and the norms are Frobenius norms.",
        "The squared score is 1/d on average at a random position. The report shows d times the "
        "square, so that chance is 1. The score itself lies between 0 and 1.",
        "The score weighs directions by how strongly the circuits use them; the link overlap "
        "counts them alike. If the two disagree, a few strong directions decide the score.",
        "A single direction can make the score of a circuit of low effective rank high or low. "
        "Rotary embeddings, which turn W_QK with the distance of two tokens, are left out: for "
        "models that use them, the score to queries and keys is that of distance 0.",
    ),
}
