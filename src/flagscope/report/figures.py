"""Plotly figure objects for notebooks: the same figures that the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flagscope.errors import InputError
from flagscope.observables import EXPLANATIONS, PROFILED
from flagscope.records import HeadRecord, PairRecord, ScanResult
from flagscope.report import depth_figures, head_figures, pair_figures, stream_figures
from flagscope.report.link_figures import link_graph_size, link_graph_spec
from flagscope.report.links import MEASURES, LinkMeasure
from flagscope.report.palette import Theme, resolve
from flagscope.report.routes import Writer, writers
from flagscope.report.short_names import with_short_names
from flagscope.report.spec import Spec, plain
from flagscope.report.targets import without_targets
from flagscope.report.tracks import Track, head_tracks, tracks
from flagscope.report.wording import SPACE_WORDS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def drawn(spec: Spec, title: str, theme: Theme, *, legend: bool = False) -> Figure:
    """A specification as a figure with a title, in the colours of a theme."""
    import plotly.graph_objects as graph_objects  # only notebooks need it

    painted = resolve(spec, theme)
    look = {
        "title": {"text": title, "font": {"size": 15}},
        "margin": {"l": 60, "r": 24, "t": 84 if legend else 56, "b": 48},
        "paper_bgcolor": resolve("$paper", theme),
        "showlegend": legend,
    }
    return graph_objects.Figure(
        data=without_targets(painted["data"]), layout=painted["layout"] | look
    )


def depth_profile(
    result: ScanResult, observable: str, *, track: str | None = None, theme: Theme = "light"
) -> Figure:
    """A pair diagnostic over depth against its null band.

    Parameters
    ----------
    result
        A scan's result.
    observable
        One of ``commutator_ratio``, ``gram_correlation``, ``commutation_defect``,
        ``overlap_ratio``, ``intersection_beyond_chance``, ``imbalance``.
    track
        Which pairs, as a track key (``"qk/linear/gl"``) or the beginning of one (``"qk"``); the
        first track if None.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    plotly.graph_objects.Figure
        The value of every pair (quartiles and extremes above 800 pairs), the median, the median
        of the balanced pairs, and the central 95 % interval of the null.

    Raises
    ------
    InputError
        If the observable or the track does not exist.
    """
    if observable not in PROFILED:
        message = f"no depth profile of {observable!r}"
        raise InputError(message, hint=f"choose one of {', '.join(PROFILED)}")
    chosen = _track(result, track)
    spec = depth_figures.depth_profile_spec(chosen, observable)
    title = f"{plain(chosen.title)}: {EXPLANATIONS[observable].title}"
    return drawn(spec, title, theme, legend=True)


def _track(result: ScanResult, key: str | None) -> Track:
    known = tracks(result)
    for track in known:
        if key is None or track.key == key or track.key.startswith(f"{key}/"):
            return track
    message = "the scan has no pairs" if not known else f"no track {key!r} in the scan"
    raise InputError(message, hint=f"tracks of this scan: {', '.join(t.key for t in known)}")


def head_overlap(result: ScanResult, *, theme: Theme = "light") -> Figure:
    """The head overlap ratio R of every space over depth; chance is 1."""
    spec = depth_figures.head_overlap_spec(head_tracks(result))
    return drawn(spec, "Head overlap ratio R", theme, legend=True)


def shared_directions(result: ScanResult, *, theme: Theme = "light") -> Figure:
    """The number of directions shared by more heads than chance allows, over depth."""
    spec = depth_figures.shared_directions_spec(head_tracks(result))
    return drawn(spec, "Shared head directions", theme, legend=True)


def head_matrix(group: HeadRecord, *, theme: Theme = "light") -> Figure:
    """The overlap of every two heads of a group in units of chance, clusters outlined."""
    title = f"Layer {group.layer}: overlap of heads, {SPACE_WORDS[group.space]} space"
    return drawn(head_figures.head_matrix_spec(group), title, theme)


def shared_spectrum(group: HeadRecord, *, theme: Theme = "light") -> Figure:
    """The spectrum of the sum of the heads' projectors against its 1 % level."""
    title = f"Layer {group.layer}: directions shared by heads, {SPACE_WORDS[group.space]} space"
    return drawn(head_figures.shared_spectrum_spec(group), title, theme)


def principal_cosines(pair: PairRecord, *, theme: Theme = "light") -> Figure:
    """The principal cosines of a pair against the 1 % critical value of the largest."""
    return drawn(pair_figures.cosines_spec(pair), f"{plain(pair.name)}: cosines", theme)


def rank_profile(pair: PairRecord, *, theme: Theme = "light") -> Figure:
    """The overlap ratio of a pair's top-r spaces as r grows; chance is 1."""
    return drawn(pair_figures.profile_spec(pair), f"{plain(pair.name)}: overlap by rank", theme)


def incidence_surface(pair: PairRecord, *, theme: Theme = "light") -> Figure:
    """The incidence surface S(i, j) of a pair against its Haar value i·j/d."""
    title = f"{plain(pair.name)}: incidence surface against i·j/d"
    return drawn(pair_figures.incidence_spec(pair), title, theme)


def stream_profile(
    result: ScanResult, observable: str, *, writer: str | None = None, theme: Theme = "light"
) -> Figure:
    """A diagnostic of all that reads what one kind of map writes to the stream, over depth.

    Parameters
    ----------
    result
        A scan's result.
    observable
        One of ``overlap_ratio``, ``commutator_ratio``, ``gram_correlation``.
    writer
        Which map writes, as in ``"o"`` and ``"mlp.down"``, with its stack in front where there are
        several (``"decoder/o"``); the first one if None.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    plotly.graph_objects.Figure
        A line for each kind of reader and distance in blocks, and the central 95 % interval of the
        null, the widest of theirs at each depth.

    Raises
    ------
    InputError
        If the observable or the writer does not exist.
    """
    if observable not in stream_figures.STREAMED:
        message = f"no stream profile of {observable!r}"
        raise InputError(message, hint=f"choose one of {', '.join(stream_figures.STREAMED)}")
    chosen = _writer(result, writer)
    spec = stream_figures.stream_profile_spec(chosen, observable)
    title = f"{plain(chosen.title)}: {EXPLANATIONS[observable].title}, by reader"
    return drawn(spec, title, theme, legend=True)


def _writer(result: ScanResult, key: str | None) -> Writer:
    known = writers(result)
    for one in known:
        if key is None or one.key == key:
            return one
    message = f"no writer {key!r} in the scan" if known else "the scan has no residual pairs"
    hint = f"writers of this scan: {', '.join(one.key for one in known)}"
    raise InputError(message, hint=hint if known else "scan with only=('residual',) or all parts")


def link_graph(
    result: ScanResult,
    measure: LinkMeasure = "overlap",
    *,
    stack: str | None = None,
    limit: int | None = None,
    theme: Theme = "light",
) -> Figure:
    """The directed graph of links from head to head that lie beyond chance.

    Layers run from left to right and heads from top to bottom; a link leaves the writing head on
    its right and reaches the reading head on its left, coloured by what is read (queries, keys,
    values), wider and less transparent the larger its z, dotted where it is below chance.
    Key-value heads stand in the middle of the query heads that they serve.

    Parameters
    ----------
    result
        A scan's result.
    measure
        ``"overlap"`` or ``"composition"``: what decides which links are drawn, and how strongly.
    stack
        As in ``"decoder"``; the first one with links if None.
    limit
        Draw no more links than this, the furthest from chance; all that the scan kept if None.
    theme
        ``"light"`` or ``"dark"``.

    Returns
    -------
    plotly.graph_objects.Figure
        Without traces where no link is beyond chance.

    Raises
    ------
    InputError
        If the measure is unknown, or the stack has no links.

    References
    ----------
    The graph of the projection kernel, arXiv 2601.10266; the composition score of Elhage et al.,
    "A Mathematical Framework for Transformer Circuits" (2021).
    """
    if measure not in MEASURES:
        message = f"no measure {measure!r} of links"
        raise InputError(message, hint=f"choose one of {', '.join(MEASURES)}")
    stacks = list(dict.fromkeys(edge.stack for edge in result.edges))
    chosen = stack if stack is not None else next(iter(stacks), None)
    if chosen is None or chosen not in stacks:
        message = "the scan has no links" if not stacks else f"stack {stack!r} has no links"
        raise InputError(message, hint=f"stacks with links: {', '.join(stacks) or 'none'}")
    spec = link_graph_spec(result, chosen, measure, limit=limit)
    figure = drawn(spec, f"Links from head to head, by {measure}", theme, legend=True)
    width, height = link_graph_size(result, chosen)
    return figure.update_layout(width=max(700, width), height=height + 60)


def all_figures(result: ScanResult, *, theme: Theme = "light") -> dict[str, Figure]:
    """The overview figures of a scan by name: depth profiles of every track, and of the heads.

    Returns
    -------
    dict of str to plotly.graph_objects.Figure
        Keys ``"<track>/<observable>"``, ``"heads/overlap_ratio"``, ``"heads/shared_directions"``,
        ``"stream/<writer>/<observable>"``, ``"links/overlap"``, ``"links/composition"`` (of the
        first stack with links).
        Those of single pairs and head groups come from `incidence_surface`, `head_matrix`, ….
    """
    result = with_short_names(result)
    figures = {
        f"{track.key}/{observable}": depth_profile(result, observable, track=track.key, theme=theme)
        for track in tracks(result)
        for observable in PROFILED
    }
    if result.heads:
        figures["heads/overlap_ratio"] = head_overlap(result, theme=theme)
        figures["heads/shared_directions"] = shared_directions(result, theme=theme)
    for writer in writers(result):
        for name in stream_figures.STREAMED:
            figure = stream_profile(result, name, writer=writer.key, theme=theme)
            figures[f"stream/{writer.key}/{name}"] = figure
    if result.edges:
        for measure in MEASURES:
            figures[f"links/{measure}"] = link_graph(result, measure, theme=theme)
    return figures
