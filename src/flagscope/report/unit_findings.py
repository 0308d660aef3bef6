"""Findings on neurons and heads: dead ones, and copies."""

from __future__ import annotations

from collections.abc import Iterator

from flagscope.records import FaultyBlock, Finding, UnitFaults
from flagscope.report.faulty_blocks import SHOWN, amount, block_words, index_words
from flagscope.report.head_health import dead_heads, equal_head_findings
from flagscope.report.health_finding import health_finding
from flagscope.report.wording import joined
from flagscope.shortening import shortened


def dead_units(units: UnitFaults) -> Iterator[Finding]:
    """Findings on neurons or heads without weights."""
    if units.check == "neurons":
        return _dead_neurons(units)
    return _unclear_neurons(units) if units.check == "unclear-neurons" else dead_heads(units)


def _dead_neurons(units: UnitFaults) -> Iterator[Finding]:
    """Neurons that carry nothing, as a share of their block or of the network."""
    blocks = [one for one in units.listed if one.dead]
    if not units.dead or not blocks:
        return
    dead = amount(units, blocks, "dead", ("is dead", "are dead"))
    reasons = _reasons(units)
    if len(reasons) == 1 and units.no_path is not None:
        why = f"{'its' if units.dead == 1 else 'their'} {reasons[0][1]} {_zero(reasons[0][1])}"
    elif len(blocks) == 1:
        why = joined(f"{count:,} by {words}" for count, words in reasons)
    else:  # the sentence is long enough without counts
        why = f"by {joined(words for _, words in reasons)}"
    counts = joined(f"{count:,} by {words} that {_zero(words)}" for count, words in reasons)
    yield health_finding(
        "dead-neurons",
        f"{dead}: {why}.",
        f"{dead}: {counts}.{_bias(units)}",
        tuple(_neuron_line(one, units) for one in blocks[:SHOWN]),
        means="These neurons carry nothing from the input of their block to its output. They can "
        "be taken out; where they have a bias, they may add a constant.",
        next_step="If nobody pruned the model, look at learning rate and initialisation of the "
        "block, or at what converted it.",
        not_meaning="It does not mean that the network is worse for it: pruning leaves such "
        "neurons on purpose.",
    )


def _reasons(units: UnitFaults) -> list[tuple[int, str]]:
    """Why neurons are dead: how many by which weights."""
    both = units.no_path or 0
    out, inp = units.no_output - both, units.no_input - both
    cases = (
        (out, "outgoing weights"), (inp, "incoming weights"),
        (both, "incoming and outgoing weights"), (units.no_factor, "factor of the gate"),
    )  # fmt: skip
    return [(count, words) for count, words in cases if count]


def _zero(words: str) -> str:
    return "are all zero" if words.endswith("weights") else "is always zero"


def _bias(units: UnitFaults) -> str:
    """Whether neurons without incoming weights have a bias, which may add a constant."""
    alone = units.no_input - (units.no_path or 0)
    if not alone or units.no_path is None:
        return ""
    if units.biased is None:
        return " Whether a bias adds a constant where the incoming ones are zero is not known."
    if not units.biased:
        return " None of those without incoming weights has a bias other than zero."
    verb = "has" if units.biased == 1 else "have"
    return (
        f" {units.biased:,} of the {alone:,} without incoming weights {verb} a bias, which may add "
        "a constant."
    )


def _unclear_neurons(units: UnitFaults) -> Iterator[Finding]:
    """Neurons without weights where it is not known what lies between the maps."""
    for name, side in (("no_output", "outgoing"), ("no_input", "incoming")):
        blocks = [one for one in units.listed if getattr(one, name)]
        if not getattr(units, name) or not blocks:
            continue
        words = f"{side} weights that are all zero"
        who = amount(units, blocks, name, (f"has {words}", f"have {words}"))
        yield health_finding(
            "dead-neurons", f"{who}.",
            f"{who}. What lies between the maps is not known, or more reads them, so they are "
            "not called dead.",
            tuple(_neuron_line(one, units) for one in blocks[:SHOWN]),
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
    where = f"{index_words('neuron', one.where)} of {one.units:,}"
    return f"{block_words(one, units)}: {where}; {', '.join(parts)}"


def copied_units(units: UnitFaults) -> Iterator[Finding]:
    """Findings on neurons or heads that are exact copies of others."""
    return equal_head_findings(units) if units.check == "heads" else _copied_neurons(units)


def _copied_neurons(units: UnitFaults) -> Iterator[Finding]:
    """Finding on neurons that are exact copies of others."""
    blocks = [one for one in units.listed if one.copies]
    if not units.copies or not blocks:
        return
    plain = amount(units, blocks, "copies", ("is an exact copy", "are exact copies"))
    text = amount(units, blocks, "copies", ("reads", "read"))
    yield health_finding(
        "duplicate-neurons",
        f"{plain} of other neurons of the block.",
        f"{text} what an earlier one reads, with equal incoming weights and biases, bit for bit: "
        "both always hold the same value.",
        tuple(
            f"{block_words(one, units)}: {one.copies:,} of {one.units:,} ({shortened(one.write)})"
            for one in blocks[:SHOWN]
        ),
        means="The outgoing weights of the two can be added, and one of them taken out.",
        next_step="See whether the network was widened by copying, or started from one value.",
        not_meaning="It does not mean that their outgoing weights are equal.",
    )
