"""Which writers meet which readers, and that joined maps are the slices they say they are."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from flagscope.arch import LinearMap, build_graph, residual_pairs
from flagscope.arch.maps import solved_map
from flagscope.errors import InputError

LLAMA = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}


def llama(layers=3, d=8, last=()):
    roles = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (d // 2, d),
             "self_attn.v_proj": (d // 2, d), "self_attn.o_proj": (d, d),
             "mlp.gate_proj": (12, d), "mlp.up_proj": (12, d), "mlp.down_proj": (d, 12),
             "input_layernorm": (d,), "post_attention_layernorm": (d,)}  # fmt: skip
    return {f"model.layers.{i}.{name}.weight": shape
            for i in (*range(layers), *last) for name, shape in roles.items()}  # fmt: skip


def residual(graph):
    return [pair for pair in graph.pairs if pair.kind == "residual"]


def test_a_window_of_one_takes_the_rest_of_the_layer_and_the_next():
    graph = build_graph(llama(), LLAMA)
    names = {pair.name for pair in residual(graph)}
    readers = ["q", "k", "v", "mlp.up", "mlp.gate"]
    expected = {f"layer.{i}.o-layer.{i}.mlp.{r}" for i in range(3) for r in ("up", "gate")}
    expected |= {f"layer.{i}.{w}-layer.{i + 1}.{r}"
                 for i in range(2) for w in ("o", "mlp.down") for r in readers}  # fmt: skip
    assert names == expected
    for pair in residual(graph):
        reader = pair.name.partition("-")[2]
        assert (pair.between, pair.freedom, pair.attention, pair.d) == ("norm", "outer", None, 8)
        assert pair.layer == int(reader.split(".")[1])
        assert [one.name for one in pair.members] == [pair.name]
        norm = "post_attention_layernorm" if ".mlp." in reader else "input_layernorm"
        assert pair.read_norm is not None
        assert pair.read_norm.gain == f"model.layers.{pair.layer}.{norm}.weight"
        assert pair.write_norm is None


@pytest.mark.parametrize(("window", "count"), [(0, 0), (1, 26), (2, 36), (9, 36)])
def test_windows(window, count):
    graph = build_graph(llama(), LLAMA, window=window)
    assert len(residual(graph)) == count
    # The graph adds what the blocks allow on the other sides of the maps.
    alone = residual_pairs(graph.streams[0], window=window)
    assert alone == tuple(replace(pair, freedom="none") for pair in residual(graph))
    assert len(graph.links) == {0: 0, 1: 6, 2: 9, 9: 9}[window]
    others = [pair for pair in graph.pairs if pair.kind != "residual"]
    assert others == list(build_graph(llama(), LLAMA, window=0).pairs)


@pytest.mark.parametrize("window", [-1, True, 1.0, "1"])
def test_a_window_is_a_number_of_layers(window):
    with pytest.raises(InputError, match="window"):
        build_graph(llama(), LLAMA, window=window)


def test_links_join_the_heads_of_the_head_groups():
    graph = build_graph(llama(), LLAMA)
    link = next(one for one in graph.links if one.name == "layer.0.o-layer.1.k")
    assert (link.stack, link.attention, link.layer_from, link.layer_to) == ("decoder", "self", 0, 1)
    maps = {(head.layer, head.space): head.map for head in graph.heads}
    assert link.write.heads is maps[0, "o"]
    assert link.read.heads is maps[1, "k"]
    assert (link.write.heads.count, link.read.heads.count) == (4, 2)
    assert [one.name.rpartition(".")[2] for one in graph.links] == ["q", "k", "v"] * 2


def test_a_missing_layer_is_no_next_layer():
    shapes = llama(1, last=(2,))
    graph = build_graph(shapes, LLAMA)
    assert {pair.name.split(".")[1] for pair in residual(graph)} == {"0", "2"}
    assert all(pair.name.count(f"layer.{pair.layer}.") == 2 for pair in residual(graph))


def test_a_guessed_family_has_no_stream():
    graph = build_graph(llama(), {**LLAMA, "model_type": "strange"})
    assert graph.pairs
    assert graph.streams == graph.links == ()
    assert not residual(graph)


def test_a_stack_without_a_norm_in_one_layer_has_no_stream():
    shapes = llama()
    del shapes["model.layers.1.input_layernorm.weight"]
    graph = build_graph(shapes, LLAMA)
    assert graph.streams == ()
    assert any("not known which norm" in note and "decoder" in note for note in graph.notes)
    assert build_graph(shapes, LLAMA, window=0).notes == ()


def test_layers_behind_the_last_are_no_part_of_the_stream():
    """DeepSeek-V3 stores a layer that predicts further tokens as number 61 of 0 … 60."""
    d = 16
    roles = {"self_attn.q_a_proj": (8, d), "self_attn.q_b_proj": (24, 8),
             "self_attn.kv_a_proj_with_mqa": (10, d), "self_attn.kv_b_proj": (24, 6),
             "self_attn.o_proj": (d, 16), "mlp.gate_proj": (12, d), "mlp.up_proj": (12, d),
             "mlp.down_proj": (d, 12), "input_layernorm": (d,), "self_attn.q_a_layernorm": (8,),
             "self_attn.kv_a_layernorm": (6,), "post_attention_layernorm": (d,)}  # fmt: skip
    shapes = {f"model.layers.{i}.{name}.weight": shape
              for i in range(3) for name, shape in roles.items()}  # fmt: skip
    config = {"model_type": "deepseek_v3", "num_attention_heads": 4, "hidden_size": d,
              "kv_lora_rank": 6, "qk_nope_head_dim": 2, "num_hidden_layers": 2}  # fmt: skip
    graph = build_graph(shapes, config)
    assert {block.layer for block in graph.streams[0].blocks} == {0, 1}
    assert {pair.layer for pair in graph.pairs if pair.kind == "qk"} == {0, 1, 2}
    labels = [one.label for one in graph.streams[0].blocks[0].readers]
    assert labels == ["layer.0.queries", "layer.0.keysvalues"]


def numbered(one: LinearMap) -> torch.Tensor:
    return torch.arange(torch.tensor(one.shape).prod().item()).reshape(one.shape)


HEADS = partial(solved_map, role="x", tensor="w")
JOINED = {
    "plain": (
        partial(HEADS, layout="(h k) d", shape=(6, 4), known={"h": 3}, batch="h", out="k", inp="d"),
        "write",
        lambda w: w,
    ),
    "fused": (
        partial(
            HEADS,
            layout="d (three h k)",
            shape=(4, 18),
            known={"h": 3},
            batch="h",
            out="k",
            inp="d",
            select={"three": 1},
        ),
        "write",
        lambda w: w[:, 6:12].T,
    ),
    "by head": (
        partial(
            HEADS,
            layout="(h three k) d",
            shape=(18, 4),
            known={"h": 3},
            batch="h",
            out="k",
            inp="d",
            select={"three": 2},
        ),
        "write",
        lambda w: torch.cat([w[4:6], w[10:12], w[16:18]]),
    ),
    "falcon": (
        partial(
            HEADS,
            layout="(g s k) d",
            shape=(20, 4),
            known={"g": 2, "k": 2},
            batch="g s",
            out="k",
            inp="d",
            window={"s": ":s-2"},
        ),
        "write",
        lambda w: torch.cat([w[:6], w[10:16]]),
    ),
    "phi3": (
        partial(
            HEADS,
            layout="(s k) d",
            shape=(16, 4),
            known={"s": 8, "h": 4, "g": 2},
            batch="s",
            out="k",
            inp="d",
            window={"s": "h:h+g"},
        ),
        "write",
        lambda w: w[8:12],
    ),
    "output": (
        partial(HEADS, layout="d (h k)", shape=(4, 6), known={"h": 3}, batch="h", out="d", inp="k"),
        "read",
        lambda w: w,
    ),
    "output transposed": (
        partial(HEADS, layout="(h k) d", shape=(6, 4), known={"h": 3}, batch="h", out="d", inp="k"),
        "read",
        lambda w: w.T,
    ),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_joined_map_is_all_heads_at_once(name):
    make, view, expected = JOINED[name]
    heads = make()
    one = heads.joined(view)
    stored = numbered(one)
    (matrix,) = one.write_matrices(stored)
    assert torch.equal(matrix, expected(stored))
    assert torch.equal(one.read_matrices(stored)[0], matrix)
    assert (one.outputs, one.inputs) == tuple(matrix.shape)
    # the heads lie in it one behind the other
    single = heads.write_matrices(stored)
    stacked = torch.cat(list(single), dim=0 if view == "write" else 1)
    assert torch.equal(stacked, matrix)
    for side in ("write", "read"):
        changed = one.replace(stored, -matrix[None], view=side)
        assert torch.equal(one.write_matrices(changed)[0], -matrix)
        touched = (changed != stored).sum()
        assert touched == (matrix != 0).sum()


def test_the_bias_of_a_joined_map():
    by_head = JOINED["by head"][0](bias="b").joined("write")
    assert by_head.bias_vectors(torch.arange(18)).tolist() == [[4, 5, 10, 11, 16, 17]]
    output = JOINED["output"][0](bias="b").joined("read")
    assert output.bias_vectors(torch.arange(4)).tolist() == [[0, 1, 2, 3]]
