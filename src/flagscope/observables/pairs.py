"""The observables of an adjacent pair: one entry says all that the report, the labels and the docs
need to know of a number.
"""

from __future__ import annotations

from flagscope.observables import nulls
from flagscope.observables.observable import Explanation, Observable

CORRELATION_FLOOR = 0.1  # of ρ: 1 % of the squared norm, the usual bound of a small correlation
RATIO_FLOOR = 0.1  # of overlap ratios, R and C: a tenth more, or less, than by chance

PAIR_OBSERVABLES = (
    Observable(
        "commutator_ratio",
        words=Explanation(
            "Commutator ratio",
            "C",
            "Do the two Grams share their axes?",
            "C = ‖[A, B]‖² (d−1)(d+2) / (2 d ‖Ã‖² ‖B̃‖²), [A, B] = AB − BA.",
            "1 on average at a random position; 0 when the Grams commute.",
            "Well below 1, the axes of the two Grams agree better than by chance. Well above 1, "
            "strong directions of the two meet at oblique angles.",
            "C is 0 both for aligned and for orthogonal ranges, and for near rank-one Grams a "
            "single cosine of 0.1 can push it to 15. It cannot be read alone as misaligned bases: "
            "look at ρ and ν beside it.",
        ),
        invariance="orthogonal",
        null=nulls.commutator_null,
        p_adjusted="commutator_p_adjusted",
        floor=RATIO_FLOOR,
        balanced_linear=0,
        at_a_glance=True,
        profiled=True,
        logarithmic=True,
    ),
    Observable(
        "gram_correlation",
        words=Explanation(
            "Gram correlation",
            "ρ",
            "Is what is written strongly also read strongly?",
            "ρ = ⟨Ã, B̃⟩ / (‖Ã‖ ‖B̃‖): the correlation of the two Grams after removing their traces.",
            "0 on average at a random position; 1 for proportional Grams; negative when the ranges "
            "avoid each other.",
            "Positive, the directions that the first map writes most are those that the second "
            "reads most; negative, the second looks away from them.",
            "It weighs directions by energy, so that a few large ones decide it. It is undefined "
            "where a Gram is a multiple of the identity up to storage noise.",
        ),
        invariance="orthogonal",
        null=nulls.correlation_null,
        z="gram_correlation_z",
        p_adjusted="gram_correlation_p_adjusted",
        floor=CORRELATION_FLOOR,
        balanced_linear=1,
        at_a_glance=True,
        profiled=True,
    ),
    Observable(
        "commutation_defect",
        words=Explanation(
            "Commutation defect",
            "ν",
            "How far from commuting, whatever the sizes?",
            "ν = ‖[Ã, B̃]‖² / (2 ‖Ã B̃‖²), between 0 and 2.",
            "About 1 at a random position; 0 when the Grams commute.",
            "It measures the angle between ÃB̃ and its transpose: small, the two share "
            "eigenvectors.",
            "It says nothing about which directions are shared, and it scatters widely when a "
            "Gram is close to rank one (standard deviation 0.3 to 0.4 when both are).",
        ),
        invariance="orthogonal",
        null=nulls.defect_null,
        at_a_glance=True,
        profiled=True,
    ),
    Observable(
        "overlap_ratio",
        words=Explanation(
            "Overlap ratio",
            "Σcos²/E",
            "Do the written and the read directions coincide?",
            "Σcos²θ / (r1 r2 / d) over the principal angles θ between the r1 dominant write and "
            "the r2 dominant read directions (signal ranks unless chosen otherwise).",
            "1 on average at a random position; at most d / max(r1, r2), reached when one space "
            "holds the other; 0 if the spaces are orthogonal.",
            "2 means twice as much shared as by chance; below 1, the spaces avoid each other.",
            "It depends on the ranks that were chosen (see the profile over rank), and where one "
            "rank equals d it is 1 whatever the weights are. Where no direction stands out there "
            "is none: the combined test then says at which ranks the spaces are aligned, if they "
            "are.",
        ),
        invariance="orthogonal",
        null=nulls.overlap_null,
        z="overlap_z",
        floor=RATIO_FLOOR,
        dominant=True,
        at_a_glance=True,
        profiled=True,
        from_zero=True,
    ),
    Observable(
        "imbalance",
        words=Explanation(
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
        invariance="orthogonal",
        sized=True,
        balanced_linear=0,
        profiled=True,
        from_zero=True,
    ),
    Observable(
        "intersection_beyond_chance",
        words=Explanation(
            "Dimensions beyond chance",
            "k₊",
            "How many shared directions go beyond chance?",
            "Principal cosines above the 1 % critical value of the largest one at a random "
            "position, those forced by dimension not counted.",
            "0, in at least 99 of 100 random positions.",
            "How many of the dominant directions lie closer together than the closest of a random "
            "position.",
            "The critical value is for the largest cosine: a broad, mild overlap can be very "
            "significant in the overlap ratio and still count 0 here. Where r1 + r2 is near d "
            "even a random position has a cosine near 1: that cannot be tested, and is said in "
            "words.",
        ),
        invariance="orthogonal",
        null=nulls.intersection_null,
        counts_meetings=True,
        at_a_glance=True,
        profiled=True,
        from_zero=True,
    ),
    Observable(
        "intersection_exact",
        words=Explanation(
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
        invariance="orthogonal",
        null=nulls.intersection_null,
        counts_meetings=True,
    ),
    Observable(
        "flag_defect",
        words=Explanation(
            "Flag defect",
            "r1−Σcos²",
            "How much of the smaller space lies outside the larger?",
            "min(r1, r2) − Σcos²θ, with the ranks of the overlap ratio.",
            "min(r1, r2) · (1 − max(r1, r2)/d) on average at a random position; 0 iff one dominant "
            "space holds the other, the closed case of the theory.",
            "The nearer to 0, the closer the pair is to a flag V ⊆ U.",
            "It is an overlap ratio on another scale, and shares its dependence on the ranks.",
        ),
        invariance="orthogonal",
        null=nulls.flag_defect_null,
        dominant=True,
    ),
    Observable(
        "kernel_intersection",
        words=Explanation(
            "Kernel intersection",
            "dim V∩ker",
            "How much of what is written is never read?",
            "rank W1 − rank(W2 W1) = dim(col W1 ∩ ker W2).",
            "max(0, rank W1 − rank W2) for maps in general position.",
            "More than that means that the pair loses rank as a whole.",
            "It is functional: no rewriting of the pair moves it. Ranks are counted above the "
            "rounding noise of the stored numbers, so that a small value can still be "
            "noise-limited.",
        ),
        invariance="product",
        of_ranges=True,
        null=nulls.kernel_null,
    ),
    Observable(
        "product_spectrum",
        words=Explanation(
            "Product spectrum",
            "σ(W2 W1)",
            "What does the pair do as one map?",
            "Singular values of M = W2 W1 and their participation ratio (Σσ²)²/Σσ⁴.",
            "No random model applies.",
            "The effective rank is how many directions the pair passes on in practice.",
            "Functional under a linear freedom. Between the maps of a nonlinear pair M is not what "
            "the network computes.",
        ),
        invariance="product",
        sized=True,
        column=False,
    ),
    Observable("rank_write", invariance="product", of_ranges=True, column=False),
    Observable("rank_read", invariance="product", of_ranges=True, column=False),
    Observable("product_rank", invariance="product", of_ranges=True, column=False),
    Observable("product_effective_rank", invariance="product", column=False),
    Observable("effective_rank_write", invariance="orthogonal", column=False),
    Observable("effective_rank_read", invariance="orthogonal", column=False),
    Observable("cosines", invariance="orthogonal", column=False),
    Observable("profile", invariance="orthogonal", column=False),
    Observable("incidence", invariance="orthogonal", column=False),
)
