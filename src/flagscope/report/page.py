"""The page: one self-contained HTML file that loads nothing from anywhere."""

from __future__ import annotations

from typing import Any

from flagscope.observables import EXPLANATIONS, PROFILED
from flagscope.records import ScanResult
from flagscope.report import glance, wording
from flagscope.report.coverage import (
    left_out,
    measured_share,
    measured_sharp,
    percent,
    without_number_lines,
)
from flagscope.report.effect import FLOORS, ORDER
from flagscope.report.environment import assets, environment
from flagscope.report.findings import findings, folded
from flagscope.report.glossary import GAUGE, SETTING
from flagscope.report.health import health_text
from flagscope.report.links import HeadRows, head_rows, tested
from flagscope.report.payload import (
    DETAILED_PAIRS,
    core,
    details,
    packed_json,
    packed_plotly,
)
from flagscope.report.plots import plot_kinds
from flagscope.report.routes import writers
from flagscope.report.short_names import with_short_names
from flagscope.report.stream_figures import STREAMED
from flagscope.report.summary_figure import small_figure
from flagscope.report.terms import FAMILY, TERMS, TESTS

_SCRIPTS = (
    "base", "route", "save", "figures", "print", "gauge", "map", "depth", "heads", "stream",
    "links", "pair", "table", "main",
)  # fmt: skip

FREEDOM_WORDS = {
    "gl": "any invertible change of the shared space",
    "rotary": "a rotation and scaling of each frequency plane",
    "scaling": "a positive scaling of each neuron, and permutations",
    "permutation": "permutations of the neurons",
    "scale": "a positive factor on each map, whose size a norm takes out",
    "outer": "none of the shared space; the other side of a map, inside its block, can be changed",
    "none": "no change of the shared space that is known",
}


def _head_rows(result: ScanResult) -> list[HeadRows]:
    return [head_rows(result, stack) for stack in {edge.stack for edge in result.edges}]


def render_page(result: ScanResult, *, title: str | None = None) -> str:
    """A scan as one HTML page with interactive figures, tables and explanations.

    The page is self-contained: style, script, data and Plotly are inside it (compressed; the
    browser inflates them), and its content security policy forbids any request. A cell, a point
    or a link opens what it stands for, with a URL that comes back to it. Numbers are rounded to
    four digits; the JSON has all of them. Above 600 pairs, the figures of single pairs are kept
    for the 600 whose overlap is furthest from chance.

    Parameters
    ----------
    result
        A scan's result.
    title
        Heading of the page, and the beginning of the names of files saved from it; the last part
        of the scan's source if None.

    Returns
    -------
    str
        UTF-8 HTML, about 2.5 MB for a model of 12 layers and 12 heads.
    """
    result = with_short_names(result)
    heading = title or result.source.rstrip("/").split("/")[-1] or result.source
    style, script = assets(_SCRIPTS, ("findings",))
    data = core(result)
    pair_rows = glance.pair_rows(result)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            style=style,
            script=script,
            plotly=packed_plotly(),
            core=packed_json({"model": heading, **data}),
            details=packed_json(details(result)),
            detailed=DETAILED_PAIRS,
            result=result,
            **_coverage(result),
            health=health_text(result),
            **_findings(result),
            title=title or result.source,
            heading=heading,
            maps=_maps(data),
            pair_rows=pair_rows,
            any_gauge=any(cell.label == "gauge" for row in pair_rows for cell in row.cells),
            head_rows=glance.head_rows(result),
            pair_columns=glance.pair_columns(pair_rows),
            profiled=[(name, EXPLANATIONS[name]) for name in PROFILED],
            streamed=[(name, EXPLANATIONS[name]) for name in STREAMED],
            writers=writers(result),
            tested=tested(result),
            shared_heads=any(rows.shared < rows.heads for rows in _head_rows(result)),
            floors=FLOORS,
            order=ORDER,
            family=FAMILY,
            terms=TERMS,
            test_words=TESTS,
            observables=EXPLANATIONS,
            setting=SETTING,
            gauge=GAUGE,
            freedoms=FREEDOM_WORDS,
            wording=wording,
        )
    )


def _findings(result: ScanResult) -> dict[str, Any]:
    """Findings to show, and those about the gauge, which stand folded below them."""
    shown, gauge = folded(findings(result))
    return {"findings": shown, "gauge_findings": gauge}


def _maps(data: dict[str, Any]) -> str:
    """What the first map is of: ``"heads"`` or ``"kinds"`` of pairs; empty without a map."""
    if not data["maps"]:
        return ""
    return "heads" if data["maps"][0]["row_title"] == "layer" else "kinds"


def _coverage(result: ScanResult) -> dict[str, Any]:
    """Coverage for the head of a page."""
    coverage = result.coverage
    if coverage is None:
        return {"coverage": None, "lost_links": 0}
    return {
        "coverage": coverage,
        "lost_links": sum(one.count for one in coverage.without_numbers if one.what == "links"),
        "share": measured_share(coverage),
        "sharp": measured_sharp(result.pairs),
        "measured_parameters": percent(coverage.parameters_measured, coverage.parameters),
        "left_out": left_out(coverage),
        "without_numbers": without_number_lines(coverage),
    }


def render_summary(result: ScanResult) -> str:
    """What was measured, the findings and a small figure, as HTML without script, for notebooks.

    Examples
    --------
    See `render_page` for the whole; this is what a notebook shows for a report.
    """
    from markupsafe import Markup

    result = with_short_names(result)
    figure = small_figure(result)
    return (
        environment()
        .get_template("summary.html.j2")
        .render(
            result=result,
            **_coverage(result),
            health=health_text(result),
            **_findings(result),
            figure=Markup(figure.svg),  # made by a template that escapes
            caption=figure.caption,
            plots=" | ".join(f'"{kind}"' for kind in plot_kinds(result)),
            wording=wording,
        )
    )
