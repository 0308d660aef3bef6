"""Figures are valid Plotly, hold the planted values, and stay light on large models."""

from __future__ import annotations

import math

import pytest

from flagscope.errors import InputError
from flagscope.observables import PROFILED
from flagscope.records import ArraySummary, ScanResult
from flagscope.report import (
    all_figures,
    depth_profile,
    head_matrix,
    incidence_surface,
    principal_cosines,
    rank_profile,
    shared_spectrum,
)
from flagscope.report.depth_figures import (
    depth_profile_spec,
    head_overlap_spec,
    shared_directions_spec,
)
from flagscope.report.palette import PALETTES, resolve
from flagscope.report.routes import writers
from flagscope.report.spec import band
from flagscope.report.stream_figures import STREAMED
from flagscope.report.tracks import head_tracks, tracks
from report import synthetic


def test_every_figure_is_valid(any_result: ScanResult) -> None:
    expected = len(tracks(any_result)) * len(PROFILED) + (2 if any_result.heads else 0)
    expected += len(writers(any_result)) * len(STREAMED) + (2 if any_result.edges else 0)
    assert len(all_figures(any_result)) == expected
    for theme in ("light", "dark"):
        for group in any_result.heads:
            head_matrix(group, theme=theme)
            shared_spectrum(group, theme=theme)
        for pair in any_result.pairs[:20]:
            principal_cosines(pair, theme=theme)
            rank_profile(pair, theme=theme)
            incidence_surface(pair, theme=theme)


def test_no_colour_is_left_unresolved(any_result: ScanResult) -> None:
    for figure in all_figures(any_result, theme="dark").values():
        assert '"$' not in figure.to_json()


def test_themes_name_the_same_colours() -> None:
    assert set(PALETTES["light"]) == set(PALETTES["dark"])
    assert resolve(["$raw", 1, None], "dark") == [PALETTES["dark"]["raw"], 1, None]


def test_depth_profile_shows_every_pair_and_the_median(transformer: ScanResult) -> None:
    figure = depth_profile(transformer, "gram_correlation", track="qk")
    traces = {trace.name: trace for trace in figure.data}
    assert len(traces["each pair"].x) == 144
    assert list(traces["median"].x) == list(range(12))
    assert traces["95 % of chance values"].fill == "toself"
    assert "layer.0.head.0.qk" in traces["each pair"].text[0]


def test_a_band_of_one_place_has_a_width() -> None:
    drawn = band([3], [0.0], [1.0], name="null", color="red", widen=0.4)
    assert drawn["x"] == [2.5, 3.5, 3.5, 2.5]
    assert drawn["y"] == [0.0, 0.0, 1.0, 1.0]
    wider = band([3, 4, 6], [0, 0, 0], [1, 2, 3], name="null", color="red", widen=0.4)
    assert wider["x"] == [2.6, 4, 6.4, 6.4, 4, 2.6]
    assert wider["y"] == [0, 0, 0, 3, 2, 1]


def test_a_track_holds_several_pairs_at_a_place_or_one() -> None:
    one = synthetic.perceptron().pairs[0]
    pairs = [one.model_copy(update={"name": name, "layer": 0}) for name in "ab"]
    (single,), (several,) = (tracks(synthetic.result(some)) for some in (pairs[:1], pairs))
    assert (single.several, several.several) == (False, True)
    # A median is drawn where there are several, and a line through the values where there are not.
    names = [
        {trace["name"] for trace in depth_profile_spec(track, "commutator_ratio")["data"]}
        for track in (single, several)
    ]
    assert "median" not in names[0]
    assert "median" in names[1]


def test_large_tracks_show_extremes_in_place_of_points() -> None:
    figure = depth_profile(synthetic.large(), "commutator_ratio")
    traces = {trace.name: trace for trace in figure.data}
    assert "each pair" not in traces
    assert len(traces["lowest and highest pair"].x) == 128


def test_unknown_names_are_refused_with_the_known_ones(transformer: ScanResult) -> None:
    with pytest.raises(InputError) as error:
        depth_profile(transformer, "nonsense")
    assert "gram_correlation" in str(error.value.hint)
    with pytest.raises(InputError) as error:
        depth_profile(transformer, "gram_correlation", track="latent")
    assert "qk/linear/gl" in str(error.value.hint)


def test_head_matrix_is_ordered_and_outlines_clusters(transformer: ScanResult) -> None:
    group = next(g for g in transformer.heads if g.layer == 4 and g.space == "k")
    figure = head_matrix(group)
    heat = figure.data[0]
    assert list(heat.x[:2]) == ["2", "7"]
    assert heat.z[0][0] is None
    assert group.pairwise is not None
    assert heat.z[0][1] == pytest.approx(math.log2(group.pairwise[2][7]), rel=5e-3)
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(-0.5, 1.5)]


def test_spectrum_marks_what_is_above_the_threshold(transformer: ScanResult) -> None:
    group = transformer.heads[0]
    points = shared_spectrum(group).data[0]
    strong = PALETTES["light"]["strong"]
    assert sum(color == strong for color in points.marker.color) == group.shared_directions


@pytest.mark.parametrize(("above", "shown"), [(2, 64), (56, 64), (57, 65), (99, 100)])
def test_a_spectrum_goes_eight_eigenvalues_below_the_threshold_and_to_64_at_least(
    transformer: ScanResult, above: int, shown: int
) -> None:
    values = [2.0] * above + [0.5] * (100 - above)
    changes = {"spectrum": values, "shared_threshold": 1.0}
    figure = shared_spectrum(transformer.heads[0].model_copy(update=changes))
    assert len(figure.data[0].x) == shown


@pytest.mark.parametrize(
    ("largest", "smallest", "limit"),
    [(1.5, 0.9, 2), (5.0, 0.5, 5), (1.2, 0.1, 10), (100.0, 0.5, 32), (1.0, 1e-9, 32),
     (None, None, 2)],
)  # fmt: skip
def test_the_colours_of_a_head_matrix_end_at_its_furthest_ratio_between_2_and_32(
    transformer: ScanResult, largest: float | None, smallest: float | None, limit: float
) -> None:
    changes = {"max_pair_ratio": largest, "min_pair_ratio": smallest}
    figure = head_matrix(transformer.heads[0].model_copy(update=changes))
    assert figure.data[0].zmax == pytest.approx(math.log2(limit), abs=1e-3)


def test_incidence_is_zero_at_chance_and_one_where_contained() -> None:
    pair = synthetic.perceptron().pairs[0]
    assert pair.incidence is not None
    ranks = [1, 4, 64]
    surfaces = {
        0.0: [[i * j / 64 for j in ranks] for i in ranks],
        1.0: [[float(min(i, j)) for j in ranks] for i in ranks],
    }
    for value, surface in surfaces.items():
        incidence = pair.incidence.model_copy(
            update={"ranks_write": ranks, "ranks_read": ranks, "surface": surface}
        )
        z = incidence_surface(pair.model_copy(update={"incidence": incidence})).data[0].z
        assert [list(row[:2]) for row in z[:2]] == [[value, value], [value, value]]
        assert z[2][2] is None


def test_names_cannot_carry_markup_into_a_figure() -> None:
    for figure in all_figures(synthetic.hostile()).values():
        text = figure.to_json()
        assert "<img" not in text.replace("\\u003c", "<")
        assert "%{x}<b>" not in text.replace("\\u003c", "<")


def test_an_axis_says_that_the_first_are_drawn_and_how_many_there_are(
    transformer: ScanResult,
) -> None:
    few = ArraySummary(length=384, top=[3.0] * 16, quantiles=[(0.0, 0.0), (1.0, 3.0)])
    group = transformer.heads[0].model_copy(
        update={"spectrum": few, "shared_threshold": 1.0, "shared_directions": 40}
    )
    title = shared_spectrum(group).layout.xaxis.title.text
    assert title == "direction (the first 16 of 384); 40 lie above the level"
    some = group.model_copy(update={"shared_directions": 3})
    assert shared_spectrum(some).layout.xaxis.title.text == "direction (the first 16 of 384)"
    pair = transformer.pairs[0].model_copy(update={"cosines": few})
    title = principal_cosines(pair).layout.xaxis.title.text
    assert title == "principal angle (the first 16 of 384)"


def test_forced_cosines_are_grey_and_never_beyond_chance() -> None:
    pair = synthetic.perceptron().pairs[0]
    assert pair.null is not None
    null = pair.null.model_copy(update={"largest_cosine": 0.9})
    update = {"cosines": [1.0, 1.0, 0.95, 0.4], "cosines_forced": 2, "null": null}
    planted = pair.model_copy(update=update)
    light = PALETTES["light"]
    trace = principal_cosines(planted).data[0]
    assert list(trace.marker.color) == [
        light["chance"],
        light["chance"],
        light["strong"],
        light["raw"],
    ]
    assert "by dimension alone" in trace.text[0]
    assert "beyond" not in trace.text[1]
    # Where nothing can be tested there is no critical value, and no colour of a claim.
    status = {"intersection_status": "cannot be tested: no room"}
    closed = planted.model_copy(update=status | {"intersection_beyond_chance": None})
    figure = principal_cosines(closed)
    assert len(figure.data) == 1
    assert list(figure.data[0].marker.color)[2:] == [light["raw"], light["raw"]]
    assert "cannot be tested" in figure.data[0].text[2]


def test_forced_cosines_of_schema_1_follow_from_the_dimensions() -> None:
    pair = synthetic.perceptron().pairs[0]
    ranks = {"effective_rank_write": 40, "effective_rank_read": 26, "cosines_forced": None}
    planted = pair.model_copy(update={**ranks, "cosines": [1.0, 1.0, 1.0]})
    colours = list(principal_cosines(planted).data[0].marker.color)
    assert colours[:2] == [PALETTES["light"]["chance"]] * 2  # 40 + 26 - 64
    assert colours[2] == PALETTES["light"]["strong"]


def test_profiles_leave_out_what_cannot_be_tested(transformer: ScanResult) -> None:
    status = "cannot be tested: no room"
    update = {"intersection_status": status, "intersection_beyond_chance": None}
    pairs = [pair.model_copy(update=update) for pair in transformer.pairs]
    closed = transformer.model_copy(update={"pairs": pairs})
    assert len(depth_profile(closed, "intersection_beyond_chance", track="qk").data) == 0
    assert len(depth_profile(transformer, "intersection_beyond_chance", track="qk").data) > 0


def test_counts_have_ticks_at_whole_numbers(transformer: ScanResult) -> None:
    for track in tracks(transformer):
        axis = depth_profile_spec(track, "intersection_beyond_chance")["layout"]["yaxis"]
        assert axis["dtick"] == int(axis["dtick"]) >= 1
        assert axis["tick0"] == 0
    shared = shared_directions_spec(head_tracks(transformer))["layout"]["yaxis"]
    assert shared["dtick"] in (1, 2, 5, 10)


def test_a_ratio_axis_shows_a_narrow_band_of_chance() -> None:
    result = synthetic.perceptron()
    narrow = [
        pair.model_copy(
            update={
                "overlap_ratio": 1 + 0.002 * place,
                "null": pair.null and pair.null.model_copy(update={"overlap_ratio_sd": 0.002}),
            }
        )
        for place, pair in enumerate(result.pairs)
    ]
    for pairs, zero in ((narrow, False), (result.pairs, True)):
        wide = [pair.model_copy(update={"overlap_ratio": 0.3}) for pair in pairs[:1]]
        some = pairs if not zero else [*wide, *pairs[1:]]
        track = tracks(result.model_copy(update={"pairs": some}))[0]
        spec = depth_profile_spec(track, "overlap_ratio")
        assert ("rangemode" in spec["layout"]["yaxis"]) == zero
    flat_heads = [
        group.model_copy(update={"overlap_ratio": 1.01, "overlap_ratio_sd": 0.004})
        for group in synthetic.transformer(layers=2, heads=4, rank=8, d=32, planted=False).heads
    ]
    spec = head_overlap_spec(head_tracks(result.model_copy(update={"heads": flat_heads})))
    assert "rangemode" not in spec["layout"]["yaxis"]
    # The band of chance, 1.96 standard deviations to either side.
    assert spec["data"][0]["name"] == "95 % of chance values"
    assert max(spec["data"][0]["y"]) == pytest.approx(1 + 1.96 * 0.004, abs=1e-3)


def test_figures_of_a_notebook_carry_no_targets_of_the_page(transformer: ScanResult) -> None:
    spec = depth_profile_spec(tracks(transformer)[0], "commutator_ratio")
    assert any("customdata" in trace for trace in spec["data"])
    for figure in all_figures(transformer).values():
        assert "pair/layer" not in figure.to_json()
        assert "heads/encoder" not in figure.to_json()
