"""Whether rounding explains how the two tensors of a pair differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flagscope.checkpoint import TensorInfo
from flagscope.checkpoint.dtypes import torch_dtype
from flagscope.comparison.content.checks import Blocks, Cast, Check, SideName, WithinSteps
from flagscope.comparison.content.encodings import encoding_rules
from flagscope.comparison.content.evidence import CastEvidence
from flagscope.comparison.content.pairing import Pair
from flagscope.comparison.content.scaled import Scaled, Scales
from flagscope.records.comparison.content_parts import ContentClass, Rounding

# At most this many entries, or this share of them, are few: they are named, and not a change.
_FEW, _FEW_SHARE = 8, 1e-3
# Share of the entries and of the groups that a rule must explain.
_RULE = 0.99
_SHORT = (torch.bfloat16, torch.float16)

ScaleRules = dict[SideName, tuple[Scales, str | None]]


def rounding_checks(pair: Pair, scales: ScaleRules) -> list[Check]:
    """The checks of a pair: the half steps of both grids, and every rule that may hold.

    Parameters
    ----------
    pair
        The two tensors.
    scales
        Of a side that has stored scales, those and the rule that made them.
    """
    checks: list[Check] = [WithinSteps(pair.a, pair.b)]
    sides: tuple[tuple[SideName, TensorInfo, TensorInfo], ...] = (
        ("a", pair.a, pair.b), ("b", pair.b, pair.a),
    )  # fmt: skip
    for side, info, other in sides:
        if side in scales:
            checks.append(Scaled(side, *scales[side]))
        elif info.quantised is not None:
            checks += [
                Blocks(side, info, name, rule)
                for name, rule in encoding_rules(info.quantised).items()
            ]
        else:
            checks += _casts(side, info, other)
    for check in checks:
        check.most = few(math.prod(pair.common_shape or ()))
    return checks


def _casts(side: SideName, info: TensorInfo, other: TensorInfo) -> list[Check]:
    """Casts of the other side that may have made a plain tensor."""
    kind, source = torch_dtype(info.dtype), torch_dtype(other.dtype)
    if kind is None or source is None or not kind.is_floating_point:
        return []
    if not source.is_floating_point or other.quantised is not None:
        return []
    if source.itemsize < kind.itemsize:
        return []
    checks: list[Check] = []
    if kind != source:
        checks.append(Cast(side, (kind,)))
        if kind == torch.bfloat16:
            checks.append(Cast(side, (kind,), toward_zero=True))
    for between in _SHORT:
        if between not in (kind, source) and between.itemsize <= source.itemsize:
            checks.append(Cast(side, (between, kind)))
    return checks


def few(entries: int) -> int:
    """Largest number of entries that are few among so many, and fewer than half of them."""
    return min(max(_FEW, int(_FEW_SHARE * entries)), (entries - 1) // 2)


@dataclass(frozen=True)
class Settled:
    """The class of a pair whose bits differ, and what its checks found.

    Attributes
    ----------
    content, rounding
        With the rule that explains the most.
    cast
        What shows that this rule was applied, where it is a cast; else None.
    """

    content: ContentClass
    rounding: Rounding
    cast: CastEvidence | None


def settled(checks: Sequence[Check], entries: int, *, equal: bool, casts: bool = True) -> Settled:
    """The class of a pair whose bits differ, with casts among the rules or without.

    Where all values are equal (in another type), no rule is asked for.
    """
    bound = next(check for check in checks if isinstance(check, WithinSteps))
    rules = [check for check in checks if casts or not isinstance(check, Cast)]
    chosen = (None if equal else _chosen(rules, entries)) or bound
    # Nothing was rounded where as many entries are equal as a rule explains.
    if bound.one_grid and bound.tally.outside <= chosen.tally.outside:
        chosen = bound
    tally = chosen.tally
    left = tally.outside + tally.groups_outside
    kind: ContentClass = "rounding" if left == 0 else "few_entries"
    if tally.outside > few(entries):
        kind = "different"
    record = Rounding(
        rule=chosen.name, rounded=chosen.rounded, outside=tally.outside, clipped=tally.clipped,
        entries=() if kind == "different" else tuple(tally.entries),
        groups=tally.groups, groups_outside=tally.groups_outside,
        scales=tuple(tally.scales), step_rms=bound.step_rms,
    )  # fmt: skip
    return Settled(kind, record, chosen.evidence if isinstance(chosen, Cast) else None)


def _chosen(rules: Sequence[Check], entries: int) -> Check | None:
    """The rule that explains the most, of those that explain nearly all."""
    holding = [
        rule
        for rule in rules
        if rule.name is not None
        and not rule.tally.given_up
        and rule.tally.outside <= few(entries)
        and rule.tally.outside <= (1 - _RULE) * entries + 1
        and rule.tally.groups_outside <= max(1, (1 - _RULE) * rule.tally.groups)
    ]
    return min(holding, key=lambda rule: rule.tally.outside + rule.tally.groups_outside,
               default=None)  # fmt: skip
