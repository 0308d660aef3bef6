"""The answer, the page and the summary of all heads of a model against each other."""

from flagscope.report.heads.answer import HeadsAnswer, basis_words, heads_answer, space_name
from flagscope.report.heads.page import render_heads, render_heads_summary

__all__ = [
    "HeadsAnswer",
    "basis_words",
    "heads_answer",
    "render_heads",
    "render_heads_summary",
    "space_name",
]
