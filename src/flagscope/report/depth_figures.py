"""Depth profiles: each diagnostic of a track against its null band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any

from flagscope.observables import EXPLANATIONS, PAIR_OBSERVABLE, Band, null_band, untestable
from flagscope.records import HeadRecord, PairRecord
from flagscope.report.spec import Spec, axis, band, counts_only, flat, layout, level, line, plain
from flagscope.report.targets import group_target, pair_target
from flagscope.report.tracks import HeadTrack, Track
from flagscope.report.wording import counted, euclidean, number, p_value

_ALL_POINTS = 800  # above this many pairs, quartiles and extremes stand for the points
_LOG_ABOVE = 4.0  # the commutator ratio gets a logarithmic axis from here
_MANY = 24  # layers from which markers are small
_DASHES = {"q": "solid", "k": "dash", "v": "dot", "o": "dashdot"}
_MARKERS = {"q": "circle", "k": "square", "v": "diamond", "o": "triangle-up"}


def depth_profile_spec(track: Track, observable: str) -> Spec:
    """One diagnostic of one track over depth, with spread, null band and balanced values."""
    rows = [
        (position, pair, value)
        for position, pair in zip(track.positions, track.pairs, strict=True)
        if (value := getattr(pair, observable)) is not None
        and not (PAIR_OBSERVABLE[observable].counts_meetings and untestable(pair))
    ]
    data: list[Spec] = []
    if rows:
        data += _null(track, observable)
        data += _values(track, observable, rows)
        data += _balanced(track, observable)
    return {"data": data, "layout": _layout(track, observable, rows, flat(data))}


def _layout(
    track: Track, observable: str, rows: Sequence[tuple[int, PairRecord, float]], is_flat: bool
) -> Spec:
    x = axis("layer" if track.by_layer else "pair, in order", showgrid=False)
    x |= {"dtick": 1} if len(track.depths) <= 12 else {"nticks": 10, "tickformat": "d"}
    x["range"] = [min(track.depths) - 0.6, max(track.depths) + 0.6]
    y = axis(EXPLANATIONS[observable].symbol)
    values = [value for _, _, value in rows]
    shown = PAIR_OBSERVABLE[observable]
    if shown.logarithmic and values and max(values) > _LOG_ABOVE:
        y |= {"type": "log", "dtick": "D2", "tickformat": "~g"}
    elif shown.counts_meetings:
        y |= counts_only(max(values, default=0))
    elif shown.from_zero and not is_flat:
        y |= {"rangemode": "tozero"}
    return layout(x=x, y=y)


def _null(track: Track, observable: str) -> list[Spec]:
    bands: dict[int, list[Band]] = {}
    for position, pair in zip(track.positions, track.pairs, strict=True):
        found = null_band(pair, observable)
        if found is not None:
            bands.setdefault(position, []).append(found)
    if not bands:
        if observable != "imbalance":
            return []
        ends = (track.depths[0] - 0.5, track.depths[-1] + 0.5)
        return [level(ends, 0.0, name="balanced pair")]
    x = sorted(bands)
    low, mean, high = (
        [median(found[part] for found in bands[position]) for position in x] for part in range(3)
    )
    ends = (x[0] - 0.5, x[-1] + 0.5)
    traces = []
    if low != high:
        traces.append(band(x, low, high, name="95 % of chance values", color="$band", widen=0.5))
    return [*traces, level(ends, median(mean), name="chance")]


def described(pair: PairRecord, observable: str, value: float) -> str:
    """A pair on hovering over its point: the value, what chance gives, the ranks."""
    symbol = EXPLANATIONS[observable].symbol
    parts = [f"<b>{plain(pair.name)}</b>", f"{symbol} = {number(value)}"]
    found = null_band(pair, observable)
    if found is not None:
        interval = (
            f" [{number(found.low)}, {number(found.high)}]" if found.low != found.high else ""
        )
        parts.append(f"chance {number(found.mean)}{interval}")
    if observable == "overlap_ratio" and pair.overlap_z is not None:
        parts.append(f"z = {number(pair.overlap_z)}, {p_value(pair.log10_p)}")
    ranks = (
        f"ranks {pair.effective_rank_write} and {pair.effective_rank_read} in {euclidean(pair.d)}"
    )
    return "<br>".join([*parts, ranks])


def _values(
    track: Track, observable: str, rows: Sequence[tuple[int, PairRecord, float]]
) -> list[Spec]:
    if not track.several:
        x, y = [position for position, _, _ in rows], [value for _, _, value in rows]
        text = [described(pair, observable, value) for _, pair, value in rows]
        style: dict[str, Any] = {"marker": marker("$raw", len(x))}
        style["customdata"] = [pair_target(pair) for _, pair, _ in rows]
        return [line(x, y, name="value", color="$raw", text=text, **style)]
    at = _grouped(rows)
    x = sorted(at)
    middle = [median(value for _, value in at[position]) for position in x]
    text = [_summary(position, at[position], observable) for position in x]
    points = _points(rows, observable) if len(rows) <= _ALL_POINTS else _extremes(at, observable)
    style: dict[str, Any] = {"marker": marker("$raw", len(x))}
    style["customdata"] = [pair_target(_middle(at[position])) for position in x]
    return [*points, line(x, middle, name="median", color="$raw", text=text, **style)]


def _middle(here: Sequence[tuple[PairRecord, float]]) -> PairRecord:
    """The pair whose value is the median, or the one below it."""
    return sorted(here, key=lambda item: item[1])[(len(here) - 1) // 2][0]


def marker(color: str, count: int, **style: Any) -> Spec:
    """Markers that are small where there are many."""
    return {"color": color, "size": 6 if count <= _MANY else 3, **style}


def _grouped(
    rows: Sequence[tuple[int, PairRecord, float]],
) -> dict[int, list[tuple[PairRecord, float]]]:
    at: dict[int, list[tuple[PairRecord, float]]] = {}
    for position, pair, value in rows:
        at.setdefault(position, []).append((pair, value))
    return at


def _summary(position: int, here: Sequence[tuple[PairRecord, float]], observable: str) -> str:
    ordered = sorted(here, key=lambda item: item[1])
    symbol = EXPLANATIONS[observable].symbol
    middle = number(median(value for _, value in here))
    lines = [
        f"<b>layer {position}</b>, {counted(len(here), 'pair')}",
        f"median {symbol} = {middle}",
    ]
    for word, (pair, value) in (("lowest", ordered[0]), ("highest", ordered[-1])):
        lines.append(f"{word} {number(value)}: {plain(pair.name)}")
    return "<br>".join(lines)


def _points(rows: Sequence[tuple[int, PairRecord, float]], observable: str) -> list[Spec]:
    return [
        line(
            [position for position, _, _ in rows],
            [value for _, _, value in rows],
            name="each pair",
            color="$points",
            text=[described(pair, observable, value) for _, pair, value in rows],
            customdata=[pair_target(pair) for _, pair, _ in rows],
            mode="markers",
        )
    ]


def _extremes(at: dict[int, list[tuple[PairRecord, float]]], observable: str) -> list[Spec]:
    x = sorted(at)
    quarters = [
        quantiles([value for _, value in at[p]], n=4) if len(at[p]) > 1 else [at[p][0][1]] * 3
        for p in x
    ]
    ends = []
    for position in x:
        ordered = sorted(at[position], key=lambda item: item[1])
        ends += [(position, *ordered[0]), (position, *ordered[-1])]
    low, high = [q[0] for q in quarters], [q[2] for q in quarters]
    return [
        band(x, low, high, name="middle half of the pairs", color="$spread"),
        {**_points(ends, observable)[0], "name": "lowest and highest pair"},
    ]


def _balanced(track: Track, observable: str) -> list[Spec]:
    rows = [
        (position, pair, value)
        for position, pair in zip(track.positions, track.pairs, strict=True)
        if pair.balanced is not None
        and (value := getattr(pair.balanced, observable, None)) is not None
    ]
    if not rows:
        return []
    at = _grouped(rows)
    x = sorted(at)
    y = [median(value for _, value in at[position]) for position in x]
    word = "median, balanced" if track.several else "balanced"
    text = [
        f"<b>{plain(at[p][0][0].name) if len(at[p]) == 1 else f'layer {p}'}</b><br>"
        f"{word}: {number(v)}"
        for p, v in zip(x, y, strict=True)
    ]
    style: dict[str, Any] = {
        "customdata": [pair_target(_middle(at[position])) for position in x],
        "line": {"color": "$balanced", "width": 1.6, "dash": "dash"},
        "marker": marker("$balanced", len(x), symbol="diamond-open"),
    }
    return [line(x, y, name=word, color="$balanced", text=text, **style)]


def head_overlap_spec(tracks: Sequence[HeadTrack]) -> Spec:
    """The head overlap ratio R over depth, one line a space, against its null."""

    def describe(group: HeadRecord) -> str:
        return "<br>".join(
            (
                f"<b>layer {group.layer}, {group.space}</b>",
                f"R = {number(group.overlap_ratio)}",
                f"chance 1 ± {number(group.overlap_ratio_sd, 2)}",
                f"z = {number(group.z)}, {p_value(group.log10_p)}",
                f"{group.count} heads of rank {group.rank} in {euclidean(group.d)}",
            )
        )

    return _by_space(tracks, "overlap_ratio", describe, chance=1.0, title="R")


def shared_directions_spec(tracks: Sequence[HeadTrack]) -> Spec:
    """The number of shared head directions over depth, one line a space."""

    def describe(group: HeadRecord) -> str:
        return "<br>".join(
            (
                f"<b>layer {group.layer}, {group.space}</b>",
                f"{counted(group.shared_directions or 0, 'shared direction')}; chance 0",
                f"1 % level of the largest eigenvalue: {number(group.shared_threshold)}",
                f"{group.count} heads of rank {group.rank} in {euclidean(group.d)}",
            )
        )

    return _by_space(tracks, "shared_directions", describe, chance=0.0, title="directions")


def _head_band(tracks: Sequence[HeadTrack]) -> list[Spec]:
    """The widest of the spaces' 95 % intervals of R under chance, layer by layer."""
    sds: dict[int, float] = {}
    for track in tracks:
        for group in track.groups:
            if group.overlap_ratio is not None and group.overlap_ratio_sd:
                sds[group.layer] = max(sds.get(group.layer, 0.0), group.overlap_ratio_sd)
    if not sds:
        return []
    x = sorted(sds)
    low, high = ([1 + side * 1.96 * sds[layer] for layer in x] for side in (-1, 1))
    return [band(x, low, high, name="95 % of chance values", color="$band", widen=0.5)]


def _by_space(
    tracks: Sequence[HeadTrack],
    observable: str,
    describe: Callable[[HeadRecord], str],
    *,
    chance: float,
    title: str,
) -> Spec:
    data: list[Spec] = _head_band(tracks) if observable == "overlap_ratio" else []
    layers = sorted({group.layer for track in tracks for group in track.groups})
    if layers:
        data.append(level((layers[0] - 0.5, layers[-1] + 0.5), chance, name="chance"))
    for track in tracks:
        some = [group for group in track.groups if getattr(group, observable) is not None]
        if some:
            color = f"${track.space}"
            data.append(
                line(
                    [group.layer for group in some],
                    [getattr(group, observable) for group in some],
                    name=plain(track.title.removesuffix(" space")),
                    color=color,
                    text=[describe(group) for group in some],
                    customdata=[group_target(group) for group in some],
                    line={"color": color, "width": 2, "dash": _DASHES[track.space]},
                    marker=marker(color, len(some), symbol=_MARKERS[track.space]),
                )
            )
    x = axis("layer", showgrid=False)
    x |= {"dtick": 1} if len(layers) <= 12 else {"nticks": 10, "tickformat": "d"}
    y = axis(title)
    if observable == "shared_directions":
        largest = max(
            (group.shared_directions or 0 for t in tracks for group in t.groups), default=0
        )
        y |= counts_only(largest)
    elif not flat(data):
        y |= {"rangemode": "tozero"}
    return {"data": data, "layout": layout(x=x, y=y, showlegend=True)}
