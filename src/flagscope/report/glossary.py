"""What each diagnostic means: definition, what chance gives, how to read it, how it misleads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """One diagnostic in words.

    Parameters
    ----------
    title, symbol
        Name and the letter it goes by.
    short
        One line for a heading.
    definition
        The formula.
    chance
        What a random position gives, and the other landmarks of its range.
    reading
        What a value says.
    misleads
        When not to trust the first reading.
    """

    title: str
    symbol: str
    short: str
    definition: str
    chance: str
    reading: str
    misleads: str


SETTING = (
    "An adjacent pair is two linear maps W1, W2 with one space Rᵈ between them. V = col(W1) is "
    "what the first can write there, U = row(W2) what the second can read; A = W1 W1ᵀ and "
    "B = W2ᵀ W2 are their Grams, and Ã = A − (tr A/d) I, B̃ likewise. Chance means: the read side "
    "is turned by a uniformly (Haar) random rotation, everything else as it is."
)

GAUGE = (
    "Many networks can be rewritten without changing what they compute: between two linear maps "
    "any invertible g may be slipped in, (gW1, W2g⁻¹); across a ReLU each neuron may be rescaled; "
    "a norm behind a map takes its size out. "
    "A number that such a rewriting moves is labelled gauge (G): it tells how training happened to "
    "arrange the pair as well as what the pair does. A number that it cannot move is functional "
    "(F). Where it says something, the pair is also shown balanced: rewritten so that write and "
    "read Gram agree (A = B; across a ReLU, per neuron; under rotary embeddings, per frequency). "
    "Under the full linear freedom the balanced pair always has C = 0 and ρ = 1 (unless it shares "
    "a map with other pairs, as in grouped-query attention), so that there only the spectrum of "
    "W2 W1 and the kernel intersection speak about the function."
)

OBSERVABLES: dict[str, Explanation] = {
    "commutator_ratio": Explanation(
        "Commutator ratio",
        "C",
        "Do the two Grams share their axes?",
        "C = ‖[A, B]‖² (d−1)(d+2) / (2 d ‖Ã‖² ‖B̃‖²), [A, B] = AB − BA.",
        "1 on average at a random position; 0 when the Grams commute.",
        "Well below 1, the axes of the two Grams agree better than by chance. Well above 1, "
        "strong directions of the two meet at oblique angles.",
        "C is 0 both for aligned and for orthogonal ranges, and for near rank-one Grams a single "
        "cosine of 0.1 can push it to 15. It cannot be read alone as misaligned bases: look at ρ "
        "and ν beside it.",
    ),
    "gram_correlation": Explanation(
        "Gram correlation",
        "ρ",
        "Is what is written strongly also read strongly?",
        "ρ = ⟨Ã, B̃⟩ / (‖Ã‖ ‖B̃‖): the correlation of the two Grams after removing their traces.",
        "0 on average at a random position; 1 for proportional Grams; negative when the ranges "
        "avoid each other.",
        "Positive, the directions that the first map writes most are those that the second reads "
        "most; negative, the second looks away from them.",
        "It weighs directions by energy, so that a few large ones decide it. It is undefined where "
        "a Gram is a multiple of the identity up to storage noise.",
    ),
    "commutation_defect": Explanation(
        "Commutation defect",
        "ν",
        "How far from commuting, whatever the sizes?",
        "ν = ‖[Ã, B̃]‖² / (2 ‖Ã B̃‖²), between 0 and 2.",
        "About 1 at a random position; 0 when the Grams commute.",
        "It measures the angle between ÃB̃ and its transpose: small, the two share eigenvectors.",
        "It says nothing about which directions are shared, and it scatters widely when a Gram is "
        "close to rank one (standard deviation 0.3 to 0.4 when both are).",
    ),
    "overlap_ratio": Explanation(
        "Overlap ratio",
        "Σcos²/E",
        "Do the written and the read directions coincide?",
        "Σcos²θ / (r1 r2 / d) over the principal angles θ between the r1 dominant write and the "
        "r2 dominant read directions (signal ranks unless chosen otherwise).",
        "1 on average at a random position; at most d / max(r1, r2), reached when one space holds "
        "the other; 0 if the spaces are orthogonal.",
        "2 means twice as much shared as by chance; below 1, the spaces avoid each other.",
        "It depends on the ranks that were chosen (see the profile over rank), and where one rank "
        "equals d it is 1 whatever the weights are. Where no direction stands out there is none: "
        "the combined test then says at which ranks the spaces are aligned, if they are.",
    ),
    "imbalance": Explanation(
        "Imbalance",
        "‖A−B‖",
        "Do the two maps carry equal weight?",
        "‖A − B‖ / (‖A‖ + ‖B‖).",
        "No random model applies. 0 when balanced; 1/√2 ≈ 0.71 for orthogonal ranges of equal "
        "norm; 1 if one map is negligible.",
        "Gradient flow with weight decay on a linear pair drives it to 0 at a known rate, "
        "exp(−2λt); its size tells how far from that rest point the pair is.",
        "Adaptive optimisers (AdamW), activations and biases break that law, so that a large "
        "value is not by itself a fault.",
    ),
    "intersection_beyond_chance": Explanation(
        "Dimensions beyond chance",
        "k₊",
        "How many shared directions go beyond chance?",
        "Principal cosines above the 1 % critical value of the largest one at a random position, "
        "those forced by dimension not counted.",
        "0, in at least 99 of 100 random positions.",
        "How many of the dominant directions lie closer together than the closest of a random "
        "position.",
        "The critical value is for the largest cosine: a broad, mild overlap can be very "
        "significant in the overlap ratio and still count 0 here. Where r1 + r2 is near d even a "
        "random position has a cosine near 1: that cannot be tested, and is said in words.",
    ),
    "intersection_exact": Explanation(
        "Exact intersection",
        "dim V∩U",
        "How many dominant directions coincide exactly?",
        "dim(V ∩ U) of the dominant spaces, to storage precision; directions "
        "that the dimensions force to meet, r1 + r2 − d of them, are not counted.",
        "0.",
        "More means an exact coincidence: tied weights, pruning, or construction.",
        "Given only where storage noise turns a space by far less than the smallest angle of a "
        "random position; open otherwise. Not "
        "invariant under a general change g of the shared space; the kernel intersection is.",
    ),
    "flag_defect": Explanation(
        "Flag defect",
        "r1−Σcos²",
        "How much of the smaller space lies outside the larger?",
        "min(r1, r2) − Σcos²θ, with the ranks of the overlap ratio.",
        "min(r1, r2) · (1 − max(r1, r2)/d) on average at a random position; 0 iff one dominant "
        "space holds the other, the closed case of the theory.",
        "The nearer to 0, the closer the pair is to a flag V ⊆ U.",
        "It is an overlap ratio on another scale, and shares its dependence on the ranks.",
    ),
    "kernel_intersection": Explanation(
        "Kernel intersection",
        "dim V∩ker",
        "How much of what is written is never read?",
        "rank W1 − rank(W2 W1) = dim(col W1 ∩ ker W2).",
        "max(0, rank W1 − rank W2) for maps in general position.",
        "More than that means that the pair loses rank as a whole.",
        "It is functional: no rewriting of the pair moves it. Ranks are counted above the "
        "rounding noise of the stored numbers, so that a small value can still be noise-limited.",
    ),
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
    "product_spectrum": Explanation(
        "Product spectrum",
        "σ(W2 W1)",
        "What does the pair do as one map?",
        "Singular values of M = W2 W1 and their participation ratio (Σσ²)²/Σσ⁴.",
        "No random model applies.",
        "The effective rank is how many directions the pair passes on in practice.",
        "Functional under a linear freedom. Between the maps of a nonlinear pair M is not what "
        "the network computes.",
    ),
}
