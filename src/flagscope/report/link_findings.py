"""Findings about links from head to head across the residual stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from flagscope.records import EdgeRecord, Finding, FindingCode, ScanResult
from flagscope.report import meaning
from flagscope.report.effect import RATIO_FLOOR, STRONG, ratio_effect
from flagscope.report.links import (
    LinkMeasure,
    beyond_chance,
    certain,
    complete,
    head_rows,
    judged,
    strongest_first,
    tested,
)
from flagscope.report.members import members
from flagscope.report.plain import uncertain
from flagscope.report.wording import (
    READ_WORDS,
    UNCERTAIN,
    counted,
    joined,
    number,
    ranges,
    typical,
)

_HUB = 4  # links from or to one head that are worth a word
_WORDS: dict[LinkMeasure, tuple[str, str]] = {
    "overlap": (
        "share more directions with what a later head reads",
        "share fewer directions with what a later head reads",
    ),
    "composition": (
        "compose more strongly with a later head's circuit",
        "compose more weakly with a later head's circuit",
    ),
}
_CODES: dict[tuple[LinkMeasure, bool], FindingCode] = {
    ("overlap", True): "links-overlap-more",
    ("overlap", False): "links-overlap-less",
    ("composition", True): "links-compose-more",
    ("composition", False): "links-compose-less",
}
_PLAIN: dict[tuple[LinkMeasure, bool], str] = {
    ("overlap", True): "a later head reads where an earlier one writes, more than by chance",
    ("overlap", False): "a later head reads where an earlier one writes, less than by chance",
    ("composition", True): "a later head responds more than by chance to an earlier one's output",
    ("composition", False): "a later head responds less than by chance to an earlier one's output",
}
_UNITS: dict[LinkMeasure, str] = {
    "overlap": "{} times the overlap of chance",
    "composition": "a squared composition score of {} times chance",
}


def links(result: ScanResult) -> list[Finding]:
    """Head-to-head links beyond chance, by overlap and by composition, the clearest named."""
    found = []
    for measure in ("overlap", "composition"):
        flags = beyond_chance(result, measure)
        some = [edge for edge, far in zip(result.edges, flags, strict=True) if far]
        for above in (True, False):
            side = [edge for edge in some if (_ratio(edge, measure) > 1) == above]
            if side:
                found.append(_finding(result, measure, side, above=above))
    return found


def _ratio(edge: EdgeRecord, measure: LinkMeasure) -> float:
    """Ratio of a link beyond chance; such a link has been measured, so 1 is never returned."""
    ratio = judged(edge, measure).ratio
    return 1.0 if ratio is None else ratio


def _finding(
    result: ScanResult, measure: LinkMeasure, edges: Sequence[EdgeRecord], *, above: bool
) -> Finding:
    best = strongest_first(edges, measure)[0]
    ratios = [_ratio(edge, measure) for edge in edges]
    effect = ratio_effect(median(ratios))
    extreme = max(ratios) if above else min(ratios)
    large = abs(extreme - 1) >= RATIO_FLOOR
    sure = any(certain(result, edge, measure) for edge in edges)
    least = "" if complete(result) else "At least "
    count = f"{least}{len(edges):,} of {tested(result):,}"
    deed = _WORDS[measure][0 if above else 1]
    unit = _UNITS[measure].format(typical(ratios))
    text = f"{count} links from head to head {deed} than by chance: {unit}"
    if len(edges) > 1:
        name = f"{best.source} → {best.target}{_serves(result, best)}"
        text += f"; the clearest, {name}, has {number(_ratio(best, measure))}"
    else:
        text += f" ({best.source} → {best.target}{_serves(result, best)})"
    if not large:
        text += f"; all of them less than {RATIO_FLOOR:.0%} from it: significant, but small"
    text = f"{text}." if sure else f"{text}. {UNCERTAIN}"
    spaces = Counter(edge.space for edge in edges)
    small = "" if large else ", but only slightly"
    plain = (
        f"In {least.lower()}{len(edges):,} of {tested(result):,} links, "
        f"{_PLAIN[measure, above]}{small}."
    )
    return Finding(
        code=_CODES[measure, above],
        severity="info"
        if not (large and sure)
        else "strong"
        if effect.size >= STRONG
        else "notable",
        topic="links",
        plain=plain if sure else uncertain(plain),
        text=text,
        evidence=(
            effect.text,
            f"the clearest: {judged(best, measure).text}; composition score "
            f"{number(best.composition)}",
            joined(f"{n} to {READ_WORDS[space]}" for space, n in spaces.most_common()),
            *_hubs(edges),
            f"{counted(tested(result), 'link')} tested",
        ),
        **members(
            sorted(edges, key=lambda edge: _ratio(edge, measure), reverse=above),
            lambda edge: (
                f"{edge.source} → {edge.target}: {number(_ratio(edge, measure))} times chance"
            ),
            lambda edge: f"link/{edge.stack}/{edge.source}/{edge.target}",
        ),
        **meaning.LINKS[measure, above].fields(),
        effect=effect.size,
        label="functional",
        target="section/links",
    )


def _serves(result: ScanResult, edge: EdgeRecord) -> str:
    """The query heads of a link's key-value head, whose number is not theirs."""
    rows = head_rows(result, edge.stack)
    if edge.space == "q" or rows.shared == rows.heads or rows.heads % rows.shared:
        return ""
    run = rows.heads // rows.shared
    heads = ranges(range(edge.head_to * run, (edge.head_to + 1) * run))
    return f" (a key-value head that serves query heads {heads})"


def _hubs(edges: Sequence[EdgeRecord]) -> list[str]:
    """The head that most links start from, and the one that most links end at."""
    hubs = []
    stacks = {edge.stack for edge in edges}
    for word, places in (
        ("start from", Counter((e.stack, e.layer_from, e.head_from) for e in edges)),
        ("end at", Counter((e.stack, e.layer_to, e.head_to) for e in edges if e.space == "q")),
    ):
        if places and places.most_common(1)[0][1] >= _HUB:
            (stack, layer, head), n = places.most_common(1)[0]
            name = f"{stack} L{layer}H{head}" if len(stacks) > 1 else f"L{layer}H{head}"
            hubs.append(f"{n} of them {word} {name}{'' if word == 'start from' else ' (queries)'}")
    return hubs
