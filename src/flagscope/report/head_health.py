"""Findings on heads whose weights are zero, and on heads that hold the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flagscope.records import EqualHeads, FaultyBlock, Finding, HeadSpace, UnitFaults, ZeroHeads
from flagscope.report.faulty_blocks import SHOWN, amount, block_words, index_words
from flagscope.report.health_finding import health_finding
from flagscope.report.wording import READ_WORDS, SPACE_WORDS, begun, counted, joined

# Blocks, and heads of one, that the sentence itself names.
_NAMED = 2
_NOT_MEANING = "It does not say who did it: pruning sets heads to zero on purpose."
_NEXT = "See whether heads were pruned by zeros, or a part was not loaded."


def dead_heads(units: UnitFaults) -> Iterator[Finding]:
    """Findings on heads without output or value weights, and on those that do not choose."""
    cases: tuple[tuple[str, tuple[HeadSpace, ...]], ...] = (
        ("dead", ("o", "v")), ("no_query", ("q",)), ("no_key", ("k",))
    )  # fmt: skip
    for name, parts in cases:
        blocks = [one for one in units.listed if getattr(one, name)]
        if not getattr(units, name) or not blocks:
            continue
        zero = [one for block in blocks for one in block.zero if one.part in parts]
        whole = sum(getattr(block, name) for block in blocks) == getattr(units, name)
        verbs = _VERBS[name]
        if name != "dead" and whole and all(one.even == one.count for one in zero):
            verbs = ("attends evenly", "attend evenly")
        who = _who(units, blocks, name, parts, verbs)
        cause = _cause(parts, zero, getattr(units, name))
        effect, means = _effect(name, zero, known=whole)
        yield health_finding(
            "dead-heads",
            f"{who}: {cause}.",
            f"{who}: {cause}. {begun(effect)}." if effect else f"{who}: {cause}.",
            tuple(_line(one, units, parts) for one in blocks[:SHOWN]),
            means=means,
            next_step=_NEXT,
            not_meaning=_NOT_MEANING,
        )


_VERBS = {
    "dead": ("is dead", "are dead"),
    "no_query": ("attends without regard to the token that it attends from",
                 "attend without regard to the token that they attend from"),
    "no_key": ("attends without regard to what stands where it looks",
               "attend without regard to what stands where they look"),
}  # fmt: skip


def _who(
    units: UnitFaults,
    blocks: Sequence[FaultyBlock],
    name: str,
    parts: Sequence[HeadSpace],
    verbs: tuple[str, str],
) -> str:
    """The heads by their numbers where they lie in few blocks, else how many they are."""
    count = getattr(units, name)
    complete = sum(getattr(block, name) for block in blocks) == count
    if complete and len(blocks) <= _NAMED and all(block.zero for block in blocks):
        places = [_place(block, units, parts) for block in blocks]
        places[1:] = [place[:1].lower() + place[1:] for place in places[1:]]
        return f"{joined(places)} {verbs[count > 1]}"
    return amount(units, blocks, name, verbs)


def _place(block: FaultyBlock, units: UnitFaults, parts: Sequence[HeadSpace]) -> str:
    """A block's heads, as in "Layer 2, head 3"."""
    # What is dead is listed first; else the heads of the one part.
    where = block.where
    if parts[0] not in ("o", "v"):
        where = next(one.heads for one in block.zero if one.part in parts)
    return f"{block_words(block, units)}, {index_words('head', where)}"


def _cause(parts: Sequence[HeadSpace], zero: Sequence[ZeroHeads], count: int) -> str:
    """Which weights are zero, of how many heads where it is not of all."""
    counts = {part: sum(one.count for one in zero if one.part == part) for part in parts}
    some = {part: number for part, number in counts.items() if number}
    whole = [SPACE_WORDS[part] for part, number in some.items() if number == count]
    owner = "its" if count == 1 else "their"
    if len(whole) == len(some):
        return f"{owner} {joined(whole)} weights are all zero" if whole else "weights are zero"
    words = [f"{SPACE_WORDS[part]} weights of {number:,}" for part, number in some.items()]
    return f"{joined(words)} are all zero"


def _effect(name: str, zero: Sequence[ZeroHeads], *, known: bool) -> tuple[str, str]:
    """What follows, as far as biases are known; and what it means in general."""
    if name == "dead":
        values = [one for one in zero if one.part == "v"]
        means = "What such a head adds to the stream is zero, or a multiple of one fixed vector."
        if not known:
            return "", means
        if all(one.biased == 0 for one in values):
            return "such a head contributes nothing", means
        biased = [one.biased for one in values]
        if None in biased:
            return (
                "such a head contributes nothing, or by a bias of its values, which was not looked "
                "at, a multiple of one fixed vector", means,
            )  # fmt: skip
        return (
            f"{counted(sum(number or 0 for number in biased), 'head')} with value weights of zero "
            "has a bias there: it contributes at most a multiple of one fixed vector", means,
        )  # fmt: skip
    whose = "query" if name == "no_query" else "key"
    means = (
        "Where such a head attends depends at most on the position of the token that it attends "
        "from, and on what stands at the others."
        if name == "no_query"
        else "Where such a head attends depends at most on positions, and on the token that it "
        "attends from."
    )
    if known and all(one.even == one.count for one in zero):
        return "all scores of such a head are zero", means
    if any(one.biased is None for one in zero):
        return f"a bias of the {READ_WORDS[zero[0].part]} was not looked at", means
    if any(one.biased for one in zero):
        return f"a {whose} bias is there, and may still prefer some tokens", means
    return "a term of the position may still prefer some tokens", means


def _line(block: FaultyBlock, units: UnitFaults, parts: Sequence[HeadSpace]) -> str:
    """A block's heads without weights, part by part, with the key-value heads that they share."""
    words: list[str] = []
    for one in sorted(block.zero, key=lambda one: one.part not in parts):
        shared = f" ({index_words('key-value head', one.key_values)})" if one.key_values else ""
        bias = ""
        if one.part != "o":
            bias = (
                "; a bias was not looked at" if one.biased is None
                else f"; {one.biased:,} with a bias" if one.biased else ", no bias"
            )  # fmt: skip
        words.append(
            f"{SPACE_WORDS[one.part]} weights of {index_words('head', one.heads)}{shared} are zero"
            f"{bias}"
        )
    return f"{block_words(block, units)}: {'; '.join(words)} ({counted(block.units, 'head')})"


def equal_head_findings(units: UnitFaults) -> Iterator[Finding]:
    """Findings on heads that hold the same weights: in all parts, then in some alone."""
    for name in ("copies", "copied_parts"):
        blocks = [one for one in units.listed if getattr(one, name)]
        count = getattr(units, name)
        if not count or not blocks:
            continue
        whole = name == "copies"
        groups = [(block, one) for block in blocks for one in block.equal if one.whole is whole]
        only_read = not whole and all({*one.parts} <= {"k", "v"} for _, one in groups)
        if len(groups) == 1 and _group_count(groups) == count:
            block, one = groups[0]
            sentence = f"{block_words(block, units)}: {_group_words(one)}"
        elif whole:
            said = ("holds the same weights as another", "hold the same weights as another")
            sentence = amount(units, blocks, name, said)
        else:
            parts = [part for part in ("q", "k", "v", "o")
                     if any(part in one.parts for _, one in groups)]  # fmt: skip
            weights = joined(SPACE_WORDS[part] for part in parts)
            said = (f"has {weights} weights of another", f"have {weights} weights of another")
            sentence = amount(units, blocks, name, said)
        yield health_finding(
            "duplicate-heads",
            f"{sentence}.",
            f"{sentence}, bit for bit, biases included.",
            tuple(f"{block_words(block, units)}: {_group_words(one)}"
                  for block, one in groups[:SHOWN]),
            certain=not only_read,
            means="Such heads attend and write the same: together they do what one with output "
            "weights of that many times would do." if whole else
            "What such heads compute of these parts is always the same.",
            next_step="See whether heads were copied to widen the model, or key-value heads were "
            "written out for each head.",
            not_meaning="It does not mean that the model is worse for it.",
        )  # fmt: skip


def _group_count(groups: Sequence[tuple[FaultyBlock, EqualHeads]]) -> int:
    return sum(one.count - 1 for _, one in groups)


def _group_words(one: EqualHeads) -> str:
    who = index_words("key-value head" if one.key_values else "head", one.heads)
    if one.whole:
        return f"{who} hold the same weights"
    return f"{who} have the same {joined(SPACE_WORDS[part] for part in one.parts)} weights"
