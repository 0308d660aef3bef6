"""Curves of what is dead or broken by the weights alone, from the scans of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flagscope.records import FaultyBlock, Health, UnitFaults
from flagscope.records.series import NETWORK, SeriesCurve


def health_curves(scans: Sequence[Health | None]) -> list[SeriesCurve]:
    """Dead neurons, dead heads and tensors that are not finite, over the steps.

    Parameters
    ----------
    scans
        Of each step, None where it was not looked at.

    Returns
    -------
    list of SeriesCurve
        Of the whole network, also where they are 0 throughout; then dead neurons or heads of each
        block that has any at some step. A scan lists 12 blocks at most: where there are more with
        zero weights, a block that is not listed may have no number at a step.
    """
    whole = {
        "not_finite": [None if one is None else one.not_finite for one in scans],
        "dead_neurons": [None if one is None else one.dead("neurons") for one in scans],
        "dead_heads": [None if one is None else one.dead("heads") for one in scans],
    }
    found = [
        _curve(NETWORK, NETWORK, None, name, values)
        for name, values in whole.items()
        if any(value is not None for value in values)
    ]
    return found + [
        _curve(block.name, block.kind, block.layer, block.what, block.counts)
        for block in _blocks(scans)
        if any(block.counts)
    ]


@dataclass
class _Block:
    """Dead units of one block at each step, None where that is not known."""

    name: str
    kind: str
    layer: int | None
    what: str
    counts: list[int | None] = field(default_factory=list)


def _blocks(scans: Sequence[Health | None]) -> list[_Block]:
    """Every block that any step lists, in the order of its layer."""
    blocks: dict[tuple[str, str], _Block] = {}
    of: dict[tuple[str, str], int] = {}  # how many blocks were looked at where it was first listed
    for units in (units for health in scans if health is not None for units in health.units):
        for block in units.listed:
            made = _named(units, block)
            blocks.setdefault((units.check, block.name), made)
            of.setdefault((units.check, block.name), units.blocks)
    for (check, name), block in blocks.items():
        for health in scans:
            units = next((u for u in health.units if u.check == check), None) if health else None
            block.counts.append(_dead_in(units, name, of[check, name]))
    return sorted(blocks.values(), key=lambda one: (one.layer is None, one.layer or 0))


def _named(units: UnitFaults, block: FaultyBlock) -> _Block:
    if units.check == "heads":
        return _Block(f"{block.name}.heads", "heads", block.layer, "dead_heads")
    return _Block(block.name, block.kind, block.layer, "dead_neurons")


def _dead_in(units: UnitFaults | None, name: str, blocks: int) -> int | None:
    """Dead units of a block at one step; None where the list of the step does not say it."""
    if units is None or units.blocks != blocks:
        return None
    listed = next((block for block in units.listed if block.name == name), None)
    if listed is not None:
        return units.without_effect(listed)
    # Blocks with dead units are listed first: one without, or a list of all, shows that no other
    # block has any.
    whole = units.faulty_blocks == len(units.listed)
    past = units.check != "unclear-neurons" and not all(block.dead for block in units.listed)
    return 0 if whole or past else None


def _curve(
    name: str, kind: str, layer: int | None, observable: str, values: Sequence[int | None]
) -> SeriesCurve:
    none = [None] * len(values)
    return SeriesCurve(
        part="health", pair=name, kind=kind, layer=layer, observable=observable, label=None,
        values=list(values), low=list(none), high=list(none),
    )  # fmt: skip
