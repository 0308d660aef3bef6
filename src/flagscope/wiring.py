"""Wiring of a file's own graph: which weights feed which, their layout, and what lies between.

A file that holds its network's graph (ONNX, Keras) says more than names do. Readers write it down
in these records, and `build_graph` makes pairs and heads of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class WiredMap:
    """One linear map in a stored tensor.

    Attributes
    ----------
    tensor, bias
        Names of the weight and of what is added to its output (None if nothing is, or not as the
        outputs lie).
    layout
        Einops pattern of the stored tensor: ``o`` the output, ``i`` the input, ``h`` heads, any
        other axis spatial. ``(i s)`` is an input that was flattened with its space.
    label
        What pairs call it.
    role
        As in `LinearMap`.
    sizes
        Sizes of axes that the shape leaves open.
    """

    tensor: str
    layout: str
    label: str
    role: str = "linear"
    bias: str | None = None
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class WiredNorm:
    """Factor on each output channel of a map: a BatchNorm, or a gain alone ("scale")."""

    kind: str
    name: str
    gain: str | None
    bias: str | None
    mean: str | None
    variance: str | None
    eps: float


@dataclass(frozen=True)
class Link:
    """Link between two maps: one writes what the other reads.

    Attributes
    ----------
    between
        The function between them: "linear", an activation, "elementwise" for another function of
        single channels, "max_pool", "gated" for the ungated factor of a product.
    free
        Whether nothing else takes these channels, nor uses these tensors.
    product
        Whether the channels are multiplied by those of another map on the way.
    norm
        What stands directly behind the writer.
    """

    write: WiredMap
    read: WiredMap
    between: str
    free: bool
    product: bool = False
    norm: WiredNorm | None = None


@dataclass(frozen=True)
class WiredAttention:
    """An attention layer whose maps are known: heads along axis ``h``, ``i`` and ``o`` as ever.

    `free` is false where something acts on queries, keys or values of single heads, or where the
    tensors are used elsewhere as well.
    """

    label: str
    query: WiredMap
    key: WiredMap
    value: WiredMap
    output: WiredMap
    cross: bool
    free: bool


@dataclass(frozen=True)
class Wiring:
    """The maps of a graph, and what is known of their order.

    `maps` are all maps whose place was understood, linked or not: for these the graph decides, not
    their names. `shifts` are further vectors that are added to channels. `notes` say where chains
    end, and why.
    """

    maps: tuple[WiredMap, ...] = ()
    links: tuple[Link, ...] = ()
    attention: tuple[WiredAttention, ...] = ()
    shifts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def vectors(self) -> frozenset[str]:
        """Names of the tensors that are one number a channel: biases and what norms hold."""
        norms = [link.norm for link in self.links if link.norm is not None]
        found = [*self.shifts, *(one.bias for one in self.maps)]
        for norm in norms:
            found += [norm.gain, norm.bias, norm.mean, norm.variance]
        return frozenset(name for name in found if name is not None)

    def renamed(self, names: Mapping[str, str]) -> Wiring:
        """The same with tensors under other names; those that are not in `names` keep theirs."""

        def name(old: str) -> str:
            return names.get(old, old)

        def perhaps(old: str | None) -> str | None:
            return None if old is None else name(old)

        def one(old: WiredMap) -> WiredMap:
            return replace(old, tensor=name(old.tensor), bias=perhaps(old.bias))

        def norm(old: WiredNorm | None) -> WiredNorm | None:
            if old is None:
                return None
            return replace(old, gain=perhaps(old.gain), bias=perhaps(old.bias),
                           mean=perhaps(old.mean), variance=perhaps(old.variance))  # fmt: skip

        return replace(
            self,
            maps=tuple(map(one, self.maps)),
            links=tuple(
                replace(link, write=one(link.write), read=one(link.read), norm=norm(link.norm))
                for link in self.links
            ),
            attention=tuple(
                replace(block, query=one(block.query), key=one(block.key), value=one(block.value),
                        output=one(block.output))
                for block in self.attention
            ),
        )  # fmt: skip
