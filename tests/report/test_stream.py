"""Residual pairs are told apart by their routes, and drawn by what reads them."""

from __future__ import annotations

import pytest

from flagscope.errors import InputError
from flagscope.observables import null_band
from flagscope.records import ScanResult
from flagscope.report import stream_profile
from flagscope.report.payload import core
from flagscope.report.routes import Route, route, writers
from flagscope.report.tracks import tracks
from report import synthetic


def _named(name: str, kind: str = "residual"):
    return synthetic.perceptron().pairs[0].model_copy(update={"name": name, "kind": kind})


@pytest.mark.parametrize(
    ("name", "expected", "blocks"),
    [
        ("layer.3.o-layer.4.q", Route("o", "q", 1), "attention to attention"),
        ("layer.2.mlp.down-layer.3.mlp.up", Route("mlp.down", "mlp.up", 1), "MLP to MLP"),
        ("layer.3.o-layer.3.mlp.gate", Route("o", "mlp.gate", 0), "attention to MLP"),
        ("decoder.layer.9.o-decoder.layer.12.k", Route("o", "k", 3), "attention to attention"),
        (
            "layer.0.cross.o-layer.0.mlp.up",
            Route("cross.o", "mlp.up", 0),
            "cross-attention to MLP",
        ),
    ],
)
def test_a_name_tells_the_route(name: str, expected: Route, blocks: str) -> None:
    found = route(_named(name))
    assert found == expected
    assert expected.blocks == blocks


@pytest.mark.parametrize("name", ["layer1.0.conv2-next", "0-2", synthetic.HOSTILE])
def test_other_names_tell_none(name: str) -> None:
    assert route(_named(name)) is None
    assert route(_named("layer.3.o-layer.4.q", "sequential")) is None


def test_tracks_are_split_by_kinds_of_sub_blocks(stream: ScanResult) -> None:
    found = {track.title: len(track.pairs) for track in tracks(stream)}
    # Six layers; q, k, v and two MLP readers one layer on, two MLP readers in the same one.
    assert found == {
        "Stream, attention to MLP": 6 * 2 + 5 * 2,
        "Stream, attention to attention": 5 * 3,
        "Stream, MLP to attention": 5 * 3,
        "Stream, MLP to MLP": 5 * 2,
    }
    assert len({track.key for track in tracks(stream)}) == 4


def test_a_profile_has_a_line_a_reader_with_the_values_of_the_pairs(stream: ScanResult) -> None:
    figure = stream_profile(stream, "overlap_ratio", writer="mlp.down")
    lines = {trace.name: trace for trace in figure.data}
    pairs = {pair.name: pair for pair in stream.pairs}
    assert list(lines["key"].x) == [1, 2, 3, 4, 5]
    for layer, value in zip(lines["key"].x, lines["key"].y, strict=True):
        pair = pairs[f"layer.{layer - 1}.mlp.down-layer.{layer}.k"]
        assert value == pytest.approx(pair.overlap_ratio, rel=1e-3)
        assert (
            f"chance 1 [{null_band(pair, 'overlap_ratio').low:.3f}" in lines["key"].text[layer - 1]
        )
    same = stream_profile(stream, "overlap_ratio", writer="o")
    assert "MLP up, same block" in {trace.name for trace in same.data}
    assert "MLP up, same block" not in lines


def test_the_band_holds_the_bands_of_all_readers(stream: ScanResult) -> None:
    figure = stream_profile(stream, "commutator_ratio", writer="mlp.down")
    (band,) = [trace for trace in figure.data if trace.name == "95 % of chance values"]
    assert (min(band.y), max(band.y)) == (0.86, 1.16)
    pairs = [
        pair.model_copy(
            update={"null": pair.null.model_copy(update={"commutator_ratio_interval": (0.5, 3.0)})}
        )
        if pair.name.endswith(".q") and pair.null is not None
        else pair
        for pair in stream.pairs
    ]
    wider = stream.model_copy(update={"pairs": pairs})
    figure = stream_profile(wider, "commutator_ratio", writer="mlp.down")
    (band,) = [trace for trace in figure.data if trace.name == "95 % of chance values"]
    assert (min(band.y), max(band.y)) == (0.5, 3.0)


def test_lines_that_could_not_be_told_apart_wait_in_the_legend() -> None:
    result = synthetic.stream(layers=4, window=3)
    figure = stream_profile(result, "gram_correlation", writer="o")
    visible = [t.name for t in figure.data if t.text and t.visible is None]
    waiting = [t.name for t in figure.data if t.visible == "legendonly"]
    assert len(visible) == 7
    assert "query, 3 blocks on" in waiting


@pytest.mark.parametrize("mixed", [False, True])
def test_the_numbers_of_a_writer_are_functional_where_they_are_so_for_all_its_pairs(
    stream: ScanResult, mixed: bool
) -> None:
    pairs = [
        pair.model_copy(update={"freedom": "gl"}) if mixed and pair.name.endswith(".q") else pair
        for pair in stream.pairs
    ]
    labels = {
        (writer["title"], name): chart["label"]
        for writer in core(stream.model_copy(update={"pairs": pairs}))["writers"]
        for name, chart in writer["charts"].items()
        if name == "commutator_ratio"
    }
    assert len(labels) == 2
    assert set(labels.values()) == {"gauge" if mixed else "functional"}


def test_unknown_names_are_refused_with_the_known_ones(stream: ScanResult) -> None:
    assert [writer.key for writer in writers(stream)] == ["o", "mlp.down"]
    for arguments in ({"observable": "nonsense"}, {"observable": "overlap_ratio", "writer": "q"}):
        with pytest.raises(InputError) as error:
            stream_profile(stream, **arguments)
        assert "overlap_ratio" in str(error.value.hint) or "mlp.down" in str(error.value.hint)
    with pytest.raises(InputError):
        stream_profile(synthetic.resnet(), "overlap_ratio")
