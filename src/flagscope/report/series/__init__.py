"""Words, tables and the page of a series of checkpoints."""

from flagscope.report.series.adapters import (
    AdapterSummary,
    adapter_lines,
    adapter_summaries,
    adapters_frame,
    nothing_stands_out,
)
from flagscope.report.series.changes import change_points_in_words
from flagscope.report.series.dead import dead_lines
from flagscope.report.series.frames import (
    change_points_frame,
    curves_frame,
    onsets_frame,
    steps_frame,
)
from flagscope.report.series.motion import (
    TurnedMap,
    WholeWay,
    motion_frame,
    product_changes_in_words,
    tested_turns,
    turned_maps,
    way_in_words,
    whole_way,
)
from flagscope.report.series.onsets import OnsetSummary, later_in_words, onset_summaries
from flagscope.report.series.page import render_series, render_series_summary
from flagscope.report.series.rates import rates_frame, rates_lines
from flagscope.report.series.runs import (
    bands_frame,
    relations_frame,
    relations_in_words,
    runs_frame,
)
from flagscope.report.series.text import (
    CurveSummary,
    curve_summaries,
    series_headline,
    value_in_words,
)

__all__ = [
    "AdapterSummary",
    "CurveSummary",
    "OnsetSummary",
    "TurnedMap",
    "WholeWay",
    "adapter_lines",
    "adapter_summaries",
    "adapters_frame",
    "bands_frame",
    "change_points_frame",
    "change_points_in_words",
    "curve_summaries",
    "curves_frame",
    "dead_lines",
    "later_in_words",
    "motion_frame",
    "nothing_stands_out",
    "onset_summaries",
    "onsets_frame",
    "product_changes_in_words",
    "rates_frame",
    "rates_lines",
    "relations_frame",
    "relations_in_words",
    "render_series",
    "render_series_summary",
    "runs_frame",
    "series_headline",
    "steps_frame",
    "tested_turns",
    "turned_maps",
    "value_in_words",
    "way_in_words",
    "whole_way",
]
