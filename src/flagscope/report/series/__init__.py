"""Words and tables of a series of checkpoints."""

from flagscope.report.series.frames import curves_frame, steps_frame
from flagscope.report.series.motion import (
    TurnedMap,
    WholeWay,
    motion_frame,
    tested_turns,
    turned_maps,
    whole_way,
)
from flagscope.report.series.text import CurveSummary, curve_summaries, series_headline

__all__ = [
    "CurveSummary",
    "TurnedMap",
    "WholeWay",
    "curve_summaries",
    "curves_frame",
    "motion_frame",
    "series_headline",
    "steps_frame",
    "tested_turns",
    "turned_maps",
    "whole_way",
]
