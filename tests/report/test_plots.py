"""Figures by kind, and the small figure of a notebook."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from plotly.graph_objects import Figure

from flagscope import Report
from flagscope.errors import InputError
from flagscope.records import ScanResult
from flagscope.report import PLOT_KINDS, plot_kinds, render_summary
from flagscope.report.shared_head_maps import head_maps
from flagscope.report.summary_figure import small_figure
from flagscope.shortening import shortened
from report import synthetic


def test_every_kind_that_a_result_has_is_drawn(any_result: ScanResult) -> None:
    report = Report(any_result)
    for kind in plot_kinds(any_result):
        figure = report.plot(kind)
        assert isinstance(figure, Figure)
        assert figure.layout.title.text
    if not plot_kinds(any_result):
        with pytest.raises(InputError, match="no figure"):
            report.plot()


def test_kinds_are_those_that_there_is_something_for(transformer: ScanResult) -> None:
    assert set(plot_kinds(synthetic.stream())) == set(PLOT_KINDS)
    assert "links" not in plot_kinds(transformer)
    assert plot_kinds(synthetic.perceptron()) == ("depth", "cosines", "ranks", "incidence")
    assert plot_kinds(synthetic.empty()) == ()


def test_the_first_kind_is_the_default(transformer: ScanResult) -> None:
    assert Report(transformer).plot() == Report(transformer).plot("map")
    perceptron = Report(synthetic.perceptron())
    assert perceptron.plot() == perceptron.plot("depth")


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("map", {"space": "q"}, {"space": "o"}),
        ("depth", {"observable": "commutator_ratio"}, {"observable": "gram_correlation"}),
        ("depth", {"pair": "residual"}, {"pair": "residual/norm/MLP-to-MLP"}),
        ("heads", {"observable": "overlap_ratio"}, {"observable": "shared_directions"}),
        ("matrix", {"layer": 0, "space": "q"}, {"layer": 1, "space": "q"}),
        ("spectrum", {"layer": 1, "space": "q"}, {"layer": 1, "space": "v"}),
        ("links", {"observable": "overlap"}, {"observable": "composition"}),
        ("stream", {"pair": "o"}, {"pair": "mlp.down"}),
        ("stream", {"observable": "overlap_ratio"}, {"observable": "commutator_ratio"}),
        ("map", {"theme": "light"}, {"theme": "dark"}),
    ],
)
def test_arguments_choose_what_is_drawn(
    kind: Any, first: dict[str, Any], second: dict[str, Any]
) -> None:
    report = Report(synthetic.stream())
    assert report.plot(kind, **first) != report.plot(kind, **second)


@pytest.mark.parametrize("kind", ["cosines", "ranks", "incidence"])
def test_a_pair_is_named_or_the_furthest_from_chance(kind: Any, transformer: ScanResult) -> None:
    report = Report(transformer)
    furthest = max(transformer.pairs, key=lambda pair: abs(pair.overlap_z or 0))
    assert furthest.name in report.plot(kind).layout.title.text
    other = transformer.pairs[1].name
    assert other in report.plot(kind, pair=other).layout.title.text


@pytest.mark.parametrize(
    ("kind", "given", "says", "hint"),
    [
        ("pie", {}, "no figure of kind 'pie'", "choose one of map, depth"),
        ("links", {}, "'links' needs links between heads", "this report has map, depth"),
        ("map", {"pair": "qk"}, "'map' takes no pair", "it takes space"),
        ("map", {"space": "z"}, "no heads in space 'z'", "choose one of q"),
        ("matrix", {"layer": 99}, "no heads in layer 99", "layers 0 to"),
        ("cosines", {"pair": "nobody"}, "no pair 'nobody'", "such as layer.0"),
        ("heads", {"observable": "x"}, "no profile of heads of 'x'", "shared_directions"),
        ("depth", {"observable": "x"}, "no depth profile of 'x'", "commutator_ratio"),
        ("depth", {"pair": "x"}, "no track 'x'", "qk"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(
    transformer: ScanResult, kind: Any, given: dict[str, Any], says: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        Report(transformer).plot(kind, **given)
    assert says in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_a_head_of_the_map_is_the_largest_of_its_row(transformer: ScanResult) -> None:
    chosen = head_maps(transformer)[0]
    group = next(group for group in transformer.heads if group.space == "q")
    assert group.pairwise is not None
    row = group.pairwise[2]
    others = [value for index, value in enumerate(row) if index != 2]
    index = chosen.layers.index(group.layer)
    assert chosen.cells[index][2] == max(others)


# The small figure


def _texts(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}" + tag))


def test_a_pair_with_a_long_name_is_found_by_it() -> None:
    result = synthetic.perceptron()
    pair = result.pairs[0].model_copy(update={"name": "long." * 100 + "0-1"})
    report = Report(result.model_copy(update={"pairs": [pair]}))
    assert report.plot("cosines", pair=report.pairs["name"][0]) == report.plot("cosines")
    assert report.plot("cosines", pair=shortened(pair.name)) == report.plot("cosines")


def test_heads_are_cells_of_the_small_figure(transformer: ScanResult) -> None:
    svg = small_figure(transformer).svg
    cells = [one for one in _texts(svg, "title") if "times chance" in (one.text or "")]
    assert len(cells) == sum(group.count for group in transformer.heads)


def test_pairs_are_points_where_there_are_no_heads() -> None:
    result = synthetic.perceptron()
    figure = small_figure(result)
    assert len(_texts(figure.svg, "circle")) == len(result.pairs)
    assert result.pairs[0].name in figure.svg
    assert figure.caption == "Pairs in order of depth; grey: central 95 % by chance."
    assert small_figure(synthetic.empty()).svg == ""


def _kinds_of_pairs(count: int) -> ScanResult:
    """A network in which each pair has an activation of its own, with a long name."""
    result = synthetic.perceptron()
    return result.model_copy(
        update={
            "heads": [],
            "pairs": [
                result.pairs[0].model_copy(
                    update={"name": f"pair {i}", "layer": i, "between": f"activation number {i}",
                            "gram_correlation": 0.3, "overlap_ratio": None}
                )
                for i in range(count)
            ],
        }
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 5, 6, 8, 40])
def test_each_pair_has_a_place_of_its_own_and_no_label_covers_another(count: int) -> None:
    svg = small_figure(_kinds_of_pairs(count)).svg
    points = _texts(svg, "circle")
    places = [float(point.attrib["cx"]) for point in points]
    assert places == sorted(set(places))
    assert [point[0].text for point in points] == [f"pair {i}: 0.300" for i in range(count)]
    drawn = _texts(svg, "text")
    texts = [(float(t.attrib["x"]), float(t.attrib["y"]), t.text or "") for t in drawn]
    legend = [text for text in texts if text[2].startswith("●")]
    assert len(legend) == min(count, 6)
    for x, y, text in legend:
        end = x + 6 * len(text)
        assert end <= 420
        assert not [other for other in legend if other[1] == y and x < other[0] < end]
    assert any("other kinds" in text for _, _, text in legend) == (count > 6)
    ticks = sorted(y for x, y, _ in texts if x == 38)
    assert all(below - above >= 12 for above, below in itertools.pairwise(ticks))
    height = float(ElementTree.fromstring(svg).attrib["height"])
    assert max(y for _, y, _ in texts) < height


def test_labels_of_the_axis_keep_apart_where_chance_is_at_an_end() -> None:
    result = _kinds_of_pairs(3)
    pairs = [p.model_copy(update={"gram_correlation": 0.9, "gram_dim_write": None})
             for p in result.pairs]  # fmt: skip
    svg = small_figure(result.model_copy(update={"pairs": pairs})).svg
    ticks = sorted(float(t.attrib["y"]) for t in _texts(svg, "text") if t.attrib["x"] == "38")
    assert len(ticks) >= 2
    assert all(below - above >= 12 for above, below in itertools.pairwise(ticks))


def test_the_caption_counts_pairs_that_are_not_drawn() -> None:
    result = _kinds_of_pairs(5)
    without = [p.model_copy(update={"gram_correlation": None}) for p in result.pairs[:2]]
    figure = small_figure(result.model_copy(update={"pairs": [*without, *result.pairs[2:]]}))
    assert len(_texts(figure.svg, "circle")) == 3
    assert "2 of 5 pairs left out as without this number" in figure.caption
    one_kind = _kinds_of_pairs(700)
    pairs = [p.model_copy(update={"between": "gelu" if i else "relu"})
             for i, p in enumerate(one_kind.pairs)]  # fmt: skip
    many = small_figure(one_kind.model_copy(update={"pairs": pairs}))
    assert len(_texts(many.svg, "circle")) == 141  # the one of its kind among them
    assert "pair 0: " in many.svg
    assert ", 559 more not drawn; " in many.caption


def test_large_models_have_a_small_figure_too(transformer: ScanResult) -> None:
    group = transformer.heads[0].model_copy(
        update={"count": 64, "pairwise": [[1.0] * 64] * 64, "order": None}
    )
    many = [group.model_copy(update={"layer": layer}) for layer in range(64)]
    result = transformer.model_copy(update={"heads": many})
    figure = small_figure(result)
    assert len(figure.svg) < 100_000
    assert "circle" in figure.svg
    assert figure.caption in render_summary(result)
    assert "head" not in figure.caption


def test_names_are_text_in_the_small_figure() -> None:
    svg = small_figure(synthetic.hostile()).svg
    ElementTree.fromstring(svg)
    assert "<img" not in svg


def test_a_notebook_shows_a_figure_and_how_to_see_more(any_result: ScanResult) -> None:
    shown = render_summary(any_result)
    assert ("<svg" in shown) == bool(small_figure(any_result).svg)
    named = re.search(r"\.plot\(([^)]*)\)", shown)
    assert named is not None
    kinds = plot_kinds(any_result)
    assert re.findall(r"&#34;(\w+)&#34;", named[1]) == list(kinds)
