"""Maps of heads and of kinds of pairs: each cell's number, its words, and what it opens."""

from __future__ import annotations

import math

import pytest

from flagscope.records import ScanResult
from flagscope.report.links import beyond_chance
from flagscope.report.map_of_heads import head_maps
from flagscope.report.map_of_kinds import kind_maps
from flagscope.report.maps import scale_limit
from flagscope.report.payload import core
from flagscope.report.tracks import tracks
from report import synthetic


def _grouped() -> ScanResult:
    return synthetic.transformer(
        layers=2, heads=8, key_heads=2, rank=8, d=64, rope=True, planted=False
    )


def test_the_number_of_a_head_is_its_largest_overlap_with_another(transformer: ScanResult) -> None:
    maps = {one.key: one for one in head_maps(transformer)}
    groups = {(group.layer, group.space): group for group in transformer.heads}
    for space in "qkvo":
        shown = maps[f"encoder/closest-{space}"]
        for row, cells in zip(shown.rows, shown.cells, strict=True):
            pairwise = groups[int(row), space].pairwise
            assert pairwise is not None
            for head, cell in enumerate(cells):
                assert cell is not None
                others = [ratio for other, ratio in enumerate(pairwise[head]) if other != head]
                assert cell[0] == pytest.approx(max(others), rel=6e-3)
    anywhere = maps["encoder/closest"]
    for r, row in enumerate(anywhere.cells):
        for c, cell in enumerate(row):
            assert cell is not None
            each = [maps[f"encoder/closest-{space}"].cells[r][c] for space in "qkvo"]
            assert cell in each
            assert cell[0] == max(one[0] for one in each if one)


def test_planted_copies_are_the_closest_heads(transformer: ScanResult) -> None:
    queries = next(one for one in head_maps(transformer) if one.key == "encoder/closest-q")
    assert queries.cells[4][2] is not None
    assert queries.cells[4][2][2] == "heads/encoder.layer.4.q/2-7"
    assert queries.cells[4][7] is not None
    assert queries.cells[4][7][1].startswith("closest to head 2 in query space, ")
    assert queries.label == "functional"


def test_query_heads_have_the_numbers_of_the_key_head_that_serves_them() -> None:
    result = _grouped()
    keys = next(one for one in head_maps(result) if one.key == "encoder/closest-k")
    assert len(keys.columns) == 8
    for row in keys.cells:
        # Two key heads are each other's closest, and serve four query heads each.
        assert [cell[2].split("/")[2] for cell in row if cell] == ["0-1"] * 4 + ["1-0"] * 4
        assert len({cell[0] for cell in row if cell}) == 1
        assert all("(through key-value head" in cell[1] for cell in row if cell)


def test_links_are_counted_at_both_ends(stream: ScanResult) -> None:
    far = [
        edge
        for edge, one, two in zip(
            stream.edges,
            beyond_chance(stream, "overlap"),
            beyond_chance(stream, "composition"),
            strict=True,
        )
        if one or two
    ]
    maps = {one.key.rpartition("/")[2]: one for one in head_maps(stream)}
    leaving = maps["links-from"]
    for row, cells in zip(leaving.rows, leaving.cells, strict=True):
        for head, cell in enumerate(cells):
            count = sum((e.layer_from, e.head_from) == (int(row), head) for e in far)
            assert cell is not None
            assert cell[0] == count
            assert ("no link" in cell[1]) == (count == 0)
            assert "0 links" not in cell[1].replace("10 links", "").replace("20 links", "")
    reaching = maps["links-to"]
    shared = {group.layer: group.count for group in stream.heads if group.space == "k"}
    for row, cells in zip(reaching.rows, reaching.cells, strict=True):
        for head, cell in enumerate(cells):
            own = {"q": head, "k": head * shared[int(row)] // 8, "v": head * shared[int(row)] // 8}
            count = sum(e.layer_to == int(row) and own[e.space] == e.head_to for e in far)
            assert cell is not None
            assert cell[0] == count
    assert "kept" in leaving.words


def test_heads_without_numbers_leave_their_cells_empty(transformer: ScanResult) -> None:
    broken = [
        group.model_copy(update={"pairwise": None, "status": "weights that are all zero"})
        if group.layer == 1
        else group
        for group in transformer.heads
    ]
    for one in head_maps(transformer.model_copy(update={"heads": broken})):
        assert one.cells[1] == [None] * 12
        assert all(one.cells[0])


@pytest.mark.parametrize("name", ["resnet", "perceptron"])
def test_a_kind_of_pair_is_shown_by_the_pair_furthest_from_chance(name: str) -> None:
    result = getattr(synthetic, name)()
    overlaps = next(one for one in kind_maps(result) if one.key == "pairs/overlap_ratio")
    known = {f"pair/{pair.name}": pair for pair in result.pairs}
    for track, row in zip(tracks(result), overlaps.cells, strict=True):
        for depth, cell in zip(overlaps.columns, row, strict=True):
            here = [
                abs(math.log(pair.overlap_ratio))
                for position, pair in zip(track.positions, track.pairs, strict=True)
                if position == int(depth) and pair.overlap_ratio
            ]
            assert (cell is None) == (not here)
            if cell is not None:
                assert abs(math.log(known[cell[2]].overlap_ratio or 1)) == max(here)


def test_a_row_says_whether_its_numbers_are_functional() -> None:
    result = synthetic.resnet()
    overlaps = kind_maps(result)[0]
    expected = [result.labels[track.freedom]["overlap_ratio"] for track in tracks(result)]
    assert overlaps.row_labels == expected
    assert set(expected) == {"functional", "gauge"}


def test_a_scan_of_nothing_has_no_map() -> None:
    assert core(synthetic.empty())["maps"] == []


def test_a_scale_holds_every_cell_and_stays_readable() -> None:
    assert scale_limit("ratio", [[[0.1, "", ""], [3.0, "", ""], None]]) == pytest.approx(10)
    assert scale_limit("ratio", [[[1.01, "", ""]]]) == 2
    assert scale_limit("ratio", [[[900.0, "", ""], [0.0, "", ""]]]) == 32
    assert scale_limit("correlation", [[[-0.4, "", ""]]]) == 0.4
    assert scale_limit("count", [[[7, "", ""]]]) == 7
