"""A reading of tensors that no family file describes: as a family file of its own."""

from flagscope.arch.reading.read import Reading, read_names

__all__ = ["Reading", "read_names"]
