"""Words, tables and the page of a series of checkpoints."""

from flagscope.report.series.adapters import (
    AdapterSummary,
    adapter_lines,
    adapter_summaries,
    adapters_frame,
)
from flagscope.report.series.frames import curves_frame, steps_frame
from flagscope.report.series.page import render_series
from flagscope.report.series.text import CurveSummary, curve_summaries, series_headline

__all__ = [
    "AdapterSummary",
    "CurveSummary",
    "adapter_lines",
    "adapter_summaries",
    "adapters_frame",
    "curve_summaries",
    "curves_frame",
    "render_series",
    "series_headline",
    "steps_frame",
]
