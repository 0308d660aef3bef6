"""Exports a module as a flat program of functional tensor operations (torch.export, torch.fx)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL, getLogger
from typing import Any

import torch
from torch import fx, nn

from flagscope.arch.trace.copies import UntraceableError, still_copy
from flagscope.arch.trace.inputs import Inputs, check_fit
from flagscope.errors import InputError

# Methods that read values out of tensors, and those without further effect.
LOOKS = frozenset({"item", "tolist", "numpy"})
SUMMARIES = LOOKS | {"copy", "astype", "mean", "max", "min", "sum", "std"}


@dataclass(frozen=True)
class Program:
    """A traced module.

    Attributes
    ----------
    nodes
        Operations in order.
    tensors
        Name in the state dict of each placeholder that is a parameter or buffer; tied tensors
        have one name.
    means
        How it was traced, for the notes.
    """

    nodes: tuple[fx.Node, ...]
    tensors: Mapping[str, str]
    means: str


def traced_program(module: nn.Module, inputs: Inputs) -> Program:
    """The program of a module in evaluation mode, traced on fake tensors by torch.export.

    If that fails, torch.fx traces it first. Operations that only read values, and whose results are
    not used (a logged statistic, a check), are then dropped, since torch.export cannot provide such
    values, and the rest is exported. The module itself is not changed.

    Raises
    ------
    UntraceableError
        If both fail, or the module cannot be copied.
    InputError
        If inputs were given, and they are not what the module's forward accepts.

    References
    ----------
    PyTorch documentation, "torch.export Programming Model" and "torch.fx".
    """
    given = not inputs.assumed
    if given:
        check_fit(module, inputs)
    with _silence():
        still = still_copy(module)
        try:
            program = _exported(still, module, inputs, "torch.export")
            if given:
                _check_types(program)
            return program
        except InputError:
            raise
        except Exception as error:  # user code and the tracer may raise anything
            first = error
        try:
            still = _without_lookers_on(fx.symbolic_trace(still_copy(module)))
            return _exported(still, module, inputs, "torch.fx")
        except Exception:
            stopped = _stopped_at(first, module)
            # Errors of the tracer itself have classes of their own.
            if given and type(first).__module__ == "builtins":
                raise InputError(
                    f"the module cannot be traced on these example_inputs: {stopped}",
                    hint="give tensors of the shapes and types that the module's forward accepts; "
                    "if it accepts these, leave them out: other inputs are assumed, or names of "
                    "its tensors are read",
                ) from first
            raise UntraceableError(
                f"the module could not be traced: {stopped}",
                hint="give example_inputs, tensors that the module's forward accepts",
            ) from first


def _exported(module: nn.Module, original: nn.Module, inputs: Inputs, means: str) -> Program:
    program = torch.export.export(module, inputs.args, dict(inputs.kwargs), strict=False)
    # without a table of decompositions, this only removes mutation: relu_ becomes relu
    program = program.run_decompositions({})
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name)
             for name, tensor in original.state_dict(keep_vars=True).items()}  # fmt: skip
    tensors = {held: names[name] for held, name in stored.items() if name in names}
    return Program(tuple(program.graph.nodes), tensors, means)


def _check_types(program: Program) -> None:
    """Raise `InputError` where a linear map reads inputs of another type than its weights have.

    Fake tensors pass there, and real ones do not. What weights have entered is not looked at: its
    type is no longer that of the inputs.
    """
    weighty = {node for node in program.nodes if node.name in program.tensors}
    for node in program.nodes:
        if node.target is torch.ops.aten.linear.default:
            read, weight = (_dtype(operand) for operand in node.args[:2])
            if read != weight and node.args[0] not in weighty:
                raise InputError(
                    f"example_inputs are {read}, and a map that reads them has weights of {weight}",
                    hint=f"give tensors of {weight}, as the module's forward needs them",
                )
        if not weighty.isdisjoint(node.all_input_nodes):
            weighty.add(node)


def _dtype(operand: Any) -> str:
    value = operand.meta.get("val") if isinstance(operand, fx.Node) else None
    return str(getattr(value, "dtype", None)).removeprefix("torch.")


def _without_lookers_on(traced: fx.GraphModule) -> fx.GraphModule:
    """The program without checks, and without reads of values that it does not use.

    Nothing else is dropped, even if its result is not used: relu_ may be called for its effect.
    """
    taken: set[fx.Node] = set()
    for node in traced.graph.nodes:
        after = node.target in SUMMARIES and taken.issuperset(node.all_input_nodes)
        if node.op == "call_method" and (node.target in LOOKS or after):
            taken.add(node)
    for node in reversed(traced.graph.nodes):
        if not node.users and (node in taken or node.target is torch._assert):
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _stopped_at(error: Exception, module: nn.Module) -> str:
    """Message with the innermost module whose forward was running, and the error."""
    classes: dict[Any, str] = {}
    for name, submodule in module.named_modules():
        code = getattr(type(submodule).forward, "__code__", None)
        if code is not None:
            classes.setdefault(code, f"{name or 'the module itself'} ({type(submodule).__name__})")
    location, frame = "", error.__traceback__
    while frame is not None:
        location = classes.get(frame.tb_frame.f_code, location)
        frame = frame.tb_next
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[0].strip() if lines else "no message"
    return f"{location or 'the tracer'} stopped with {type(error).__name__}: {text[:160]}"


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the tracer's warnings and log output."""
    logger = getLogger("torch")
    level = logger.level
    logger.setLevel(CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
