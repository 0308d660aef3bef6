"""Which layers of one model are which of another, by samples of their entries."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint import Checkpoint, widen
from flagscope.comparison.content.pairing import Pair, Pairing, made_pair
from flagscope.comparison.content.parts import Place
from flagscope.comparison.content.reading import comparable
from flagscope.comparison.content.tensors import Compared
from flagscope.errors import FlagscopeError
from flagscope.null import cosine_significance
from flagscope.records.comparison.content_parts import LayerMap, LayerMatch

# Entries sampled of each tensor, and tensors of each layer: 4 MiB for 32 layers and a role.
_SAMPLE, _MOST_ROLES = 4096, 24
_MOST_LAYERS = 1024
# A layer is like another by a cosine of at least this, so much above that of the others, with a
# p-value among all pairs of at most 10 to this.
_LEAST, _LOG10_P = 0.1, -6.0
# Layers of the same number that are as near as this are what they are called.
_NEAR = 0.9


@dataclass(frozen=True)
class _Stack:
    """Tensors of the layers of one stack: names by role and layer."""

    prefix: str
    names: Mapping[str, Mapping[int, str]]

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers."""
        return sorted({layer for each in self.names.values() for layer in each})


def layer_maps(
    pairing: Pairing, a: Checkpoint, b: Checkpoint, done: Sequence[Compared]
) -> tuple[LayerMap, ...]:
    """Maps of the stacks that both have, where layers may have been moved.

    They may where the numbers of layers differ, or where layers of the same number do not hold
    nearly the same; else nothing is read and no map is made.
    """
    stacks_a, stacks_b = _stacks(pairing.places_a, a), _stacks(pairing.places_b, b)
    far = {
        entry.record.name_b for entry in done
        if entry.record.part == "block" and entry.record.content == "different"
        and _cosine(entry) < _NEAR
    }  # fmt: skip
    maps = []
    for one in stacks_a:
        other = _counterpart(one, stacks_a, stacks_b, pairing)
        if other is None:
            continue
        there = {name for each in other.names.values() for name in each.values()}
        if one.layers == other.layers and not far & there:
            continue
        made = _layer_map(one, other, a, b)
        if made is not None:
            maps.append(made)
    return tuple(maps)


def _cosine(entry: Compared) -> float:
    difference = entry.record.difference
    return (difference.cosine or 0.0) if difference else 0.0


def _stacks(places: Mapping[str, Place], checkpoint: Checkpoint) -> list[_Stack]:
    """Stacks of at least two layers, by their matrices."""
    names: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for name, place in places.items():
        info = checkpoint.tensors[name]
        if sum(size > 1 for size in info.shape) >= 2 and comparable(info):
            names[place.stack][place.role][place.layer] = name
    found = [_Stack(prefix, roles) for prefix, roles in names.items()]
    return [stack for stack in found if 2 <= len(stack.layers) <= _MOST_LAYERS]


def _counterpart(
    one: _Stack, stacks_a: Sequence[_Stack], stacks_b: Sequence[_Stack], pairing: Pairing
) -> _Stack | None:
    """The stack of B of the same name, or the only one that has the same tensors in its layers."""
    plain = one.prefix.removeprefix(pairing.prefix_a)
    for other in stacks_b:
        if other.prefix.removeprefix(pairing.prefix_b) == plain:
            return other
    if len(stacks_a) == len(stacks_b) == 1 and set(one.names) & set(stacks_b[0].names):
        return stacks_b[0]
    return None


def _layer_map(one: _Stack, other: _Stack, a: Checkpoint, b: Checkpoint) -> LayerMap | None:
    roles = [
        role for role in one.names if role in other.names
        and _shape(one.names[role], a) == _shape(other.names[role], b) is not None
    ][:_MOST_ROLES]  # fmt: skip
    layers_a, layers_b = one.layers, other.layers
    total = torch.zeros(len(layers_a), len(layers_b), dtype=torch.float64)
    counted = torch.zeros_like(total)
    equal = torch.ones_like(total, dtype=torch.bool)
    entries = 0
    for role in roles:
        try:
            x = _samples(one.names[role], layers_a, a)
            y = _samples(other.names[role], layers_b, b)
        except FlagscopeError:
            continue
        both = (x.norm(dim=1) > 0)[:, None] & (y.norm(dim=1) > 0)[None]
        total += _cosines(x, y).where(both, 0.0)
        counted += both
        entries += x.shape[1]
        same = torch.stack([(x == row).all(1) for row in y], 1)
        equal &= same | ~both
    if not entries:
        return None
    cosines = torch.where(counted > 0, total / counted.clamp_min(1), 0.0)
    equal &= counted > 0
    of_b = _matches(cosines.T, equal.T, layers_b, layers_a, entries)
    of_a = _matches(cosines, equal, layers_a, layers_b, entries)
    changed = any(match.like not in (None, match.layer) for match in of_b) or (
        layers_a != layers_b and any(match.like is not None for match in of_b)
    )
    return LayerMap(
        stack_a=one.prefix, stack_b=other.prefix, layers_a=len(layers_a), layers_b=len(layers_b),
        sampled=entries, of_b=of_b, of_a=of_a, changed=changed,
    )  # fmt: skip


def _shape(names: Mapping[int, str], checkpoint: Checkpoint) -> tuple[int, ...] | None:
    """The shape that a role has in all layers."""
    shapes = {checkpoint.tensors[name].shape for name in names.values()}
    return shapes.pop() if len(shapes) == 1 else None


def _samples(
    names: Mapping[int, str], layers: Sequence[int], checkpoint: Checkpoint
) -> Float[Tensor, "layers entries"]:
    """Entries of rows in the middle of each layer's tensor; zeros where a layer has none."""
    shape = _shape(names, checkpoint)
    rows, each = (1, 1) if shape is None else (shape[0], max(1, math.prod(shape[1:])))
    count = min(rows, max(1, -(-_SAMPLE // each)))
    start = (rows - count) // 2
    kept = min(count * each, 4 * _SAMPLE)
    found = torch.zeros(len(layers), kept, dtype=torch.float64)
    for place, layer in enumerate(layers):
        if layer not in names:
            continue
        index = (slice(start, start + count),)
        stored = checkpoint.read(names[layer], index)
        values = widen(stored, scale=checkpoint.scale(names[layer], index))
        found[place] = values.reshape(-1)[:kept].nan_to_num(0.0, 0.0, 0.0)
    return found


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosines of rows, clear of overflow and of rows that are 0."""
    unit_x = x / x.norm(dim=1, keepdim=True).clamp_min(1e-300)
    unit_y = y / y.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return (unit_x @ unit_y.T).clamp(-1, 1)


def _matches(
    cosines: Tensor, equal: Tensor, layers: Sequence[int], others: Sequence[int], entries: int
) -> tuple[LayerMatch, ...]:
    """For each layer, along the rows, the other side's layer with the largest cosine."""
    matches = []
    tests = math.log10(cosines.numel())
    for place, layer in enumerate(layers):
        row = cosines[place]
        best = float(row.max())
        # Of layers that are equally near, the one of the same number is taken, then the first.
        near = [other for at, other in enumerate(others) if float(row[at]) >= best - 1e-9]
        like = layer if layer in near else near[0]
        law = cosine_significance(best, max(2, entries))
        log10_p = min(0.0, (law.log10_p or 0.0) + tests)
        stands_out = best - float(row.median()) >= _LEAST or bool((row >= best - 1e-9).all())
        sure = best >= _LEAST and log10_p <= _LOG10_P and stands_out
        matches.append(
            LayerMatch(
                layer=layer,
                like=like if sure else None,
                cosine=best,
                log10_p=log10_p,
                equal=sure and bool(equal[place][others.index(like)]),
            )
        )
    return tuple(matches)


def moved_pairs(
    pairing: Pairing, maps: Sequence[LayerMap], a: Checkpoint, b: Checkpoint
) -> tuple[list[Pair], set[Pair]]:
    """Pairs of layers that are like each other under other numbers, and pairs that these replace.

    A layer is linked with the one that it is like, seen from either side, so that the order of the
    sides does not matter. Layers that are like none keep their counterpart of the same number.
    """
    links: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for entry in maps:
        if entry.changed:
            linked = {(match.like, match.layer) for match in entry.of_b if match.like is not None}
            linked |= {(match.layer, match.like) for match in entry.of_a if match.like is not None}
            links[entry.stack_a, entry.stack_b] = linked
    dropped: set[Pair] = set()
    kept: set[tuple[str, str]] = set()
    for pair in pairing.pairs:
        one, other = pairing.places_a.get(pair.a.name), pairing.places_b.get(pair.b.name)
        linked = links.get((one.stack, other.stack)) if one and other else None
        if linked is None or one is None or other is None or (one.layer, other.layer) in linked:
            kept.add((pair.a.name, pair.b.name))
        elif any(one.layer == i or other.layer == j for i, j in linked):
            dropped.add(pair)
    return _linked_pairs(pairing, links, kept, a, b), dropped


def _linked_pairs(
    pairing: Pairing,
    links: Mapping[tuple[str, str], set[tuple[int, int]]],
    kept: set[tuple[str, str]],
    a: Checkpoint,
    b: Checkpoint,
) -> list[Pair]:
    names_a, names_b = (
        {(place.stack, place.layer, place.role): name for name, place in places.items()}
        for places in (pairing.places_a, pairing.places_b)
    )
    roles: dict[tuple[str, int], list[str]] = defaultdict(list)
    for stack, layer, role in names_a:
        roles[stack, layer].append(role)
    pairs = []
    for (stack, stack_b), linked in links.items():
        for i, j in sorted(linked):
            for role in roles[stack, i]:
                one, other = names_a[stack, i, role], names_b.get((stack_b, j, role))
                if other is not None and (one, other) not in kept:
                    pairs.append(
                        made_pair(
                            a.tensors[one], b.tensors[other], "layer",
                            pairing.places_a, pairing.places_b,
                        )
                    )  # fmt: skip
    return pairs
