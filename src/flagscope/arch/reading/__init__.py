"""Reads tensors that no family file describes, and writes a family file for them."""

from flagscope.arch.reading.read import Reading, read_names
from flagscope.arch.reading.sizes import SIZES, WIDTH

__all__ = ["SIZES", "WIDTH", "Reading", "read_names"]
