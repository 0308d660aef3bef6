"""Data of the page: figure specifications and table cells, compressed into text."""

from __future__ import annotations

import base64
import gzip
import json
from functools import lru_cache
from typing import Any

from flagscope.observables import EXPLANATIONS, PROFILED, UNTESTABLE, untestable
from flagscope.records import HeadRecord, PairRecord, ScanResult
from flagscope.report.cells import HEAD_COLUMNS, PAIR_COLUMNS, Column, head_cells, pair_cells
from flagscope.report.depth_figures import (
    depth_profile_spec,
    head_overlap_spec,
    shared_directions_spec,
)
from flagscope.report.dominant import dominance_words, stands_out
from flagscope.report.error_rate import SCHEMA_1, ErrorRate
from flagscope.report.freedom import freedom_word, labels_of
from flagscope.report.head_figures import head_matrix_spec, matrix_limit, shared_spectrum_spec
from flagscope.report.link_cells import LINK_COLUMNS, link_cells
from flagscope.report.link_figures import link_graph_size, link_graph_spec
from flagscope.report.links import MEASURES, LinkMeasure, beyond_chance, complete, tested
from flagscope.report.map_of_heads import head_maps
from flagscope.report.map_of_kinds import kind_maps
from flagscope.report.pair_figures import cosines_spec, incidence_spec, profile_spec
from flagscope.report.palette import PALETTES
from flagscope.report.routes import Writer, writers
from flagscope.report.stream_figures import STREAMED, stream_profile_spec
from flagscope.report.targets import end_key, group_key, heads_target, layer_key, link_target
from flagscope.report.tracks import Track, head_tracks, tracks
from flagscope.report.wording import (
    SPACE_WORDS,
    adjusted_p,
    counted,
    euclidean,
    joined,
    number,
    significance,
)

DETAILED_PAIRS = 600  # pairs with figures of their own; the JSON has all of them


def packed(content: str) -> str:
    """Text as gzip and base64: safe inside HTML whatever it holds, and about 40 % of its size."""
    return base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode("ascii")


@lru_cache(maxsize=1)
def packed_plotly() -> str:
    """Plotly's JavaScript, packed."""
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs())


def packed_json(content: Any) -> str:
    """A JSON value, packed; NaN and infinity are refused."""
    return packed(json.dumps(content, separators=(",", ":"), allow_nan=False))


def core(result: ScanResult) -> dict[str, Any]:
    """Everything but the figures of single pairs."""
    known = tracks(result)
    positions = {pair.name: index for index, pair in enumerate(result.pairs)}
    rows: list[Any] = [None] * len(result.pairs)
    for track in known:
        for pair in track.pairs:
            rows[positions[pair.name]] = pair_cells(result, pair, track)
    return {
        "palettes": PALETTES,
        "maps": [one.payload() for one in (*head_maps(result), *kind_maps(result))],
        "pairHeads": [_pair_heads(pair) for pair in result.pairs],
        "tracks": [_track(result, track, positions) for track in known],
        "heads": _heads(result),
        "writers": _writers(result),
        "links": _links(result),
        "tables": {
            "pairs": {"columns": _columns(PAIR_COLUMNS), "rows": rows},
            "heads": {
                "columns": _columns(HEAD_COLUMNS),
                "rows": [head_cells(group) for group in result.heads],
            },
            "links": {
                "columns": _columns(LINK_COLUMNS),
                "rows": link_cells(result),
                "targets": [link_target(edge) for edge in result.edges],
                "ends": [
                    [
                        heads_target(end_key(edge, writes=True), (edge.head_from,)),
                        heads_target(end_key(edge, writes=False), (edge.head_to,)),
                    ]
                    for edge in result.edges
                ],
            },
        },
    }


def details(result: ScanResult) -> dict[str, Any]:
    """Figures of single pairs by index: all, or the ones furthest from chance."""
    rate = ErrorRate.of(result)
    indices = list(range(len(result.pairs)))
    if len(indices) > DETAILED_PAIRS:
        indices.sort(key=lambda index: -abs(result.pairs[index].overlap_z or 0.0))
        indices = indices[:DETAILED_PAIRS]
    return {
        str(index): {
            "cosines": cosines_spec(result.pairs[index]),
            "profile": profile_spec(result.pairs[index]),
            "incidence": incidence_spec(result.pairs[index]),
            "remark": _remark(result.pairs[index], rate),
        }
        for index in indices
    }


def _remark(pair: PairRecord, rate: ErrorRate) -> str:
    """Caveats on the figures of a pair."""
    parts = (dominance_words(pair, rate), _untested(pair))
    text = "; ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _untested(pair: PairRecord) -> str:
    status = pair.intersection_status
    return "" if status in (None, "ok") else f"intersection: {status}"


def _pair_heads(pair: PairRecord) -> list[Any] | None:
    """Layer, query head and key-value head of a pair inside attention."""
    if pair.layer is None or pair.head is None:
        return None
    key = layer_key(pair.stack, pair.layer, cross=pair.attention == "cross")
    return [key, pair.head, pair.head if pair.kv_head is None else pair.kv_head]


def _columns(columns: tuple[Column, ...]) -> list[dict[str, str]]:
    return [
        {"key": c.key, "title": c.title, "hint": c.hint, "name": c.name or c.title} for c in columns
    ]


def _track(result: ScanResult, track: Track, positions: dict[str, int]) -> dict[str, Any]:
    labels = labels_of(result, track.pairs[0])
    return {
        "key": track.key,
        "title": track.title,
        "freedom": freedom_word(track.pairs[0]),
        "pairs": [positions[pair.name] for pair in track.pairs],
        "first": positions[max(track.pairs, key=lambda pair: abs(pair.overlap_z or 0.0)).name],
        "charts": {
            observable: {
                "label": labels.get(observable),
                "spec": depth_profile_spec(track, observable),
                "alt": f"{EXPLANATIONS[observable].title} of {track.title} over depth",
                "why": _why_empty(track, observable),
            }
            for observable in PROFILED
        },
    }


def _why_empty(track: Track, observable: str) -> str:
    """Text in place of a profile that has no value at all."""
    if observable == "overlap_ratio" and not any(stands_out(pair) for pair in track.pairs):
        return "No direction stands out of the bulk of these maps."
    if observable == "intersection_beyond_chance" and all(untestable(p) for p in track.pairs):
        return f"Intersections here {UNTESTABLE}: the dimensions leave no room."
    return ""


def _writers(result: ScanResult) -> list[dict[str, Any]]:
    """What reads each kind of writer, over depth."""
    return [
        {
            "title": writer.title,
            "charts": {
                name: {
                    "label": _common_label(result, writer, name),
                    "spec": stream_profile_spec(writer, name),
                    "alt": f"{EXPLANATIONS[name].title} of {writer.title} with its readers",
                }
                for name in STREAMED
            },
        }
        for writer in writers(result)
    ]


def _common_label(result: ScanResult, writer: Writer, observable: str) -> str | None:
    """Functional where it is so for every pair of a writer."""
    known = {labels_of(result, pair).get(observable) for _, pairs in writer.lines for pair in pairs}
    return "gauge" if "gauge" in known else next(iter(known), None)


_MEASURE_WORDS: dict[LinkMeasure, str] = {"overlap": "Overlap", "composition": "Composition"}


def _links(result: ScanResult) -> list[dict[str, Any]]:
    """The graphs of links: a stack and a measure each."""
    stacks = list(dict.fromkeys(edge.stack for edge in result.edges))
    graphs = []
    for stack in stacks:
        width, height = link_graph_size(result, stack)
        for measure in MEASURES:
            flags = beyond_chance(result, measure)
            count = sum(
                far for edge, far in zip(result.edges, flags, strict=True) if edge.stack == stack
            )
            prefix = f"{stack} · " if len(stacks) > 1 else ""
            held = ErrorRate.of(result).held
            graphs.append(
                {
                    "title": f"{prefix}{_MEASURE_WORDS[measure]}",
                    "stack": stack,
                    "spec": link_graph_spec(result, stack, measure),
                    "width": width,
                    "height": height,
                    "remark": _link_remark(result, stack, count, measure) if held else SCHEMA_1,
                    "alt": f"Graph of {count} links between heads, by {measure}",
                }
            )
    return graphs


def _link_remark(result: ScanResult, stack: str, count: int, measure: LinkMeasure) -> str:
    """How many links a graph draws, and of which; nothing about links that are not kept."""
    listed = sum(edge.stack == stack for edge in result.edges)
    if complete(result):
        these = f"the {listed:,} tested"
    elif listed == len(result.edges):
        these = f"the {listed:,} kept of {tested(result):,} tested, those furthest from chance"
    else:  # how many were tested in this stack alone is not known
        these = f"the {listed:,} kept of this stack, those furthest from chance"
    if not count:
        return f"No link is drawn: none is beyond chance by {measure}, of {these}."
    return f"{counted(count, 'link')} drawn, all beyond chance by {measure}, of {these}."


def _heads(result: ScanResult) -> dict[str, Any]:
    known = head_tracks(result)
    indices = {id(group): index for index, group in enumerate(result.heads)}
    groups: list[Any] = [None] * len(result.heads)
    for track in known:
        # One colour scale a space, so that layers can be compared.
        limit = max((matrix_limit(group) for group in track.groups), default=2.0)
        for group in track.groups:
            groups[indices[id(group)]] = {
                "layer": group.layer,
                "key": group_key(group),
                "title": f"layer {group.layer}, {SPACE_WORDS[group.space]} space",
                "facts": _facts(group),
                "matrix": head_matrix_spec(group, limit=limit),
                "spectrum": shared_spectrum_spec(group),
            }
    return {
        "overlap": head_overlap_spec(known),
        "shared": shared_directions_spec(known),
        "spaces": [
            {
                "title": track.title,
                "groups": [indices[id(group)] for group in track.groups],
                "first": indices[id(max(track.groups, key=_interest))],
            }
            for track in known
        ],
        "groups": groups,
    }


def _interest(group: HeadRecord) -> tuple[int, float]:
    return len(group.near_copies), abs(group.z or 0.0)


def _facts(group: HeadRecord) -> list[str]:
    """Description of the figures of a head group."""
    if group.status != "ok":
        return [f"No numbers: {group.status}."]
    sd = "" if group.overlap_ratio_sd is None else f" ± {number(group.overlap_ratio_sd, 2)}"
    facts = [
        f"{counted(group.count, 'head')} of rank {number(group.rank)} in {euclidean(group.d)}; "
        f"stored in {group.tensor}.",
        f"R = {number(group.overlap_ratio)}; chance is 1{sd}; "
        f"{significance(group.z, group.log10_p) or 'not tested'}.",
        f"{counted(group.shared_directions or 0, 'direction')} above the 1 % level "
        f"{number(group.shared_threshold)}; chance is 0"
        f"{_family(', p adjusted', group.shared_p_adjusted)}.",
    ]
    facts += [
        f"Heads {joined(cluster.heads, limit=16)} are a cluster: mean squared cosine "
        f"{number(cluster.mean_squared_cosine)} (a copy has 1)"
        f"{_family('; p adjusted', cluster.p_adjusted)}."
        for cluster in group.cluster_tests
    ]
    facts += [
        f"Heads {joined(pair.heads)}: mean squared cosine {number(pair.mean_squared_cosine)} (a "
        f"copy has 1), {number(pair.overlap_ratio)} times chance; {pair.shared} of {pair.rank} "
        "principal angles are smaller than chance allows"
        f"{_family('; p adjusted', pair.p_adjusted)}."
        for pair in group.near_copies[:6]
    ]
    if len(group.near_copies) > 6:
        facts.append(f"{len(group.near_copies) - 6} more such pairs; the matrix shows them.")
    return facts


def _family(words: str, p: float | None) -> str:
    """A p-value adjusted for all tests of the report, where there is one."""
    return "" if p is None else f"{words} {adjusted_p(p)}"
