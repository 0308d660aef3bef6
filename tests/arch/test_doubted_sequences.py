"""Bare state dicts that look like chains: what is claimed of each, and what its notes say."""

import pytest

from flagscope.arch import build_graph
from flagscope.arch.activations import activation_freedom

RELU = {"activation": "relu"}


def maps(shapes):
    return {f"{name}.weight": shape for name, shape in shapes.items()}


def norm(name, d, *, batch=True):
    keys = ("weight", "bias", "running_mean", "running_var")[: 4 if batch else 2]
    return {f"{name}.{key}": (d,) for key in keys}


def read(state, config=RELU, **options):
    return build_graph(state, config, **options)


def names(state):
    return [pair.name for pair in read(state).pairs]


def layers(pattern, count, shapes):
    return maps({f"{pattern.format(i)}.{name}": shape
                 for i in range(count) for name, shape in shapes.items()})  # fmt: skip


@pytest.mark.parametrize(
    "shapes",
    [
        {"user_encoder.0": (64, 100), "user_encoder.2": (32, 64), "item_encoder.0": (64, 32),
         "item_encoder.2": (32, 64)},
        {"text_net.0": (64, 100), "text_net.2": (32, 64), "image_net.0": (64, 32),
         "image_net.2": (32, 64)},
        {"actor1.0": (64, 8), "actor1.2": (8, 64), "actor2.0": (64, 8), "actor2.2": (8, 64)},
        {"net1.0": (64, 100), "net1.2": (32, 64), "net2.0": (64, 32), "net2.2": (32, 64)},
        {"teacher_backbone.0": (64, 20), "teacher_backbone.2": (32, 64), "head.0": (64, 32),
         "head.2": (3, 64)},
        {"encoder.0": (64, 784), "encoder.2": (32, 64), "generator.0": (64, 32),
         "generator.2": (784, 64)},
        {"user.mlp.0": (64, 64), "user.mlp.2": (64, 64), "item.mlp.0": (64, 64),
         "item.mlp.2": (64, 64)},
    ],
)  # fmt: skip
def test_modules_of_one_kind_do_not_feed_each_other(shapes):
    parts = sorted(shapes)
    graph = read(maps(shapes))
    assert {pair.name for pair in graph.pairs} == {
        f"{parts[0]}-{parts[1]}", f"{parts[2]}-{parts[3]}"
    }  # fmt: skip


def test_borders_that_no_pair_crosses_are_listed():
    state = maps({"user_encoder.0": (64, 100), "user_encoder.2": (32, 64),
                  "item_encoder.0": (64, 32), "item_encoder.2": (32, 64)})  # fmt: skip
    (note,) = [one for one in read(state).notes if "these borders" in one]
    assert "user_encoder.2 to item_encoder.0" in note


@pytest.mark.parametrize(
    "shapes",
    [
        {f"{name}_layers.{i}": (64, 64) for name in "qk" for i in (0, 1)},
        {f"task_layers.{i}": (64, 64) for i in range(3)},
        {f"scale_proj.{n}": (64, 64) for n in (2, 4, 8)},
        {f"rates.{n}": (64, 64) for n in (1, 2, 4)},
        {f"lang.{n}": (64, 64) for n in (3, 7)},
        {f"convs.{n}": (64, 64, n, n) for n in (1, 3, 5)},
        {"convs.0": (100, 100, 3), "convs.1": (100, 100, 5), "convs.2": (100, 100, 7),
         "fc": (2, 300)},
        {"aspp.convs.0": (64, 64, 1, 1), "aspp.convs.1": (64, 64, 3, 3),
         "aspp.convs.2": (64, 64, 3, 3), "aspp.project": (64, 192, 1, 1)},
        {f"{name}_convs.{i}": (32, 32, 1, 2) for name in ("filter", "gate") for i in range(3)},
        {f"resblocks.{k}.convs{a}.{j}": (64, 64, 3) for k in range(3) for a in (1, 2)
         for j in range(3)},
        {"attention.W1": (64, 64), "attention.W2": (64, 64), "attention.V": (1, 64)},
        {"glu.linear1": (64, 64), "glu.linear2": (64, 64), "out": (2, 64)},
        {"fc1": (64, 64), "fc2": (64, 64), "mix": (64, 64)},
    ],
)  # fmt: skip
def test_what_may_stand_side_by_side_or_take_turns_is_in_no_pair(shapes):
    graph = read(maps(shapes))
    assert graph.pairs == ()
    assert any("in no pair" in note for note in graph.notes)


def test_a_mean_and_a_variance_are_no_chain():
    state = maps({"fc1": (64, 784), "fc21": (64, 64), "fc22": (64, 64), "fc3": (64, 64),
                  "fc4": (784, 64)})  # fmt: skip
    assert names(state) == ["fc3-fc4"]


def test_experts_of_one_layer_do_not_feed_those_of_the_next():
    state = layers("layers.{}.experts", 2, {f"{e}.{n}": s for e in (0, 1)
                   for n, s in ((0, (128, 64)), (2, (64, 128)))})  # fmt: skip
    assert len(names(state)) == 4
    assert all(name.count("experts.0") in (0, 2) for name in names(state))


def test_a_norm_shows_a_sequential_in_which_no_number_is_left_out():
    (pair,) = read(maps({"net.0": (16, 16), "net.2": (16, 16)}) | norm("net.1", 16)).pairs
    assert (pair.name, pair.write_norm.name) == ("net.0-net.2", "net.1")


def test_lists_of_norms_go_with_maps_by_number():
    convs = maps({"convs.0": (32, 16, 3, 3), "convs.1": (32, 32, 3, 3), "convs.2": (10, 32, 3, 3)})
    graph = read(convs | norm("bns.0", 32) | norm("bns.1", 32))
    assert [pair.write_norm.name for pair in graph.pairs] == ["bns.0", "bns.1"]
    linears = maps({"layers.0": (64, 16), "layers.1": (64, 64), "layers.2": (10, 64)})
    listed = norm("norms.0", 64, batch=False) | norm("norms.1", 64, batch=False)
    assert {(p.between, p.freedom) for p in read(linears | listed).pairs} == {("norm", "none")}


@pytest.mark.parametrize(
    "state",
    [
        maps({"conv1": (32, 3, 3, 3), "conv2": (32, 32, 3, 3), "fc": (10, 32)}) | norm("bn", 32),
        maps({"0": (64, 16), "2": (10, 64)}) | {"scale": (64,)},
        maps({"fcs.0": (64, 16), "fcs.1": (64, 64), "fcs.2": (10, 64)}) | norm("norms.0", 64),
        maps({"layers.0": (64, 64), "layers.1": (64, 64)}) | norm("norms.0", 64)
        | norm("norms.1", 64),
        maps({"layers.0": (64, 16), "layers.1": (10, 64)}) | norm("norm1", 64),
        maps({"convs.0": (64, 3, 3, 3), "convs.1": (16, 64, 3, 3)}) | norm("ln", 64, batch=False),
    ],
)  # fmt: skip
def test_norms_and_scales_without_a_place_leave_open_what_lies_between(state):
    graph = read(state)
    assert graph.pairs
    assert {(p.between, p.freedom, p.write_norm) for p in graph.pairs} == {
        ("unknown", "none", None)
    }
    assert any("norms or scales" in note for note in graph.notes)


def test_blocks_with_norms_in_front_stand_behind_a_stem_with_its_norm_behind():
    state = maps({"conv0": (32, 3, 3, 3)}) | norm("bn0", 32)
    for i in range(2):
        for n in (1, 2):
            state |= norm(f"blocks.{i}.bn{n}", 32) | maps({f"blocks.{i}.conv{n}": (32, 32, 3, 3)})
    graph = read(state, family="none")
    assert [(pair.between, pair.write_norm) for pair in graph.pairs] == [("norm", None)] * 2


def test_a_norm_named_as_two_maps_is_of_neither():
    state = maps({"conv1": (64, 64, 3, 3), "conv2": (64, 64, 3, 3), "fc1": (64, 64)})
    graph = read(state | norm("bn1", 64) | maps({"fc2": (64, 64)}))
    assert not [pair for pair in graph.pairs if pair.write_norm]
    assert any("(bn1)" in note for note in graph.notes)


def test_a_norm_named_as_two_maps_is_that_of_the_convolution_made_next_to_it():
    """Of conv1 and fc1. Far from conv1 bn1 is of neither, on whichever side of it."""
    convolution, rest = (64, 64, 3, 3), maps({"fc1": (64, 64), "fc2": (10, 64)})
    first, second = maps({"conv1": convolution}), maps({"conv2": convolution})
    behind = read(first | norm("bn1", 64) | second | norm("bn2", 64) | rest)
    assert behind.pairs[0].between == "norm"
    assert not any("norms or scales that may stand" in note for note in behind.notes)
    before = norm("bn1", 64) | maps({"conv0": convolution}) | second | first | rest
    after = first | second | maps({"conv3": convolution}) | norm("bn1", 64) | rest
    for far in (before, after):
        graph = read(far)
        assert {pair.between for pair in graph.pairs} == {"unknown"}
        assert any("norms or scales that may stand" in note for note in graph.notes)


@pytest.mark.parametrize(
    "up",
    [("up1", "up2", "dec1", "dec2"), ("deconv1", "deconv2", "decoder1", "decoder2"),
     ("upconvs.0", "upconvs.1", "dec_blocks.0", "dec_blocks.1")],
)  # fmt: skip
def test_no_pair_crosses_a_transposed_convolution(up):
    state = maps({"enc1.0": (64, 3, 3, 3), "enc2.0": (128, 64, 3, 3), "enc3.0": (256, 128, 3, 3),
                  up[0]: (256, 128, 2, 2), f"{up[2]}.0": (128, 256, 3, 3),
                  f"{up[2]}.2": (128, 128, 3, 3), up[1]: (128, 64, 2, 2),
                  f"{up[3]}.0": (64, 128, 3, 3), f"{up[3]}.2": (64, 64, 3, 3),
                  "out": (1, 64, 1, 1)})  # fmt: skip
    graph = read(state)
    assert [pair.name for pair in graph.pairs] == [
        "enc1.0-enc2.0", "enc2.0-enc3.0", f"{up[2]}.0-{up[2]}.2", f"{up[3]}.0-{up[3]}.2"
    ]  # fmt: skip
    assert any("transposed" in note and up[0] in note for note in graph.notes)
    assert not any("depthwise" in note for note in graph.notes)


def test_a_reader_of_a_concatenation_is_no_transposed_convolution():
    state = maps({f"dec.conv{n}": (64, 128, 3, 3) for n in (1, 2)} | {"dec.conv3": (32, 64, 3, 3)})
    assert names(state) == ["dec.conv2-dec.conv3"]


def test_a_linear_map_behind_a_flattening_reads_channels():
    (pair,) = read(maps({"0": (8, 3, 3, 3), "3": (10, 8 * 16)})).pairs
    assert (pair.d, pair.read.map.layout, pair.read.map.sizes["s"]) == (8, "o (i s)", 16)


def test_token_maps_of_a_mixer_are_not_flattened_into_channel_maps():
    state = maps({"1": (128, 768), "2.0.fn.0": (256, 64, 1), "2.0.fn.3": (64, 256, 1),
                  "2.1.fn.0": (512, 128), "2.1.fn.3": (128, 512)})  # fmt: skip
    assert names(state) == ["2.1.fn.0-2.1.fn.3"]


def test_an_adapter_goes_down_before_it_goes_up():
    state = layers("layers.{}.adapter", 2, {"down_proj": (16, 64), "up_proj": (64, 16)})
    assert [(pair.d, pair.write.map.tensor) for pair in read(state).pairs] == [
        (16, f"layers.{i}.adapter.down_proj.weight") for i in range(2)
    ]
    bare = layers("layers.{}.part", 2, {"down_proj": (16, 64), "up_proj": (64, 16)})
    assert names(bare) == []


def test_layers_of_one_head_are_not_the_heads_of_one_layer():
    state = layers("layers.{}", 4, {"query": (16, 64), "key": (16, 64), "value": (16, 64),
                                    "up": (64, 16)})  # fmt: skip
    assert names(state | maps({"out": (64, 64)})) == []
    graph = build_graph(state | maps({"out": (64, 64)}), heads=1)
    assert [pair.name for pair in graph.pairs] == [
        f"layer.{i}.{kind}" for i in range(4) for kind in ("qk", "ov")
    ]


def test_factors_within_attention_are_no_mlp():
    shapes = dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (64, 64))
    state = layers("layers.{}.attn", 2, shapes | {"lora_down": (8, 64), "lora_up": (64, 8)})
    assert {pair.kind for pair in build_graph(state, heads=4).pairs} == {"qk", "ov"}


def test_readers_of_one_latent_are_listed_and_share_no_freedom():
    state = maps({"encoder.0": (64, 784), "encoder.2": (32, 64), "classifier.0": (64, 32),
                  "classifier.2": (10, 64), "decoder.0": (64, 32),
                  "decoder.2": (784, 64)})  # fmt: skip
    graph = read(state)
    assert len(graph.pairs) == 3
    (note,) = [one for one in graph.notes if "borders" in one]
    assert "encoder.2 to decoder.0" in note
    assert "encoder.2 to classifier.0" in note


@pytest.mark.parametrize(
    ("state", "pairs"),
    [
        (maps({"stem": (32, 3, 3, 3)})
         | layers("blocks.{}", 2, {f"conv{n}": (32, 32, 3, 3) for n in (1, 2)}), 3),
        (layers("blocks.{}", 3, {"fc1": (64, 64), "fc2": (64, 64)}), 3),
        (layers("blocks.{}", 2, {"1": (128, 64), "3": (64, 128)})
         | norm("blocks.0.0", 64) | norm("blocks.1.0", 64), 2),
        (layers("blocks.{}", 2, {"conv1": (16, 64, 1, 1), "conv2": (16, 16, 3, 3),
                                 "conv3": (64, 16, 1, 1)}), 4),
    ],
)  # fmt: skip
def test_blocks_may_add_what_they_read(state, pairs):
    graph = read(state)
    assert len(graph.pairs) == pairs
    assert {pair.freedom for pair in graph.pairs} == {"none"}
    assert any("a block may add what it reads" in note for note in graph.notes)


def test_a_width_that_occurs_once_can_be_rescaled_and_others_may_be_tied():
    free = {"fc1": (64, 784), "fc2": (32, 64), "fc3": (10, 32)}
    assert {pair.freedom for pair in read(maps(free)).pairs} == {"scaling"}
    tied = {"fc1": (64, 784), "fc2": (64, 64), "fc3": (10, 64)}
    graph = read(maps(tied))
    assert {pair.freedom for pair in graph.pairs} == {"none"}
    assert any("a sum or a second reader" in note for note in graph.notes)
    inside = maps({"0": (64, 64), "2": (64, 64), "4": (64, 64)})
    assert {pair.freedom for pair in read(inside).pairs} == {"scaling"}


@pytest.mark.parametrize("name", ["foo", "swiglu", "geglu", "softmax", "maxout"])
def test_an_activation_that_nobody_knows_gives_no_freedom(name):
    graph = read(maps({"0": (32, 16), "2": (32, 32)}), {"activation": name})
    assert {pair.freedom for pair in graph.pairs} == {"none"}
    assert activation_freedom(name) == "none"


def test_reasons_are_true_of_what_they_are_said_of():
    state = maps({"ups.0": (256, 128, 16), "ups.1": (128, 64, 16)})
    (note,) = [one for one in read(state).notes if "in no pair" in one]
    assert "transposed" in note
    spline = {"layers.0.base_weight": (64, 28), "layers.0.spline_weight": (64, 28, 8)}
    assert not any("depthwise" in note for note in read(spline).notes)
    beside = maps({"conv1": (64, 64, 3, 3), "shortcut.0": (64, 64, 1, 1)})
    assert not any("could not be read" in note for note in read(beside).notes)


def test_a_trunk_that_reads_its_input_twice_is_a_chain():
    state = maps({f"pts_linears.{i}": (256, {0: 63, 5: 319}.get(i, 256)) for i in range(8)})
    assert names(state) == [f"pts_linears.{i}-pts_linears.{i + 1}" for i in (0, 1, 2, 3, 5, 6)]
    square = maps({f"linears.{i}": (64, 64) for i in range(4)})
    assert names(square) == []
