"""Puts together what the tasks of a health check saw, with what names and config show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.engine.health.across_layers import equal_layers, scale_outliers
from flagscope.engine.health.missing import missing_outside, missing_parts
from flagscope.engine.health.shown import Shown
from flagscope.engine.health.tensor_health import TensorHealth
from flagscope.engine.health.unit_faults import unit_faults
from flagscope.engine.health.weight_faults import LISTED, weight_faults
from flagscope.engine.health.whole_tensors import never_of_one_value
from flagscope.engine.plan.every_map import tensors_of
from flagscope.engine.plan.look import Look
from flagscope.engine.plan.looked_at import looked_at
from flagscope.engine.plan.name_patterns import name_patterns
from flagscope.engine.plan.tasks import Task
from flagscope.engine.plan.unplaced import FAILED, Reason
from flagscope.engine.plan.weights import Weights
from flagscope.engine.settings import Settings
from flagscope.records import Health, NotLookedAt

_REASONS = 8


def health_of(
    checkpoint: Checkpoint,
    graph: Graph,
    settings: Settings,
    tasks: Iterable[Task],
    weights: Weights,
    *,
    health: Sequence[TensorHealth],
    unread: Sequence[tuple[str, str]],
) -> Health | None:
    """The record of a health check; None where it was not asked for.

    Parameters
    ----------
    checkpoint, graph, settings, weights
        Of the scan.
    tasks
        Its tasks; tensors that none of them gave anything of were in a task that failed.
    health, unread
        What the tasks gave.
    """
    if "health" not in settings.only:
        return None
    looks = {look.tensor: look for task in tasks for look in task.looks}
    by_name = {one.tensor: one for one in health}
    # In the order of the file, whichever task came first.
    ordered = {name: by_name[name] for name in looks if name in by_name}
    shown = Shown(checkpoint, looks.values(), ordered.values(), weights.same)
    units = unit_faults(graph, shown)
    mapped = {shown.first_name(name) for name in tensors_of([graph])}
    shapes = {
        name: info.shape for name, info in checkpoint.tensors.items()
        if name in weights.numbers or name in weights.unread or name in weights.same
    }  # fmt: skip
    layers, layer_groups = equal_layers(shapes, ordered, weights.same)
    outside, absent = (None, [])
    if checkpoint.buffers is None:  # a live module lacks nothing of its own
        outside, absent = missing_outside(graph, checkpoint.tensors)
    return Health(
        tensors=len(ordered),
        entries=sum(one.entries for one in ordered.values()),
        zeros=sum(one.zeros for one in ordered.values()),
        not_finite=sum(one.nan + one.infinite > 0 for one in ordered.values()),
        layers=None if settings.layers is None else sorted(settings.layers),
        not_looked_at=_not_looked_at(
            checkpoint, looked_at(checkpoint, graph, settings, weights).left, looks, ordered, unread
        ),
        faults=weight_faults(
            looks,
            ordered,
            mapped=mapped,
            accounted=units.accounted,
            never=never_of_one_value(graph, shapes),
        ),
        units=units.faults,
        missing=[*missing_parts(shapes, graph, checkpoint.config), *absent],
        outside=outside,
        equal_layers=layers,
        equal_layer_groups=layer_groups,
        scale_outliers=scale_outliers(shapes, ordered),
    )


def _not_looked_at(
    checkpoint: Checkpoint,
    left: Mapping[Reason, list[str]],
    looks: Mapping[str, Look],
    seen: Mapping[str, TensorHealth],
    unread: Sequence[tuple[str, str]],
) -> list[NotLookedAt]:
    """Tensors that were not looked at, by reason; what is amiss stands first."""
    reasons = {reason: list(names) for reason, names in left.items()}
    known = dict(unread)
    for name in looks:
        if name not in seen:
            reason = Reason(f"could not be read: {known[name]}") if name in known else FAILED
            reasons.setdefault(reason, []).append(name)
    entries = []
    for reason, names in reasons.items():
        patterns, unlisted = name_patterns(names, limit=LISTED)
        size = sum(prod(checkpoint.tensors[name].shape) for name in names)
        entries.append(
            NotLookedAt(
                reason=reason.text, tensors=len(names), entries=size, expected=reason.expected,
                names=patterns, unlisted=unlisted,
            )
        )  # fmt: skip
    entries.sort(key=lambda entry: entry.expected)
    if len(entries) > _REASONS:
        rest = entries[_REASONS - 1 :]
        entries[_REASONS - 1 :] = [
            NotLookedAt(
                reason="other reasons", tensors=sum(one.tensors for one in rest),
                entries=sum(one.entries for one in rest),
                expected=all(one.expected for one in rest), names=[],
                unlisted=sum(one.tensors for one in rest),
            )
        ]  # fmt: skip
    return entries
