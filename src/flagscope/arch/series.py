"""Sequences of maps that follow each other, as in nn.Sequential."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flagscope.arch.activations import activation_freedom
from flagscope.arch.config_values import config_value
from flagscope.arch.graph import Member, PairGroup
from flagscope.arch.layout import LayoutMismatchError
from flagscope.arch.maps import LinearMap, solved_map
from flagscope.arch.norm import Norm
from flagscope.arch.norm_finder import named_norm
from flagscope.arch.pair_side import Side
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import SequenceMapRule, SequenceRule
from flagscope.errors import ArchitectureError
from flagscope.records import Freedom, PairKind

_ACTIVATION_UNKNOWN = (
    "activations cannot be seen in weights: what lies between numbered layers is unknown; say so "
    "in the config ({'activation': 'relu'}, --config F)"
)


@dataclass(frozen=True)
class _Step:
    """A map of a sequence, the BatchNorm after it, and anything else that follows."""

    path: str
    map: LinearMap
    norm: Norm | None
    after: str


def series_groups(rules: Sequence[SequenceRule], context: RuleContext) -> list[PairGroup]:
    """Pairs of sequences: each map with the next one.

    Parameters
    ----------
    rules
        The sequences, with modules named from the root of the model.
    context
        Context of the whole model; freedoms are claimed only if it is trusted.

    Raises
    ------
    ArchitectureError
        If a layout does not fit its tensor, or a map does not read the output of the previous one.
    """
    return [pair for rule in rules for pair in _pairs(rule, context)]


def _pairs(rule: SequenceRule, context: RuleContext) -> Iterator[PairGroup]:
    activation = str(config_value(rule.activation, context.config))
    steps: list[_Step] = []
    for map_rule in rule.maps:
        step = _step(map_rule, steps[-1].map.outputs if steps else None, context)
        if step is None:
            missing = context.base + map_rule.weights()[0]
            context.notes.add(f"no tensor is named {missing}; the sequence ends in front of it")
            break
        steps.append(step)
    for layer, (write, read) in enumerate(pairwise(steps)):
        between = write.after or activation
        if between == "unknown" and not write.after:
            context.notes.add(_ACTIVATION_UNKNOWN)
        yield _pair(layer, write, read, between, context)


def _step(rule: SequenceMapRule, written: int | None, context: RuleContext) -> _Step | None:
    place = context.locate(rule)
    if place is None:
        return None
    # After flattening, the reader's columns are grouped by channel.
    known = {rule.inp: written} if f"({rule.inp} " in rule.layout and written else None
    try:
        map_ = solved_map(
            role=rule.role, tensor=place.tensor, shape=place.shape, layout=rule.layout,
            out=rule.out, inp=rule.inp, known=known, bias=place.bias,
        )  # fmt: skip
    except LayoutMismatchError as error:
        raise ArchitectureError(
            f"tensor {place.tensor!r} of shape {place.shape} does not fit {rule.layout!r}: {error}",
            hint=error.hint,
        ) from error
    norm = named_norm(rule.norms, context, kind="batchnorm", placement="map")
    if norm is not None and norm.mean is None:
        return _Step(place.tensor.removesuffix(".weight"), map_, None, "norm")
    return _Step(place.tensor.removesuffix(".weight"), map_, norm, rule.after)


def _pair(layer: int, write: _Step, read: _Step, between: str, context: RuleContext) -> PairGroup:
    convolutions = write.map.role == read.map.role == "conv"
    kind: PairKind = "conv" if convolutions else "sequential"
    freedom: Freedom = "none"
    if context.trusted and between != "norm":
        freedom = activation_freedom(between)
    # BatchNorm between linear maps commutes only with scalings of single neurons
    freedom = "scaling" if write.norm is not None and freedom == "gl" else freedom
    name = f"{write.path}-{read.path}"
    return PairGroup(
        name=name, kind=kind, between=between, stack=context.stack, attention=None, layer=layer,
        freedom=freedom, d=write.map.outputs, write=Side(write.map), read=Side(read.map),
        members=(Member(name),), write_norm=write.norm,
    )  # fmt: skip
