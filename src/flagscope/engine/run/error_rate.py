"""Adjusts the p-values of a report together, for one error rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb, log10
from typing import Literal, TypeVar

from flagscope.null import FamilyAdjustedP, family_adjustment
from flagscope.records import EdgeRecord, HeadRecord, PairRecord, Record, TestKind

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class ReportFamily:
    """Records of a report with adjusted p-values, and the number of tests of each kind."""

    pairs: list[PairRecord]
    heads: list[HeadRecord]
    edges: list[EdgeRecord]
    tests: dict[TestKind, int]


def with_one_error_rate(
    pairs: Sequence[PairRecord],
    heads: Sequence[HeadRecord],
    edges: Sequence[EdgeRecord],
    *,
    edge_tests: int,
) -> ReportFamily:
    """Adjust every p-value of a report for all of its tests (`family_adjustment`).

    Tests of a pair are those of its overlap, C and ρ. Tests of a head group are those of R, of its
    largest shared direction, of every pair of its heads, and of as many clusters as it could have:
    half its number of heads. Tests of a link are those of its overlap and its composition, whether
    the link is listed or not.
    """
    entries = [
        *(entry for i, pair in enumerate(pairs) for entry in _of_pair(i, pair)),
        *(entry for i, group in enumerate(heads) for entry in _of_heads(i, group)),
        *(entry for i, edge in enumerate(edges) for entry in _of_edge(i, edge)),
    ]
    counts: Counter[TestKind] = Counter(
        entry.kind for entry in entries if entry.log10_p is not None and entry.part is None
    )
    for group in heads:
        if group.log10_p is not None or group.near_copies or group.cluster_tests:
            counts["copies"] += comb(group.count, 2)
            counts["clusters"] += group.count // 2
    for kind in ("link_overlap", "link_composition"):
        if counts[kind]:
            counts[kind] = max(counts[kind], edge_tests)
    tests: dict[TestKind, int] = {kind: count for kind, count in counts.items() if count}
    adjusted = family_adjustment(
        [entry.log10_p for entry in entries],
        [entry.kind for entry in entries],
        tests={str(kind): count for kind, count in tests.items()},
    )
    updates = _updates(entries, adjusted)
    return ReportFamily(
        [
            _with_dominant(_updated(pair, updates.get(("pair", i), {})), tests)
            for i, pair in enumerate(pairs)
        ],
        [_updated_heads(group, updates, i) for i, group in enumerate(heads)],
        [_updated(edge, updates.get(("edge", i), {})) for i, edge in enumerate(edges)],
        tests,
    )


_Where = Literal["pair", "heads", "near_copies", "cluster_tests", "edge"]


@dataclass(frozen=True)
class _Entry:
    """One test: its kind and p-value, and the record that takes the adjusted values."""

    kind: TestKind
    log10_p: float | None
    where: _Where
    index: int
    prefix: str = ""  # of the field names
    part: int | None = None  # index in a list of the record


def _log10(p: float | None) -> float | None:
    # For draws and closed forms of C and ρ only p is stored, which may underflow.
    return None if p is None else log10(p) if p > 0 else -308.0


def _of_pair(i: int, pair: PairRecord) -> Iterator[_Entry]:
    yield _Entry("overlap", pair.log10_p, "pair", i)
    yield _Entry("commutator", _log10(pair.commutator_p), "pair", i, "commutator_")
    yield _Entry("correlation", _log10(pair.gram_correlation_p), "pair", i, "gram_correlation_")


def _of_heads(i: int, group: HeadRecord) -> Iterator[_Entry]:
    yield _Entry("heads", group.log10_p, "heads", i)
    yield _Entry("shared", group.shared_log10_p, "heads", i, "shared_")
    for index, copies in enumerate(group.near_copies):
        yield _Entry("copies", copies.log10_p, "near_copies", i, part=index)
    for index, cluster in enumerate(group.cluster_tests):
        yield _Entry("clusters", cluster.log10_p, "cluster_tests", i, part=index)


def _of_edge(i: int, edge: EdgeRecord) -> Iterator[_Entry]:
    yield _Entry("link_overlap", edge.log10_p, "edge", i)
    yield _Entry("link_composition", edge.composition_log10_p, "edge", i, "composition_")


_Key = tuple[_Where, int] | tuple[_Where, int, int]


def _updates(
    entries: Sequence[_Entry], adjusted: FamilyAdjustedP
) -> dict[_Key, dict[str, float | None]]:
    updates: dict[_Key, dict[str, float | None]] = {}
    for entry, bh, by, familywise in zip(
        entries,
        adjusted.p_adjusted,
        adjusted.p_adjusted_dependent,
        adjusted.p_familywise,
        strict=True,
    ):
        key: _Key = (entry.where, entry.index)
        if entry.part is not None:
            key = (entry.where, entry.index, entry.part)
        fields = updates.setdefault(key, {})
        fields[f"{entry.prefix}p_adjusted"] = bh
        fields[f"{entry.prefix}p_familywise"] = familywise
        if not entry.prefix and entry.where in ("pair", "heads"):
            fields["p_adjusted_dependent"] = by
    return updates


def _updated(record: R, fields: Mapping[str, object]) -> R:
    return record.model_copy(update=fields) if fields else record


def _with_dominant(pair: PairRecord, tests: Mapping[TestKind, int]) -> PairRecord:
    """The pair with its test at dominant ranks adjusted, which is part of its combined test."""
    test = pair.overlap_test
    if test is None or test.dominant_log10_p is None:
        return pair
    log10_p = min(0.0, test.dominant_log10_p + log10(len(tests) * tests["overlap"]))
    adjusted = test.model_copy(update={"dominant_p_familywise": 10.0**log10_p})
    return pair.model_copy(update={"overlap_test": adjusted})


def _updated_heads(
    group: HeadRecord, updates: Mapping[_Key, Mapping[str, object]], i: int
) -> HeadRecord:
    lists = {
        name: [
            _updated(test, updates.get((name, i, index), {}))
            for index, test in enumerate(getattr(group, name))
        ]
        for name in ("near_copies", "cluster_tests")
    }
    return group.model_copy(update={**updates.get(("heads", i), {}), **lists})
