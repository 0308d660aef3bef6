"""Builds the graph of any module by tracing which maps read the output of which."""

from flagscope.arch.trace.copies import UntraceableError
from flagscope.arch.trace.graph import FAMILY, module_graph, trace_graph

__all__ = ["FAMILY", "UntraceableError", "module_graph", "trace_graph"]
