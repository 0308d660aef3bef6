"""Words and tables of a series of checkpoints."""

from flagscope.report.series.frames import curves_frame, steps_frame
from flagscope.report.series.rates import rates_frame, rates_lines
from flagscope.report.series.text import CurveSummary, curve_summaries, series_headline

__all__ = [
    "CurveSummary",
    "curve_summaries",
    "curves_frame",
    "rates_frame",
    "rates_lines",
    "series_headline",
    "steps_frame",
]
