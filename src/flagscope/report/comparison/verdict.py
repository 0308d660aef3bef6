"""The verdict of a comparison: one line, what it rests on, and what stays open."""

from __future__ import annotations

import math
from collections import Counter

from flagscope.records.comparison import (
    SIDE_A,
    SIDE_B,
    ChangeRecord,
    ContentRecord,
    MixtureFit,
    TensorContent,
    Verdict,
    VerdictCode,
)
from flagscope.records.comparison.content_tests import is_rearranged, is_tested, same
from flagscope.records.comparison.zeroed import (
    SideKey,
    not_finite,
    only_zeroed,
    zeroed,
    zeroed_words,
)
from flagscope.report.comparison.whereabouts import OF_BOTH, relative_change, where_moved
from flagscope.report.wording import counted, joined, number, percent, ranges

_FEW = 4
_ROUNDED = 1e-3  # a coefficient is known no better than that where types are short
_NEARLY = 0.9  # of the parameters: where these are the same, the others are named instead

_OF_RELATION: dict[str, VerdictCode] = {
    "identical": "identical",
    "reencoded": "re-encoded",
    "few_entries": "few-entries",
    "rearranged": "rearranged",
    "shares_parts": "shares-parts",
    "layers_changed": "layers-changed",
    "merge": "merge",
    "related": "fine-tuned",
    "unrelated": "unrelated",
    "different_architectures": "different-architectures",
    "unclear": "unclear",
}


def verdict_of_models(content: ContentRecord, change: ChangeRecord | None) -> Verdict:
    """The verdict on two models."""
    code = _OF_RELATION[content.relation]
    zeros = _zeroed_line(content, change)
    if zeros is not None:
        code = "zeroed"
    open_ends = [*content.cannot_tell]
    if code in ("fine-tuned", "zeroed"):
        open_ends.insert(
            0,
            "which of the two was made of the other, and by what (fine-tuning, pruning, noise, an "
            "average, a merge with a third model): weights alone do not say it",
        )
    return Verdict(
        code=code,
        text=_broken(content) + (zeros or _line(content, change)),
        evidence=(*content.evidence, *_moved(change)),
        cannot_tell=(*open_ends, *(change.notes if change and change.maps else ())),
    )


def _broken(content: ContentRecord) -> str:
    """Which sides hold NaN or infinity, before all else."""
    sides: tuple[tuple[SideKey, str], ...] = (("a", SIDE_A), ("b", SIDE_B))
    holding = [
        f"{name} ({counted(tensors, 'tensor')})"
        for side, name in sides for _, tensors in (not_finite(content, side),) if tensors
    ]  # fmt: skip
    return f"NaN or infinity in {joined(holding)}; " if holding else ""


def _zeroed_line(content: ContentRecord, change: ChangeRecord | None) -> str | None:
    """The line where rows, columns or entries are zero on one side alone, and that says most."""
    if content.relation not in ("related", "shares_parts", "unclear"):
        return None
    side = only_zeroed(content)
    if side is not None:
        name = SIDE_A if side == "a" else SIDE_B
        found = zeroed(content, side)
        lines = f" ({zeroed_words(found)})" if found.rows or found.columns else ""
        return (
            f"the same but for {counted(found.entries, 'entry', 'entries')} that "
            f"{'is' if found.entries == 1 else 'are'} zero in {name}{lines}"
        )
    words = [
        f"{zeroed_words(found)} "
        f"{'is' if found.rows + found.columns == 1 else 'are'} zero in {name} alone"
        for name, found in ((SIDE_A, zeroed(content, "a")), (SIDE_B, zeroed(content, "b")))
        if found.beyond_tables
    ]
    if content.relation != "related" or not words:
        return None
    return f"{_line(content, change)}; {joined(words)}"


def _line(content: ContentRecord, change: ChangeRecord | None) -> str:
    relation = content.relation
    if relation == "identical":
        renamed = any(tensor.name_a != tensor.name_b for tensor in content.tensors)
        alone = content.unpaired_a.tensors + content.unpaired_b.tensors
        return (
            "identical: all values are equal"
            + (", under other names" if renamed else "")
            + (f"; {counted(alone, 'buffer')} only one side has" if alone else "")
        )
    if relation == "reencoded":
        return f"the same weights up to rounding ({_types(content)})"
    if relation == "few_entries":
        entries, tensors = _outside(content)
        where = counted(tensors, "tensor")
        return f"the same but for {entries} in {where}, which rounding does not explain"
    if relation == "rearranged":
        return f"the same values, rearranged: {_rearranged(content)}"
    if relation == "related":
        return f"fine-tuned: one was trained from the other, or both from one model{_far(change)}"
    if relation == "shares_parts":
        return _shared(content)
    if relation == "layers_changed":
        return f"layers were cut, repeated or put in another order: {_layers(content)}"
    if relation == "merge":
        return f"a merge of the given parents: {_mixture(content)}"
    if relation == "unrelated":
        return "unrelated, by these tests"
    if relation == "different_architectures":
        return "different architectures: most tensors have no counterpart"
    tested = any(is_tested(tensor) for tensor in content.tensors)
    return "cannot tell: " + (
        "the tests contradict each other or rest on too few entries"
        if tested
        else "no matrix of both sides could be tested"
    )


def _types(content: ContentRecord) -> str:
    """Which side was rounded to which type, or the types where no rule says it."""
    rules: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for tensor in content.tensors:
        if tensor.content != "rounding" or tensor.rounding is None:
            continue
        # In the order of their names, which is that of neither side.
        types[joined(sorted({tensor.type_a, tensor.type_b}))] += 1
        rounded = tensor.rounding.rounded
        if rounded is None:
            continue
        one, other, kind = (
            (SIDE_A, SIDE_B, tensor.type_a) if rounded == "a" else (SIDE_B, SIDE_A, tensor.type_b)
        )
        # Of one type on both sides, it was rounded to another in between.
        way = tensor.rounding.rule if tensor.type_a == tensor.type_b else f"as {kind}"
        rules[f"{one} is {other} {way}"] += 1
    words = joined((words for words, _ in (rules or types).most_common()), limit=_FEW)
    return words or "the same integers in types of other widths"


def _outside(content: ContentRecord) -> tuple[str, int]:
    """Entries that rounding does not explain, in words, and how many tensors hold them."""
    odd = [tensor for tensor in content.tensors if tensor.content == "few_entries"]
    roundings = [tensor.rounding for tensor in odd if tensor.rounding is not None]
    entries = sum(rounding.outside for rounding in roundings)
    scales = sum(rounding.groups_outside for rounding in roundings)
    words = [counted(entries, "entry", "entries")] if entries or not scales else []
    words += [counted(scales, "scale")] if scales else []
    return joined(words), len(odd)


def _far(change: ChangeRecord | None) -> str:
    moved = None if change is None else relative_change(change)
    if change is None or moved is None or not change.moved:
        return ""
    where = where_moved(change)
    return f"; the measured maps moved by {percent(moved, 2)} {OF_BOTH}" + (
        f", most in {where}" if where else ""
    )


def _moved(change: ChangeRecord | None) -> tuple[str, ...]:
    if change is None:
        return ()
    if not change.maps:
        return ("no map is known on both sides, and none was measured",)
    left = len(change.maps) - change.moved - change.within_rounding - change.identical
    return (
        f"{counted(change.moved, 'map')} moved further than rounding explains, "
        f"{change.within_rounding:,} less than that, {change.identical:,} not at all"
        + (f"; {left:,} could not be measured" if left else ""),
    )


def _rearranged(content: ContentRecord) -> str:
    """How many tensors are scaled, turned or have their rows in another order."""
    counts: Counter[str] = Counter()
    factors: list[float] = []
    for tensor in content.tensors:
        difference = tensor.difference
        if difference is None or not is_rearranged(tensor):
            continue
        if difference.transposed:
            counts["transposed"] += 1
        elif difference.rows_permuted:
            counts["with rows in another order"] += 1
        else:
            factors.append(difference.scale_b or 1.0)
    words = [f"{counted(count, 'tensor')} {way}" for way, count in counts.most_common()]
    if factors:
        low, high = (number(end, 4) for end in (min(factors), max(factors)))
        by = low if low == high else f"factors from {low} to {high}"
        words.append(f"{counted(len(factors), 'tensor')} of {SIDE_B} as in {SIDE_A}, times {by}")
    left = len(content.tensors) - sum(counts.values()) - len(factors)
    return joined(words, limit=_FEW) + (f"; {left:,} the same as they stand" if left else "")


def _shared(content: ContentRecord) -> str:
    """Which parts are the same, or which are not where these are few."""
    alike: list[TensorContent] = []
    other: list[TensorContent] = []
    for tensor in content.tensors:
        (alike if same(tensor) else other).append(tensor)
    longer = [tensor for tensor in alike if math.prod(tensor.shape_a) != math.prod(tensor.shape_b)]
    alone = content.unpaired_a.parameters + content.unpaired_b.parameters
    entries = sum(map(_size, alike))
    if entries >= _NEARLY * (entries + sum(map(_size, other)) + alone):
        names = [joined((tensor.name_a for tensor in other), limit=_FEW)] if other else []
        alone = content.unpaired_a.tensors + content.unpaired_b.tensors
        names += [f"rows that one side adds to {tensor.name_a}" for tensor in longer[:_FEW]]
        names += [f"{counted(alone, 'tensor')} that only one side has"] if alone else []
        types = _types(content)
        way = f" up to rounding ({types})" if any(t.content == "rounding" for t in alike) else ""
        return f"the same{way} but for {joined(names)}"
    return f"they share only these parts: {_parts(alike, other)}"


def _parts(alike: list[TensorContent], other: list[TensorContent]) -> str:
    """Parts of the model in words; those that hold other tensors too are said to."""
    differing = {_place(tensor) for tensor in other}
    whole: dict[str, set[int]] = {}
    partly: dict[str, set[int]] = {}
    for tensor in alike:
        part, layer = _place(tensor)
        layers = (partly if (part, layer) in differing else whole).setdefault(part, set())
        layers |= set() if layer is None else {layer}
    words = []
    for group, end in ((whole, ""), (partly, " in part")):
        for part, layers in group.items():
            words.append((f"layers {ranges(sorted(layers))}" if layers else part) + end)
    return joined(words)


def _place(tensor: TensorContent) -> tuple[str, int | None]:
    """A tensor's part of the model, and its layer in a block."""
    return tensor.part, tensor.layer_a if tensor.part == "block" else None


def _size(tensor: TensorContent) -> int:
    return max(math.prod(tensor.shape_a), math.prod(tensor.shape_b))


def _layers(content: ContentRecord) -> str:
    changed = next((layers for layers in content.layers if layers.changed), None)
    if changed is None:
        return "see the map of layers"
    # Of the side with fewer layers all are found again, so it is the one to say.
    if changed.layers_b <= changed.layers_a:
        side, other, of = SIDE_B, SIDE_A, changed.of_b
    else:
        side, other, of = SIDE_A, SIDE_B, changed.of_a
    likes = _runs([match.like for match in of])
    there = max(changed.layers_a, changed.layers_b)
    return f"{side}'s {len(of)} layers are {other}'s {likes} ({other} has {there})"


def _runs(likes: list[int | None]) -> str:
    """Layers in order, runs of consecutive ones as ranges.

    Examples
    --------
    >>> _runs([0, 1, 2, 8, 9, None, 3])
    '0–2, 8–9, new, 3'
    """
    runs: list[list[int] | None] = []
    for like in likes:
        last = runs[-1] if runs else None
        if like is not None and last and like == last[-1] + 1:
            last.append(like)
        else:
            runs.append(None if like is None else [like])
    words = []
    for run in runs:
        if run is None:
            words.append("new")
        else:
            words.append(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}")
    return ", ".join(words)


def _mixture(content: ContentRecord) -> str:
    """The combination that says most: one set of coefficients, and of the parents alone."""
    fits = [
        (side, other, fit)
        for side, other, mixture in (
            (SIDE_A, SIDE_B, content.mixture_a),
            (SIDE_B, SIDE_A, content.mixture_b),
        )
        if mixture is not None
        for fit in (mixture.without_base, mixture.with_base)
        if fit.coefficients is not None and (fit.agree or fit.each)
    ]
    if not fits:
        return "not a linear one; see the mixture"
    side, other, fit = min(
        fits, key=lambda entry: (not entry[2].agree, _extrapolated(entry[2]), entry[2].base)
    )
    if not fit.agree:
        return f"{side} is linear in them, with other coefficients in each tensor"
    weights = fit.coefficients or ()
    terms = [(weight, f"parent {at}") for at, weight in enumerate(weights, 1)]
    if fit.base:
        terms.insert(0, (1 - (fit.total or 0.0), other))
    words = "".join(
        f" {'−' if weight < 0 else '+'} {number(abs(weight))} · {of}" for weight, of in terms
    )
    return f"{side} = {words.removeprefix(' + ').lstrip()}"


def _extrapolated(fit: MixtureFit) -> bool:
    """Whether a coefficient is negative, so that another side may be the mean of the others."""
    weights = [*(fit.coefficients or ()), *([1 - (fit.total or 0.0)] if fit.base else [])]
    return min(weights, default=0.0) < -_ROUNDED
