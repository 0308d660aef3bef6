"""Changes of the diagnostics of two scans."""

import pytest
import torch

from comparison.change.networks import BERT, bert, graphed
from flagscope import scan
from flagscope.comparison.change.changed_maps import changed_maps
from flagscope.comparison.change.diagnostics import _copies
from flagscope.records import HeadPair

Q, V = (
    "encoder.layer.0.attention.self.query.weight",
    "encoder.layer.0.attention.self.value.weight",
)


def with_scans(a, b):
    (of_a, graph_a), (of_b, graph_b) = graphed(a, BERT), graphed(b, BERT)
    scans = tuple(scan(side, config=BERT, workers=1).result for side in (a, b))
    return changed_maps(of_a, of_b, graph_a, graph_b, scans=scans)


@pytest.fixture(scope="module")
def aligned():
    """The queries of one head turned onto its keys, and one head made a copy of another."""
    a = bert()
    b = {name: value.clone() for name, value in a.items()}
    b[Q][:8] = a["encoder.layer.0.attention.self.key.weight"][:8]
    b[V][8:16] = b[V][:8]
    return with_scans(a, b)


def test_a_planted_alignment_is_flagged(aligned):
    found = {(c.pair, c.observable): c for c in aligned.diagnostics}
    change = found["layer.0.head.0.qk", "gram_correlation"]
    assert change.value_b == pytest.approx(1)
    assert change.difference == change.value_b - change.value_a
    assert 0 < change.noise < 1e-6
    assert "upper estimate" in change.status
    # Layer 1 did not move.
    assert {change.layer for change in aligned.diagnostics} == {0}
    assert aligned.diagnostics_compared > len(aligned.diagnostics)


def test_a_copied_head_is_a_near_copy_of_one_side(aligned):
    group = next(g for g in aligned.heads if (g.layer, g.space) == (0, "v"))
    assert group.near_copies_b == [(0, 1)]
    assert group.near_copies_a == []
    assert group.difference > 0
    mirrored = aligned.mirrored()
    other = next(g for g in mirrored.heads if (g.layer, g.space) == (0, "v"))
    assert (other.near_copies_a, other.difference) == ([(0, 1)], -group.difference)


def test_related_heads_are_no_near_copies():
    close = {"rank": 8, "shared": 8, "log10_p": -40.0, "p_adjusted": 1e-30}
    pairs = [
        HeadPair(heads=(0, 1), mean_squared_cosine=0.4, overlap_ratio=4.0, **close),
        HeadPair(heads=(0, 2), mean_squared_cosine=0.6, overlap_ratio=6.0, **close),
        HeadPair(heads=(1, 2), mean_squared_cosine=0.6, overlap_ratio=6.0, **{**close,
                 "p_adjusted": 0.5}),
    ]  # fmt: skip
    assert _copies(pairs) == {(0, 2)}


def test_rounding_flags_nothing():
    a = bert(dtype=torch.float32)
    record = with_scans(a, {name: value.bfloat16() for name, value in a.items()})
    assert record.diagnostics == []
    assert record.diagnostics_compared > 0
    assert not any("diagnostics" in note for note in record.notes)
