"""What moved in the products W2 W1 of pairs with a linear or rotary freedom: which heads moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Graph, PairGroup, Side
from flagscope.checkpoint import Checkpoint, widen
from flagscope.comparison.change.layers import (
    BEYOND,
    IDENTICAL,
    ROUNDING,
    over,
    scaled,
    within_rounding,
)
from flagscope.comparison.change.reading import largest_entry
from flagscope.engine.cache.stored_tensor import StoredTensor, read_piece
from flagscope.engine.plan.pieces import piece_of, rest_of
from flagscope.geometry import ProductNorms, even_exponents, power_of_two, product_change
from flagscope.geometry.matrices import NOT_FINITE
from flagscope.null import row_noise
from flagscope.records.comparison.change import ProductChange

# Entries of the maps of both sides that are multiplied at a time.
_CHUNK = 1 << 24

# Dimension of the shared space up to which products are compared by small factors.
WIDEST = 1024

TOO_WIDE = "the shared space is above 1,024: the product was not looked at"


@dataclass(frozen=True)
class SideMaps:
    """The maps of one side of a group of pairs, and the noise of each coordinate they share.

    Attributes
    ----------
    values
        Write maps (n, d, m1), or read maps (n, m2, d), in float32, or float64 if stored so.
    mean_square
        Mean square of the storage error of the entries of each shared coordinate.
    exponent
        Of a unit in which their squares are in range.
    """

    values: Float[Tensor, "n rows columns"]
    mean_square: Float[Tensor, "n d"]
    exponent: int


def product_groups(graph_a: Graph, graph_b: Graph) -> list[tuple[PairGroup, PairGroup]]:
    """Groups of pairs of both graphs whose product a freedom of their shared space leaves."""
    of_b = {group.name: group for group in graph_b.pairs if is_linear(group)}
    return [
        (group, of_b[group.name])
        for group in graph_a.pairs
        if is_linear(group) and group.name in of_b and _alike(group, of_b[group.name])
    ]


def is_linear(group: PairGroup) -> bool:
    """Whether a freedom of the space that the maps of a group share leaves their product."""
    return group.kind != "residual" and group.freedom in ("gl", "rotary")


def _alike(a: PairGroup, b: PairGroup) -> bool:
    def form(group: PairGroup) -> tuple[object, ...]:
        sides = [(s.transposed, s.map.outputs, s.map.inputs) for s in (group.write, group.read)]
        return group.d, group.freedom, group.rotary, group.members, sides

    return form(a) == form(b)


def product_changes(
    groups: tuple[PairGroup, PairGroup], a: Checkpoint, b: Checkpoint
) -> list[ProductChange]:
    """The changes of all products of one group."""
    group = groups[0]
    if group.d > WIDEST:
        return [_missing(group, i, TOO_WIDE) for i in range(len(group.members))]
    sides: list[tuple[SideMaps, SideMaps]] = []
    for pair, checkpoint in zip(groups, (a, b), strict=True):
        read = read_side(checkpoint, pair.read, "read")
        write = read_side(checkpoint, pair.write, "write")
        if read is None or write is None:
            return [_missing(group, i, NOT_FINITE) for i in range(len(group.members))]
        sides.append((read, write))
    records: list[ProductChange] = []
    for members in _chunks(group):
        records += _measured(group, members, sides)
    return records


def read_side(checkpoint: Checkpoint, side: Side, view: str) -> SideMaps | None:
    """Read the maps of one side of a group; None where one is empty or not finite."""
    map_ = side.map
    index = rest_of(map_)
    stored = read_piece(checkpoint, piece_of(map_)).mapped(lambda tensor: tensor[index])
    stored = stored.mapped(side.write if view == "write" else side.read)
    if stored.values.numel() == 0:
        return None
    noise = _noise_of_lines(stored if view == "write" else stored.mapped(lambda x: x.mT))
    wide = torch.float64 if stored.values.dtype == torch.float64 else torch.float32
    values = widen(stored.values, wide, scale=stored.scale)
    largest = largest_entry(values)
    if not bool(torch.isfinite(largest)) or not bool(torch.isfinite(noise).all()):
        return None
    return SideMaps(values, noise, int(even_exponents(largest)))


def _noise_of_lines(stored: StoredTensor) -> Float[Tensor, "n d"]:
    """Mean variance of the rounding errors of each row."""
    if stored.step is not None:
        return (stored.step.double().square() / 12).mean(-1)
    return row_noise(stored.values, scale=1.0 if stored.scale is None else stored.scale)


def _chunks(group: PairGroup) -> Iterator[list[int]]:
    write, read = group.write, group.read
    entries = 4 * group.d * (write.map.inputs + write.map.outputs + read.map.inputs)
    count = max(1, _CHUNK // max(1, entries))
    for start in range(0, len(group.members), count):
        yield list(range(start, min(start + count, len(group.members))))


def _measured(
    group: PairGroup, members: list[int], sides: list[tuple[SideMaps, SideMaps]]
) -> list[ProductChange]:
    places = [group.members[i] for i in members]
    indices = [m.read_index for m in places], [m.write_index for m in places]
    # One unit for both sides of each map, a power of two, so that squares stay in range.
    exponents = [max(side[k].exponent for side in sides) for k in range(2)]
    factors: list[tuple[Tensor, Tensor]] = []
    noises: list[tuple[Tensor, Tensor]] = []
    for side in sides:
        maps = [
            power_of_two(maps.values[index].double(), torch.tensor(-exponent))
            for maps, index, exponent in zip(side, indices, exponents, strict=True)
        ]
        spread = [
            maps.mean_square[index] * 2.0**-exponent * 2.0**-exponent
            for maps, index, exponent in zip(side, indices, exponents, strict=True)
        ]
        factors.append((maps[0], maps[1]))
        noises.append((spread[0], spread[1]))
    planes = group.rotary.planes() if group.freedom == "rotary" and group.rotary else ()
    norms = product_change(factors[0], factors[1], planes=planes)
    floor = _floor(factors, noises)
    raw = _raw(factors)
    identical = [
        all(torch.equal(x[i], y[i]) for x, y in zip(*factors, strict=True))
        for i in range(len(members))
    ]
    return [
        _record(group, place, norms, i, (floor, *raw), sum(exponents), identical=identical[i])
        for i, place in enumerate(members)
    ]


def _floor(
    factors: list[tuple[Tensor, Tensor]], noises: list[tuple[Tensor, Tensor]]
) -> Float[Tensor, " n"]:
    """Root of E ‖W2 E1 + E2 W1‖² over both sides, for independent rounding errors E1 and E2."""
    total = torch.zeros(len(factors[0][0]), dtype=torch.float64)
    for maps, spread in zip(factors, noises, strict=True):
        total += product_rounding(maps, spread)
    return total.sqrt()


def product_rounding(
    maps: tuple[Float[Tensor, "n m2 d"], Float[Tensor, "n d m1"]],
    spread: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]],
) -> Float[Tensor, " n"]:
    """E ‖W2 E1 + E2 W1‖² for independent errors E1 and E2 with these mean squares, by coordinate.

    `maps` and `spread` are those of W2 and of W1.
    """
    (read, write), (of_read, of_write) = maps, spread
    total = write.shape[-1] * (of_write * read.square().sum(-2)).sum(-1)
    return total + read.shape[-2] * (of_read * write.square().sum(-1)).sum(-1)


def _raw(
    factors: list[tuple[Tensor, Tensor]],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """√(‖ΔW1‖² + ‖ΔW2‖²) relative to the maps of each side, each map by its own size."""
    results = []
    for side in factors:
        parts = [
            (after - before).square().sum((-1, -2)) / _positive(own.square().sum((-1, -2)))
            for before, after, own in zip(*factors, side, strict=True)
        ]
        results.append(((parts[0] + parts[1]) / 2).sqrt())
    return results[0], results[1]


def _positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1)


def _record(
    group: PairGroup, place: int, norms: ProductNorms, i: int,
    more: tuple[Tensor, Tensor, Tensor], exponent: int, *, identical: bool,
) -> ProductChange:  # fmt: skip
    change, of_a, of_b = (float(x[i]) for x in (norms.change, norms.norm_a, norms.norm_b))
    floor, raw_a, raw_b = (float(x[i]) for x in more)
    mean = math.sqrt(of_a) * math.sqrt(of_b)
    status = "ok"
    if identical:
        status, change = IDENTICAL, 0.0
    elif within_rounding(change * change, floor * floor, _entries(group)):
        status = ROUNDING
    sizes = [scaled(x, exponent) for x in (of_a, of_b, change)]
    if any(size is None for size in sizes):
        return _missing(group, place, BEYOND)
    return _missing(group, place, status).model_copy(
        update={
            "norm_a": sizes[0], "norm_b": sizes[1], "change": sizes[2],
            "relative_a": over(change, of_a), "relative_b": over(change, of_b),
            "raw_relative_a": raw_a, "raw_relative_b": raw_b,
            "floor": over(floor, mean),
        }
    )  # fmt: skip


def _entries(group: PairGroup) -> int:
    """Independent errors that the change of a product averages over at the least: those of the
    outer sides, where one direction of the shared space outweighs the others."""
    write, read = group.write, group.read
    outer = [
        side.map.inputs if (side is write) != side.transposed else side.map.outputs
        for side in (write, read)
    ]
    return sum(outer)


def _missing(group: PairGroup, place: int, status: str) -> ProductChange:
    member = group.members[place]
    return ProductChange(
        name=member.name, kind=group.kind, stack=group.stack, attention=group.attention,
        layer=group.layer, head=member.head, freedom=group.freedom,
        over_positions=group.freedom == "rotary",
        norm_a=None, norm_b=None, change=None, relative_a=None, relative_b=None,
        raw_relative_a=None, raw_relative_b=None, floor=None, rank=None, status=status,
    )  # fmt: skip


def ranked(products: list[ProductChange]) -> list[ProductChange]:
    """The products with their places by relative change, within each kind."""
    order = sorted(
        (i for i, product in enumerate(products) if product.status == "ok"),
        key=lambda i: -_relative(products[i]),
    )
    taken: dict[str, int] = {}
    placed = list(products)
    for i in order:
        kind = products[i].kind
        taken[kind] = taken.get(kind, 0) + 1
        placed[i] = products[i].model_copy(update={"rank": taken[kind]})
    return placed


def _relative(product: ProductChange) -> float:
    a, b = product.relative_a, product.relative_b
    return math.sqrt(a) * math.sqrt(b) if a and b else math.inf
