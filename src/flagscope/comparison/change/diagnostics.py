"""Changes of the diagnostics of two scans, each with what is known of its noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flagscope.comparison.change.layers import IDENTICAL, ROUNDING
from flagscope.geometry.rounding_of_diagnostics import (
    RoundingOfDiagnostics,
    gram_rounding,
    rounding_of_diagnostics,
)
from flagscope.observables import CORRELATION_FLOOR, NEAR_COPY, RATIO_FLOOR
from flagscope.records import HeadPair, HeadRecord, Label, PairRecord, ScanResult
from flagscope.records.comparison.change import (
    DiagnosticChange,
    HeadGroupChange,
    MapChange,
    PairChange,
)

# Significance at which a near-copy counts, over all tests of its scan.
_LEVEL = 0.05
# Pairs that a record keeps.
_PAIRS = 20
# Standard errors that a difference has to exceed.
_ERRORS = 2.0

_UNKNOWN = "the effect of storage rounding on it is not known"
_BOUND = "noise is an upper estimate of what storage rounding gives"
_STILL = "the maps moved less than rounding can tell"
_RANKS = "the ranks of the dominant spaces differ"


@dataclass(frozen=True)
class _Compared:
    """One diagnostic: its field, its floor, and how its scale goes with its size."""

    field: str
    floor: float
    relative: bool = False
    error: str | None = None
    of_ranks: bool = False


_DIAGNOSTICS = (
    _Compared("commutator_ratio", RATIO_FLOOR, relative=True, error="commutator_ratio_error"),
    _Compared("gram_correlation", CORRELATION_FLOOR),
    _Compared("commutation_defect", RATIO_FLOOR, error="commutation_defect_error"),
    _Compared("overlap_ratio", RATIO_FLOOR, of_ranks=True),
    _Compared("imbalance", CORRELATION_FLOOR),
    _Compared("intersection_beyond_chance", 1.0, of_ranks=True),
)


@dataclass(frozen=True)
class TensorRounding:
    """What is known of the maps of a tensor of a.

    Attributes
    ----------
    moved
        Whether one of them moved more than rounding explains.
    relative
        Norm of the rounding errors of both sides over the norm; None where it is not known.
    size
        The smaller side of the maps.
    """

    moved: bool
    relative: float | None
    size: int


def tensor_roundings(maps: Sequence[MapChange]) -> dict[str, TensorRounding]:
    """What is known of each tensor's maps."""
    found: dict[str, TensorRounding] = {}
    for record in maps:
        relative = _relative_rounding(record)
        moved, size = record.status not in (IDENTICAL, ROUNDING), min(record.shape)
        before = found.get(record.tensor_a)
        if before is not None:
            moved, size = moved or before.moved, min(size, before.size)
            known = relative is not None and before.relative is not None
            relative = max(relative or 0.0, before.relative or 0.0) if known else None
        found[record.tensor_a] = TensorRounding(moved, relative, size)
    return found


def _relative_rounding(record: MapChange) -> float | None:
    if record.change == 0:
        return 0.0  # what is equal on both sides is rounded alike
    if record.rounding_share is None or record.change is None:
        return None
    if not record.norm_a or not record.norm_b:
        return None
    return math.sqrt(record.rounding_share / (record.norm_a * record.norm_b)) * record.change


def diagnostic_changes(
    a: ScanResult, b: ScanResult, roundings: Mapping[str, TensorRounding]
) -> tuple[list[DiagnosticChange], int]:
    """Differences of both scans beyond floor and noise, and how many numbers were compared.

    Parameters
    ----------
    a, b
        Scans with the same settings.
    roundings
        What is known of the tensors of a; those that are not in it count as moved.
    """
    of_b = {pair.name: pair for pair in b.pairs}
    changes: list[DiagnosticChange] = []
    compared = 0
    for pair in a.pairs:
        other = of_b.get(pair.name)
        if other is None:
            continue
        known = [roundings.get(side.tensor) for side in (pair.write, pair.read)]
        moved = any(tensor is None or tensor.moved for tensor in known)
        bounds = _bounds(pair, known)
        for what in _DIAGNOSTICS:
            bound = None if bounds is None else getattr(bounds, what.field, None)
            change = _change(pair, other, what, moved=moved, bound=bound)
            compared += change is not None
            if change is not None and change.flagged:
                changes.append(change)
    return changes, compared


def _bounds(
    pair: PairRecord, known: Sequence[TensorRounding | None]
) -> RoundingOfDiagnostics | None:
    """What storage rounding gives the diagnostics of a pair; None where that is not known."""
    c, rho, nu = pair.commutator_ratio, pair.gram_correlation, pair.commutation_defect
    if c is None or rho is None or nu is None:
        return None
    centred, whole = [], []
    for tensor, participation in zip(
        known, (pair.participation_write, pair.participation_read), strict=True
    ):
        if tensor is None or tensor.relative is None or not participation:
            return None
        centred.append(
            gram_rounding(tensor.relative, tensor.size, participation=participation, d=pair.d)
        )
        whole.append(tensor.relative * math.sqrt(2 * participation / tensor.size))
    if not all(map(math.isfinite, centred)):
        return None
    return rounding_of_diagnostics(
        (centred[0], centred[1]), (whole[0], whole[1]),
        commutator_ratio=c, gram_correlation=rho, commutation_defect=nu,
    )  # fmt: skip


def _change(
    a: PairRecord, b: PairRecord, what: _Compared, *, moved: bool, bound: float | None
) -> DiagnosticChange | None:
    of_a, of_b = getattr(a, what.field), getattr(b, what.field)
    if of_a is None or of_b is None:
        return None
    of_a, of_b = float(of_a), float(of_b)
    difference = of_b - of_a
    floor = what.floor * min(abs(of_a), abs(of_b)) if what.relative else what.floor
    noise, status = bound, _UNKNOWN if bound is None else _BOUND
    if what.error is not None:
        errors = [getattr(side, what.error) for side in (a, b)]
        if any(error is not None for error in errors):
            noise = math.hypot(bound or 0.0, *(error or 0.0 for error in errors))
            status = f"estimated; {status}"
    same = (a.effective_rank_write, a.effective_rank_read) == (
        b.effective_rank_write, b.effective_rank_read,
    )  # fmt: skip
    if not moved:
        status = _STILL
    elif what.of_ranks and not same:
        status = _RANKS
    beyond = abs(difference) >= floor > 0 and abs(difference) > _ERRORS * (noise or 0.0)
    return DiagnosticChange(
        pair=a.name, layer=a.layer, observable=what.field, value_a=of_a, value_b=of_b,
        difference=difference, noise=noise, floor=floor, flagged=moved and beyond, status=status,
    )  # fmt: skip


def pair_changes(a: ScanResult, b: ScanResult) -> tuple[list[PairChange], int]:
    """ρ and C of the pairs that both scans have, at most 20, and how many there are."""
    of_b = {pair.name: pair for pair in b.pairs}
    changes = [
        PairChange(
            pair=pair.name,
            gram_correlation_a=pair.gram_correlation,
            gram_correlation_b=of_b[pair.name].gram_correlation,
            commutator_ratio_a=pair.commutator_ratio,
            commutator_ratio_b=of_b[pair.name].commutator_ratio,
            label=_label(a, pair, of_b[pair.name]),
        )
        for pair in a.pairs
        if pair.name in of_b
    ]
    count = len(changes)
    if count > _PAIRS:
        changes = sorted(changes, key=lambda change: (-_moved(change), change.pair))[:_PAIRS]
    return changes, count


def _label(result: ScanResult, a: PairRecord, b: PairRecord) -> Label | None:
    """Gauge where one of ρ and C is; None where what lies between the maps is not known."""
    if a.freedom != b.freedom or (a.freedom == "none" and "unknown" in (a.between, b.between)):
        return None
    labels = result.labels.get(a.freedom, {})
    both = {labels.get("gram_correlation"), labels.get("commutator_ratio")}
    return "gauge" if "gauge" in both else None if None in both else "functional"


def _moved(change: PairChange) -> float:
    """The larger change of the two, C on a logarithmic scale; the same from either side."""
    rho = change.gram_correlation_a, change.gram_correlation_b
    c = change.commutator_ratio_a, change.commutator_ratio_b
    moved = [0.0]
    if rho[0] is not None and rho[1] is not None:
        moved.append(abs(rho[1] - rho[0]))
    if c[0] and c[1]:
        moved.append(abs(math.log(c[1] / c[0])))
    return max(moved)


def head_group_changes(a: ScanResult, b: ScanResult) -> list[HeadGroupChange]:
    """Groups of heads that both scans have."""

    def key(group: HeadRecord) -> tuple[object, ...]:
        return group.stack, group.attention, group.layer, group.space

    of_b = {key(group): group for group in b.heads}
    return [_heads(group, of_b[key(group)]) for group in a.heads if key(group) in of_b]


def _heads(a: HeadRecord, b: HeadRecord) -> HeadGroupChange:
    difference = None
    if a.overlap_ratio is not None and b.overlap_ratio is not None:
        difference = b.overlap_ratio - a.overlap_ratio
    spreads = [side.overlap_ratio_sd for side in (a, b) if side.overlap_ratio_sd is not None]
    copies_a, copies_b = _copies(a.near_copies), _copies(b.near_copies)
    return HeadGroupChange(
        stack=a.stack, attention=a.attention, layer=a.layer, space=a.space,
        overlap_ratio_a=a.overlap_ratio, overlap_ratio_b=b.overlap_ratio,
        difference=difference, spread=max(spreads) if spreads else None,
        near_copies_a=sorted(copies_a - copies_b), near_copies_b=sorted(copies_b - copies_a),
    )  # fmt: skip


def _copies(pairs: Sequence[HeadPair]) -> set[tuple[int, int]]:
    """Those that count and are near: a record lists all that are nearer than chance."""
    return {pair.heads for pair in pairs if (pair.p_adjusted or 0.0) <= _LEVEL and _is_near(pair)}


def _is_near(pair: HeadPair) -> bool:
    if not pair.overlap_ratio > 0:
        return False
    chance = pair.mean_squared_cosine / pair.overlap_ratio
    return pair.mean_squared_cosine >= chance + NEAR_COPY * (1 - chance)
