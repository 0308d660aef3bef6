"""Findings on the health of the weights: what stands before all that is measured of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from flagscope.records import (
    FaultyBlock,
    Finding,
    FindingCode,
    Health,
    Missing,
    ScanResult,
    UnitFaults,
    WeightCheck,
    WeightFault,
)
from flagscope.report.wording import KIND_WORDS, counted, joined
from flagscope.shortening import shortened

_SHOWN = 6
_ROWS: dict[WeightCheck, str] = {
    "zero-rows": "row", "zero-columns": "column",
    "duplicate-rows": "row", "duplicate-columns": "column",
}  # fmt: skip
_PHRASES = {
    "all-zero": ("is all zero", "are all zero"),
    "constant": ("holds one value alone", "hold one value each"),
}


def health_findings(result: ScanResult) -> list[Finding]:
    """Findings on weights that are not finite, missing, dead, constant or copied, gravest first.

    What sound models have too is a remark.
    """
    found = list(_not_finite(result))
    health = result.health
    if health is None:
        return found
    found += _missing(health)
    for units in health.units:
        found += _UNITS[units.check](units)
    found += _constant(health)
    found += _rows(health, "zero-rows", ("zero-rows", "zero-columns"))
    found += [one for units in health.units for one in _copied_neurons(units)]
    found += _rows(health, "duplicate-rows", ("duplicate-rows", "duplicate-columns"))
    return sorted(found, key=lambda finding: finding.severity != "warning")


def _not_finite(result: ScanResult) -> Iterator[Finding]:
    """NaN and infinity: where they are, how many, and what has no number because of them."""
    coverage, health = result.coverage, result.health
    met = None if coverage is None else coverage.not_finite
    seen = [] if health is None else [
        one for one in health.faults if one.check in ("nan", "infinity")
    ]  # fmt: skip
    if met is None and not seen:
        return
    parts = [
        f"{one.count:,} of {counted(one.of, 'number')} {'is' if one.count == 1 else 'are'} "
        f"{'NaN' if one.check == 'nan' else 'infinite'}"
        for one in seen
    ]
    listed = seen or ([] if met is None else [met])
    names = list(dict.fromkeys(name for one in listed for name in one.names))
    unlisted = max(one.unlisted for one in listed)
    tensors = met.tensors if met is not None else 0
    tensors = max(tensors, *(one.tensors for one in listed))
    if len(seen) > 1:  # a tensor may hold both
        tensors = max(tensors, len({e.name for one in seen for e in one.examples}))
    where = joined([*names, *([f"{unlisted:,} more"] if unlisted else [])], limit=_SHOWN + 1)
    text = (
        f"{counted(tensors, 'tensor')} {'holds' if tensors == 1 else 'hold'} NaN or infinity: "
        f"{where}."
    )
    if parts:
        text += f" There {joined(parts)}."
    if met is not None:
        text += _lost(result)
    elif result.pairs or result.heads:
        text += " No pair, head group or link reads them."
    plain = (
        f"{counted(tensors, 'tensor')} {'holds' if tensors == 1 else 'hold'} numbers that are not "
        f"finite (NaN or infinity): {where}."
    )
    evidence = tuple(
        f"{shortened(e.name)}: {e.count:,} of {e.of:,} {words}"
        for one in seen for words in ("NaN" if one.check == "nan" else "infinite",)
        for e in one.examples[:_SHOWN]
    )  # fmt: skip
    yield _finding(
        "not-finite", plain, text, evidence,
        target="health" if seen else "coverage",
        means="What the network computes from them is NaN or infinite too.",
        next_step="Look at the step of training, the conversion or the merge that wrote them.",
        not_meaning="It does not mean that other weights are broken too.",
    )  # fmt: skip


def _lost(result: ScanResult) -> str:
    """What has no number because of weights that are not finite."""
    coverage = result.coverage
    met = None if coverage is None else coverage.not_finite
    if coverage is None or met is None:
        return ""
    links = next((one.of for one in coverage.without_numbers if one.what == "links"), 0)
    lost = [
        f"{count:,} of {counted(every, noun, plural)}"
        for count, every, noun, plural in (
            (met.pairs, len(result.pairs), "pair", None),
            (met.head_groups, len(result.heads), "head group", None),
            (met.links, links, "link between heads", "links between heads"),
        )
        if count
    ]
    text = f" It takes the numbers of {joined(lost) or 'nothing'}"
    if met.balanced:
        sharing = counted(met.balanced, "pair that shares", "pairs that share")
        text += f", and the balanced ones of {sharing} a map with one of them"
    return f"{text}."


def _missing(health: Health) -> Iterator[Finding]:
    for one in health.missing:
        text = _missing_text(one)
        yield _finding(
            "missing-layers", text, text, (), certain=one.certain,
            means="What loads a model of this family from it refuses it, or leaves the missing "
            "weights at random.",
            next_step="Look for a shard that was not fetched, or for what saved it.",
            not_meaning="A model that was cut on purpose looks the same.",
        )  # fmt: skip


def _missing_text(one: Missing) -> str:
    stack = shortened(one.stack)
    numbers = f"{'layer' if ',' not in one.layers and '-' not in one.layers else 'layers'} "
    numbers += one.layers
    if one.check == "tensors":
        names = joined(shortened(name) for name in one.names)
        return (
            f"{_capital(numbers)} of {stack!r} lacks {names}, which the other "
            f"{counted(one.present - 1, 'layer')} have."
        )
    why = f"the config says {one.said}" if one.said else "their numbers are left out"
    return (
        f"{_capital(numbers)} of {stack!r} {'is' if one.count == 1 else 'are'} missing: "
        f"{counted(one.present, 'layer')} {'is' if one.present == 1 else 'are'} there, and {why}."
    )


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
    yield _finding(
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
        yield _finding(
            "dead-neurons", f"{amount}.",
            f"{amount}. What lies between the maps is not known, or more reads them, so they are "
            "not called dead.",
            tuple(_neuron_line(one, units) for one in blocks[:_SHOWN]),
            means="The second map reads nothing of them." if name == "no_output" else
            "The first map gives them nothing of its input.",
            next_step="Name the activation in a config (--config), or scan the module itself.",
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


def _copied_neurons(units: UnitFaults) -> Iterator[Finding]:
    blocks = [one for one in units.listed if one.copies]
    if not units.copies or not blocks:
        return
    plain = _amount(units, blocks, "copies", ("is an exact copy", "are exact copies"))
    text = _amount(units, blocks, "copies", ("reads", "read"))
    yield _finding(
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
        yield _finding(
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
            return _capital(f"{layer}'s MLP{expert}")
        return _capital(f"{layer}, cross-attention" if one.attention == "cross" else layer)
    return f"{KIND_WORDS[one.kind]} {shortened(one.name)}"


def _constant(health: Health) -> Iterator[Finding]:
    for one in health.faults:
        phrases = _PHRASES.get(one.check)
        if phrases is None or one.expected:
            continue
        names = joined(_names(one), limit=_SHOWN + 1)
        text = f"{counted(one.tensors, 'matrix', 'matrices')} {phrases[one.tensors > 1]}: {names}."
        yield _finding(
            "constant-tensors", text, text, _examples(one, "entries"),
            means="Such a matrix maps everything to zero, or to multiples of one vector.",
            next_step="See whether it was ever trained, or loaded.",
            not_meaning="Some parts begin as zeros on purpose, and are so until they are trained.",
        )  # fmt: skip


def _rows(
    health: Health, code: FindingCode, checks: tuple[WeightCheck, WeightCheck]
) -> Iterator[Finding]:
    """Rows and columns that are zero, or copies: what is amiss, and what sound models have."""
    for expected in (False, True):
        faults = [one for one in health.faults if one.check in checks and one.expected is expected]
        if not faults:
            continue
        copies = code == "duplicate-rows"
        parts = [counted(one.count, _ROWS[one.check]) for one in faults]
        names = joined(dict.fromkeys(name for one in faults for name in _names(one)), limit=_SHOWN)
        verb = "is" if sum(one.count for one in faults) == 1 else "are"
        said = f"{'a copy' if verb == 'is' else 'copies'} of another" if copies else "all zero"
        text = f"{_capital(joined(parts))} of weights {verb} {said}: {names}."
        if expected:
            text = f"{text[:-1]}. No map is known to be in them."
        yield _finding(
            code, text, text,
            tuple(line for one in faults for line in _examples(one, f"{_ROWS[one.check]}s")),
            certain=not expected,
            means="Equal rows always give equal outputs." if copies else
            "A row of zeros writes nothing; a column of zeros reads nothing.",
            next_step="See whether the model was pruned, padded or widened.",
            not_meaning="It does not mean that the model is worse for it.",
        )  # fmt: skip


def _names(one: WeightFault) -> list[str]:
    return [*one.names, *([f"{one.unlisted:,} more"] if one.unlisted else [])]


def _examples(one: WeightFault, noun: str) -> tuple[str, ...]:
    return tuple(
        f"{shortened(e.name)}: {e.count:,} of {e.of:,} {noun}"
        + (f" ({e.where})" if e.where else "")
        for e in one.examples
    )


def _finding(
    code: FindingCode,
    plain: str,
    text: str,
    evidence: tuple[str, ...],
    *,
    certain: bool = True,
    target: Literal["health", "coverage"] = "health",
    means: str = "",
    next_step: str = "",
    not_meaning: str = "",
) -> Finding:
    return Finding(
        code=code, severity="warning" if certain else "info", topic="scan", plain=plain, text=text,
        evidence=evidence, means=means, next_step=next_step, not_meaning=not_meaning,
        target=f"section/{target}",
    )  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_UNITS = {
    "neurons": _dead_neurons, "unclear-neurons": _unclear_neurons, "heads": _dead_heads,
}  # fmt: skip
