"""A reading of tensors that no family file describes: as a family file of its own."""

from flagscope.arch.reading.read import Reading, read_names
from flagscope.arch.reading.sizes import SIZES, WIDTH

__all__ = ["SIZES", "WIDTH", "Reading", "read_names"]
