"""Findings say what was planted, with its counts and chance values, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from flagscope.diagnose.records import ScanResult
from flagscope.report import Finding, findings
from flagscope.report.effect import sizable
from flagscope.report.wording import number
from report import synthetic


def _texts(result: ScanResult, **wanted: str) -> list[str]:
    return [
        finding.text
        for finding in findings(result)
        if all(getattr(finding, name) == value for name, value in wanted.items())
    ]


def _quiet(result: ScanResult) -> ScanResult:
    """The same result with nothing beyond chance."""
    pairs = [
        pair.model_copy(update={"p_adjusted": 0.5, "commutator_p": 0.5, "gram_correlation_p": 0.5})
        for pair in result.pairs
    ]
    heads = [
        group.model_copy(
            update={"p_adjusted": 0.5, "shared_directions": 0, "near_copies": [], "clusters": []}
        )
        for group in result.heads
    ]
    return result.model_copy(update={"pairs": pairs, "heads": heads})


def test_planted_copies_are_named_with_counts_and_chance(transformer: ScanResult) -> None:
    texts = _texts(transformer, topic="heads")
    assert (
        "Heads 2 and 7 of layer 4 share 21 of 32 query and 21 of 32 key directions; chance is 0."
        in texts
    )
    assert "Heads 0 and 5 of layer 9 share 28 of 32 value directions; chance is 0." in texts
    assert "Heads 1 and 8 of layer 9 share 14 of 32 value directions; chance is 0." in texts


def test_the_closest_copies_come_first(transformer: ScanResult) -> None:
    assert findings(transformer)[0].text.startswith("Heads 0 and 5 of layer 9")


def test_many_close_pairs_become_one_sentence() -> None:
    generator = np.random.default_rng(0)
    groups = [
        synthetic.head_group(
            layer, "k", count=4, rank=8, d=64, generator=generator, copies=[(0, 1, 2 + layer % 4)]
        )
        for layer in range(10)
    ]
    texts = _texts(synthetic.result(heads=groups), topic="heads")
    assert sum("share" in text and text.startswith("Heads") for text in texts) == 6
    assert any(text.startswith("In at least 4 more cases") for text in texts)


def test_a_cluster_of_three_is_one_finding() -> None:
    generator = np.random.default_rng(1)
    group = synthetic.head_group(
        3, "q", count=6, rank=8, d=64, generator=generator, copies=[(0, 2, 8), (2, 4, 6)]
    )
    group = group.model_copy(update={"clusters": [[0, 2, 4]]})
    texts = _texts(synthetic.result(heads=[group]))
    assert (
        "Heads 0, 2 and 4 of layer 3 form a cluster whose close pairs share at least "
        "6 of 8 query directions; chance is 0."
    ) in texts


def test_spaces_that_crowd_in_the_same_layers_are_one_finding(transformer: ScanResult) -> None:
    crowded = [text for text in _texts(transformer) if "crowd into common" in text]
    assert len(crowded) == 1
    assert crowded[0].startswith(
        "In all 12 layers the heads crowd into common query, key, value and output directions"
    )


def test_heads_that_avoid_each_other_are_told_apart(transformer: ScanResult) -> None:
    group = transformer.heads[0].model_copy(update={"overlap_ratio": 0.887, "z": -22.7})
    texts = _texts(transformer.model_copy(update={"heads": [group]}))
    assert (
        "In layer 0 the heads keep to separate query directions: R is 0.887; chance is 1." in texts
    )


def test_a_commutator_is_never_told_without_the_defect(transformer: ScanResult) -> None:
    told = [f for f in findings(transformer) if "(C " in f.text]
    assert told
    assert all(any(e.startswith("ν ") for e in finding.evidence) for finding in told)


def test_lost_ranks_are_functional(transformer: ScanResult) -> None:
    lost = [f for f in findings(transformer) if "than are read" in f.text]
    assert [f.text for f in lost] == [
        "Value–output: 1 of 144 pairs writes 5 more dimensions than are read; chance is 0 more."
    ]
    assert lost[0].label == "functional"


def test_gauge_numbers_are_labelled(transformer: ScanResult) -> None:
    by_track = {f.target: f.label for f in findings(transformer) if "(ρ " in f.text}
    assert by_track["track/qk/linear/gl"] == "gauge"
    assert by_track["track/mlp/gelu/permutation"] == "functional"


def test_missing_numbers_and_failures_are_warnings(transformer: ScanResult) -> None:
    warnings = [f for f in findings(transformer) if f.severity == "warning"]
    assert warnings[0].text == "2 results of 348 have missing numbers."
    assert "1 × the write map holds 3 NaN values" in warnings[0].evidence
    assert warnings[1].text == "1 task failed: layer.7.mlp."


def _wide(**changes: float) -> ScanResult:
    """One pair of wide maps, in which everything is significant."""
    one = synthetic.pair(
        "layer.0.mlp", "mlp", d=4096, rank=1024, layer=0, generator=np.random.default_rng(0),
        between="gelu", freedom="permutation",
    )  # fmt: skip
    sure = {"p_adjusted": 1e-30, "commutator_p": 1e-30, "gram_correlation_p": 1e-30}
    plain = {"overlap_ratio": 1.0, "commutator_ratio": 1.0, "gram_correlation": 0.0}
    ranks = {"effective_rank_write": 700, "effective_rank_read": 700, "kernel_intersection": 0}
    return synthetic.result([one.model_copy(update=plain | ranks | sure | changes)])


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
    assert "|ρ| below 0.1, or C or the overlap within 10%" in told.text
    (told,) = [f for f in findings(_wide(**{observable: large})) if number(large) in f.text]
    assert told.severity == "strong"


def test_the_floor_of_an_overlap_follows_the_room_that_the_ranks_leave() -> None:
    # Ranks of 30 in R^32: the ratio ends at 32/30, and a tenth of the way there is 1.0067.
    ranks = {"d": 32, "effective_rank_write": 30, "effective_rank_read": 30}
    pair = _wide(overlap_ratio=1.008).pairs[0].model_copy(update=ranks)
    assert sizable(pair, "overlap_ratio")
    assert not sizable(pair.model_copy(update={"overlap_ratio": 1.006}), "overlap_ratio")
    # 28 of 30 dimensions are forced to meet, so that the ratio begins at 28·32/900 = 0.9956.
    assert sizable(pair.model_copy(update={"overlap_ratio": 0.999}), "overlap_ratio")
    assert not sizable(pair.model_copy(update={"overlap_ratio": 0.9997}), "overlap_ratio")


def test_routes_of_one_stream_are_told_in_one_sentence(stream: ScanResult) -> None:
    told = [f for f in findings(stream) if f.text.startswith("Residual stream: the shared space")]
    assert len(told) == 1
    assert "in 57 of 62 pairs" in told[0].text
    assert told[0].evidence[-1] == (
        "attention to MLP 18 of 22, attention to attention 15 of 15, MLP to attention 15 of 15 "
        "and MLP to MLP 9 of 10"
    )


def test_nothing_beyond_chance_says_so(transformer: ScanResult) -> None:
    quiet = _quiet(synthetic.resnet())
    assert findings(quiet) == [
        Finding(severity="info", topic="scan", text="Nothing in this scan lies beyond chance.")
    ]


def test_an_empty_scan_says_so() -> None:
    texts = _texts(synthetic.empty())
    assert "No pair of adjacent maps was found, so there was nothing to measure." in texts
    assert "2 matrices could not be placed." in texts


def test_severities_are_in_order(any_result: ScanResult) -> None:
    order = ["strong", "notable", "warning", "info"]
    places = [order.index(finding.severity) for finding in findings(any_result)]
    assert places
    assert places == sorted(places)
