"""Function-preserving changes of a network's weights, read from the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flagscope.arch import Frame, Graph, Norm, PairGroup

Kind = Literal[
    "gl",
    "rotary",
    "query scale",
    "key scale",
    "write scale",
    "norm rotation",
    "scaling",
    "permutation",
    "heads",
    "stream",
]

_NEURONS = ("mlp", "conv", "sequential")


@dataclass(frozen=True)
class Symmetry:
    """A group of function-preserving changes, at one place of a network.

    Attributes
    ----------
    kind
        The group. "gl": any invertible change of the shared space. "rotary": a rotation and
        scaling of each frequency plane, anything invertible on the dimensions that are not turned.
        "query scale", "key scale": one positive factor in front of a query or key norm. "write
        scale": the same in front of the norm of a latent space. "norm rotation": orthogonal
        changes that commute with a query-key norm's gains and with the rotary embedding.
        "scaling": a positive factor for each neuron. "permutation": of neurons, or of dimensions
        in front of a clip or of the norm of a latent space. "heads": permutations of query heads
        that keep the heads of a key-value head together. "stream": orthogonal changes of the
        residual stream.
    group
        The pair group that shares the space, or the frame of the residual stream.
    member
        The key-value head, query head or expert that is changed; None for all.
    d
        Dimension of what is changed; the number of query heads for "heads".
    partners
        Pair groups that change along: the gate with up, V-O with Q-K.
    """

    kind: Kind
    group: PairGroup | Frame
    member: int | None
    d: int
    partners: tuple[PairGroup, ...] = ()

    @property
    def name(self) -> str:
        """Place and kind, as in 'layer.0.ov[1]: gl'."""
        place = self.group.name if isinstance(self.group, PairGroup) else self.group.stack
        part = "" if self.member is None else f"[{self.member}]"
        return f"{place}{part}: {self.kind}"


def applicable(graph: Graph) -> tuple[Symmetry, ...]:
    """All function-preserving changes that the graph shows to be open.

    A grouped-query model is changed by key-value head: all query heads that share one get the
    matching change. Pairs whose freedom is not known offer nothing. The scales in front of a
    norm preserve the function up to the norm's ε.

    Parameters
    ----------
    graph
        From `flagscope.inspect(source).graph` or `flagscope.arch.build_graph`.

    References
    ----------
    Neyshabur, Salakhutdinov, Srebro, arXiv 1506.02617 (scaling); Elhage et al., "A Mathematical
    Framework for Transformer Circuits", 2021 (V-O and Q-K); Ashkboos et al., SliceGPT, arXiv
    2401.15024 (the residual stream).

    Examples
    --------
    >>> from flagscope.arch import build_graph
    >>> graph = build_graph({"0.weight": (8, 4), "2.weight": (3, 8)}, {"activation": "relu"})
    >>> [symmetry.name for symmetry in applicable(graph)]
    ['0-2: scaling', '0-2: permutation']
    """
    found = [one for group in graph.pairs for one in _of_pairs(group, graph)]
    found += [Symmetry("stream", frame, None, frame.d) for frame in graph.frames]
    return tuple(found)


def _of_pairs(group: PairGroup, graph: Graph) -> Iterator[Symmetry]:
    if group.kind == "residual":
        return
    if group.freedom in ("gl", "rotary"):
        for member in _members(group):
            yield Symmetry(group.freedom, group, member, group.d)
    if group.freedom == "scaling" and _scales(group.write_norm):
        for member in _members(group):
            yield Symmetry("scaling", group, member, group.d)
    if group.freedom in ("scaling", "permutation") and group.kind in _NEURONS:
        yield from _permutations(group, graph)
    if group.freedom == "permutation" and group.kind in ("qk", "ov"):
        for member in _members(group):
            yield Symmetry("permutation", group, member, group.d)
    if group.freedom == "scale" and group.kind == "latent":
        yield Symmetry("write scale", group, None, group.d)
        yield Symmetry("permutation", group, None, group.d)
    if group.kind == "qk":
        yield from _before_norms(group)
        yield from _heads(group, graph)


def _members(group: PairGroup) -> list[int | None]:
    """Key-value heads or experts, each once; [None] where there is but one pair."""
    keys = [shared_member(group, at) for at in range(len(group.members))]
    return list(dict.fromkeys(keys))


def shared_member(group: PairGroup, at: int) -> int | None:
    """Key-value head or expert of a member: members that agree in it are changed together."""
    one = group.members[at]
    return one.kv_head if one.kv_head is not None else one.expert


def _scales(norm: Norm | None) -> bool:
    # without a gain of its own a BatchNorm swallows every scale in front of it
    return norm is None or norm.gain is not None


def _permutations(group: PairGroup, graph: Graph) -> Iterator[Symmetry]:
    """Permutations of neurons, listed once for all maps that write the same neurons."""
    beside = [one for one in graph.pairs if one.read == group.read and one.kind == group.kind]
    if beside[0] is group and all(one.freedom in ("scaling", "permutation") for one in beside):
        for member in _members(group):
            yield Symmetry("permutation", group, member, group.d, tuple(beside[1:]))


def _before_norms(group: PairGroup) -> Iterator[Symmetry]:
    if group.freedom != "scale":
        return
    norms = {"query scale": (group.query_norm, group.write), "key scale": (group.key_norm,
             group.read)}  # fmt: skip
    for kind, (norm, side) in norms.items():
        if norm is not None:
            whole = over_all_heads(norm, group.d)
            for member in [None] if whole else range(side.map.count):
                yield Symmetry(kind, group, member, group.d)  # pyright: ignore[reportArgumentType]
    present = [norm for norm, _ in norms.values() if norm is not None]
    if all(norm.kind == "rmsnorm" for norm in present):
        for member in _members(group):
            yield Symmetry("norm rotation", group, member, group.d)


def over_all_heads(norm: Norm, d: int) -> bool:
    """Whether a query or key norm takes one mean over all heads."""
    return norm.shape is not None and len(norm.shape) == 1 and norm.shape[0] != d


def _heads(group: PairGroup, graph: Graph) -> Iterator[Symmetry]:
    place = (group.stack, group.layer, group.attention)
    outputs = [one for one in graph.pairs
               if one.kind == "ov" and (one.stack, one.layer, one.attention) == place]  # fmt: skip
    count = group.write.map.count
    matched = len(outputs) == 1 and len(outputs[0].members) == len(group.members) == count
    known = group.freedom != "none"
    if count > 1 and matched and known and group.heads_alike:
        yield Symmetry("heads", group, None, count, tuple(outputs))
