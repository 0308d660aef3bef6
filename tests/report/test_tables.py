"""Frames hold every pair and head group; the summary fits a terminal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flagscope.observables import null_band
from flagscope.records import OverlapTest, PairRecord, ScanResult
from flagscope.report import edges_frame, heads_frame, pairs_frame, summary_table
from flagscope.report.cells import HEAD_COLUMNS, PAIR_COLUMNS, head_cells, pair_cells
from flagscope.report.tracks import head_tracks, tracks
from report import synthetic


def test_heads_are_told_apart_by_attention_only_where_there_are_both_kinds() -> None:
    group = synthetic.transformer().heads[0]
    other = group.model_copy(update={"attention": "cross"})
    assert [track.title for track in head_tracks(synthetic.result(heads=[group]))] == [
        "Query space"
    ]
    assert [track.title for track in head_tracks(synthetic.result(heads=[group, other]))] == [
        "self · Query space", "cross · Query space"
    ]  # fmt: skip


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
    count = sum(edge.p_adjusted is not None and edge.p_adjusted <= 0.05 for edge in stream.edges)
    assert row[1:4] == ("640", "up to 6.00", f"{count}+ of 640")
    assert "the 200 furthest from chance are kept" in table.caption
    every = stream.model_copy(update={"edge_tests": len(stream.edges)})
    table = summary_table(every)
    row = next(row for row in table.rows if row[0] == "Links between heads")
    assert row[3] == f"{count} of 200"
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


def _old(result: ScanResult) -> ScanResult:
    return result.model_copy(update={"schema_": "flagscope.scan/1"})


def test_counts_of_schema_1_are_not_shown(stream: ScanResult) -> None:
    column = [name for name, _ in summary_table(stream).columns].index("beyond chance")
    assert {row[column] for row in summary_table(_old(stream)).rows} == {"–"}
    assert not edges_frame(_old(stream))["beyond_chance_overlap"].any()


def test_frames_have_the_same_columns_whatever_the_result_holds(any_result: ScanResult) -> None:
    columns = [name for name in pairs_frame(any_result).columns if not name.startswith("label_")]
    empty = pairs_frame(synthetic.empty())
    assert columns == list(empty.columns)
    assert list(heads_frame(any_result).columns) == list(heads_frame(synthetic.empty()).columns)
    assert not any("." in name for name in columns)
    for name in (
        "participation_write", "dominant", "overlap_test_rank_write", "overlap_test_overlap_ratio",
        "p_familywise", "commutator_p_familywise", "intersection_status", "cosines_forced",
    ):  # fmt: skip
        assert name in columns
    known = {"shared_log10_p", "shared_p_familywise", "p_familywise", "log10_p_profile"}
    assert known <= set(heads_frame(any_result).columns)
    values = pairs_frame(any_result).to_numpy().ravel().tolist()
    assert not any(isinstance(value, dict | list) for value in values)


def test_the_test_of_an_overlap_is_in_the_frame(transformer: ScanResult) -> None:
    row = pairs_frame(transformer).iloc[0]
    test = transformer.pairs[0].overlap_test
    assert test is not None
    assert row["overlap_test_rank_write"] == test.rank_write
    assert row["overlap_test_overlap_ratio"] == test.overlap_ratio


def test_balanced_numbers_of_schema_1_have_no_z() -> None:
    result = synthetic.perceptron()
    (pair,) = result.pairs
    assert pair.balanced is not None
    assert pairs_frame(result).iloc[0]["balanced_gram_correlation_z"] == (
        pair.balanced.gram_correlation_z
    )
    assert "(z " in _cell(pair, "gram_correlation")[3]
    row = pairs_frame(_old(result)).iloc[0]
    assert math.isnan(row["balanced_gram_correlation_z"])
    assert row["balanced_gram_correlation"] == pair.balanced.gram_correlation
    (track,) = tracks(result)
    keys = [entry.key for entry in PAIR_COLUMNS]
    old = pair_cells(_old(result), pair, track)[keys.index("gram_correlation")]
    assert "(z " not in old[3]


def _cell(pair: PairRecord, column: str) -> list[Any]:
    result = synthetic.result([pair])
    (track,) = tracks(result)
    keys = [entry.key for entry in PAIR_COLUMNS]
    return pair_cells(result, result.pairs[0], track)[keys.index(column)]


def test_what_every_balanced_pair_under_the_full_group_has_is_said_in_its_place() -> None:
    """A = B there: they commute, agree, and have no imbalance; the record leaves that out."""
    pair = synthetic.pair(
        "p", "ov", d=64, rank=16, layer=0, freedom="gl", generator=np.random.default_rng(0)
    )
    assert pair.balanced is not None
    bare = pair.balanced.model_copy(update={"imbalance": None})
    pair = pair.model_copy(update={"balanced": bare})
    cells = {name: _cell(pair, name)[3] for name in ("commutator_ratio", "gram_correlation")}
    assert cells == {"commutator_ratio": "0, always", "gram_correlation": "1, always"}
    assert _cell(pair, "imbalance")[3] == "0, always"
    # Nothing else holds for all of them, and under other freedoms nothing does.
    assert _cell(pair, "flag_defect")[3] == ""
    other = pair.model_copy(update={"freedom": "scaling"})
    assert _cell(other, "gram_correlation")[3] == ""


def test_clusters_of_heads_are_counted_where_they_are_known(transformer: ScanResult) -> None:
    group = transformer.heads[0]
    some = [group.model_copy(update={"clusters": one}) for one in ([[0, 1], [2, 3]], [], None)]
    counts = heads_frame(synthetic.result(heads=some))["clusters_count"]
    assert counts[:2].tolist() == [2, 0]
    assert counts.isna().tolist() == [False, False, True]


@pytest.mark.parametrize("unknown", [None, "overlap_ratio", "shared_directions"])
def test_numbers_of_heads_are_functional_where_they_are_known(unknown: str | None) -> None:
    group = synthetic.transformer(layers=1, planted=False).heads[0]
    group = group.model_copy(update={unknown: None} if unknown else {})
    overlaps = {"overlap_ratio", "max_pair_ratio", "min_pair_ratio", "near_copies"}
    known = {"shared_directions"} | overlaps
    known -= overlaps if unknown == "overlap_ratio" else {unknown}
    cells = zip(HEAD_COLUMNS, head_cells(group), strict=True)
    assert {column.key for column, cell in cells if cell[4] == "F"} == known


def test_p_is_sorted_by_its_logarithm_where_it_underflows() -> None:
    result = synthetic.perceptron()
    (pair,) = result.pairs
    changes = [{"p": 0.0, "log10_p": value, "p_adjusted": 0.0} for value in (-400.0, -900.0)]
    (track,) = tracks(result)
    keys = [entry.key for entry in PAIR_COLUMNS]
    place = keys.index("p_adjusted")
    cells = [pair_cells(result, pair.model_copy(update=change), track)[place] for change in changes]
    assert [cell[0] for cell in cells] == [-400.0, -900.0]
    assert [cell[1] for cell in cells] == ["< 10⁻¹⁵"] * 2
    groups = [synthetic.transformer().heads[0].model_copy(update=change) for change in changes]
    column = [entry.key for entry in HEAD_COLUMNS].index("p_adjusted")
    assert [head_cells(group)[column][0] for group in groups] == [-400.0, -900.0]


def _bulk(log10_p: float) -> PairRecord:
    """A pair without dominant directions, whose test is strongest at 16 and 8."""
    pair = synthetic.perceptron().pairs[0]
    test = OverlapTest(
        rank_write=16,
        rank_read=8,
        overlap_ratio=1.7,
        log10_p=log10_p,
        log10_p_profile=log10_p,
        dominant_log10_p=None,
    )
    gone = dict.fromkeys(["overlap_ratio", "overlap_z", "flag_defect", "cosines", "profile"])
    return pair.model_copy(
        update=gone
        | {"dominant": "nothing stands out of the bulk: write", "effective_rank_write": 0}
        | {"overlap_test": test, "log10_p": log10_p, "intersection_exact": None}
    )


def test_nothing_stands_out_is_said_in_words() -> None:
    cell = _cell(_bulk(-0.3), "overlap_ratio")
    assert cell[:3] == [None, "none stands out", "nothing stands out of the bulk: write"]
    (row,) = summary_table(synthetic.result([_bulk(-0.3)])).rows
    assert row[2] == "none stands out"
    assert "In the one pair no direction stands out" in (
        summary_table(synthetic.result([_bulk(-0.3)])).caption
    )


def test_nothing_stands_out_never_stands_alone_where_the_test_rejects() -> None:
    cell = _cell(_bulk(-9.0), "overlap_ratio")
    assert cell[2] == (
        "no single direction stands out, yet the spaces are aligned: strongest at the leading 16 "
        "and 8 directions, 1.70 times chance"
    )
    assert _cell(_bulk(-9.0), "overlap_test")[1] == "16 × 8: 1.70"


def test_what_cannot_be_tested_is_said_in_words() -> None:
    pair = synthetic.perceptron().pairs[0]
    status = "cannot be tested: the dimensions leave no room"
    gone = dict.fromkeys(["intersection_exact", "intersection_beyond_chance"])
    closed = pair.model_copy(update={"intersection_status": status, **gone})
    for name in ("intersection_beyond_chance", "intersection_exact"):
        cell = _cell(closed, name)
        assert cell[:3] == [None, "cannot be tested", "the dimensions leave no room"]
        assert null_band(closed, name) is None
    status = "open: storage noise"
    opened = pair.model_copy(update={"intersection_status": status, "intersection_exact": None})
    assert _cell(opened, "intersection_exact")[:3] == [None, "open", "storage noise"]
