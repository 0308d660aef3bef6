"""Coverage of a checkpoint: what a scan measures, and what it leaves out, by reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.engine.plan.every_map import maps_of_links, tensors_of
from flagscope.engine.plan.name_patterns import name_patterns
from flagscope.engine.plan.tasks import Task
from flagscope.engine.plan.unplaced import (
    FAILED,
    NO_MAP,
    NOT_ASKED,
    UNPLACED,
    UNREAD,
    Reason,
    reason_of,
)
from flagscope.engine.plan.weights import Weights
from flagscope.geometry import NOT_FINITE
from flagscope.records import (
    Coverage,
    FailureRecord,
    HeadRecord,
    LeftOut,
    NotFinite,
    PairRecord,
    What,
    WithoutNumbers,
)

LISTED = 6  # patterns of names for one reason
_REASONS = 16
_CAUSE = re.compile(r"(?:^|\s)is (not finite|all zero)(?=,|$)")
_CAUSES = {
    "not finite": "weights that are not finite (NaN or infinity)",
    "all zero": "weights that are all zero",
}
_LINKS_NOT_FINITE = "heads whose weights are not finite (NaN or infinity)"
_LINKS = "heads whose weights are all zero, or below their storage noise"
_FAILED = "the task failed"


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the tasks, as far as coverage depends on them."""

    pairs: Sequence[PairRecord] = ()
    heads: Sequence[HeadRecord] = ()
    failures: Sequence[FailureRecord] = ()
    edge_tests: int = 0
    not_finite: Collection[str] = ()
    links_not_finite: int = 0


@dataclass
class _Tensors:
    """Names of tensors by outcome."""

    measured: set[str] = field(default_factory=set)
    without: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


def coverage_of(
    checkpoint: Checkpoint,
    graph: Graph,
    tasks: Sequence[Task],
    weights: Weights,
    outcomes: Outcomes | None = None,
) -> Coverage:
    """How much of a checkpoint a scan measures, or would measure.

    Parameters
    ----------
    checkpoint, graph, tasks, weights
        Of the scan.
    outcomes
        Outcomes of the tasks. If None, every task counts as done.

    Returns
    -------
    Coverage
        Its size does not grow with the checkpoint.
    """
    tensors = _outcome(tasks, outcomes)
    first = weights.same
    known = {first.get(name, name) for name in tensors_of(tasks)}
    mapped = {first.get(name, name) for name in tensors_of([graph])}
    measured = {first.get(name, name) for name in tensors.measured}
    unmapped = {first.get(name, name) for name in graph.unmapped}
    reasons: Mapping[str, str] = getattr(graph, "left", {})
    sizes = {**weights.numbers, **weights.unread}
    matrices = [name for name in checkpoint.tensors
                if name in sizes and len(checkpoint.tensors[name].shape) > 1]  # fmt: skip
    left: dict[Reason, list[str]] = {}
    for name in matrices:
        if name in measured:
            continue
        shape = checkpoint.tensors[name].shape
        if name in tensors.without:
            reason = Reason(f"no number: {tensors.without[name]}")
        elif name in tensors.failed:
            reason = FAILED
        elif name in mapped and name not in known:
            reason = NOT_ASKED
        elif name in weights.unread:
            reason = UNREAD
        else:
            reason = reason_of(name, shape)
            if name in reasons and 0 not in shape:
                reason = Reason(reasons[name], reason.expected)
            elif reason is UNPLACED and name not in unmapped:
                reason = NO_MAP
        left.setdefault(reason, []).append(name)
    buffers = [name for name in checkpoint.tensors
               if name in weights.buffers and len(checkpoint.tensors[name].shape) > 1]  # fmt: skip
    seen = [name for name in matrices if name in measured]
    return Coverage(
        matrices=len(matrices),
        measured=len(seen),
        parameters=sum(sizes.values()),
        parameters_measured=sum(sizes[name] for name in seen),
        left_out=_left_out(left, sizes),
        buffers=name_patterns(buffers, limit=LISTED)[0],
        without_numbers=[] if outcomes is None else _without_numbers(tasks, outcomes),
        not_finite=None if outcomes is None else _not_finite(checkpoint, outcomes),
    )


def _left_out(left: Mapping[Reason, list[str]], sizes: Mapping[str, int]) -> list[LeftOut]:
    """Unexpected reasons first, then by size; a long tail of reasons becomes one entry."""

    def weight(names: Iterable[str]) -> int:
        return sum(sizes[name] for name in names)

    ordered = sorted(left.items(), key=lambda entry: (entry[0].expected, -weight(entry[1])))
    if len(ordered) > _REASONS:
        names_of_rest = [name for _, names in ordered[_REASONS - 1 :] for name in names]
        ordered = [*ordered[: _REASONS - 1], (Reason("other reasons"), names_of_rest)]
    entries = []
    for reason, names in ordered:
        patterns, unlisted = name_patterns(names, limit=LISTED)
        entries.append(
            LeftOut(
                reason=reason.text, matrices=len(names), parameters=weight(names),
                expected=reason.expected, names=patterns, unlisted=unlisted,
            )
        )  # fmt: skip
    return entries


def _outcome(tasks: Sequence[Task], outcomes: Outcomes | None) -> _Tensors:
    """Tensors with a number, tensors without one, and tensors whose tasks failed."""
    tensors = _Tensors()
    if outcomes is None:
        tensors.measured |= tensors_of(tasks)
        return tensors
    failures = {failure.task for failure in outcomes.failures}
    tensors.failed |= tensors_of(task for task in tasks if task.name in failures)
    for pair in outcomes.pairs:
        _note(tensors, (pair.write.tensor, pair.read.tensor), pair.status, _has_numbers(pair))
    for group in outcomes.heads:
        _note(tensors, (group.tensor,), group.status, group.overlap_ratio is not None)
    if outcomes.edge_tests:
        # Most links have no record: take the maps of the tasks that were carried out.
        done = (link for task in tasks if task.name not in failures for link in task.links)
        tensors.measured |= {map_.tensor for map_ in maps_of_links(done)} - set(tensors.without)
    return tensors


def _note(tensors: _Tensors, names: Iterable[str], status: str, number: bool) -> None:
    for name in names:
        if number:
            tensors.measured.add(name)
            tensors.without.pop(name, None)
        elif name not in tensors.measured:
            tensors.without.setdefault(name, _cause(status))


def _has_numbers(pair: PairRecord) -> bool:
    """Whether any number of a pair is known."""
    numbers = (pair.commutator_ratio, pair.gram_correlation, pair.overlap_ratio, pair.log10_p)
    return pair.status == "ok" or any(number is not None for number in numbers)


def _cause(status: str) -> str:
    """Why a record has no number: its status without the names in it."""
    causes = dict.fromkeys(_CAUSES[cause] for cause in _CAUSE.findall(status))
    return " and ".join(causes) or status


def _without_numbers(tasks: Sequence[Task], outcomes: Outcomes) -> list[WithoutNumbers]:
    failures = {failure.task for failure in outcomes.failures}
    failed = [task for task in tasks if task.name in failures]
    entries = [
        *_counts(
            "pairs", Counter(_cause(p.status) for p in outcomes.pairs if not _has_numbers(p)),
            failed=sum(map(_pairs, failed)), every=sum(map(_pairs, tasks)),
        ),
        *_counts(
            "head groups",
            Counter(_cause(g.status) for g in outcomes.heads if g.overlap_ratio is None),
            failed=sum(len(task.heads) for task in failed),
            every=sum(len(task.heads) for task in tasks),
        ),
    ]  # fmt: skip
    every, not_done = sum(map(_links, tasks)), sum(map(_links, failed))
    broken = outcomes.links_not_finite
    lost = Counter({
        _LINKS_NOT_FINITE: broken, _LINKS: every - not_done - outcomes.edge_tests - broken,
    })  # fmt: skip
    return [*entries, *_counts("links", lost, failed=not_done, every=every)]


def _not_finite(checkpoint: Checkpoint, outcomes: Outcomes) -> NotFinite | None:
    """Tensors in which tasks met NaN or infinity, and what has no number because of them."""
    tensors = [name for name in checkpoint.tensors if name in outcomes.not_finite]
    if not tensors:
        return None
    names, unlisted = name_patterns(tensors, limit=LISTED)
    blank = [pair for pair in outcomes.pairs if not _has_numbers(pair)]
    return NotFinite(
        tensors=len(tensors), names=names, unlisted=unlisted,
        pairs=sum(NOT_FINITE in _CAUSE.findall(pair.status) for pair in blank),
        balanced=sum(_balanced_is_lost(pair) for pair in outcomes.pairs),
        head_groups=sum(
            group.overlap_ratio is None and NOT_FINITE in _CAUSE.findall(group.status)
            for group in outcomes.heads
        ),
        links=outcomes.links_not_finite,
    )  # fmt: skip


def _balanced_is_lost(pair: PairRecord) -> bool:
    return pair.balanced is not None and pair.balanced.status.endswith(NOT_FINITE)


def _counts(
    what: What, causes: Counter[str], *, failed: int, every: int
) -> Iterator[WithoutNumbers]:
    causes[_FAILED] += failed
    for reason, count in causes.most_common():
        if count > 0:
            yield WithoutNumbers(what=what, count=count, of=every, reason=reason)


def _pairs(task: Task) -> int:
    return sum(len(group.members) for group in task.pairs)


def _links(task: Task) -> int:
    ends = ((link.write.heads, link.read.heads) for link in task.links)
    return sum(prod(heads.count for heads in both if heads is not None) for both in ends)
