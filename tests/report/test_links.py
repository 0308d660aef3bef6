"""The graph of links draws what is beyond chance, where it belongs; findings name the strongest."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from flagscope.errors import InputError
from flagscope.records import EdgeRecord, ScanResult
from flagscope.report import findings, link_graph
from flagscope.report.link_cells import link_cells
from flagscope.report.link_figures import link_graph_size
from flagscope.report.links import HeadRows, beyond_chance, head_rows
from flagscope.report.palette import PALETTES
from flagscope.report.wording import UNCERTAIN
from report import synthetic


def _curves(figure: Any) -> list[tuple[str, float, str, list[tuple[float, float]]]]:
    """(colour, width, dash, points) of every link drawn."""
    found = []
    for trace in figure.data:
        if trace.mode != "lines" or trace.x[0] is None:
            continue
        points: list[tuple[float, float]] = []
        for x, y in zip(trace.x, trace.y, strict=True):
            if x is None:
                found.append((trace.line.color, trace.line.width, trace.line.dash, points))
                points = []
            else:
                points.append((x, y))
    return found


def _only(*edges: EdgeRecord, tests: int = 1000) -> ScanResult:
    return synthetic.result(edges=edges, edge_tests=tests)


@pytest.mark.parametrize("measure", ["overlap", "composition"])
def test_the_graph_draws_exactly_what_is_beyond_chance(stream: ScanResult, measure: Any) -> None:
    curves = _curves(link_graph(stream, measure))
    far = [
        edge
        for edge, flag in zip(stream.edges, beyond_chance(stream, measure), strict=True)
        if flag
    ]
    assert 0 < len(far) < len(stream.edges)
    for space in ("q", "k", "v"):
        colour = PALETTES["light"][space]
        count = sum(edge.space == space for edge in far)
        assert sum(curve[0] == colour for curve in curves) == count


def test_a_link_runs_from_the_writing_head_to_the_reading_one() -> None:
    result = _only(
        synthetic.edge(1, 2, "q", 3, 5, ratio=3), synthetic.edge(0, 7, "v", 1, 0, ratio=9)
    )
    curves = {curve[0]: curve for curve in _curves(link_graph(result))}
    query, value = curves[PALETTES["light"]["q"]], curves[PALETTES["light"]["v"]]
    assert query[3][0] == pytest.approx((1, 2), abs=0.1)
    assert query[3][-1] == pytest.approx((3, 5), abs=0.1)
    assert value[3][0] == pytest.approx((0, 7), abs=0.1)
    assert value[1] > query[1]


def test_the_planted_link_is_the_widest_and_its_hover_has_every_number(stream: ScanResult) -> None:
    figure = link_graph(stream)
    widest = max(_curves(figure), key=lambda curve: curve[1])
    assert widest[0] == PALETTES["light"]["k"]
    # Key head 2 of 4 serves query heads 4 and 5.
    assert widest[3][-1][1] == pytest.approx(4.5)
    texts = {text for trace in figure.data if trace.text for text in trace.text}
    (text,) = [text for text in texts if text.startswith("<b>L1H2.o → L2H2.k</b>")]
    planted = next(edge for edge in stream.edges if edge.target == "L2H2.k" and edge.head_from == 2)
    for number in ("6 times chance", f"z = {planted.overlap_z:.3g}", f"{planted.composition:.3f}"):
        assert number in text
    assert f"{planted.composition_ratio:.2f} times chance; z = {planted.composition_z:.3g}" in text
    assert "keys of key-value head 2 of layer 2" in text


def test_a_link_below_chance_is_dotted() -> None:
    result = _only(
        synthetic.edge(0, 0, "q", 1, 0, ratio=0.5), synthetic.edge(0, 0, "q", 1, 1, ratio=2)
    )
    assert {(c[2], round(c[3][-1][1])) for c in _curves(link_graph(result))} == {
        ("dot", 0),
        ("solid", 1),
    }


def test_two_hundred_links_of_a_thousand_heads_stay_light() -> None:
    generator = np.random.default_rng(0)
    edges = [
        synthetic.edge(
            layer := int(generator.integers(31)), int(generator.integers(32)), space, layer + 1,
            int(generator.integers(32 if space == "q" else 8)), ratio=1.5 + generator.exponential(),
        )
        for space in generator.choice(["q", "k", "v"], 200)
    ]  # fmt: skip
    figure = link_graph(_only(*edges))
    assert len(figure.data) <= 1 + 3 * (4 + 2)
    assert len(figure.to_json()) < 400_000
    assert len(_curves(figure)) == 200
    assert len(_curves(link_graph(_only(*edges), limit=10))) == 10
    assert figure.layout.width > 30 * 30
    assert figure.layout.height > 32 * 17


@pytest.mark.parametrize(("last", "step"), [(3, 1), (30, 1), (60, 2), (200, 6)])
def test_layers_are_ticked_at_whole_steps_and_not_too_densely(last: int, step: int) -> None:
    edges = [synthetic.edge(at, 0, "q", at + 1, 0, ratio=9.0) for at in (0, last - 1)]
    ticks = link_graph(_only(*edges)).layout.xaxis
    assert ticks.dtick == step
    assert tuple(ticks.range) == (-0.5, last + 0.5)


@pytest.mark.parametrize(
    ("heads", "row", "step"),
    [(5, 26, 1), (16, 26, 1), (17, 17, 4), (32, 17, 4), (33, 11, 4), (64, 11, 4), (65, 7, 8)],
)
def test_rows_get_narrower_and_ticks_rarer_with_the_number_of_heads(
    heads: int, row: int, step: int
) -> None:
    result = _only(synthetic.edge(0, 0, "q", 1, heads - 1, ratio=9.0))
    assert link_graph_size(result, "decoder")[1] == row * heads + 140
    assert link_graph(result).layout.yaxis.dtick == step


def test_a_head_is_drawn_the_larger_the_more_links_meet_it() -> None:
    edges = [synthetic.edge(0, 0, "q", 1, head, ratio=9.0) for head in range(4)]
    heads = link_graph(_only(*edges)).data[0]
    sizes = dict(zip(zip(heads.x, heads.y, strict=True), heads.marker.size, strict=True))
    assert (sizes[0, 0], sizes[1, 3], sizes[0, 3]) == (10, 7.5, 2.5)


def test_key_value_heads_stand_among_their_query_heads(stream: ScanResult) -> None:
    assert head_rows(stream, "decoder") == HeadRows(8, 4)
    assert [HeadRows(6, 3).of("k", head) for head in range(3)] == [0.5, 2.5, 4.5]
    assert [HeadRows(6, 1).of("v", 0), HeadRows(6, 1).of("q", 4)] == [2.5, 4]


def test_links_are_counted_by_the_p_values_of_the_whole_report() -> None:
    edges = [
        synthetic.edge(0, i, "q", 1, 0, log10_p=float(-i), composition_log10_p=float(-2 * i))
        for i in range(8)
    ]
    result = _only(*edges, tests=440)
    for measure, prefix in (("overlap", ""), ("composition", "composition_")):
        flags = beyond_chance(result, measure)
        values = [getattr(edge, f"{prefix}p_adjusted") for edge in result.edges]
        assert flags == [p <= 0.05 for p in values]
        assert 0 < sum(flags) < 8


def test_nothing_beyond_chance_draws_nothing() -> None:
    result = _only(synthetic.edge(0, 0, "q", 1, 0, ratio=1.001))
    assert len(link_graph(result).data) == 0
    assert [f.text for f in findings(result)] == ["Nothing in this scan lies beyond chance."]


def test_a_link_without_a_circuit_is_drawn_by_overlap_and_missing_elsewhere() -> None:
    gone = dict.fromkeys(
        ["composition", "composition_ratio", "composition_z", "composition_log10_p"]
    )
    edge = synthetic.edge(0, 0, "k", 1, 0, ratio=4.0).model_copy(update=gone)
    result = _only(edge)
    figure = link_graph(result)
    assert any("no composition" in text for trace in figure.data for text in trace.text or ())
    assert len(link_graph(result, "composition").data) == 0
    assert [f.text for f in findings(result) if "compose" in f.text] == []
    assert "–" in json.dumps(link_cells(result), ensure_ascii=False)


def test_unknown_names_are_refused_with_the_known_ones(stream: ScanResult) -> None:
    with pytest.raises(InputError) as error:
        link_graph(stream, "nonsense")  # pyright: ignore[reportArgumentType]
    assert "composition" in str(error.value.hint)
    with pytest.raises(InputError) as error:
        link_graph(stream, stack="vision")
    assert "decoder" in str(error.value.hint)
    with pytest.raises(InputError):
        link_graph(synthetic.empty())


def test_findings_count_the_links_and_name_the_clearest(stream: ScanResult) -> None:
    told = [f for f in findings(stream) if f.topic == "links"]
    (overlap,) = [f for f in told if "share more directions" in f.text]
    assert overlap.text == (
        f"At least {sum(beyond_chance(stream, 'overlap'))} of 640 links from head to head share "
        "more directions with what a later head reads than by chance: median 1.18 (1.12 to 6) "
        "times the overlap of chance; the clearest, L1H2.o → L2H2.k (a key-value head that serves "
        "query heads 4–5), has 6."
    )
    assert "8 of them start from L3H4" in overlap.evidence
    assert overlap.label == "functional"
    assert overlap.effect == pytest.approx(np.log(1.18))
    assert any("compose more strongly" in f.text for f in told)


def test_a_list_of_all_links_gives_an_exact_count() -> None:
    edges = [synthetic.edge(0, i, "q", 1, 0, ratio=3.0 if i < 2 else 1.0) for i in range(8)]
    (told,) = [f for f in findings(_only(*edges, tests=8)) if f.topic == "links"]
    assert told.text.startswith("2 of 8 links")
    assert told.severity == "strong"


def test_a_small_link_is_a_remark_however_significant() -> None:
    edge = synthetic.edge(0, 0, "q", 1, 0, ratio=1.05, rank=128, d=4096, log10_p=-20.0)
    (told,) = [f for f in findings(_only(edge)) if f.topic == "links"]
    assert told.severity == "info"
    assert told.text.endswith("less than 10% from it: significant, but small.")


@pytest.mark.parametrize("ratios", [(1.05, 1.5), (0.95, 0.5)])
def test_links_of_which_one_is_not_small_are_no_remark(ratios: tuple[float, ...]) -> None:
    edges = [
        synthetic.edge(0, i, "q", 1, 0, ratio=ratio, rank=128, d=4096, log10_p=-20.0)
        for i, ratio in enumerate(ratios)
    ]
    (told,) = [f for f in findings(_only(*edges)) if f.topic == "links"]
    assert told.severity == "notable"
    assert "10%" not in told.text


def test_links_that_are_counted_and_not_certain_are_a_remark() -> None:
    # Forty of 44 tests at p = 0.004: Bonferroni takes none of them, Benjamini-Hochberg all.
    edges = [
        synthetic.edge(0, i, "q", 1, 0, ratio=1.5, log10_p=-2.4 if i < 40 else -0.1,
                       composition_log10_p=-0.1)
        for i in range(44)
    ]  # fmt: skip
    result = _only(*edges, tests=44)
    assert sum(beyond_chance(result, "overlap")) == 40
    (told,) = [f for f in findings(result) if f.topic == "links"]
    assert told.severity == "info"
    assert told.text.endswith(UNCERTAIN)
