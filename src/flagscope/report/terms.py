"""The terms of a report, and the family that all of its tests belong to."""

from __future__ import annotations

FAMILY = (
    "All p-values of a report belong to one family of tests: overlap, C and ρ of every pair, R and "
    "the most shared direction of every group of heads, every pair of its heads and its best "
    "cluster, overlap and composition of every link, those that are not listed included. Kinds of "
    "tests weigh alike, so that thousands of links take no power from tens of layers. Counts are "
    "of tests that remain at the false-discovery rate (weighted Benjamini-Hochberg; BY holds under "
    "any dependence). A strong or notable finding rests on a test that also remains family-wise "
    "(weighted Bonferroni): the chance that a report of a random network makes any such claim is "
    "at most that rate. Lost ranks and exact intersections are no tests but exact statements, to "
    "storage precision."
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
    "effect and test": "The effect is a size: the overlap of the dominant spaces, R, C, ρ in units "
    "of chance. The test is a p-value: how rarely a random position looks as unlike chance. Wide "
    "maps make small effects significant, and steep spectra hide large ones.",
    "signal rank": "How many singular directions of a map stand out of the bulk that independent "
    "entries give (the Marchenko-Pastur edge with its 1 % point), counted after rows and columns "
    "were brought to equal mean square. It is the dimension of a dominant space unless another "
    "rule is chosen. It may be 0: no direction stands out, which does not mean that nothing is "
    "there.",
    "participation ratio": "(Σσ²)²/Σσ⁴, an effective number of singular values; about half of the "
    "dimension for a square random map.",
    "combined test": "The test of a pair's overlap looks at the signal ranks, with half the "
    "weight, and at the leading 1, 2, 4, 8, … directions of both maps, the participation ranks and "
    "the whole space of thin maps; its p-value is corrected for having looked at all of them. "
    "Where it is strongest is given with the overlap ratio there.",
    "profile": "Scales that differ from row to row, as dead neurons and folded gains make them. A "
    "shared or a steep profile looks like alignment to a random rotation. So p-values are the "
    "larger of two: of the maps as they are, and with the scales divided out.",
    "family": "All tests of one report, adjusted together.",
    "near-copies": "Heads whose mean squared cosine lies at least half of the way from chance, "
    "r/d, to 1.",
    "forced": "Spaces of dimensions r1 + r2 > d meet in r1 + r2 − d directions whatever the "
    "weights are: their cosines are 1 and are drawn grey. Where dimensions or storage leave no "
    "power, an intersection cannot be tested, or is open.",
}
