"""Tensors that no sound, trained model fills with one value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from flagscope.arch import Graph, Norm
from flagscope.engine.plan.unplaced import is_table_or_output

_GAIN = re.compile(r"(?:.*[._])?(?:\w*norm\w*|ln_?\w*)\.weight")


def never_constant(shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Embeddings and output layers, by their names: with one value, all tokens look the same.

    Parameters
    ----------
    shapes
        By the name of the tensor.
    """
    return frozenset(
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and min(shape) > 1 and is_table_or_output(name, shape)
    )


def never_zero(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Gains of norms: where one is zero, what follows does not depend on the input.

    None where a family stores 1 + gain, or where no norm of the graph says how gains are stored. A
    BatchNorm may start from zero.
    """
    norms = [norm for norm in _norms(graph) if norm.gain is not None]
    plain = {norm.gain for norm in norms if norm.kind in ("layernorm", "rmsnorm")}
    if not plain or any(norm.offset for norm in norms):
        return frozenset()
    named = {
        name
        for name, shape in shapes.items()
        if len(shape) == 1
        and _GAIN.fullmatch(name)
        and f"{name.removesuffix('weight')}running_mean" not in shapes
    }
    return frozenset(name for name in {*plain, *named} if name is not None)


def _norms(graph: Graph) -> Iterator[Norm]:
    for pair in graph.pairs:
        for norm in (pair.write_norm, pair.read_norm, pair.query_norm, pair.key_norm):
            if norm is not None:
                yield norm
    yield from (head.norm for head in graph.heads if head.norm is not None)
