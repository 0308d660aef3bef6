"""Results in words, frames, figures and one self-contained page; sees records, never tensors."""

from flagscope.observables import EXPLANATIONS, Explanation
from flagscope.records import Finding
from flagscope.report.coverage import left_out, measured_share, without_number_lines
from flagscope.report.figures import (
    all_figures,
    depth_profile,
    head_matrix,
    head_overlap,
    incidence_surface,
    link_graph,
    principal_cosines,
    rank_profile,
    shared_directions,
    shared_spectrum,
    stream_profile,
)
from flagscope.report.findings import findings, folded
from flagscope.report.frames import (
    MAIN_HEAD_COLUMNS,
    MAIN_PAIR_COLUMNS,
    edges_frame,
    heads_frame,
    pairs_frame,
)
from flagscope.report.inspection import render_inspection
from flagscope.report.page import render_page, render_summary
from flagscope.report.palette import Theme
from flagscope.report.plots import PLOT_KINDS, PlotKind, plot, plot_kinds
from flagscope.report.spreadsheet import csv_text
from flagscope.report.tables import SummaryTable, summary_table

__all__ = [
    "EXPLANATIONS",
    "MAIN_HEAD_COLUMNS",
    "MAIN_PAIR_COLUMNS",
    "PLOT_KINDS",
    "Explanation",
    "Finding",
    "PlotKind",
    "SummaryTable",
    "Theme",
    "all_figures",
    "csv_text",
    "depth_profile",
    "edges_frame",
    "findings",
    "folded",
    "head_matrix",
    "head_overlap",
    "heads_frame",
    "incidence_surface",
    "left_out",
    "link_graph",
    "measured_share",
    "pairs_frame",
    "plot",
    "plot_kinds",
    "principal_cosines",
    "rank_profile",
    "render_inspection",
    "render_page",
    "render_summary",
    "shared_directions",
    "shared_spectrum",
    "stream_profile",
    "summary_table",
    "without_number_lines",
]
