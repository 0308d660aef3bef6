"""The cells of the page's two big tables: a number with its null, its balanced value, its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagscope.observables import COLUMNS, EXPLANATIONS, UNTESTABLE, Band, Observable, null_band
from flagscope.records import HeadRecord, Label, PairRecord, ScanResult
from flagscope.report.dominant import dominance_words, stands_out
from flagscope.report.error_rate import ErrorRate
from flagscope.report.freedom import freedom_word, labels_of
from flagscope.report.tracks import Track
from flagscope.report.wording import (
    NONE_STANDS,
    SPACE_WORDS,
    adjusted_p,
    euclidean,
    joined,
    number,
    p_value,
)

# [sort key, text, chance, balanced, "F" | "G" | ""]: short, since there are thousands.
Cell = list[Any]


@dataclass(frozen=True)
class Column:
    """A column: key, heading, explanation shown on hovering the heading, and full name."""

    key: str
    title: str
    hint: str = ""
    name: str = ""


_LETTERS: Mapping[Label | None, str] = {"functional": "F", "gauge": "G", None: ""}

PAIR_COLUMNS = (
    Column("name", "Pair", "Name of the two maps"),
    Column("kind", "Kind", "Kind of pair, and what lies between the two maps"),
    Column("layer", "Layer"),
    Column(
        "ranks",
        "Ranks in d",
        "Dimensions of the dominant write and read spaces in Rᵈ; numerical ranks and participation "
        "ratios below",
    ),
    *(
        Column(entry.field, words.symbol, words.definition, f"{words.title}, {words.symbol}")
        for entry in COLUMNS
        for words in (EXPLANATIONS[entry.field],)
    ),
    Column(
        "product",
        "eff. rank of M",
        "Participation ratio and numerical rank of M = W2 W1",
        "Effective rank of W2 W1",
    ),
    Column(
        "p_adjusted",
        "p adjusted",
        "Of the overlap, for all tests of the report: Benjamini-Hochberg; family-wise (Bonferroni) "
        "and Benjamini-Yekutieli below",
    ),
    Column(
        "overlap_test",
        "surest at",
        "Leading dimensions at which the combined test is strongest, and the overlap ratio there",
        "Test strongest at",
    ),
    Column("freedom", "Freedom", "Changes of the shared space that leave the function as it is"),
    Column("status", "Status"),
)

HEAD_COLUMNS = (
    Column("layer", "Layer"),
    Column("space", "Space"),
    Column("count", "Heads", "Number of heads, their rank, the dimension of the stream"),
    Column("overlap_ratio", "R", EXPLANATIONS["head_overlap_ratio"].definition),
    Column("z", "z", "Of R, against random heads"),
    Column(
        "p_adjusted",
        "p adjusted",
        "Of R, for all tests of the report: Benjamini-Hochberg; family-wise (Bonferroni) and "
        "Benjamini-Yekutieli below",
    ),
    Column("max_pair_ratio", "most alike", "Largest overlap of two heads, in units of chance"),
    Column("min_pair_ratio", "least alike", "Smallest overlap of two heads, in units of chance"),
    Column("shared_directions", "shared", EXPLANATIONS["shared_directions"].definition),
    Column("near_copies", "closest", "Closest heads, and their mean squared cosine: 1 for a copy"),
    Column("status", "Status"),
)


def chance_text(found: Band | None) -> str:
    """A null in a few characters: ``"1 [0.86, 1.16]"``.

    Examples
    --------
    >>> chance_text(Band(0.8612, 1.0, 1.16)), chance_text(Band(0, 0, 0)), chance_text(None)
    ('1 [0.861, 1.16]', '0', '')
    """
    if found is None:
        return ""
    if found.low == found.high:
        return number(found.mean)
    return f"{number(found.mean)} [{number(found.low)}, {number(found.high)}]"


def pair_cells(result: ScanResult, pair: PairRecord, track: Track) -> list[Cell]:
    """One row of the table of pairs, in the order of ``PAIR_COLUMNS``."""
    labels, rate = labels_of(result, pair), ErrorRate.of(result)
    effective = (pair.effective_rank_write, pair.effective_rank_read)
    ranks = " × ".join(number(rank) for rank in effective)
    below = f"{number(pair.rank_write)} × {number(pair.rank_read)} numerical"
    if pair.participation_write is not None and pair.participation_read is not None:
        ratios = (pair.participation_write, pair.participation_read)
        below += f", {' × '.join(number(ratio) for ratio in ratios)} participation"
    gauge = "" if pair.balanced is None else pair.balanced.gauge
    if pair.balanced is not None and pair.balanced.status != "ok":
        gauge += f" ({pair.balanced.status})"
    return [
        [pair.name, pair.name, "", "", ""],
        [track.title, track.title, "", "", ""],
        [pair.layer, number(pair.layer), "" if pair.head is None else f"head {pair.head}", "", ""],
        [pair.effective_rank_write, f"{ranks} in {pair.d:,}", below, "", ""],
        *(_observable(pair, entry, labels, rate) for entry in COLUMNS),
        _product(pair, labels),
        _p_cell(pair),
        _strongest(pair),
        [freedom_word(pair), freedom_word(pair), _folded(pair.folded), gauge, ""],
        [pair.status, pair.status, "", "", ""],
    ]


def _observable(
    pair: PairRecord, entry: Observable, labels: Mapping[str, Label], rate: ErrorRate
) -> Cell:
    value = getattr(pair, entry.field)
    if entry.counts_meetings and value is None:
        status = pair.intersection_status or "ok"
        if status.startswith(UNTESTABLE):
            return [None, UNTESTABLE, status.removeprefix(UNTESTABLE).strip(": "), "", ""]
        if status != "ok":
            return [None, "open", status.removeprefix("open").strip(": "), "", ""]
    if entry.dominant and not stands_out(pair):
        return [None, NONE_STANDS, dominance_words(pair, rate), "", ""]
    text = number(value)
    z = None if entry.z is None else getattr(pair, entry.z)
    if z is not None:
        text += f" (z {number(z)})"
    error = None if entry.error is None else getattr(pair, entry.error)
    if error is not None:
        text += f" ± {number(error, 2)}"
    balanced = _balanced(pair, entry, rate)
    label = _LETTERS[labels.get(entry.field)] if value is not None else ""
    chance = chance_text(null_band(pair, entry.field))
    adjusted = None if entry.p_adjusted is None else getattr(pair, entry.p_adjusted)
    if adjusted is not None:
        chance = f"{chance}; p adjusted {adjusted_p(adjusted)}".removeprefix("; ")
    return [value, text, chance, balanced, label]


def _balanced(pair: PairRecord, entry: Observable, rate: ErrorRate) -> str:
    if pair.balanced is None or pair.balanced.status != "ok":
        return ""
    value = getattr(pair.balanced, entry.field, None)
    if value is None and pair.freedom == "gl" and entry.balanced_linear is not None:
        return f"{entry.balanced_linear}, always"
    if value is None:
        return ""
    z = None if entry.z is None else getattr(pair.balanced, entry.z)
    # Schema 1 held balanced numbers against the null of others, which does not fit them.
    return number(value) + (f" (z {number(z)})" if z is not None and rate.held else "")


def _product(pair: PairRecord, labels: Mapping[str, Label]) -> Cell:
    if pair.functional is None or pair.functional.product_effective_rank is None:
        return [None, number(None), "", "", ""]
    value = pair.functional.product_effective_rank
    rank = pair.functional.product_rank
    text = number(value) if rank is None else f"{number(value)} of {rank}"
    return [
        value,
        text,
        "",
        "",
        _LETTERS[labels.get("product_effective_rank")],
    ]


def _p_cell(record: PairRecord | HeadRecord) -> Cell:
    value = record.p_adjusted
    if value is None:
        return [None, number(None), "", "", ""]
    others = (("family-wise", record.p_familywise), ("BY", record.p_adjusted_dependent))
    below = "; ".join(f"{name} {adjusted_p(other)}" for name, other in others if other is not None)
    return [record.log10_p, adjusted_p(value), below, "", ""]


def _strongest(pair: PairRecord) -> Cell:
    test = pair.overlap_test
    if test is None:
        return [None, number(None), "", "", ""]
    text = f"{test.rank_write:,} × {test.rank_read:,}: {number(test.overlap_ratio)}"
    below = f"raw {p_value(test.log10_p)}"
    if test.log10_p_profile is not None:
        below += f"; without profiles of scales {p_value(test.log10_p_profile)}"
    return [test.overlap_ratio, text, below, "", ""]


def _folded(names: list[str]) -> str:
    return f"folded: {joined(names, limit=3)}" if names else ""


def head_cells(group: HeadRecord) -> list[Cell]:
    """One row of the table of head groups, in the order of ``HEAD_COLUMNS``."""
    ratio = group.overlap_ratio
    sd = group.overlap_ratio_sd
    chance = "1" if sd is None else f"1 ± {number(sd, 2)}"
    pairs = group.count * (group.count - 1) // 2
    label = "" if ratio is None else "F"
    level = group.shared_threshold
    shared = [group.shared_directions, number(group.shared_directions)]
    above = "0" if level is None else f"0 above {number(level)}"
    if group.shared_p_adjusted is not None:
        above += f"; p adjusted {adjusted_p(group.shared_p_adjusted)}"
    copies = group.near_copies
    names = joined(
        f"{i}-{j} ({number(pair.mean_squared_cosine, 2)})"
        for pair in copies[:3]
        for i, j in (pair.heads,)
    )
    copy = "" if group.rank is None else f"{number(group.rank / group.d, 2)}; a copy has 1"
    nearest = copies[0].mean_squared_cosine if copies else 0
    return [
        [group.layer, number(group.layer), group.stack, "", ""],
        [group.space, SPACE_WORDS[group.space], group.attention or "", "", ""],
        [
            group.count,
            f"{group.count} of rank {number(group.rank)}",
            f"in {euclidean(group.d)}, {pairs:,} pairs",
            "",
            "",
        ],
        [ratio, number(ratio), chance, "", label],
        [group.z, number(group.z), "0 ± 1", "", ""],
        _p_cell(group),
        [group.max_pair_ratio, number(group.max_pair_ratio), "1", "", label],
        [group.min_pair_ratio, number(group.min_pair_ratio), "1", "", label],
        [*shared, above, "", "F" if group.shared_directions is not None else ""],
        [nearest, names or "none", copy, "", label],
        [group.status, group.status, _folded(group.folded), "", ""],
    ]
