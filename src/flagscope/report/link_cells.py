"""The cells of the page's table of links."""

from __future__ import annotations

from flagscope.observables import EXPLANATIONS
from flagscope.records import EdgeRecord, ScanResult
from flagscope.report.cells import Cell, Column
from flagscope.report.links import Judgement, beyond_chance, judged
from flagscope.report.wording import SPACE_WORDS, adjusted_p, number

LINK_COLUMNS = (
    Column("source", "From", "The head that writes"),
    Column("target", "To", "The head that reads, and in which space"),
    Column("space", "Read as"),
    Column("overlap_ratio", "overlap", EXPLANATIONS["edge_overlap_ratio"].definition),
    Column(
        "p_adjusted",
        "p adjusted",
        "Of the overlap, for all tests of the report: Benjamini-Hochberg; family-wise below",
    ),
    Column("composition", "composition", EXPLANATIONS["composition"].definition),
    Column("composition_ratio", "its square", "Over its mean at a random position, 1/d"),
    Column("beyond", "Beyond chance", "At the false-discovery rate of the whole report"),
)


def link_cells(result: ScanResult) -> list[list[Cell]]:
    """One row a link, in the order of ``LINK_COLUMNS``."""
    flags = zip(beyond_chance(result, "overlap"), beyond_chance(result, "composition"), strict=True)
    return [_row(edge, *far) for edge, far in zip(result.edges, flags, strict=True)]


def _row(edge: EdgeRecord, overlap: bool, composition: bool) -> list[Cell]:
    p = edge.p_adjusted
    wise = edge.p_familywise
    below = "" if wise is None else f"family-wise {adjusted_p(wise)}"
    names = ("overlap", "composition")
    both = ", ".join(n for n, far in zip(names, (overlap, composition), strict=True) if far)
    return [
        [edge.source, edge.source, edge.stack, "", ""],
        [edge.target, edge.target, "", "", ""],
        [edge.space, SPACE_WORDS[edge.space], "", "", ""],
        _ratio(judged(edge, "overlap")),
        [edge.log10_p if p is not None else None, adjusted_p(p), below, "", ""],
        [edge.composition, number(edge.composition), "", "", "F"],
        _ratio(judged(edge, "composition")),
        [both, both or "no", "", "", ""],
    ]


def _ratio(of: Judgement) -> Cell:
    z = "" if of.z is None else f" (z {number(of.z)})"
    return [of.ratio, f"{number(of.ratio)}{z}", "1", "", "F"]
