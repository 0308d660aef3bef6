"""The terms of a report, and the family that all of its tests belong to."""

from __future__ import annotations

FAMILY = (
    "All p-values of a report belong to one family of tests: overlap, C and ρ of every pair; R "
    "and the most shared direction of every group of heads; every pair of its heads and its best "
    "cluster; overlap and composition of every link, including links that are not listed. All "
    "kinds of tests have equal weight, so that thousands of links do not take power from tens of "
    "layers. A test is counted if it passes at the false-discovery rate (weighted "
    "Benjamini-Hochberg; the stricter Benjamini-Yekutieli value, BY, holds under any dependence). "
    "A strong or notable finding requires a test that also passes family-wise (weighted "
    "Bonferroni): the probability that the report of a random network makes any such claim is at "
    "most that rate. Lost ranks and exact intersections are not tests. They are exact statements, "
    "to storage precision."
)

TESTS: dict[str, str] = {
    "overlap": "overlaps of pairs",
    "commutator": "C",
    "correlation": "ρ",
    "heads": "R of head groups",
    "shared": "shared directions",
    "copies": "pairs of heads",
    "clusters": "clusters of heads",
    "link_overlap": "overlaps of links",
    "link_composition": "compositions of links",
}

TERMS: dict[str, str] = {
    "effect": "A size, whatever its probability: how far a number lies from chance. |ln x| for the "
    "overlap of the dominant spaces, R or C, which is x times chance; atanh|ρ| for ρ.",
    "test": "A p-value: how rarely a random position deviates from chance as much. In wide maps "
    "even small effects are significant; with steep spectra even large ones may not be.",
    "signal rank": "The number of singular directions of a map that stand out of the bulk. The "
    "bulk is the range of singular values that independent entries would have; it ends at the "
    "Marchenko-Pastur edge, here at its 1 % point. Rows and columns are first scaled to equal "
    "mean square. The signal rank is the dimension of a dominant space unless another rule is "
    "chosen. It may be 0: then no direction stands out, which does not mean that the map has no "
    "structure.",
    "participation ratio": "(Σσ²)²/Σσ⁴, an effective number of singular values. For a square "
    "random map it is about half of the dimension.",
    "combined test": "The test of a pair's overlap at several ranks: the signal ranks, which get "
    "half of the weight, the leading 1, 2, 4, 8, … directions of both maps, the participation "
    "ranks, and, for thin maps, the whole space. Its p-value is corrected for this choice. The "
    "report gives the ranks at which the test is strongest, and the overlap ratio there.",
    "scale profile": "Scales that differ from row to row, caused for example by dead neurons or "
    "folded gains. Compared with a random rotation, a shared or a steep profile looks like "
    "alignment. Each p-value is therefore the larger of two: one for the maps as they are, and "
    "one with the scales divided out.",
    "profile over ranks": "The overlap ratio of the r strongest directions of both maps, for each "
    "rank r; `profile` of a pair in the JSON file. It has nothing to do with scales.",
    "family of tests": "All tests of one report. Their p-values are adjusted together.",
    "near-copies": "Heads whose mean squared cosine lies at least halfway between its value by "
    "chance, r/d, and 1.",
    "forced": "Two spaces with r1 + r2 > d meet in at least r1 + r2 − d directions, whatever the "
    "weights are. The cosines of these directions are 1 and are drawn in grey. If the dimensions "
    "leave no power, an intersection cannot be tested; if storage noise leaves none, it is open.",
}
