"""Tensors that no sound, trained model fills with one value."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flagscope.arch import Graph
from flagscope.engine.plan.looked_at import norms_of
from flagscope.engine.plan.unplaced import is_table_or_output
from flagscope.records import WeightCheck

_GAIN = re.compile(r"(?:.*[._])?(?:\w*norm\w*|ln_?\w*)\.weight")


def never_of_one_value(
    graph: Graph, shapes: Mapping[str, tuple[int, ...]]
) -> dict[WeightCheck, frozenset[str]]:
    """Names of the tensors in which one value throughout, or zero throughout, is amiss.

    Parameters
    ----------
    graph
        Its norms say how gains are stored.
    shapes
        By the name of the tensor.
    """
    tables = _tables(shapes)
    return {"constant": tables, "all-zero": tables | _gains(graph, shapes)}


def _tables(shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Embeddings and output layers, by their names: with one value, all tokens look the same."""
    return frozenset(
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and min(shape) > 1 and is_table_or_output(name, shape)
    )


def _gains(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Gains of norms: where one is zero, what follows does not depend on the input.

    None where a family stores 1 + gain, or where no norm of the graph says how gains are stored. A
    BatchNorm may start from zero.
    """
    gains = [(norm.gain, norm) for norm in norms_of(graph) if norm.gain is not None]
    plain = {name for name, norm in gains if norm.kind in ("layernorm", "rmsnorm")}
    if not plain or any(norm.offset for _, norm in gains):
        return frozenset()
    named = {
        name
        for name, shape in shapes.items()
        if len(shape) == 1
        and _GAIN.fullmatch(name)
        and f"{name.removesuffix('weight')}running_mean" not in shapes
    }
    return frozenset(plain | named)
