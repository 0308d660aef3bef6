"""Proofs of a residual stream: its norms, their readers, the order of blocks, what they add."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from arch.contract import Float64, State
from flagscope.arch import (
    Graph,
    LinearMap,
    Norm,
    Side,
    Stream,
    StreamMap,
    SubBlock,
    residual_pairs,
)

TOLERANCE, MOVED = 1e-11, 1e-3
# Rows of scores that a norm feeds beside the maps: (scores, d), no maps of the graph.
ROUTERS = ("mlp.gate.weight", "mlp.shared_expert_gate.weight", "feed_forward.router.weight",
           "block_sparse_moe.gate.weight", "block_sparse_moe.router.layer.weight")  # fmt: skip


@dataclass
class Live:
    """A model in float64 with its inputs and graph."""

    model: nn.Module
    given: dict[str, Tensor]
    graph: Graph

    @property
    def state(self) -> State:
        return dict(self.model.state_dict())

    def run(self, changed: State) -> Tensor:
        with torch.no_grad(), Float64():
            return torch.func.functional_call(self.model, changed, kwargs=self.given)[0]

    def passing(self, modules: Sequence[str], changed: State | None = None) -> dict:
        """What goes into and comes out of modules, by name, in one forward pass."""
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        known = dict(self.model.named_modules())
        with _hooked(known, modules, seen):
            self.run(changed or {})
        return seen


@contextmanager
def _hooked(known: dict[str, nn.Module], modules: Sequence[str], seen: dict) -> Iterator[None]:
    def hook(name: str):
        def take(_, given, named, result):
            first = given[0] if given else next(iter(named.values()))
            last = result[0] if isinstance(result, tuple) else result
            seen[name] = (first.clone(), last.clone())  # some add to their inputs in place

        return take

    handles = [
        known[name].register_forward_hook(hook(name), with_kwargs=True) for name in set(modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def module_of(one: StreamMap) -> str:
    """The live module that computes with a map."""
    return one.joined.map.tensor.removesuffix(".weight")


def scaled(side: Side, state: State, *, rows: Tensor | None = None,
           columns: Tensor | None = None) -> State:  # fmt: skip
    """A map with rows (a writer, its bias too) or columns (a reader) of the stream multiplied."""
    one = side.map
    stored = state[one.tensor]
    if columns is not None:
        return {one.tensor: side.replace_read(stored, side.read(stored) * columns)}
    assert rows is not None
    changed = {one.tensor: side.replace_write(stored, side.write(stored) * rows[:, None])}
    if one.bias is not None:
        vectors = one.bias_vectors(state[one.bias])
        changed[one.bias] = one.replace_bias(state[one.bias], vectors * rows)
    return changed


def norm_scaled(norm: Norm, state: State, s: Tensor) -> State:
    """The output of a norm multiplied: offset + gain, and the bias."""
    changed = {}
    if norm.gain is not None:
        changed[norm.gain] = s * (norm.offset + state[norm.gain]) - norm.offset
    if norm.bias is not None:
        changed[norm.bias] = s * state[norm.bias]
    return changed


def scales(d: int, seed: int) -> Tensor:
    """Random scales between a half and two."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 1.5 * torch.rand(d, generator=generator, dtype=torch.float64)


def moved(live: Live, changed: State, reference: Tensor) -> float:
    """By how much of its largest entry the output moves."""
    return float((live.run(changed) - reference).abs().max() / reference.abs().max())


def readers_by_norm(graph: Graph) -> dict[str, tuple[Norm, list[StreamMap], list[SubBlock]]]:
    """Each norm of the streams with all mapped readers behind it."""
    found: dict[str, tuple[Norm, list[StreamMap], list[SubBlock]]] = {}
    for block in (block for stream in graph.streams for block in stream.blocks):
        for one in block.readers:
            if one.norm is not None:
                _, readers, blocks = found.setdefault(one.norm.name, (one.norm, [], []))
                readers.append(one)
                blocks.append(block)
    return found


def unmapped_readers(live: Live, blocks: Sequence[SubBlock]) -> list[tuple[str, LinearMap | None]]:
    """What else a norm feeds, its columns along the last axis: routers, experts, B, C and steps.

    Experts belong to pairs, not to the stream; a router is no map.
    """
    found: dict[tuple[str, str], LinearMap | None] = {}
    for block in (block for block in blocks if block.kind == "mlp"):
        writer = block.writers[0].joined.map.tensor if block.writers else ""
        base = writer.rpartition(".layers.")[0] + f".layers.{block.layer}."
        found |= {(base + name, ""): None for name in ROUTERS if base + name in live.state}
        for pair in live.graph.pairs:
            expert = any(one.expert is not None for one in pair.members)
            if pair.kind == "mlp" and expert and (pair.layer, pair.stack) == (
                block.layer, block.stack):  # fmt: skip
                found[pair.write.map.tensor, pair.write.map.role] = pair.write.map
    return [(name, one) for (name, _), one in found.items()]


def prove_norms(live: Live) -> int:
    """The gain of a norm may move into the maps that the graph says read it, and nowhere else."""
    reference, state = live.run({}), live.state
    proven = 0
    for norm, readers, blocks in readers_by_norm(live.graph).values():
        if norm.gain is None and norm.bias is None:
            continue
        s = scales(readers[0].joined.dimension("read"), seed=proven)
        beside = others(live, blocks, readers, s)

        def change(chosen: Sequence[StreamMap], inverse: Tensor) -> State:
            changed = state | norm_scaled(norm, state, s) | beside  # noqa: B023
            for one in chosen:
                changed |= scaled(one.joined, changed, columns=inverse)
            return {k: v for k, v in changed.items() if v is not state[k]}

        kept = moved(live, change(readers, 1 / s), reference)
        assert kept < TOLERANCE, (norm.name, kept)
        off = moved(live, change(readers, 1 / s.roll(1)), reference)
        assert off > MOVED, (norm.name, "shifted", off)
        for one in readers:
            without = moved(live, change([r for r in readers if r is not one], 1 / s), reference)
            assert without > MOVED, (norm.name, one.label, without)
        proven += 1
    return proven


def others(
    live: Live, blocks: Sequence[SubBlock], readers: Sequence[StreamMap], s: Tensor
) -> State:
    """What else the norm feeds, divided by the scales."""
    changed: State = {}
    for name, one in unmapped_readers(live, blocks):
        stored = changed.get(name, live.state[name])
        if one is None:
            changed[name] = stored / s
        else:
            changed[name] = one.replace(stored, one.read_matrices(stored) / s, view="read")
    for one in readers:  # the rows of one stored map that no pair uses
        if one.joined.map.layout == "s d":
            stored = live.state[one.joined.map.tensor]
            rest = torch.ones(len(stored), dtype=torch.bool)
            for other in readers:
                start, length = other.joined.map.window["s"]
                rest[start : start + length] = False
            changed[one.joined.map.tensor] = torch.where(rest[:, None], stored / s, stored)
    return changed


def prove_norm_kinds(live: Live) -> int:
    """What each norm computes, in numbers, and that its readers are given just that."""
    found = readers_by_norm(live.graph)
    modules = [*found, *(module_of(one) for _, readers, _ in found.values() for one in readers)]
    seen = live.passing(modules)
    for norm, readers, _ in found.values():
        given, result = seen[norm.name]
        expected = normalised(norm, given, live.state)
        assert float((result - expected).abs().max()) < TOLERANCE * float(result.abs().max())
        for one in readers:
            heard = seen[module_of(one)][0]
            assert torch.equal(*in_order(live, heard, result)), one.label
    return len(found)


def in_order(live: Live, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of two tensors, sorted where one has them in windows of an image."""
    first, second = (x.flatten(0, -2) for x in (one, other))
    if live.graph.family == "swin":
        return first[first[:, 0].argsort()], second[second[:, 0].argsort()]
    return first, second


def normalised(norm: Norm, x: Tensor, state: State) -> Tensor:
    """The norm as the graph describes it."""
    if norm.kind == "layernorm":
        x = x - x.mean(-1, keepdim=True)
    if norm.kind != "scale":
        x = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    if norm.gain is not None:
        x = x * (norm.offset + state[norm.gain])
    return x if norm.bias is None else x + state[norm.bias]


def prove_order(live: Live) -> int:
    """A change of a writer reaches the readers that are listed with it, and no others."""
    pairs = 0
    for stream in live.graph.streams:
        readers = [one for block in stream.blocks for one in block.readers]
        modules = [module_of(one) for one in readers]
        before = live.passing(modules)
        listed = listed_pairs(stream)
        for block in stream.blocks:
            for writer in block.writers:
                rows = scales(stream.d, seed=3)
                after = live.passing(modules, scaled(writer.joined, live.state, rows=rows))
                heard = {
                    one.label
                    for one in readers
                    if not torch.equal(before[module_of(one)][0], after[module_of(one)][0])
                }
                assert heard == listed.get(writer.label, set()), writer.label
                pairs += len(heard)
    return pairs


def listed_pairs(stream: Stream) -> dict[str, set[str]]:
    """Labels of the readers that stand in a pair with each writer, however far behind it."""
    found: dict[str, set[str]] = {}
    for pair in residual_pairs(stream, window=10**6):
        writer, _, reader = pair.name.partition("-")
        found.setdefault(writer, set()).add(reader)
    return found


def prove_sums(live: Live, *, factor: float = 1.0) -> int:
    """What a position adds to the stream is what its writers write, with the norm behind them."""
    proven = 0
    for stream in live.graph.streams:
        positions = sorted({block.position for block in stream.blocks})
        for at, following in pairwise(positions):
            blocks = [block for block in stream.blocks if block.position == at]
            after = [block for block in stream.blocks if block.position == following]
            if following != at + 1 or any(unmapped_readers(live, [block]) for block in blocks):
                continue  # experts add to the stream as well
            writers = [one for block in blocks for one in block.writers]
            places = [entry(blocks[0]), entry(after[0]), *(module_of(one) for one in writers)]
            seen = live.passing(places)
            added = sum(contribution(live, one, seen[module_of(one)][1]) for one in writers)
            assert isinstance(added, Tensor)
            gained = seen[places[1]][0].flatten(0, -2) - seen[places[0]][0].flatten(0, -2)
            ours, theirs = in_order(live, added * factor, gained)
            assert float((ours - theirs).abs().max()) < TOLERANCE * float(theirs.abs().max())
            proven += 1
    return proven


def entry(block: SubBlock) -> str:
    """The module that a block gives the bare stream to."""
    first = block.readers[0]
    return first.norm.name if first.norm is not None else module_of(first)


def contribution(live: Live, writer: StreamMap, written: Tensor) -> Tensor:
    """What a writer adds to the stream, as the graph describes it."""
    flat = written.flatten(0, -2)
    return flat if writer.norm is None else normalised(writer.norm, flat, live.state)


def prove_scales(live: Live) -> int:
    """The layer scale may move into the map in front of it: rows by s, the scale by 1/s."""
    reference, state = live.run({}), live.state
    proven = 0
    for block in (block for stream in live.graph.streams for block in stream.blocks):
        for one in block.writers:
            if one.norm is None or one.norm.kind != "scale":
                continue
            assert one.norm.gain is not None
            s = scales(len(state[one.norm.gain]), seed=proven)
            rows = scaled(one.joined, state, rows=s)
            kept = moved(live, rows | {one.norm.gain: state[one.norm.gain] / s}, reference)
            assert kept < TOLERANCE, (one.label, kept)
            shifted = rows | {one.norm.gain: state[one.norm.gain] / s.roll(1)}
            assert moved(live, shifted, reference) > MOVED, one.label
            proven += 1
    return proven
