"""Frames hold every pair and head group; the summary fits a terminal."""

from __future__ import annotations

import math

import pytest

from flagscope.diagnose.records import ScanResult
from flagscope.report import edges_frame, heads_frame, pairs_frame, summary_table
from flagscope.report.chance import discoveries, null_band
from flagscope.report.tracks import tracks
from report import synthetic


def test_pairs_frame_has_one_row_a_pair(any_result: ScanResult) -> None:
    frame = pairs_frame(any_result)
    assert frame["name"].tolist() == [pair.name for pair in any_result.pairs]
    assert {"commutator_ratio", "p_adjusted", "status", "freedom"} <= set(frame.columns)


def test_pairs_frame_keeps_values_and_types(transformer: ScanResult) -> None:
    frame = pairs_frame(transformer).set_index("name")
    pair = transformer.pairs[0]
    row = frame.loc[pair.name]
    assert row["commutator_ratio"] == pair.commutator_ratio
    assert row["write_tensor"] == pair.write.tensor
    assert row["label_commutator_ratio"] == "gauge"
    assert row["label_kernel_intersection"] == "functional"
    assert frame["layer"].dtype == "Int64"
    assert frame["overlap_z"].dtype == "float64"


def test_undefined_numbers_are_missing_beside_their_status(transformer: ScanResult) -> None:
    row = pairs_frame(transformer).iloc[5]
    assert math.isnan(row["commutator_ratio"])
    assert row["status"] == "the write map holds 3 NaN values"


def test_heads_frame_has_one_row_a_group(any_result: ScanResult) -> None:
    frame = heads_frame(any_result)
    assert len(frame) == len(any_result.heads)
    assert {"layer", "space", "overlap_ratio", "near_copies_count"} <= set(frame.columns)


def test_summary_has_a_row_a_track_and_space(any_result: ScanResult) -> None:
    table = summary_table(any_result)
    spaces = {(group.stack, group.space) for group in any_result.heads}
    links = 1 if any_result.edges else 0
    assert len(table.rows) == len(spaces) + len(tracks(any_result)) + links
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_summary_counts_what_is_undefined(transformer: ScanResult) -> None:
    rows = {row[0]: row for row in summary_table(transformer).rows}
    assert rows["Value–output"][-1] == "2"
    assert rows["MLP (gelu)"][1] == "12"


def test_the_ends_of_a_range_have_two_digits_also_where_they_are_whole() -> None:
    one = synthetic.perceptron().pairs[0]
    values = [1.0, 2.0, 2.41]
    pairs = [
        one.model_copy(update={"name": str(value), "overlap_ratio": value}) for value in values
    ]
    rows = summary_table(synthetic.result(pairs)).rows
    assert rows[0][2] == "2.00 [1.0, 2.5]"


def test_links_are_one_row_that_says_how_many_were_tested(stream: ScanResult) -> None:
    table = summary_table(stream)
    row = next(row for row in table.rows if row[0] == "Links between heads")
    assert row[1:4] == ("640", "to 6.00", "65+ of 640")
    assert "the 200 furthest from chance are kept" in table.caption
    every = stream.model_copy(update={"edge_tests": len(stream.edges)})
    table = summary_table(every)
    assert next(row for row in table.rows if row[0] == "Links between heads")[3] == "65 of 200"
    assert "kept" not in table.caption


def test_edges_frame_has_the_names_of_the_json(stream: ScanResult) -> None:
    frame = edges_frame(stream)
    assert set(stream.edges[0].model_dump(by_alias=True)) <= set(frame.columns)
    assert frame["from"].tolist() == [edge.source for edge in stream.edges]
    assert frame["composition_z"].tolist() == [edge.composition_z for edge in stream.edges]
    level = frame["p_adjusted"] <= 0.05
    assert frame["beyond_chance_overlap"].tolist() == level.tolist()
    assert frame["layer_to"].dtype == "Int64"
    assert list(edges_frame(synthetic.empty()).columns) == list(frame.columns)


def test_discoveries_agree_with_scipy() -> None:
    from scipy.stats import false_discovery_control

    values = [0.001, 0.3, 0.012, 0.04, 0.9, 0.02, 0.02]
    adjusted = false_discovery_control(values)
    assert discoveries(values, level=0.05) == [p <= 0.05 for p in adjusted]


def test_null_band_of_dimension_counts() -> None:
    pair = synthetic.perceptron().pairs[0]
    pair = pair.model_copy(update={"rank_write": 40, "rank_read": 30, "d": 64})
    assert null_band(pair, "kernel_intersection") == (10, 10, 10)
    assert null_band(pair, "intersection_exact") == (0, 0, 0)


def test_null_band_of_flag_defect_is_the_overlap_band_seen_from_the_other_side() -> None:
    pair = synthetic.perceptron().pairs[0]
    defect, overlap = null_band(pair, "flag_defect"), null_band(pair, "overlap_ratio")
    assert defect is not None
    assert overlap is not None
    small, large = sorted([pair.effective_rank_write or 0, pair.effective_rank_read or 0])
    scale = small * large / pair.d
    assert defect.mean == pytest.approx(small - scale * overlap.mean)
    assert defect.low == pytest.approx(small - scale * overlap.high)
