"""What moved between two sets of weights of one architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flagscope.arch import Graph, PairGroup
from flagscope.checkpoint import Checkpoint
from flagscope.comparison.change.diagnostics import (
    diagnostic_changes,
    head_group_changes,
    pair_changes,
    tensor_roundings,
)
from flagscope.comparison.change.layers import IDENTICAL, ROUNDING, layer_changes, total_change
from flagscope.comparison.change.measured_map import measured_map
from flagscope.comparison.change.pairing import MapPair, Pairing, paired_maps
from flagscope.comparison.change.products import product_changes, product_groups, ranked
from flagscope.comparison.change.tensors import tensor_changes
from flagscope.comparison.in_order import in_order
from flagscope.engine import TASK_MEMORY, Progress, return_freed_memory
from flagscope.null import false_discovery_adjustment
from flagscope.records import ScanResult
from flagscope.records.comparison.change import (
    ChangeRecord,
    Intruders,
    MapChange,
    ProductChange,
)

# Bytes that measuring a map takes for each of its entries: both sides and their difference, an
# equilibrated copy, and what reading and widening hold for a moment.
_BYTES = 28

_GAUGE = (
    "changes of maps are raw: where a space between two maps has a freedom, a mere change of its "
    "basis counts as change; products W2 W1 of linear and rotary pairs do not see it"
)
_PERMUTED = "permuted or rescaled neurons and permuted heads are not matched: they count as change"
_BIASES = "biases of queries, keys, values and outputs are not in the products of heads"
_LARGE = (
    "of maps above 1,024 leading directions alone were computed, as far as few products resolve "
    "them: numbers that take more are null"
)
_NO_SCANS = "no scans were given: changes of diagnostics and of head groups were not looked at"


def changed_maps(
    a: Checkpoint,
    b: Checkpoint,
    graph_a: Graph,
    graph_b: Graph,
    *,
    scans: tuple[ScanResult, ScanResult] | None = None,
    workers: int = 1,
    memory: int = TASK_MEMORY,
    progress: Progress | None = None,
    intruders: bool = False,
    seed: int = 0,
) -> ChangeRecord:
    """Compare all maps, products, tensors and diagnostics of two sets of weights.

    Parameters
    ----------
    a, b
        Two open checkpoints.
    graph_a, graph_b
        The graphs of their maps.
    scans
        A scan of each, with the same settings.
    workers
        Maps that are measured at once, where memory allows.
    memory
        Bytes that they may take together; a map that needs more is measured alone.
    progress
        Called with (parts done, parts in all, name of the part).
    intruders
        Whether intruder dimensions of maps above 1,024 are counted as peft does, which takes all
        their singular directions.
    seed
        Of the random vectors for large maps.

    Returns
    -------
    ChangeRecord

    Raises
    ------
    SourceError
        If a tensor cannot be read.
    """
    pairing = paired_maps(graph_a, graph_b)
    groups = product_groups(graph_a, graph_b)
    most = _at_once(pairing, workers, memory)
    work: list[tuple[str, Callable[[], Any]]] = [
        (pair.a.name, partial(_measured, pair, a, b, seed=seed, intruders=intruders))
        for pair in pairing.pairs
    ]
    work += [(pair[0].name, partial(_multiplied, pair, a, b)) for pair in groups]
    results = list(in_order(work, workers=most, progress=progress))
    maps: list[MapChange] = _adjusted(results[: len(pairing.pairs)])
    products = ranked([record for part in results[len(pairing.pairs) :] for record in part])
    tensors, left_out = tensor_changes(a, b, _tensors_of(pairing))
    diagnostics, compared = [], 0
    pairs, pairs_compared = [], 0
    heads = []
    if scans is not None:
        roundings = tensor_roundings(maps)
        diagnostics, compared = diagnostic_changes(*scans, roundings)
        pairs, pairs_compared = pair_changes(*scans)
        heads = head_group_changes(*scans)
    change, relative_a, relative_b = total_change(maps)
    return ChangeRecord(
        maps=maps,
        products=products,
        layers=layer_changes(maps),
        tensors=tensors,
        diagnostics=diagnostics,
        diagnostics_compared=compared,
        pairs=pairs,
        pairs_compared=pairs_compared,
        heads=heads,
        unpaired_a=list(pairing.unpaired_a),
        unpaired_b=list(pairing.unpaired_b),
        change=change,
        relative_a=relative_a,
        relative_b=relative_b,
        identical=sum(m.status == IDENTICAL for m in maps),
        within_rounding=sum(m.status == ROUNDING for m in maps),
        moved=sum(m.status == "ok" for m in maps),
        notes=[*_notes(maps, scans is None), *left_out],
    )


def _entries(pair: MapPair) -> int:
    return pair.a.map.outputs * pair.a.map.inputs


def _measured(
    pair: MapPair, a: Checkpoint, b: Checkpoint, *, seed: int, intruders: bool
) -> MapChange:
    record = measured_map(pair, a, b, seed=seed, intruders=intruders)
    return_freed_memory(_BYTES * _entries(pair))
    return record


def _multiplied(
    pair: tuple[PairGroup, PairGroup], a: Checkpoint, b: Checkpoint
) -> list[ProductChange]:
    records = product_changes(pair, a, b)
    return_freed_memory(
        _BYTES * sum(s.map.outputs * s.map.inputs for s in (pair[0].write, pair[0].read))
    )
    return records


def _at_once(pairing: Pairing, workers: int, memory: int) -> int:
    largest = max((_entries(pair) for pair in pairing.pairs), default=1)
    return max(1, min(workers, memory // max(1, _BYTES * largest)))


def _adjusted(maps: list[MapChange]) -> list[MapChange]:
    """The maps with the p-values of their intruders adjusted over all of them, both sides."""
    places = [
        (i, side)
        for i, record in enumerate(maps)
        for side in ("intruders_a", "intruders_b")
        if getattr(record, side) is not None
    ]
    values = [getattr(maps[i], side).log10_p for i, side in places]
    adjusted = false_discovery_adjustment(values).p
    changed = list(maps)
    for (i, side), p in zip(places, adjusted, strict=True):
        old: Intruders = getattr(changed[i], side)
        new = old.model_copy(update={"p_adjusted": p})
        changed[i] = changed[i].model_copy(update={side: new})
    return changed


def _tensors_of(pairing: Pairing) -> set[str]:
    return {side.map.tensor for pair in pairing.pairs for side in (pair.a, pair.b)}


def _notes(maps: Sequence[MapChange], without_scans: bool) -> list[str]:
    notes = [_GAUGE, _PERMUTED, _BIASES]
    if any(record.depth == "leading" for record in maps):
        notes.append(_LARGE)
    if without_scans:
        notes.append(_NO_SCANS)
    return notes
