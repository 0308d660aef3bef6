"""Builds the graph of any module: traced if possible, else inferred from names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from flagscope.arch.build import build_graph
from flagscope.arch.family_match import recognised
from flagscope.arch.graph import Graph
from flagscope.arch.notes import Notes
from flagscope.arch.outer_freedom import with_outer_freedoms
from flagscope.arch.pair_names import with_own_names
from flagscope.arch.reading import SIZES
from flagscope.arch.stacks import BUFFERS
from flagscope.arch.trace.confirmed import confirmed_family
from flagscope.arch.trace.copies import UntraceableError
from flagscope.arch.trace.flow import Flow
from flagscope.arch.trace.handlers import handler_of
from flagscope.arch.trace.inputs import Inputs, assumed_inputs, given_inputs
from flagscope.arch.trace.program import Program, traced_program
from flagscope.arch.trace.records import Recorder
from flagscope.errors import ArchitectureError

UNKNOWN = "unknown"
"""Family name that `build_graph` gives if no family fits."""
FAMILY = "traced"
"""Family name of a traced graph."""


def module_graph(
    module: nn.Module,
    config: Mapping[str, Any] | None = None,
    *,
    family: str | None = None,
    heads: int | None = None,
    example_inputs: Any = None,
    window: int = 1,
    names: Mapping[str, str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """The graph of a module's linear maps.

    A module of a known family is mapped by that family. Any other is traced (`trace_graph`); if its
    names are those of a family and the trace confirms that family's pairs, the family maps it. A
    module that cannot be traced is mapped from its tensor names, and a note says what stopped the
    trace.

    Parameters
    ----------
    module
        Any module. It is neither run on data nor changed.
    config
        Its configuration, if it has one.
    family, heads
        As for `build_graph`: with a named family, nothing is traced. The number of heads helps if
        only names are available; a trace shows it.
    example_inputs
        Arguments of the module's forward: a tensor, a tuple, or a mapping of named ones. Their
        shapes and dtypes matter, not their values. A note says so where they are not used.
    window
        As for `build_graph`; a traced module has no residual pairs of that kind.
    names
        Names for the tensors, by their names in the module's state dict; a tensor without a name
        could not be read. By default all tensors keep their names.
    shapes
        Shapes of the tensors by those names, if some are decoded from other tensors of the module
        (packed weights). By default the shapes of the module's own tensors.

    Raises
    ------
    InputError
        If an argument has the wrong form, or the module's forward does not accept the inputs.
    ArchitectureError
        As for `build_graph`.

    References
    ----------
    The pairs are the adjacent maps of Xiao, Sui, Ruan, arXiv 2605.09861.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [(pair.name, pair.between, pair.freedom) for pair in module_graph(net).pairs]
    [('0-2', 'gelu', 'permutation'), ('2-4', 'relu', 'scaling')]
    """
    shapes = _shapes(module, names) if shapes is None else shapes
    if example_inputs is not None:
        given_inputs(example_inputs)  # a wrong form is refused where nothing is traced, too
    if family is not None or recognised(config):
        graph = build_graph(shapes, config, family=family, heads=heads, window=window)
        if example_inputs is None:
            return graph
        note = "example_inputs were not used: nothing is traced where the family is known or named"
        return replace(graph, notes=(*graph.notes, note))
    try:
        traced = trace_graph(module, example_inputs=example_inputs, names=names)
    except UntraceableError as error:
        named = _by_names(module, shapes, config, heads=heads, window=window)
        return replace(named, notes=(f"{error}; {_found(named)}", *named.notes))
    counted = _counted_heads(module)
    confirmed = confirmed_family(
        traced, shapes, config, heads=heads, window=window, counted=counted
    )
    if confirmed is not None:
        return confirmed
    if (config or {}).get("model_type") is None:
        return traced
    return _as_named(traced, shapes, config, heads=heads, window=window)


def _by_names(
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None,
    *,
    heads: int | None,
    window: int,
) -> Graph:
    """The graph from tensor names, with the number of heads from attributes of the modules."""
    count = _counted_heads(module)
    if heads is None and count and not any(key in (config or {}) for key in SIZES["h"]):
        try:
            return build_graph(shapes, {**(config or {}), SIZES["h"][0]: count}, window=window)
        except ArchitectureError:  # the attribute means something else
            pass
    return build_graph(shapes, config, heads=heads, window=window)


def _counted_heads(module: nn.Module) -> int | None:
    """The number of heads from attributes of modules, if all agree."""
    counts = {
        value for submodule in module.modules()
        for key, value in getattr(submodule, "__dict__", {}).items()
        if key in SIZES["h"] and isinstance(value, int) and not isinstance(value, bool)
    }  # fmt: skip
    (count,) = counts if len(counts) == 1 else (0,)
    return count if count > 0 else None


def _as_named(
    traced: Graph,
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None,
    *,
    heads: int | None,
    window: int,
) -> Graph:
    """The traced graph, or that of a family with the same names if it maps more.

    Only for a model type that belongs to no family: names alone then claim no freedom, and the
    model's folder is mapped by names too.
    """
    try:
        named = build_graph(shapes, config, heads=heads, window=window)
    except ArchitectureError:
        return traced
    if named.family == UNKNOWN or _size(named) <= _size(traced):
        return traced
    note = (
        f"the module was traced, which gave {len(traced.pairs)} pairs and {len(traced.heads)} head "
        f"spaces; tensor names gave more, {len(named.pairs)} and {len(named.heads)} (as in family "
        f"{named.family!r}), and are taken instead"
    )
    return replace(named, notes=(note, *named.notes))


def _size(graph: Graph) -> int:
    """Number of pairs and heads to measure in a graph."""
    pairs = sum(len(pair.members) for pair in graph.pairs)
    return pairs + sum(space.count for space in graph.heads)


def _found(named: Graph) -> str:
    """Note on what tensor names gave when the trace failed."""
    free = sum(pair.freedom not in ("none", "outer") for pair in named.pairs)
    return (
        f"{len(named.pairs)} pairs and {len(named.heads)} head spaces were inferred from tensor "
        f"names alone (family {named.family!r}, a freedom claimed for {free}); "
        f"{len(named.unmapped)} matrices are in no pair"
    )


def trace_graph(
    module: nn.Module, *, example_inputs: Any = None, names: Mapping[str, str] | None = None
) -> Graph:
    """The graph of a module, traced with torch.export and, if that fails, torch.fx.

    The channels of every map are followed through the program to the maps that read them. Freedom
    is claimed only if nothing else uses those channels and every operation in between is known to
    commute with it; no pair is claimed across unknown operations.

    Parameters
    ----------
    module, example_inputs, names
        As for `module_graph`. Without example inputs, inputs are assumed from the module's
        ``dummy_inputs`` or first layers; a note says which.

    Raises
    ------
    UntraceableError
        If the module cannot be traced.
    InputError
        If `example_inputs` has the wrong form, or the module's forward does not accept them.

    References
    ----------
    PyTorch documentation, "torch.export Programming Model".

    Examples
    --------
    >>> graph = trace_graph(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
    >>> graph.notes
    ('inputs assumed for tracing: input (2, 4)',)
    """
    shapes = _shapes(module, names)
    notes = Notes()
    program, inputs = _program(module, example_inputs)
    if names is not None:
        readable = {
            held: names[tensor] for held, tensor in program.tensors.items() if tensor in names
        }
        program = replace(program, tensors=readable)
    if inputs.assumed:
        notes.add(inputs.assumed)
    if program.means != "torch.export":
        notes.add("torch.export failed on the module itself; it was traced by torch.fx")
    recorder = Recorder(Flow(program, shapes, notes, handler_of).run(), notes)
    recorder.record()
    used = {side.map.tensor for pair in recorder.pairs for side in (pair.write, pair.read)}
    unmapped = tuple(
        name for name, shape in shapes.items()
        if len(shape) >= 2 and name not in used and not any(fnmatchcase(name, p) for p in BUFFERS)
    )  # fmt: skip
    if not recorder.pairs:
        notes.add("no adjacent pair could be mapped; the matrices are listed as unmapped")
    pairs, heads = with_own_names(with_outer_freedoms(recorder.pairs)), tuple(recorder.heads)
    return Graph(FAMILY, pairs, heads, unmapped, notes.texts())


def _shapes(module: nn.Module, names: Mapping[str, str] | None) -> dict[str, tuple[int, ...]]:
    """Shapes of the readable tensors, by name."""
    stored = module.state_dict()
    if names is None:
        names = {name: name for name in stored}
    return {name: tuple(stored[held].shape) for held, name in names.items() if held in stored}


def _program(module: nn.Module, example_inputs: Any) -> tuple[Program, Inputs]:
    tries: Iterator[Inputs] = (
        assumed_inputs(module) if example_inputs is None else iter([given_inputs(example_inputs)])
    )
    first: UntraceableError | None = None
    for inputs in tries:
        try:
            return traced_program(module, inputs), inputs
        except UntraceableError as error:
            first = first or error
    if first is not None:
        raise first
    raise UntraceableError(
        "the module could not be traced: what its forward takes is not known",
        hint="give example_inputs, tensors that the module's forward accepts",
    )
