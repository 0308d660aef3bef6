"""The observables of groups of heads and of links between heads, in words."""

from __future__ import annotations

from flagscope.observables.observable import Explanation

HEAD_EXPLANATIONS: dict[str, Explanation] = {
    "head_overlap_ratio": Explanation(
        "Head overlap ratio",
        "R",
        "Do the heads of a layer use the same directions of the stream?",
        "Mean over head pairs of ‖Q_iᵀ Q_j‖² / (r_i r_j / d), Q_h an orthonormal basis of what "
        "head h reads (q, k, v) or writes (o).",
        "1 on average for random heads; 0 is possible only while all heads fit side by side "
        "(H·r ≤ d); d/r if all heads coincide.",
        "Above 1, heads crowd into common directions; below 1, they divide the stream between "
        "them.",
        "It cannot tell a diffuse common preference from a few near-copies: the matrix and the "
        "spectrum below can. It is functional: no rewriting of a head moves its span.",
    ),
    "shared_directions": Explanation(
        "Shared head directions",
        "λ",
        "Which directions do many heads share?",
        "Eigenvalues of Σ_h P_h, P_h the projector on head h's span, above the 1 % level of the "
        "largest one for random heads.",
        "0 directions above the level. An eigenvalue of m means m heads hold that direction.",
        "Each is a direction of the stream in which several heads read or write at once.",
        "Two heads alone are invisible here (they show in the matrix); the list of heads of a "
        "direction is reliable from three on.",
    ),
    "near_copies": Explanation(
        "Close heads",
        "cos²",
        "Which heads resemble each other?",
        "Each cell of the matrix is ‖Q_iᵀQ_j‖² / (r²/d), the mean squared cosine between two heads "
        "over its value by chance, r/d. Near-copies have a mean squared cosine of at least half of "
        "the way from r/d to 1.",
        "1 in the matrix; a copy has d/r. The principal angles of random heads are all wider than "
        "the 1 % critical value of the smallest.",
        "Near-copies look at nearly the same part of the stream; related heads lean towards each "
        "other.",
        "All principal angles can be smaller than chance allows while the mean squared cosine is "
        "0.3: related heads, no copies. And equal spans do not mean equal behaviour: two heads can "
        "read the same directions and match them differently.",
    ),
    "edge_overlap_ratio": Explanation(
        "Link overlap",
        "Σcos²/E",
        "Does a head read where an earlier head writes?",
        "Σcos²θ / (r1 r2 / d) over the principal angles θ between what one head's W_O writes to "
        "the stream and what a later head's W_Q, W_K or W_V reads from it, of full rank each (the "
        "projection kernel of arXiv 2601.10266, in units of chance).",
        "1 on average at a random position, as for any two subspaces; at most d / max(r1, r2); 0 "
        "if the head cannot read anything that the other writes.",
        "Above 1, more of what the one writes reaches the other than by chance: a channel that "
        "the two may use.",
        "All directions count alike, however weakly they are written or read, and a channel that "
        "is open need not be used. Heads that crowd into common directions of the stream all "
        "overlap: compare a link with its neighbours.",
    ),
    "composition": Explanation(
        "Composition score",
        "comp",
        "Does a head's circuit act on what an earlier head's circuit writes?",
        "‖W_QKᵀ W_OV‖ / (‖W_QK‖ ‖W_OV‖) to queries, W_QK for its transpose to keys, the reader's "
        "own W_OV to values (Elhage et al. 2021); W_QK = W_Qᵀ W_K, W_OV = W_O W_V, Frobenius "
        "norms.",
        "Its square is 1/d on average at a random position; shown is the square over 1/d, so that "
        "chance is 1. It is at most 1.",
        "It weighs directions by how strongly the circuits use them, where the link overlap "
        "counts them alike; the two can disagree, and then a few strong directions decide.",
        "A circuit of low effective rank scores high or low by a single direction. Rotary "
        "embeddings turn W_QK with the distance of two tokens and are left out of it: with them "
        "the score to queries and keys is that of distance 0.",
    ),
}
