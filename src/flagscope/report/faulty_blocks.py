"""How many neurons or heads have a fault, and in which block most: words that findings share."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records import FaultyBlock, UnitFaults
from flagscope.report.wording import KIND_WORDS, begun, counted, joined
from flagscope.shortening import shortened

SHOWN = 6
"""Blocks in the evidence of a finding."""


def amount(
    units: UnitFaults, blocks: Sequence[FaultyBlock], name: str, verbs: tuple[str, str]
) -> str:
    """How many of how many do it: in the one block, or in the network and in which block most."""
    count, here, first = getattr(units, name), getattr(blocks[0], name), blocks[0]
    noun = "head" if units.check == "heads" else "neuron"
    verb = verbs[count > 1]
    if len(blocks) == 1 and here == count:
        return f"{block_words(first, units)}: {_of(count, first.units, noun)} {verb}"
    most = block_words(first, units)
    most = most if most.startswith(tuple(KIND_WORDS.values())) else most[:1].lower() + most[1:]
    place = f"most in {most} ({here:,} of {first.units:,})"
    if units.faulty_blocks == len(units.listed):
        noun_of_block = "attention" if units.check == "heads" else "block"
        place = f"in {len(blocks):,} of {counted(units.blocks, noun_of_block)}, {place}"
    return f"{_of(count, units.units, noun)}, {place}, {verb}"


def _of(count: int, units: int, noun: str) -> str:
    if count == units:
        return f"all {counted(units, noun)}" if units > 1 else f"the one {noun}"
    return f"{count:,} of {counted(units, noun)}"


def index_words(noun: str, where: str) -> str:
    """Shortened indices behind their noun.

    Examples
    --------
    >>> index_words("head", "2"), index_words("head", "1,3"), index_words("head", "0,2,…,38")
    ('head 2', 'heads 1 and 3', 'heads 0, 2, …, 38')
    >>> index_words("head", "0-1,4-6")
    'heads 0, 1 and 4–6'
    """
    several = "," in where or "-" in where
    parts: list[str] = []
    for run in where.split(","):
        first, dash, last = run.partition("-")
        is_two = dash and int(last) == int(first) + 1
        parts += [first, last] if is_two else [run.replace("-", "–")]
    if "…" in parts[:-1]:
        words = ", ".join(parts)
    else:
        words = joined(["others" if part == "…" else part for part in parts], limit=len(parts))
    return f"{noun}{'s' if several else ''} {words}"


def block_words(one: FaultyBlock, units: UnitFaults) -> str:
    """A block as in "Layer 3's MLP", with its stack where there are several."""
    if one.kind in ("qk", "ov", "mlp") and one.layer is not None:
        stack = f"{one.stack} " if len(units.stacks) > 1 else ""
        layer = f"{stack}layer {one.layer}"
        if one.kind == "mlp":
            expert = "" if one.expert is None else f", expert {one.expert}"
            return begun(f"{layer}'s MLP{expert}")
        return begun(f"{layer}, cross-attention" if one.attention == "cross" else layer)
    return f"{KIND_WORDS[one.kind]} {shortened(one.name)}"
