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
            "Do the two Gram matrices share their axes?",
            "C = ‖[A, B]‖² (d−1)(d+2) / (2 d ‖Ã‖² ‖B̃‖²), [A, B] = AB − BA.",
            "1 on average at a random position; 0 if the Gram matrices commute.",
            "Well below 1, the axes of the two Gram matrices agree better than by chance. Well "
            "above 1, strong directions of the two are further from equal or perpendicular.",
            "C is 0 for aligned ranges and for orthogonal ranges. For Gram matrices of nearly "
            "rank one, a single cosine of 0.1 can raise it to 15. A large C alone therefore does "
            "not show misaligned bases: look at ρ and ν as well.",
            "axes of both; 0: shared, 1: as by chance, above 1: less equal or perpendicular",
        ),
        invariance="orthogonal",
        null=nulls.commutator_null,
        error="commutator_ratio_error",
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
            "ρ = ⟨Ã, B̃⟩ / (‖Ã‖ ‖B̃‖): the correlation of the two Gram matrices after their "
            "traces are removed.",
            "0 on average at a random position; 1 for Gram matrices that are equal up to a "
            "factor; negative if the ranges avoid each other.",
            "Positive: the second map reads strongly what the first writes strongly. Negative: it "
            "reads weakly what the first writes strongly.",
            "ρ weighs directions by their squared singular values, so a few large ones decide it. "
            "It is undefined if a Gram matrix is a multiple of the identity up to storage noise.",
            "strong directions of the two maps; 0: as by chance, 1: the same, below 0: weak in the "
            "other",
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
            "How far from commuting are the Gram matrices, whatever their sizes?",
            "ν = ‖[Ã, B̃]‖² / (2 ‖Ã B̃‖²), between 0 and 2.",
            "About 1 at a random position; 0 if the Gram matrices commute.",
            "ν measures the angle between ÃB̃ and its transpose. If ν is small, the two Gram "
            "matrices share eigenvectors.",
            "ν does not show which directions are shared. It varies widely if a Gram matrix is "
            "close to rank one (standard deviation 0.3 to 0.4 if both are).",
            "as C, whatever the sizes of the maps; 0: axes shared, about 1: as by chance",
        ),
        invariance="orthogonal",
        null=nulls.defect_null,
        error="commutation_defect_error",
        at_a_glance=True,
        profiled=True,
    ),
    Observable(
        "overlap_ratio",
        words=Explanation(
            "Overlap ratio",
            "Σcos²/E",
            "Do the written and the read directions coincide?",
            "Σcos²θ / (r1 r2 / d), where θ are the principal angles between the r1 dominant write "
            "directions and the r2 dominant read directions. The ranks are signal ranks unless "
            "another rule is chosen.",
            "1 on average at a random position; 0 if the spaces are orthogonal; at most d / "
            "max(r1, r2), which is reached if one space contains the other.",
            "2 means that twice as much is shared as by chance. Below 1, the spaces avoid each "
            "other.",
            "The ratio depends on the chosen ranks (see the profile over rank). If one rank "
            "equals d, it is 1 whatever the weights are. If no direction stands out there is no "
            "ratio: the combined test then shows whether the spaces are aligned, and at which "
            "ranks.",
            "leading directions of two maps; 1: coincide as by chance, 2: twice as much, 0: "
            "not at all",
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
            "No random model applies. 0 if balanced; 1/√2 ≈ 0.71 for orthogonal ranges of equal "
            "norm; 1 if one map is negligible.",
            "On a linear pair, gradient flow with weight decay drives the imbalance to 0 at a "
            "known rate, exp(−2λt). Its size shows how far the pair is from this rest point.",
            "Adaptive optimisers (AdamW), activations and biases break this law, so a large value "
            "is not by itself a fault.",
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
            "The number of principal cosines above the 1 % critical value of the largest cosine "
            "at a random position. Cosines that the dimensions force to 1 are not counted.",
            "0, in at least 99 of 100 random positions.",
            "This many dominant directions lie closer together than the closest ones at a random "
            "position.",
            "The critical value is that of the largest cosine. A broad, mild overlap can "
            "therefore be very significant in the overlap ratio and still count 0 here. If r1 + "
            "r2 is near d, even a random position has a cosine near 1: the report then says that "
            "this cannot be tested.",
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
            "dim(V ∩ U) of the dominant spaces, to storage precision. The r1 + r2 − d directions "
            "that the dimensions force to meet are not counted.",
            "0.",
            "A larger value means an exact coincidence: tied weights, pruning, or construction.",
            "The number is given only if storage noise turns a space by far less than the "
            "smallest angle of a random position; otherwise it is open. It is not invariant under "
            "a general change g of the shared space; the kernel intersection is.",
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
            "min(r1, r2) · (1 − max(r1, r2)/d) on average at a random position. It is 0 exactly "
            "if one dominant space contains the other, the closed case of the theory.",
            "The nearer to 0, the closer the pair is to a flag V ⊆ U.",
            "It is the overlap ratio on another scale, and depends on the ranks in the same way.",
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
            "A larger value means that W2 W1 has a smaller rank than either of its maps.",
            "The number is functional: no rewriting of the pair changes it. Ranks are counted "
            "above the rounding noise of the stored numbers, so even a small value can be limited "
            "by noise.",
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
            "The participation ratio is the number of directions that the pair passes on in "
            "practice.",
            "It is functional under a linear freedom. If the maps have a nonlinearity between "
            "them, the network does not compute M.",
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
