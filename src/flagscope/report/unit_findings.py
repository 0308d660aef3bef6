"""Findings on neurons and heads: dead ones, and copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flagscope.records import FaultyBlock, Finding, UnitFaults
from flagscope.report.health_finding import health_finding
from flagscope.report.wording import KIND_WORDS, begun, counted, joined
from flagscope.shortening import shortened

_SHOWN = 6  # blocks in the evidence of a finding


def dead_units(units: UnitFaults) -> Iterator[Finding]:
    """Findings on neurons or heads without weights."""
    if units.check == "neurons":
        return _dead_neurons(units)
    return _unclear_neurons(units) if units.check == "unclear-neurons" else _dead_heads(units)


def _dead_neurons(units: UnitFaults) -> Iterator[Finding]:
    """Neurons that carry nothing, as a share of their block or of the network."""
    blocks = [one for one in units.listed if one.dead]
    if not units.dead or not blocks:
        return
    reasons = [
        f"{count:,} {words}"
        for count, words in (
            (units.no_output, "by outgoing weights that are all zero"),
            (units.no_input, "by incoming weights that are all zero"),
            (units.no_factor, "by a factor of the gate that is always zero"),
        )
        if count
    ]
    dead = _amount(units, blocks, "dead", ("is dead", "are dead"))
    yield health_finding(
        "dead-neurons",
        f"{dead}: they have no effect on the output of the block, or a constant one.",
        f"{dead}: {joined(reasons)}.",
        tuple(_neuron_line(one, units) for one in blocks[:_SHOWN]),
        means="These neurons carry nothing from the input of their block to its output. They can "
        "be taken out; where they have a bias, they may add a constant.",
        next_step="If nobody pruned the model, look at learning rate and initialisation of the "
        "block, or at what converted it.",
        not_meaning="It does not mean that the network is worse for it: pruning leaves such "
        "neurons on purpose.",
    )


def _unclear_neurons(units: UnitFaults) -> Iterator[Finding]:
    """Neurons without weights where it is not known what lies between the maps."""
    for name, side in (("no_output", "outgoing"), ("no_input", "incoming")):
        blocks = [one for one in units.listed if getattr(one, name)]
        if not getattr(units, name) or not blocks:
            continue
        words = f"{side} weights that are all zero"
        amount = _amount(units, blocks, name, (f"has {words}", f"have {words}"))
        yield health_finding(
            "dead-neurons", f"{amount}.",
            f"{amount}. What lies between the maps is not known, or more reads them, so they are "
            "not called dead.",
            tuple(_neuron_line(one, units) for one in blocks[:_SHOWN]),
            means="The second map reads nothing of them." if name == "no_output" else
            "The first map gives them nothing of its input.",
            next_step="Name the activation in a config (--config; in Python config=), or scan the "
            "module itself.",
            not_meaning="It does not mean that they are dead.",
        )  # fmt: skip


def _neuron_line(one: FaultyBlock, units: UnitFaults) -> str:
    parts = [
        f"{words} zero {count:,}"
        for words, count in (
            (f"outgoing weights ({shortened(one.read)})", one.no_output),
            (f"incoming weights ({shortened(one.write)})", one.no_input),
            ("a factor of the gate", one.no_factor),
        )
        if count
    ]
    return f"{_block_words(one, units)}: {_numbers('neuron', one)}; {', '.join(parts)}"


def copied_neurons(units: UnitFaults) -> Iterator[Finding]:
    """Finding on neurons that are exact copies of others."""
    blocks = [one for one in units.listed if one.copies]
    if not units.copies or not blocks:
        return
    plain = _amount(units, blocks, "copies", ("is an exact copy", "are exact copies"))
    text = _amount(units, blocks, "copies", ("reads", "read"))
    yield health_finding(
        "duplicate-neurons",
        f"{plain} of other neurons of the block.",
        f"{text} what an earlier one reads, with equal incoming weights and biases, bit for bit: "
        "both always hold the same value.",
        tuple(
            f"{_block_words(one, units)}: {one.copies:,} of {one.units:,} ({shortened(one.write)})"
            for one in blocks[:_SHOWN]
        ),
        means="The outgoing weights of the two can be added, and one of them taken out.",
        next_step="See whether the network was widened by copying, or started from one value.",
        not_meaning="It does not mean that their outgoing weights are equal.",
    )


_Verbs = tuple[str, str]  # for one, and for several


def _dead_heads(units: UnitFaults) -> Iterator[Finding]:
    cases: tuple[tuple[str, _Verbs, _Verbs, str], ...] = (
        ("dead",
         ("writes nothing that depends on its input", "write nothing that depends on their input"),
         ("has output or value weights that are all zero",
          "have output or value weights that are all zero"),
         "What such a head adds to the stream is zero, or a multiple of one fixed vector."),
        ("no_query",
         ("attends without regard to the token that it attends from",
          "attend without regard to the token that they attend from"),
         ("has query weights that are all zero", "have query weights that are all zero"),
         "Where such a head attends depends at most on the position of the token that it attends "
         "from, and on what stands at the others."),
        ("no_key",
         ("attends without regard to what stands where it looks",
          "attend without regard to what stands where they look"),
         ("has key weights that are all zero", "have key weights that are all zero"),
         "Where such a head attends depends at most on positions, and on the token that it attends "
         "from."),
    )  # fmt: skip
    for name, plain, text, means in cases:
        blocks = [one for one in units.listed if getattr(one, name)]
        if not getattr(units, name) or not blocks:
            continue
        yield health_finding(
            "dead-heads",
            f"{_amount(units, blocks, name, plain)}.",
            f"{_amount(units, blocks, name, text)}.",
            tuple(_head_line(one, units) for one in blocks[:_SHOWN]),
            means=means,
            next_step="See whether heads were pruned by zeros, or a part was not loaded.",
            not_meaning="It does not say who did it: pruning sets heads to zero on purpose.",
        )


def _head_line(one: FaultyBlock, units: UnitFaults) -> str:
    parts = [
        f"{words} zero {count:,}"
        for words, count in (
            ("output weights", one.no_output), ("value weights", one.no_input),
            ("query weights", one.no_query), ("key weights", one.no_key),
        )
        if count
    ]  # fmt: skip
    return f"{_block_words(one, units)}: {_numbers('head', one)}; {', '.join(parts)}"


def _amount(
    units: UnitFaults, blocks: Sequence[FaultyBlock], name: str, verbs: tuple[str, str]
) -> str:
    """How many of how many do it: in the one block, or in the network and in which block most."""
    count, here, first = getattr(units, name), getattr(blocks[0], name), blocks[0]
    noun = "head" if units.check == "heads" else "neuron"
    verb = verbs[count > 1]
    if len(blocks) == 1 and here == count:
        return f"{_block_words(first, units)}: {_of(count, first.units, noun)} {verb}"
    most = _block_words(first, units)
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


def _numbers(noun: str, one: FaultyBlock) -> str:
    several = "," in one.where or "-" in one.where
    return f"{noun}{'s' if several else ''} {one.where} of {one.units:,}"


def _block_words(one: FaultyBlock, units: UnitFaults) -> str:
    """A block as in "Layer 3's MLP", with its stack where there are several."""
    if one.kind in ("qk", "ov", "mlp") and one.layer is not None:
        stack = f"{one.stack} " if len(units.stacks) > 1 else ""
        layer = f"{stack}layer {one.layer}"
        if one.kind == "mlp":
            expert = "" if one.expert is None else f", expert {one.expert}"
            return begun(f"{layer}'s MLP{expert}")
        return begun(f"{layer}, cross-attention" if one.attention == "cross" else layer)
    return f"{KIND_WORDS[one.kind]} {shortened(one.name)}"
