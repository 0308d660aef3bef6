"""Findings about links from head to head across the residual stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flagscope.diagnose.records import EdgeRecord, ScanResult
from flagscope.report.effect import RATIO_FLOOR
from flagscope.report.finding import Finding
from flagscope.report.links import (
    LinkMeasure,
    beyond_chance,
    complete,
    judged,
    strongest_first,
    tested,
)
from flagscope.report.wording import READ_WORDS, counted, joined, number

_STRONG = 2.0  # times chance
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
_UNITS: dict[LinkMeasure, str] = {
    "overlap": "{} times the overlap of chance",
    "composition": "a squared composition score of {} times chance",
}


def links(result: ScanResult) -> list[Finding]:
    """Head-to-head links beyond chance, by overlap and by composition, the strongest named."""
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
    """What is beyond chance has been measured, so that 1 never stands in."""
    ratio = judged(edge, measure).ratio
    return 1.0 if ratio is None else ratio


def _finding(
    result: ScanResult, measure: LinkMeasure, edges: Sequence[EdgeRecord], *, above: bool
) -> Finding:
    best = strongest_first(edges, measure)[0]
    ratios = [_ratio(edge, measure) for edge in edges]
    extreme = max(ratios) if above else min(ratios)
    large = abs(extreme - 1) >= RATIO_FLOOR
    least = "" if complete(result) else "At least "
    count = f"{least}{len(edges):,} of {tested(result):,}"
    deed = _WORDS[measure][0 if above else 1]
    unit = _UNITS[measure].format(number(_ratio(best, measure)))
    many = f"{count} links from head to head {deed} than by chance"
    text = f"{many}; the clearest, {best.source} → {best.target}, has {unit}."
    if not large:
        text = f"{text[:-1]}, less than {RATIO_FLOOR:.0%} from it: significant, but small."
    strong = above and sum(ratio >= _STRONG for ratio in ratios) >= len(ratios) / 2
    level = float(result.settings.get("fdr", 0.05))
    spaces = Counter(edge.space for edge in edges)
    evidence = [
        f"{judged(best, measure).text}; composition score {number(best.composition)}",
        joined(f"{n} to {READ_WORDS[space]}" for space, n in spaces.most_common()),
        *_hubs(edges),
        f"false-discovery rate {level:.0%} over {counted(tested(result), 'link')}",
    ]
    return Finding(
        severity=("strong" if strong else "notable") if large else "info",
        topic="links",
        text=text,
        evidence=tuple(evidence),
        label="functional",
        target="section/links",
    )


def _hubs(edges: Sequence[EdgeRecord]) -> list[str]:
    """The head that most links start from, and the one that most links end at."""
    told = []
    stacks = {edge.stack for edge in edges}
    for word, places in (
        ("start from", Counter((e.stack, e.layer_from, e.head_from) for e in edges)),
        ("end at", Counter((e.stack, e.layer_to, e.head_to) for e in edges if e.space == "q")),
    ):
        if places and places.most_common(1)[0][1] >= _HUB:
            (stack, layer, head), n = places.most_common(1)[0]
            name = f"{stack} L{layer}H{head}" if len(stacks) > 1 else f"L{layer}H{head}"
            told.append(f"{n} of them {word} {name}{'' if word == 'start from' else ' (queries)'}")
    return told
