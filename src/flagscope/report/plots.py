"""Figures by kind: what `Report.plot` draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from flagscope.errors import InputError
from flagscope.records import HeadRecord, PairRecord, ScanResult
from flagscope.report import figures
from flagscope.report.palette import Theme
from flagscope.report.routes import writers
from flagscope.report.shared_head_maps import head_map_spec, head_maps, shade_limit
from flagscope.report.short_names import with_short_names
from flagscope.report.tracks import tracks
from flagscope.shortening import shortened

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PlotKind = Literal[
    "map", "depth", "heads", "matrix", "spectrum", "links", "stream", "cosines", "ranks",
    "incidence",
]  # fmt: skip
"""Kinds of figures; a table of them is in the docs of `Report.plot`."""
PLOT_KINDS: tuple[PlotKind, ...] = get_args(PlotKind)

_NEEDS = {
    **dict.fromkeys(("map", "heads", "matrix", "spectrum"), "heads"),
    **dict.fromkeys(("depth", "cosines", "ranks", "incidence"), "pairs"),
    "links": "links between heads",
    "stream": "pairs across the residual stream",
}
# What each kind takes, besides the theme.
_TAKES: Mapping[str, tuple[str, ...]] = {
    "map": ("space",),
    "depth": ("observable", "pair"),
    "heads": ("observable",),
    "matrix": ("layer", "space"),
    "spectrum": ("layer", "space"),
    "links": ("observable",),
    "stream": ("observable", "pair"),
    "cosines": ("pair",),
    "ranks": ("pair",),
    "incidence": ("pair",),
}


def plot_kinds(result: ScanResult) -> tuple[PlotKind, ...]:
    """The kinds of figures that a result has something to draw for."""
    has = {
        "heads": bool(result.heads),
        "pairs": bool(result.pairs),
        "links between heads": bool(result.edges),
        "pairs across the residual stream": bool(writers(result)),
    }
    return tuple(kind for kind in PLOT_KINDS if has[_NEEDS[kind]])


def plot(
    result: ScanResult,
    kind: PlotKind | None = None,
    *,
    observable: str | None = None,
    pair: str | None = None,
    layer: int | None = None,
    space: str | None = None,
    theme: Theme = "light",
) -> Figure:
    """One figure of a scan, by kind; parameters and errors as of `Report.plot`."""
    result = with_short_names(result)
    kinds = plot_kinds(result)
    here = f"this report has {', '.join(kinds)}" if kinds else "this report has nothing to draw"
    if kind is None and kinds:
        kind = kinds[0]
    if kind not in PLOT_KINDS:
        message = "this report has no figure" if kind is None else f"no figure of kind {kind!r}"
        raise InputError(message, hint=f"choose one of {', '.join(PLOT_KINDS)}; {here}")
    if kind not in kinds:
        raise InputError(f"{kind!r} needs {_NEEDS[kind]}, and the scan has none", hint=here)
    given = {"observable": observable, "pair": pair, "layer": layer, "space": space}
    chosen = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in chosen if name not in _TAKES[kind]]
    if wrong:
        takes = ", ".join(_TAKES[kind])
        raise InputError(f"{kind!r} takes no {' and no '.join(wrong)}", hint=f"it takes {takes}")
    return _DRAWN[kind](result, theme, **chosen)


def _map(result: ScanResult, theme: Theme, space: str | None = None) -> Figure:
    maps = head_maps(result)
    known = [one.key for one in maps]
    for one in maps:
        if space is None or space in (one.key, one.key.rpartition("/")[2]):
            spec = head_map_spec(one, shade_limit(maps))
            title = f"{one.title}: overlap with the closest other head of the layer"
            return figures.drawn(spec, title, theme)
    raise InputError(f"no heads in space {space!r}", hint=f"choose one of {', '.join(known)}")


def _depth(
    result: ScanResult, theme: Theme, observable: str = "overlap_ratio", pair: str | None = None
) -> Figure:
    return figures.depth_profile(result, observable, track=pair, theme=theme)


def _heads(result: ScanResult, theme: Theme, observable: str = "overlap_ratio") -> Figure:
    drawn = {
        "overlap_ratio": figures.head_overlap, "shared_directions": figures.shared_directions,
    }  # fmt: skip
    if observable not in drawn:
        raise InputError(
            f"no profile of heads of {observable!r}", hint=f"choose one of {', '.join(drawn)}"
        )
    return drawn[observable](result, theme=theme)


def _matrix(result: ScanResult, theme: Theme, **where: Any) -> Figure:
    return figures.head_matrix(_group(result, **where), theme=theme)


def _spectrum(result: ScanResult, theme: Theme, **where: Any) -> Figure:
    return figures.shared_spectrum(_group(result, **where), theme=theme)


def _links(result: ScanResult, theme: Theme, observable: str = "overlap") -> Figure:
    # The measure is checked there.
    return figures.link_graph(result, cast(Any, observable), theme=theme)


def _stream(
    result: ScanResult, theme: Theme, observable: str = "overlap_ratio", pair: str | None = None
) -> Figure:
    return figures.stream_profile(result, observable, writer=pair, theme=theme)


def _cosines(result: ScanResult, theme: Theme, pair: str | None = None) -> Figure:
    return figures.principal_cosines(_pair(result, pair), theme=theme)


def _ranks(result: ScanResult, theme: Theme, pair: str | None = None) -> Figure:
    return figures.rank_profile(_pair(result, pair), theme=theme)


def _incidence(result: ScanResult, theme: Theme, pair: str | None = None) -> Figure:
    return figures.incidence_surface(_pair(result, pair), theme=theme)


_DRAWN: Mapping[str, Callable[..., Figure]] = {
    "map": _map, "depth": _depth, "heads": _heads, "matrix": _matrix, "spectrum": _spectrum,
    "links": _links, "stream": _stream, "cosines": _cosines, "ranks": _ranks,
    "incidence": _incidence,
}  # fmt: skip


def _group(result: ScanResult, layer: int | None = None, space: str | None = None) -> HeadRecord:
    """The heads of a layer and space; of those left open the ones furthest from chance."""
    some = [
        group
        for group in result.heads
        if layer in (None, group.layer) and space in (None, group.space)
    ]
    if not some:
        layers = sorted({group.layer for group in result.heads})
        spaces = dict.fromkeys(group.space for group in result.heads)
        raise InputError(
            f"no heads in layer {layer} and space {space!r}",
            hint=f"layers {layers[0]} to {layers[-1]}, spaces {', '.join(spaces)}",
        )
    return max(some, key=lambda group: abs(group.z or 0.0))


def _pair(result: ScanResult, name: str | None) -> PairRecord:
    """A pair by name, or the one whose overlap is furthest from chance."""
    if name is None:
        return max(result.pairs, key=lambda pair: abs(pair.overlap_z or 0.0))
    for pair in result.pairs:
        if pair.name == shortened(name):
            return pair
    kinds = {track.pairs[0].name for track in tracks(result)}
    raise InputError(
        f"no pair {name!r} in the scan", hint=f"names are in .pairs, such as {min(kinds)}"
    )
