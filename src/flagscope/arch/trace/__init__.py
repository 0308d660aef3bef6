"""Any module's graph by tracing: who reads what each of its maps writes."""

from flagscope.arch.trace.copies import UntraceableError
from flagscope.arch.trace.graph import FAMILY, module_graph, trace_graph

__all__ = ["FAMILY", "UntraceableError", "module_graph", "trace_graph"]
