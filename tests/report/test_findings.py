"""Findings say what was planted, with its counts and chance values, and nothing else."""

from __future__ import annotations

import json
import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flagscope.records import (
    HeadCluster,
    HeadPair,
    HeadRecord,
    HeadSpace,
    OverlapTest,
    ScanResult,
    SharedDirection,
)
from flagscope.report import Finding, findings, meaning, pairs_frame, summary_table
from flagscope.report.effect import sizable_ratio
from flagscope.report.members import LISTED
from flagscope.report.payload import details
from flagscope.report.wording import UNCERTAIN, number
from report import synthetic


def _texts(result: ScanResult, **wanted: str) -> list[str]:
    return [
        finding.text
        for finding in findings(result)
        if all(getattr(finding, name) == value for name, value in wanted.items())
    ]


def _quiet(result: ScanResult) -> ScanResult:
    """The same result with nothing beyond chance."""
    p = {"log10_p": -0.3, "commutator_p": 0.5, "gram_correlation_p": 0.5}
    gone = {"near_copies": [], "cluster_tests": [], "clusters": [], "shared_log10_p": -0.3}
    return synthetic.result(
        [pair.model_copy(update=p) for pair in result.pairs],
        [group.model_copy(update={"log10_p": -0.3, **gone}) for group in result.heads],
    )


def test_planted_copies_are_named_with_their_mean_squared_cosine(transformer: ScanResult) -> None:
    texts = _texts(transformer, topic="heads")
    group = next(g for g in transformer.heads if g.layer == 9 and g.space == "v")
    close, related = (pair.mean_squared_cosine for pair in group.near_copies)
    assert close > 0.54 > related > 0.4
    (copies,) = [f for f in findings(transformer) if f.code == "near-copies"]
    assert copies.text.startswith("2 pairs of heads (layers 4 and 9) are near-copies: mean squared")
    close_there = {(9, "v"), (4, "q"), (4, "k")}
    there = [g.overlap_ratio or 0 for g in transformer.heads if (g.layer, g.space) in close_there]
    average = f"{min(there):.2f} to {max(there):.2f}"
    assert copies.text.endswith(
        f"to {close:.3f} where they are nearest (a copy has 1, chance gives 0.0833), median 9.26 "
        f"(8.01 to {12 * close:.1f}) times chance, where all pairs of a layer have {average} on "
        "average; the nearest are heads 0 and 5 of layer 9 in value space."
    )
    assert copies.plain == (
        "2 pairs of heads in 2 layers are near-copies: their directions overlap by more than half."
    )
    assert [item.text.partition(", mean")[0] for item in copies.items] == [
        "layer 9: heads 0 and 5 (value)", "layer 4: heads 2 and 7 (query and key)",
    ]  # fmt: skip
    assert (
        f"Heads 1 and 8 of layer 9 are related, not copies, in value space: mean squared cosine "
        f"{related:.3f} (a copy has 1, chance gives 0.0833), {12 * related:.2f} times chance; 14 "
        "of 32 principal angles are smaller than chance allows."
    ) in texts


def test_heads_that_share_every_direction_a_little_are_no_copies() -> None:
    # The case: mean squared cosine .31, every principal angle beyond chance.
    generator = np.random.default_rng(0)
    group = synthetic.head_group(
        3, "q", count=4, rank=32, d=384, generator=generator, copies=[(0, 1, 32)], angle=1.5
    )
    (pair,) = group.near_copies
    assert pair.mean_squared_cosine == pytest.approx(0.35, abs=0.06)
    (text,) = [t for t in _texts(synthetic.result(heads=[group])) if t.startswith("Heads 0 and 1")]
    assert "are related, not copies, in query space" in text
    assert "all 32 principal angles are smaller than chance allows" in text
    assert "share" not in text


def _close(layer: int, space: HeadSpace, mean: float) -> HeadRecord:
    """Four heads of rank 8 in 64 dimensions, of which two have this mean squared cosine."""
    generator = np.random.default_rng(0)
    group = synthetic.head_group(layer, space, count=4, rank=8, d=64, generator=generator)
    pair = HeadPair(
        heads=(0, 1), overlap_ratio=8 * mean, log10_p=-90, shared=8, rank=8,
        mean_squared_cosine=mean,
    )  # fmt: skip
    return group.model_copy(update={"near_copies": [pair], "shared_log10_p": None})


@pytest.mark.parametrize(("excess", "word"), [(0.001, "near-copies"), (-0.001, "related")])
def test_near_copies_begin_half_of_the_way_from_chance_to_a_copy(excess: float, word: str) -> None:
    group = _close(0, "k", (1 + 8 / 64) / 2 + excess)
    assert word in next(t for t in _texts(synthetic.result(heads=[group])) if "0 and 1" in t)


def test_the_nearest_heads_are_named_and_are_what_a_finding_shows() -> None:
    groups = [_close(0, "q", 0.6), _close(0, "k", 0.9)]
    (told,) = [f for f in findings(synthetic.result(heads=groups)) if "near-copies" in f.text]
    assert "0.600 and 0.900" in told.text
    assert "up to 7.20 times chance" in told.text
    assert (told.items, told.items_unlisted) == ((), 0)
    groups += [_close(layer, "v", 0.6 + layer / 100) for layer in range(1, 8)]
    (told,) = [f for f in findings(synthetic.result(heads=groups)) if "near-copies" in f.text]
    assert told.target == "heads/1/0-1"
    assert "the nearest are heads 0 and 1 of layer 0 in query and key spaces" in told.text
    # Nearest first, each at the space in which it is nearest.
    assert [item.target for item in told.items] == [
        f"heads/{index}/0-1" for index in (1, 8, 7, 6, 5, 4, 3, 2)
    ]
    assert told.items[0].text == (
        "layer 0: heads 0 and 1 (query and key), mean squared cosine 0.600 and 0.900"
    )


def test_a_list_of_members_ends_and_says_how_many_more() -> None:
    groups = [_close(layer, "v", 0.6 + layer / 1000) for layer in range(LISTED + 5)]
    (told,) = [f for f in findings(synthetic.result(heads=groups)) if "near-copies" in f.text]
    assert (len(told.items), told.items_unlisted) == (LISTED, 5)
    assert told.plain.startswith(f"{LISTED + 5} pairs of heads in {LISTED + 5} layers")


@pytest.mark.parametrize(
    ("shared", "rank", "count"),
    [(3, 4, "8 of 8 and 3 of 4"), (3, 8, "8 and 3 of 8"), (8, 8, "all 8")],
)
def test_angles_are_counted_of_those_that_each_space_has(
    shared: int, rank: int, count: str
) -> None:
    first, second = _close(0, "q", 0.9), _close(0, "v", 0.9)
    pair = second.near_copies[0].model_copy(update={"shared": shared, "rank": rank})
    groups = [first, second.model_copy(update={"near_copies": [pair]})]
    (text,) = [t for t in _texts(synthetic.result(heads=groups)) if "near-copies" in t]
    assert text.endswith(f"; {count} principal angles are smaller than chance allows.")


@pytest.mark.parametrize(("shared", "near"), [(7, True), (3, False)])
def test_many_close_pairs_become_one_sentence(shared: int, near: bool) -> None:
    generator = np.random.default_rng(0)
    groups = [
        synthetic.head_group(
            layer, "k", count=4, rank=8, d=64, generator=generator, copies=[(0, 1, shared)]
        )
        for layer in range(10)
    ]
    told = [f for f in findings(synthetic.result(heads=groups)) if "pairs of heads" in f.text]
    assert [f.code for f in told] == ["near-copies" if near else "related-heads"]
    assert told[0].text.startswith("10 pairs of heads (layers 0–9) are ")
    assert len(told[0].items) == 10


def test_a_cluster_of_three_is_one_finding() -> None:
    generator = np.random.default_rng(1)
    group = synthetic.head_group(
        3, "q", count=6, rank=8, d=64, generator=generator, copies=[(0, 2, 8), (2, 4, 6)]
    )
    cluster = HeadCluster(heads=[0, 2, 4], mean_squared_cosine=0.7, log10_p=-50.0)
    texts = _texts(synthetic.result(heads=[group.model_copy(update={"cluster_tests": [cluster]})]))
    told = [text for text in texts if "near-copies" in text or "related" in text]
    assert told == [
        "Heads 0, 2 and 4 of layer 3 form a cluster of near-copies in query space: mean squared "
        "cosine 0.700 over their 3 pairs (a copy has 1, chance gives 0.125), 5.60 times chance."
    ]


def test_shared_keys_have_a_numbering_of_their_own() -> None:
    # Query heads 0 and 1 share key head 0; key heads 0 and 1 are copies of each other.
    generator = np.random.default_rng(2)
    groups = [
        synthetic.head_group(
            0, space, count=count, rank=16, d=64, generator=generator, copies=[(0, 1, 16)]
        )
        for space, count in (("q", 4), ("k", 2), ("v", 2), ("o", 4))
    ]
    texts = _texts(synthetic.result(heads=groups), topic="heads")
    near = sorted((text for text in texts if "near-copies in" in text), reverse=True)
    assert len(near) == 2
    assert near[0].startswith("Query heads 0 and 1 of layer 0 are near-copies in query and output")
    assert near[1].startswith(
        "Key-value heads 0 and 1 of layer 0 (which serve query heads 0–1 and 2–3) are near-copies "
        "in key and value space"
    )
    for text in texts:
        spaces = {word for word in ("query", "output") if f"{word} direction" in text}
        assert not (spaces and "key directions" in text.replace("query", ""))


def test_spaces_that_crowd_in_the_same_layers_are_one_finding(transformer: ScanResult) -> None:
    crowded = [text for text in _texts(transformer) if "crowd into common" in text]
    assert len(crowded) == 1
    assert crowded[0].startswith(
        "In layers 0–10 the heads crowd into common query, key, value and output directions of the "
        "stream: R, the mean overlap of two heads, has the median 1.42 ("
    )


def test_a_finding_on_several_layers_shows_the_surest(transformer: ScanResult) -> None:
    first = transformer.heads[0]
    groups = [
        first.model_copy(update={"layer": layer, "overlap_ratio": 1.5, "log10_p": log10_p})
        for layer, log10_p in enumerate((-20.0, -40.0, -30.0))
    ]
    (told,) = [f for f in findings(synthetic.result(heads=groups)) if "crowd into" in f.text]
    assert told.target == "heads/1"
    assert "surest in layer 1, query space" in told.evidence[1]


def test_heads_that_avoid_each_other_are_told_apart(transformer: ScanResult) -> None:
    group = transformer.heads[0].model_copy(update={"overlap_ratio": 0.887, "z": -22.7})
    assert (
        "In layer 0 the heads keep to separate query directions of the stream: R, the mean overlap "
        "of two heads, is 0.887; chance is 1."
    ) in _texts(synthetic.result(heads=[group]))


def test_the_layer_with_the_most_shared_direction_is_what_a_finding_shows() -> None:
    group = _close(0, "v", 0.2)
    shared = {"near_copies": [], "shared_directions": 1, "shared_threshold": 2.0}
    groups = [
        group.model_copy(update=shared | {"layer": layer, "shared_log10_p": -40.0}
                         | {"shared": [SharedDirection(eigenvalue=value, heads=[])]})
        for layer, value in enumerate((3.0, 3.8, 3.4))
    ]  # fmt: skip
    (told,) = [f for f in findings(synthetic.result(heads=groups)) if "shared by more" in f.text]
    assert told.target == "heads/1"
    assert told.effect == pytest.approx(math.log(1.7))


def test_a_commutator_is_never_told_without_the_defect(transformer: ScanResult) -> None:
    told = [f for f in findings(transformer) if "(C " in f.text]
    assert told
    assert all(any(e.startswith("ν ") for e in finding.evidence) for finding in told)


def test_lost_ranks_are_functional(transformer: ScanResult) -> None:
    lost = [f for f in findings(transformer) if "fewer than maps" in f.text]
    assert [f.text for f in lost] == [
        "Value–output: 1 of 144 pairs keeps 27 of 32 dimensions that are written, to storage "
        "precision: 5 fewer than maps in general position keep."
    ]
    assert lost[0].label == "functional"


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"kernel_intersection": (1, 2, 6)}, "keep 30 of 32 (in the middle) dimensions"),
        ({"intersection_exact": (1, 2, 4)}, "share 4 dimensions or fewer to storage precision, "
         "beyond what dimensions force: 10 of 12 (in the middle) dimensions of the smaller space"),
    ],
)  # fmt: skip
def test_an_exact_statement_on_several_pairs_tells_of_the_one_in_the_middle(
    transformer: ScanResult, numbers: dict[str, tuple[int, ...]], told: str
) -> None:
    one = _quiet(transformer).pairs[1]
    ranks = {"intersection_status": "ok", "effective_rank_write": 12, "effective_rank_read": 20}
    pairs = [
        one.model_copy(update=ranks | {"name": f"p{i}", name: value})
        for name, values in numbers.items()
        for i, value in enumerate(values)
    ]
    (text,) = [t for t in _texts(synthetic.result(pairs)) if "to storage precision" in t]
    assert told in text


@pytest.mark.parametrize(
    ("status", "told"),
    [("ok", True), ("cannot be tested: …", True), ("open: noise", False), (None, False)],
)
def test_an_exact_intersection_needs_its_status(status: str | None, told: bool) -> None:
    quiet = _quiet(synthetic.perceptron())
    update = {"intersection_exact": 2, "intersection_status": status}
    result = synthetic.result([quiet.pairs[0].model_copy(update=update)])
    texts = [text for text in _texts(result) if "to storage precision" in text]
    assert bool(texts) == told
    if told:
        assert "shares 2 dimensions to storage precision, beyond what dimensions force" in texts[0]


def test_gauge_numbers_are_labelled(transformer: ScanResult) -> None:
    by_track = {f.target: f.label for f in findings(transformer) if "(ρ " in f.text}
    assert by_track["track/qk/linear/gl"] == "gauge"
    assert by_track["track/mlp/gelu/permutation"] == "functional"


def test_missing_numbers_and_failures_are_warnings(transformer: ScanResult) -> None:
    warnings = [f for f in findings(transformer) if f.severity == "warning"]
    assert warnings[0].text == "2 results of 348 have missing numbers."
    assert "1 × the write map holds 3 NaN values" in warnings[0].evidence
    assert warnings[1].text == "1 task failed: layer.7.mlp."


def _wide(
    *, kind: str = "mlp", log10_p: float = -30.0, count: int = 1, **changes: Any
) -> ScanResult:
    """Pairs of wide maps, in which everything is significant."""
    one = synthetic.pair(
        "layer.0.mlp", "mlp", d=4096, rank=1024, layer=0, generator=np.random.default_rng(0),
        between="gelu", freedom="permutation",
    )  # fmt: skip
    sure = {"log10_p": log10_p, "commutator_p": 10**log10_p, "gram_correlation_p": 10**log10_p}
    plain = {"overlap_ratio": 1.0, "commutator_ratio": 1.0, "gram_correlation": 0.0}
    ranks = {"effective_rank_write": 700, "effective_rank_read": 700, "kernel_intersection": 0}
    rest = {"overlap_test": None, "kind": kind}
    pair = one.model_copy(update=plain | ranks | sure | rest | changes)
    return synthetic.result([pair.model_copy(update={"name": f"p{i}"}) for i in range(count)])


@pytest.mark.parametrize(
    ("observable", "small", "large"),
    [
        ("gram_correlation", 0.02, 0.11),
        ("gram_correlation", -0.099, -0.1),
        ("overlap_ratio", 1.03, 1.1),
        ("overlap_ratio", 0.91, 0.89),
        ("commutator_ratio", 1.09, 1.11),
        ("commutator_ratio", 0.92, 0.9),
    ],
)
def test_the_significant_but_small_is_a_remark(observable: str, small: float, large: float) -> None:
    (told,) = [f for f in findings(_wide(**{observable: small})) if number(small) in str(f)]
    assert told.severity == "info"
    assert "(|ρ| below 0.1; C, R or the overlap within 10% of 1)" in told.text
    assert number(small) in told.text
    (told,) = [f for f in findings(_wide(**{observable: large})) if number(large) in f.text]
    assert told.severity == "notable"


def test_a_remark_on_rho_does_not_contradict_a_table_that_counts_no_overlap() -> None:
    """The one number that is beyond chance is named, and the table says what it counts."""
    result = _wide(count=1, gram_correlation=0.04)
    (one,) = result.pairs
    quiet = one.model_copy(update={"log10_p": -0.3, "p": 0.5, "p_adjusted": 0.5,
                                   "p_familywise": 1.0})  # fmt: skip
    result = result.model_copy(update={"pairs": [quiet]})
    table = summary_table(result)
    assert table.rows[0][3] == "0 of 1"
    (beyond,) = [line.text for line in table.legend if line.word == "beyond chance"]
    assert beyond.startswith("how many overlaps, to either side ")
    assert beyond.endswith("C and ρ: in the findings")
    (told,) = findings(result)
    assert "ρ of " in told.text
    assert "0.0400 in the one pair" in told.text
    assert "case" not in told.text


def test_a_remark_on_many_small_numbers_names_the_first_and_counts_the_rest() -> None:
    kinds = [_wide(count=2, kind=kind, commutator_ratio=1.05, gram_correlation=0.03)
             for kind in ("qk", "ov", "mlp")]  # fmt: skip
    pairs = [pair.model_copy(update={"name": f"{i}.{pair.name}"})
             for i, result in enumerate(kinds) for pair in result.pairs]  # fmt: skip
    (told,) = [f for f in findings(synthetic.result(pairs)) if "close to it" in f.text]
    assert told.text.count(" of 2") == 0
    assert told.text.count("in all 2 pairs") == 3
    assert told.text.endswith("; and 6 more numbers.")
    assert len(told.evidence) == 9  # C, ρ and the overlap of three kinds


@pytest.mark.parametrize(
    ("observable", "value", "severity"),
    [
        ("commutator_ratio", 1.99, "notable"),
        ("commutator_ratio", 2.01, "strong"),
        ("overlap_ratio", 0.49, "strong"),
        ("gram_correlation", 0.59, "notable"),
        ("gram_correlation", -0.61, "strong"),
    ],
)
def test_strong_begins_at_twice_chance(observable: str, value: float, severity: str) -> None:
    (told,) = [f for f in findings(_wide(**{observable: value})) if f.effect is not None]
    assert told.severity == severity
    expected = math.atanh(abs(value)) if observable == "gram_correlation" else math.log(value)
    assert told.effect == pytest.approx(abs(expected))
    assert told.evidence[0] == f"effect {abs(expected):.2f} = " + (
        f"atanh {abs(value):.3f}" if observable == "gram_correlation" else f"|ln {number(value)}|"
    )


def test_the_larger_of_two_effects_is_that_of_the_finding() -> None:
    (told,) = [f for f in findings(_wide(commutator_ratio=1.2, gram_correlation=0.8)) if f.effect]
    assert "C 1.20" in told.text
    assert told.effect == pytest.approx(math.atanh(0.8))


def test_what_is_gauge_or_concerns_few_is_never_strong() -> None:
    gauge = _wide(overlap_ratio=3.0, freedom="gl")
    assert [f.severity for f in findings(gauge) if f.effect] == ["notable"]
    result = _wide(overlap_ratio=3.0, count=5)
    pairs = [p.model_copy(update={"log10_p": -0.1}) if i else p for i, p in enumerate(result.pairs)]
    told = [f for f in findings(synthetic.result(pairs)) if f.effect]
    assert [(f.severity, "1 of 5 pairs" in f.text) for f in told] == [("notable", True)]


def test_a_claim_rests_on_the_family_wise_p_and_a_count_on_the_adjusted_one() -> None:
    # 120 tests, a third of them at 10^-3: all are counted, none remains after Bonferroni.
    result = _wide(overlap_ratio=2.5, log10_p=-3.0, count=40)
    quiet = {"commutator_p": 0.9, "gram_correlation_p": 0.9}
    result = synthetic.result([pair.model_copy(update=quiet) for pair in result.pairs])
    assert all((p.p_adjusted or 1) <= 0.05 < (p.p_familywise or 0) for p in result.pairs)
    (told,) = [f for f in findings(result) if f.effect]
    assert told.severity == "info"
    assert "in all 40 pairs (overlap ratio 2.50; chance is 1)" in told.text
    assert told.text.endswith(UNCERTAIN)
    # One certain test among them bears the sentence, and the rest are counted in it.
    sure = [result.pairs[0].model_copy(update={"log10_p": -9.0}), *result.pairs[1:]]
    (told,) = [f for f in findings(synthetic.result(sure)) if f.effect]
    assert told.severity == "strong"
    assert "in all 40 pairs" in told.text
    assert UNCERTAIN not in told.text


def test_one_certain_layer_bears_the_sentence_of_all_that_are_counted() -> None:
    first = synthetic.transformer().heads[0].model_copy(update={"overlap_ratio": 2.5, "z": 9.0})
    groups = [
        first.model_copy(update={"layer": layer, "log10_p": -3.0, "near_copies": []}
                         | {"cluster_tests": [], "shared_directions": 0, "shared_log10_p": None})
        for layer in range(30)
    ]  # fmt: skip
    result = synthetic.result(heads=groups)
    assert all((g.p_adjusted or 1) <= 0.05 < (g.p_familywise or 0) for g in result.heads)
    (told,) = [f for f in findings(result) if "crowd into" in f.text]
    assert (told.severity, told.text.endswith(UNCERTAIN)) == ("info", True)
    sure = groups[0].model_copy(update={"log10_p": -9.0})
    (told,) = [
        f for f in findings(synthetic.result(heads=[sure, *groups[1:]])) if "crowd into" in f.text
    ]
    assert (told.severity, told.text.endswith(UNCERTAIN)) == ("strong", False)


def test_heads_that_share_nothing_at_all_keep_apart() -> None:
    group = synthetic.transformer().heads[0].model_copy(update={"overlap_ratio": 0.0, "z": -30.0})
    assert any("keep to separate" in text for text in _texts(synthetic.result(heads=[group])))


def test_strong_and_notable_findings_need_a_certain_test(any_result: ScanResult) -> None:
    """Without family-wise p-values only exact statements are claims."""
    gone = {"p_familywise": None}
    of_pair = gone | {"commutator_p_familywise": None, "gram_correlation_p_familywise": None}
    heads = [
        group.model_copy(
            update=gone
            | {"shared_p_familywise": None}
            | {
                name: [one.model_copy(update=gone) for one in getattr(group, name)]
                for name in ("near_copies", "cluster_tests")
            }
        )
        for group in any_result.heads
    ]
    result = any_result.model_copy(
        update={
            "pairs": [pair.model_copy(update=of_pair) for pair in any_result.pairs],
            "heads": heads,
            "edges": [
                edge.model_copy(update=gone | {"composition_p_familywise": None})
                for edge in any_result.edges
            ],
        }
    )
    claims = [f for f in findings(result) if f.severity in ("strong", "notable")]
    assert all("to storage precision" in f.text for f in claims)


def test_a_file_of_schema_1_claims_nothing_and_says_why(any_result: ScanResult) -> None:
    old = any_result.model_copy(update={"schema_": "flagscope.scan/1"})
    told = [f for f in findings(old) if f.severity != "warning"]
    assert [f.severity for f in told] == ["info"]
    assert "not held at one error rate: scan again" in told[0].text


def test_findings_of_a_severity_stand_in_the_order_of_an_effect_in_their_text(
    any_result: ScanResult,
) -> None:
    for severity, gauge in product(("strong", "notable", "info"), (False, True)):
        every = [f for f in findings(any_result) if (f.label == "gauge") == gauge]
        told = [f for f in every if f.severity == severity and f.effect is not None]
        effects = [f.effect for f in told]
        assert effects == sorted(effects, reverse=True)
        for finding in told:
            match = re.fullmatch(
                r"effect (\S+) = (?:\|ln (\S+)\||atanh (\S+))", finding.evidence[0]
            )
            assert match is not None
            shown = float((match[2] or match[3]).replace(",", ""))
            size = math.atanh(shown) if match[3] else abs(math.log(shown))
            assert size == pytest.approx(finding.effect, rel=0.01, abs=0.002)
            if "storage precision" not in finding.text:
                assert (match[2] or match[3]) in finding.text


def test_every_claim_says_what_it_means_and_what_not(any_result: ScanResult) -> None:
    for finding in findings(any_result):
        if finding.effect is not None:
            assert finding.means.endswith((".", "(laboratory: lm-checkpoints)."))
            assert finding.next_step.endswith(".")
            assert finding.not_meaning.startswith("It does not mean ")


def test_what_to_check_next_is_said_for_the_command_line_and_for_python(
    any_result: ScanResult,
) -> None:
    calls = {"--html": "Report.to_html", "`flagscope compare ": "`flagscope.compare`",
             "`flagscope heads ": "`flagscope.head_overlaps`"}  # fmt: skip
    for finding in findings(any_result):
        for command, call in calls.items():
            assert (command in finding.next_step) == (call in finding.next_step)


def test_verdicts_name_pages_of_the_laboratory() -> None:
    folder = Path(__file__).parents[2] / "docs" / "lab"
    text = Path(meaning.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r"laboratory: ([\w-]+)", text))
    assert {"pruning", "lm-checkpoints", "ridge-rate", "obstruction", "invariance"} <= named
    assert all((folder / f"{name}.md").is_file() for name in named)


def _bulk(*, own: float | None = None, **changes: Any) -> ScanResult:
    """One pair in which no direction stands out; the test is strongest at 64 and 32."""
    test = OverlapTest(
        rank_write=64,
        rank_read=32,
        overlap_ratio=1.6,
        log10_p=-30,
        log10_p_profile=-25,
        dominant_log10_p=own,
    )
    gone = {"overlap_ratio": None, "overlap_z": None, "effective_rank_write": 0}
    words = {"dominant": "nothing stands out of the bulk: write", "overlap_test": test}
    return _wide(**(gone | words | {"commutator_p": 0.9, "gram_correlation_p": 0.9} | changes))


@pytest.mark.parametrize("spread", [False, True])
def test_a_finding_on_several_pairs_names_the_surest(spread: bool) -> None:
    result = _bulk(count=3) if spread else _wide(overlap_ratio=2.5, count=3)
    pairs = [
        pair.model_copy(update={"log10_p": log10_p})
        for pair, log10_p in zip(result.pairs, (-20.0, -40.0, -30.0), strict=True)
    ]
    (told,) = [f for f in findings(synthetic.result(pairs)) if f.effect]
    assert told.evidence[1].startswith("surest: p1, ")
    assert told.text.endswith("times chance, in p1.") == spread


def test_diffuse_alignment_is_told_at_the_ranks_of_the_test() -> None:
    (told,) = findings(_bulk())
    assert told.text == (
        "MLP (gelu): the leading directions of W_in and W_out coincide more than by chance in the "
        "one pair (overlap ratio 1.60; chance is 1); no single direction stands out, yet the "
        "spaces are aligned: strongest at the leading 64 and 32 directions, 1.60 times chance, in "
        "p0."
    )
    assert told.severity == "notable"
    assert told.effect == pytest.approx(math.log(1.6))
    assert findings(_bulk(log10_p=-0.2))[0].text == "Nothing in this scan lies beyond chance."


def test_a_dominant_overlap_is_told_only_where_it_holds_by_itself() -> None:
    update = {"overlap_ratio": 0.02, "overlap_z": -1.5, "effective_rank_write": 3, "dominant": "ok"}
    # Of three tests the overlap at the dominant ranks needs 10^-2 to hold for the whole report.
    (told,) = findings(_bulk(**update, own=-1.5))
    assert "the directions that stand out do not show it, yet the spaces are aligned" in told.text
    assert "(overlap ratio 1.60; chance is 1)" in told.text
    (told,) = findings(_bulk(**update, own=-5.0))
    assert told.text.endswith(
        "avoid each other in the one pair (overlap ratio 0.0200; chance is 1)."
    )


def test_the_floor_of_an_overlap_follows_the_room_that_the_ranks_leave() -> None:
    # Ranks of 30 in R^32: the ratio ends at 32/30, and a tenth of the way there is 1.0067.
    assert sizable_ratio(1.008, 30, 30, 32)
    assert not sizable_ratio(1.006, 30, 30, 32)
    # 28 of 30 dimensions are forced to meet, so that the ratio begins at 28·32/900 = 0.9956.
    assert sizable_ratio(0.999, 30, 30, 32)
    assert not sizable_ratio(0.9997, 30, 30, 32)


def test_routes_of_one_stream_are_told_in_one_sentence(stream: ScanResult) -> None:
    told = [f for f in findings(stream) if f.text.startswith("Residual stream: the leading")]
    assert len(told) == 1
    assert "in 57 of 62 pairs" in told[0].text
    assert told[0].evidence[-1] == (
        "attention to MLP 18 of 22, attention to attention 15 of 15, MLP to attention 15 of 15 "
        "and MLP to MLP 9 of 10"
    )


def test_nothing_beyond_chance_says_so() -> None:
    quiet = _quiet(synthetic.resnet())
    assert findings(quiet) == [
        Finding(
            code="nothing",
            severity="info",
            topic="scan",
            plain="Nothing in this scan lies beyond chance.",
            text="Nothing in this scan lies beyond chance.",
        )
    ]


def test_an_empty_scan_says_so() -> None:
    texts = _texts(synthetic.empty())
    assert "No pair of adjacent maps was found, so there was nothing to measure." in texts
    assert "2 matrices could not be placed." in texts


def test_severities_are_in_order(any_result: ScanResult) -> None:
    order = ["strong", "notable", "warning", "info"]
    places = [(f.label == "gauge", order.index(f.severity)) for f in findings(any_result)]
    assert places
    assert places == sorted(places)


def _unknown_mlp(**changes: Any) -> ScanResult:
    """Pairs of an MLP that is a file: what lies between its layers is not known."""
    pairs = [
        synthetic.pair(
            f"{n}-{n + 2}", "sequential", d=64, rank=32, layer=n, between="unknown", freedom="none",
            generator=np.random.default_rng(n), details=False,
        ).model_copy(update={
            "log10_p": 0.0, "commutator_p": 1e-40, "gram_correlation_p": 1e-40,
            "overlap_ratio": 1.0, "gram_correlation": 0.5, "commutator_ratio": 1.0,
        })
        for n in range(3)
    ]  # fmt: skip
    pairs[0] = pairs[0].model_copy(update={"commutator_ratio": 9.0})
    return synthetic.result(pairs)


def test_what_most_pairs_show_leads_the_technical_sentence_and_its_meaning() -> None:
    (told,) = [f for f in findings(_unknown_mlp()) if f.code == "aligned"]
    assert "tends to read strongly" in told.plain
    assert "weighs strongly what" in told.text.split(" and ")[0]
    assert told.text.index("ρ") < told.text.index("perpendicular")
    assert told.means.startswith("The second map reads strongly")
    assert "cosine of 0.1" not in told.not_meaning


def test_a_freedom_that_is_not_known_is_not_none() -> None:
    result = _unknown_mlp()
    frame = pairs_frame(result)
    assert set(frame["freedom"]) == {"unknown"}
    assert not [name for name in frame if name.startswith("label_")]
    assert '"none"' not in json.dumps(details(result))
    legend = {line.word: line.text for line in summary_table(result).legend}
    assert legend["not known"].startswith("whether numbers of ")


def test_rows_that_depend_on_the_basis_are_marked(transformer: ScanResult) -> None:
    (line,) = [line for line in summary_table(transformer).legend if line.word == "gauge"]
    assert line.text.startswith("overlap, C, ρ and ν of Query–key")
    assert line.text.endswith("they depend on the choice of basis")
