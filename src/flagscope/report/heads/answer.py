"""The answer to which heads of a model are near-copies, with what limits it, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flagscope.observables import NEAR_COPY
from flagscope.records import HeadOverlap, HeadOverlapsRecord, HeadSpace, HeadSpaceRecord
from flagscope.report.wording import SPACE_WORDS, counted, joined, measured, percent

_NAMED = 6  # clusters and pairs of near-copies that the answer names; the tables have the rest
_LABELS = 12  # heads of a cluster that are named

NOT_MEANING = (
    "It does not mean that one of two near-copies is cheap to prune: whether heads with a "
    "near-copy cost less to remove stayed open, and removing both of two overlapping heads costs "
    "more than the sum (laboratory: pruning). Nor that they do the same: two heads can use the "
    "same directions and match them differently."
)
_UNLIKE = "What heads do on data; queries of one head against keys, values or outputs of another"
_APART = "; heads of different stacks, or of self- and cross-attention"


@dataclass(frozen=True)
class HeadsAnswer:
    """What a comparison of all heads says, in the order in which it is read.

    Parameters
    ----------
    headline
        The near-copies in one sentence, or that there are none.
    lines
        Which ones; or the closest pair, where none are.
    definition
        What a near-copy is, with the threshold of these heads; empty where nothing was compared.
    caveats
        What limits the numbers, such as a basis that changes from layer to layer.
    not_compared
        What was left out.
    not_meaning
        What near-copies do not mean; empty where there are none.
    """

    headline: str
    lines: tuple[str, ...]
    definition: str
    caveats: tuple[str, ...]
    not_compared: tuple[str, ...]
    not_meaning: str


def heads_answer(record: HeadOverlapsRecord) -> HeadsAnswer:
    """Which heads are near-copies, or why none are.

    Parameters
    ----------
    record
        A comparison of all heads of a model.

    Returns
    -------
    HeadsAnswer
        Of a model without heads the sentence that says so.
    """
    tested = [space for space in record.spaces if space.closest is not None]
    near = [space for space in tested if space.near_copies_total]
    if near:
        headline, lines = _found(record, near)
    elif tested:
        headline, lines = _none(record, tested)
    else:
        headline, lines = _nothing(record), ()
    return HeadsAnswer(
        headline=headline,
        lines=lines,
        definition=_definition(tested) if tested else "",
        caveats=tuple(_caveats(record, tested)),
        not_compared=tuple(_not_compared(record)),
        not_meaning=NOT_MEANING if near else "",
    )


def space_name(record: HeadOverlapsRecord, space: HeadSpaceRecord) -> str:
    """A space in words, with its stack and kind of attention where there are several.

    Examples
    --------
    Such as "query space", "cross-attention key space of the decoder".
    """
    words = f"{SPACE_WORDS[space.space]} space"
    if space.attention == "cross":
        words = f"cross-attention {words}"
    several = len({other.stack for other in record.spaces}) > 1
    return f"{words} of the {space.stack}" if several else words


def _found(
    record: HeadOverlapsRecord, near: Sequence[HeadSpaceRecord]
) -> tuple[str, tuple[str, ...]]:
    total = sum(space.near_copies_total for space in near)
    where = joined(f"{space.near_copies_total:,} in {space_name(record, space)}" for space in near)
    pairs = counted(total, "pair of near-copies", "pairs of near-copies")
    among = f"{pairs} among {counted(_heads(record), 'head')}"
    one = f"{among}, in {space_name(record, near[0])}."
    headline = one if len(near) == 1 else f"{among}: {where}."
    lines = [_pair_line(record, sharing) for sharing in _merged(near)]
    clusters = [_cluster_line(record, space, cluster) for space, cluster in _clusters(near)]
    named = [*clusters[:_NAMED], *lines[: max(1, _NAMED - len(clusters))]]
    if len(named) < len(clusters) + len(lines):
        named.append("The tables and the JSON list more of them.")
    return headline, tuple(named)


def _merged(
    near: Sequence[HeadSpaceRecord],
) -> list[list[tuple[HeadSpaceRecord, HeadOverlap]]]:
    """Pairs of near-copies, those of the same heads in several spaces together; closest first."""
    merged: dict[tuple[object, ...], list[tuple[HeadSpaceRecord, HeadOverlap]]] = {}
    for space in near:
        for pair in space.near_copies:
            # Key-value heads have numbers of their own where there are fewer of them.
            where = (space.stack, space.attention, len(space.heads))
            heads = (_bare(pair.first), _bare(pair.second))
            merged.setdefault((*where, *heads), []).append((space, pair))

    def place(some: list[tuple[HeadSpaceRecord, HeadOverlap]]) -> tuple[int, float]:
        return -len(some), -round(max(pair.closeness for _, pair in some), 6)

    return sorted(merged.values(), key=place)


def _pair_line(
    record: HeadOverlapsRecord, some: Sequence[tuple[HeadSpaceRecord, HeadOverlap]]
) -> str:
    space, pair = some[0]
    spaces = joined(space_name(record, one) for one, _ in some)
    means = joined(_shown(one.mean_squared_cosine) for _, one in some)
    chances = joined(dict.fromkeys(_shown(one.chance) for _, one in some))
    heads = _both(record, space, pair)
    return (
        f"{heads}, {spaces}: mean squared cosine {means} (a copy has 1, chance gives {chances})"
        f"{_apart(pair)}."
    )


def _clusters(
    near: Sequence[HeadSpaceRecord],
) -> list[tuple[HeadSpaceRecord, Sequence[str]]]:
    """Clusters of more than two, the largest first: of two a line says more."""
    several = [
        (space, cluster) for space in near for cluster in space.clusters or [] if len(cluster) > 2
    ]
    return sorted(several, key=lambda entry: -len(entry[1]))


def _cluster_line(
    record: HeadOverlapsRecord, space: HeadSpaceRecord, cluster: Sequence[str]
) -> str:
    names = joined((_bare(label) for label in cluster), limit=_LABELS)
    return (
        f"A cluster of {len(cluster)} {_kind(record, space)}heads, {space_name(record, space)}: "
        f"{names}."
    )


def _none(
    record: HeadOverlapsRecord, tested: Sequence[HeadSpaceRecord]
) -> tuple[str, tuple[str, ...]]:
    every = [space_name(record, space) for space in tested]
    names = joined(name.removesuffix(" space") for name in every)
    where = every[0] if len(tested) == 1 else f"any of {len(tested)} spaces ({names})"
    headline = f"No two of {counted(_heads(record), 'head')} are near-copies in {where}."
    space, pair = max(
        ((space, space.closest) for space in tested if space.closest is not None),
        key=lambda entry: entry[1].closeness,
    )
    heads = _both(record, space, pair)
    way = f"{percent(max(0.0, pair.closeness))} of the way from chance to a copy"
    return headline, (
        f"The closest are {heads} in {space_name(record, space)}: mean squared cosine "
        f"{_shown(pair.mean_squared_cosine)} (a copy has 1, chance gives {_shown(pair.chance)}), "
        f"{way}{_apart(pair)}.",
    )


def _apart(pair: HeadOverlap) -> str:
    """What an overlap across layers rests on, where these have no common basis."""
    if pair.common_basis:
        return ""
    known = pair.common_basis is False
    return f"; these layers have no common basis{'' if known else ' that is known'}"


def basis_words(pair: HeadOverlap) -> str:
    """Whether two heads meet in one basis, for a table.

    Examples
    --------
    "common", "not common" across layers of a post-norm stack, or "not known".
    """
    if pair.common_basis is None:
        return "not known"
    return "common" if pair.common_basis else "not common"


def _nothing(record: HeadOverlapsRecord) -> str:
    """Why nothing was compared."""
    asked = joined(SPACE_WORDS[space] for space in record.asked)
    if record.spaces:
        reasons = dict.fromkeys(space.status for space in record.spaces)
        return f"No two heads could be compared: {'; '.join(reasons)}."
    wanted = "" if len(record.asked) == len(SPACE_WORDS) else f" with a map in {asked} space"
    return f"No attention heads{wanted} were found in this model, so there is nothing to compare."


def _definition(tested: Sequence[HeadSpaceRecord]) -> str:
    chances = [space.closest.chance for space in tested if space.closest is not None]
    ends = sorted({_shown(chance + NEAR_COPY * (1 - chance)) for chance in chances})
    here = ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}, depending on the space"
    return (
        "Near-copies are heads whose mean squared cosine is at least half of the way from chance "
        f"to 1 (here {here}), and beyond chance at 1 % among all pairs of their space."
    )


def _caveats(record: HeadOverlapsRecord, tested: Sequence[HeadSpaceRecord]) -> Iterable[str]:
    for basis in ("post-norm", "unknown"):
        stacks = list(dict.fromkeys(space.stack for space in tested if space.basis == basis))
        if not stacks:
            continue
        place = joined(stacks)
        if basis == "post-norm":
            yield (
                f"Post-norm ({place}): a norm behind every sum changes the basis of the stream "
                "from layer to layer, so numbers between heads of different layers depend on that "
                "basis. Those within a layer do not."
            )
        else:
            yield (
                f"The norms of the stream are not known ({place}): numbers between heads of "
                "different layers hold if no norm changes its basis between them."
            )
    if record.fold_norms == "none" and any(space.basis == "shared" for space in tested):
        yield (
            "Gains of norms are not folded in: what heads of different layers read is compared as "
            "stored, behind different gains."
        )
    if any(space.clusters is None for space in tested):
        yield "There are too many heads to look for clusters: pairs alone were looked for."


def _not_compared(record: HeadOverlapsRecord) -> Iterable[str]:
    for space in record.spaces:
        lost = [head for head in space.heads if not head.rank]
        if lost:
            reasons: dict[str, list[str]] = {}
            for head in lost:
                reasons.setdefault(head.status, []).append(_bare(head.label))
            why = "; ".join(f"{joined(names)} ({reason})" for reason, names in reasons.items())
            yield (
                f"{len(lost)} of {len(space.heads)} heads in {space_name(record, space)} cannot be "
                f"measured: {why}."
            )
    known = {space.space for space in record.spaces}
    if record.spaces:
        absent = [SPACE_WORDS[space] for space in record.asked if space not in known]
        if absent:
            yield f"This model has no heads that are known in {joined(absent)} space."
        left = [word for space, word in SPACE_WORDS.items() if space not in record.asked]
        if left:
            yield f"The {joined(left)} space{'s were' if len(left) > 1 else ' was'} not asked for."
    if record.unplaced:
        matrices = counted(record.unplaced, "matrix", "matrices")
        yield (
            f"{matrices} of the checkpoint could not be placed; heads may be among them "
            "(`flagscope inspect` lists them)."
        )
    if record.spaces:
        several = len({(space.stack, space.attention) for space in record.spaces}) > 1
        yield f"{_UNLIKE}{_APART if several else ''}."


def _heads(record: HeadOverlapsRecord) -> int:
    """Heads that have a number somewhere: those of each stack's most numerous space."""
    most: dict[tuple[str, str | None], int] = {}
    for space in record.spaces:
        where = (space.stack, space.attention)
        most[where] = max(most.get(where, 0), space.heads_measured)
    return sum(most.values())


def _kind(record: HeadOverlapsRecord, space: HeadSpaceRecord) -> str:
    """Which heads a space has, where key-value heads are fewer than query heads."""
    counts: dict[HeadSpace, int] = {
        other.space: len(other.heads)
        for other in record.spaces
        if (other.stack, other.attention) == (space.stack, space.attention)
    }
    most = max(counts.values())
    return "key-value " if counts[space.space] < most else ""


def _both(record: HeadOverlapsRecord, space: HeadSpaceRecord, pair: HeadOverlap) -> str:
    kind = _kind(record, space)
    return f"{kind and f'{kind}heads '}{_bare(pair.first)} and {_bare(pair.second)}"


def _bare(label: str) -> str:
    """A head's name without its space: L4H7 of L4H7.q and of L4H7.cross.q."""
    return label.partition(".")[0]


def _shown(value: float) -> str:
    return measured(value)
