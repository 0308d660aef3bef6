"""Comparisons in words, frames and one self-contained page."""

from flagscope.report.comparison.adapter_verdict import (
    verdict_of_adapters,
    verdict_of_coverage,
    verdict_of_replay,
)
from flagscope.report.comparison.findings import (
    COMPARISON_CODES,
    comparison_findings,
    fault_codes,
    fault_findings,
)
from flagscope.report.comparison.frames import heads_frame, maps_frame, tensors_frame
from flagscope.report.comparison.page import render_comparison, render_comparison_summary
from flagscope.report.comparison.verdict import verdict_of_models
from flagscope.report.comparison.whereabouts import relative_change, where_moved

__all__ = [
    "COMPARISON_CODES",
    "comparison_findings",
    "fault_codes",
    "fault_findings",
    "heads_frame",
    "maps_frame",
    "relative_change",
    "render_comparison",
    "render_comparison_summary",
    "tensors_frame",
    "verdict_of_adapters",
    "verdict_of_coverage",
    "verdict_of_models",
    "verdict_of_replay",
    "where_moved",
]
