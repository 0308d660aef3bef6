"""Numbered sequences of layers whose dimensions chain, as in nn.Sequential."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from flagscope.arch.activations import activation_freedom
from flagscope.arch.graph import Freedom, Member, Norm, PairGroup, PairKind
from flagscope.arch.maps import solved_map
from flagscope.arch.scope import Notes, Scope, Shapes
from flagscope.arch.sides import Side

# By the number of dimensions of the weight: Linear, Conv1d, Conv2d, Conv3d.
LAYOUTS = {2: "o i", 3: "o i x", 4: "o i y x", 5: "o i z y x"}

_NUMBERED = re.compile(r"(?P<stem>(?:.*\.)?[A-Za-z_]*?)(?P<number>\d+)\.weight")

Chain = list[tuple[int, str]]
"""Numbers and names of the weights of one sequence, in order."""


def chains(shapes: Shapes, names: Iterable[str]) -> list[Chain]:
    """Sequences among these weights whose names differ in their last number alone.

    Only names that end in a number count (``net.0.weight``, ``fc1.weight``): weights such as
    ``layers.0.q.weight`` stand beside other maps and need not follow each other. A sequence is
    cut where the output of one layer is not the input of the next.

    Examples
    --------
    >>> shapes = {"0.weight": (8, 4), "2.weight": (8, 8), "4.weight": (3, 8), "e.weight": (9, 4)}
    >>> chains(shapes, shapes)
    [[(0, '0.weight'), (2, '2.weight'), (4, '4.weight')]]
    """
    sequences: dict[str, Chain] = defaultdict(list)
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match and len(shapes[name]) in LAYOUTS:
            sequences[match["stem"]].append((int(match["number"]), name))
    found: list[Chain] = []
    for sequence in sequences.values():
        segment: Chain = []
        for number, name in sorted(sequence):
            if segment and shapes[segment[-1][1]][0] != shapes[name][1]:
                found.append(segment)
                segment = []
            segment.append((number, name))
        found.append(segment)
    return [one for one in found if len(one) > 1]


def chain_groups(
    chain: Chain, shapes: Shapes, notes: Notes, *, activation: str, stack: str = "main"
) -> list[PairGroup]:
    """The pairs of a chain; a BatchNorm between two layers of an nn.Sequential is folded."""
    groups = []
    for layer, ((first, write), (second, read)) in enumerate(pairwise(chain)):
        norm, between = _between(first, second, write, shapes, activation)
        freedom = activation_freedom(between) if between != "norm" else "none"
        if between == "unknown":
            notes.add(
                "activations cannot be seen in weights: what lies between numbered layers is "
                "unknown; say so in the config ({'activation': 'relu'}, --config F)"
            )
        groups.append(_pair(layer, write, read, shapes, between, freedom, norm, stack))
    return groups


def _between(
    first: int, second: int, write: str, shapes: Shapes, activation: str
) -> tuple[Norm | None, str]:
    """BatchNorm between two layers of an nn.Sequential, and what else lies there."""
    parent = write.removesuffix(".weight").rpartition(".")[0]
    scope = Scope(shapes=shapes, base=f"{parent}." if parent else "", label="", stack="", layer=0)
    numbered = write == f"{scope.base}{first}.weight"
    norms = [scope.norm_of((str(n),), kind="batchnorm", placement="map")
             for n in range(first + 1, second) if numbered]  # fmt: skip
    present = [norm for norm in norms if norm is not None]
    if not present:
        return None, activation
    if len(present) > 1 or present[0].mean is None or present[0].name != f"{scope.base}{first + 1}":
        return None, "norm"
    return present[0], activation


def _pair(
    layer: int, write: str, read: str, shapes: Shapes, between: str, freedom: Freedom,
    norm: Norm | None, stack: str,
) -> PairGroup:  # fmt: skip
    name = f"{write.removesuffix('.weight')}-{read.removesuffix('.weight')}"
    convolution = len(shapes[write]) > 2 and len(shapes[read]) > 2
    kind: PairKind = "conv" if convolution else "sequential"
    # BatchNorm between linear maps leaves only scalings of single neurons
    left: Freedom = "scaling" if norm is not None and freedom == "gl" else freedom
    one, two = (_map(tensor, shapes) for tensor in (write, read))
    return PairGroup(
        name=name, kind=kind, between=between, stack=stack, attention=None, layer=layer,
        freedom=left, d=one.outputs, write=Side(one), read=Side(two), members=(Member(name),),
        write_norm=norm,
    )  # fmt: skip


def _map(tensor: str, shapes: Shapes):
    shape = shapes[tensor]
    bias = tensor.removesuffix("weight") + "bias"
    return solved_map(
        role="linear" if len(shape) == 2 else "conv", tensor=tensor, shape=shape,
        layout=LAYOUTS[len(shape)], out="o", inp="i", bias=bias if bias in shapes else None,
    )  # fmt: skip
