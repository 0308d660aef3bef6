"""Attention and MLPs of names that no family has: what was once misread, with the right reading."""

import pytest

from flagscope.arch import build_graph


def shapes_of(**modules):
    return {f"{name.replace('__', '.')}.weight": shape for name, shape in modules.items()}


def by_kind(graph):
    found = {}
    for pair in graph.pairs:
        found.setdefault(pair.kind, []).append((pair.d, len(pair.members)))
    return found


def transformer_lens(*, biases=True, extra=False, groups=4, layers=2):
    heads, d, k, shapes = 4, 64, 16, {}
    if extra:
        shapes = {"embed.W_E": (99, d), "pos_embed.W_pos": (k, d), "unembed.W_U": (d, 99),
                  "unembed.b_U": (99,), "ln_final.w": (d,), "ln_final.b": (d,)}  # fmt: skip
    mark = "_" if groups < heads else ""
    for i in range(layers):
        b = f"blocks.{i}.attn."
        shapes |= {f"{b}W_Q": (heads, d, k), f"{b}W_O": (heads, k, d), f"{b}mask": (k, k),
                   f"{b}IGNORE": ()}  # fmt: skip
        shapes |= {f"{b}{mark}W_{n}": (groups, d, k) for n in "KV"}
        if biases:
            shapes |= {f"{b}b_Q": (heads, k), f"{b}b_O": (d,)}
            shapes |= {f"{b}{mark}b_{n}": (groups, k) for n in "KV"}
        if extra:
            m = f"blocks.{i}."
            shapes |= {f"{m}mlp.W_in": (d, 256), f"{m}mlp.W_out": (256, d), f"{m}mlp.b_in": (256,),
                       f"{m}mlp.b_out": (d,)}  # fmt: skip
            shapes |= {f"{m}{norm}.{n}": (d,) for norm in ("ln1", "ln2") for n in "wb"}
    return shapes


@pytest.mark.parametrize("config", [None, {"n_heads": 4, "d_head": 16, "d_model": 64}])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("groups", [2, 4])
def test_biases_with_an_axis_of_heads_prove_the_axes(config, extra, groups):
    graph = build_graph(transformer_lens(extra=extra, groups=groups), config)
    kinds = by_kind(graph)
    assert kinds["qk"] == kinds["ov"] == [(16, 4)] * 2
    assert kinds.get("mlp", []) == [(256, 1)] * 2 * extra
    assert {group.d for group in graph.heads} == {64}
    # Of a layer norm with gain w and bias b; attention and MLP may run in parallel.
    assert bool(kinds.get("residual")) == extra
    assert all(pair.layer == 1 for pair in graph.pairs if pair.kind == "residual")
    assert not any("mask" in name for name in graph.unmapped)


def test_the_config_decides_between_axes_that_nothing_else_tells_apart():
    shapes = transformer_lens(biases=False)
    assert by_kind(build_graph(shapes)) == {}
    said = by_kind(build_graph(shapes, {"d_model": 64, "d_head": 16}))
    assert said["qk"] == [(16, 4)] * 2
    # One that fits no reading is about something else.
    assert by_kind(build_graph(shapes, {"d_model": 48})) == {}


def test_the_order_in_a_layer_is_told_by_the_config_alone():
    shapes = transformer_lens(extra=True)
    both = [build_graph(shapes, config) for config in (None, {"parallel_attn_mlp": False})]
    counts = [by_kind(graph).get("residual", []) for graph in both]
    assert [len(one) for one in counts] == [8, 10]
    assert any("may both read the stream" in note for note in both[0].notes)
    assert not any("may both read the stream" in note for note in both[1].notes)


def layers(attention, mlp, norms=("norm1", "norm2"), d=64):
    shapes = {}
    for i in range(2):
        names = {f"layers.{i}.{name}": shape for name, shape in (attention | mlp).items()}
        shapes |= {f"{name}.weight": shape for name, shape in names.items()}
        shapes |= {f"layers.{i}.{norm}.{n}": (d,) for norm in norms for n in ("weight", "bias")}
    return shapes | {"norm.weight": (d,), "norm.bias": (d,)}


SQUARES = {f"attn.{name}": (64, 64) for name in ("wq", "wk", "wv", "wo")}


@pytest.mark.parametrize(
    "extra", [{}, {"attn.cpb_mlp.0": (512, 2), "attn.cpb_mlp.2": (4, 512)}], ids=["plain", "swin2"]
)
@pytest.mark.parametrize(
    "norms", [("norm1", "norm2"), ("attn_norm", "mlp_norm"), ("attn.norm", "mlp.norm")]
)
def test_post_norm_layers_with_a_last_norm_have_no_residual_pairs(norms, extra):
    mlp = {"mlp.fc1": (256, 64), "mlp.fc2": (64, 256)}
    graph = build_graph(layers(SQUARES | extra, mlp, norms), heads=4)
    assert "residual" not in by_kind(graph)
    assert not graph.links
    assert any("no residual pairs" in note for note in graph.notes)


def test_scales_of_blocks_leave_no_residual_pairs():
    mlp = {"mlp.fc1": (256, 64), "mlp.fc2": (64, 256)}
    shapes = layers(SQUARES, mlp, ("ln_1", "ln_2")) | {"ln_f.weight": (64,), "ln_f.bias": (64,)}
    assert "residual" in by_kind(build_graph(shapes, heads=4))
    scaled = shapes | {f"layers.{i}.gamma_{n}": (64,) for i in range(2) for n in (1, 2)}
    assert "residual" not in by_kind(build_graph(scaled, heads=4))


@pytest.mark.parametrize(
    ("both", "down", "named"),
    [("ff.net.0.proj", "ff.net.2", False), ("mlp.w12", "mlp.w3", False),
     ("mlp.gate_up_proj", "mlp.down_proj", True), ("mlp.fc1", "mlp.fc2", False)],
)  # fmt: skip
def test_halves_of_a_fused_gate_are_measured_alike(both, down, named):
    graph = build_graph(layers(SQUARES, {both: (384, 64), down: (64, 192)}), heads=4)
    first = [pair for pair in graph.pairs if pair.kind == "mlp" and pair.layer == 0]
    assert [pair.d for pair in first] == [192, 192]
    assert {pair.write.map.tensor for pair in first} == {f"layers.0.{both}.weight"}
    ends = {pair.name.rpartition("mlp.")[2] for pair in first}
    assert ends == ({"gate", "up"} if named else {"half1", "half2"})
    assert {pair.freedom for pair in first} == {"none"}


@pytest.mark.parametrize(
    "mlp",
    [{"mlp.fc1": (384, 64), "mlp.fc2": (64, 192), "mlp.norm": (192,)},
     {"attn2.to_kv": (384, 64), "attn2.to_out": (64, 192)},
     {"mod.scale": (384, 64), "mod.shift": (64, 192)}],
    ids=["norm of the halves", "keys and values", "other names"],
)  # fmt: skip
def test_two_maps_of_other_names_are_no_fused_gate(mlp):
    graph = build_graph(layers(SQUARES, mlp), heads=4)
    assert "mlp" not in by_kind(graph)


def test_a_filter_over_queries_keys_and_values_contradicts_attention():
    d = 64
    hyena = {"mixer.in_proj": (3 * d, d), "mixer.out_proj": (d, d),
             "mixer.short_filter": (3 * d, 1, 3)}  # fmt: skip
    graph = build_graph(layers(hyena, {"mlp.fc1": (256, d), "mlp.fc2": (d, 256)}), heads=4)
    assert [pair.d for pair in graph.pairs] == [256, 256]
    assert not graph.heads
    assert graph.family == "unknown"
    assert any("mixer" in note and "filter" in note for note in graph.notes)
    convolved = SQUARES | {"attn.q_conv": (d, 1, 3)}
    graph = build_graph(layers(convolved, {"mlp.fc1": (256, d), "mlp.fc2": (d, 256)}), heads=4)
    assert "qk" not in by_kind(graph)


def test_factors_in_the_module_of_attention_are_no_mlps():
    lora = SQUARES | {"attn.lora_down": (8, 64), "attn.lora_up": (64, 8)}
    graph = build_graph(layers(lora, {"mlp.fc1": (256, 64), "mlp.fc2": (64, 256)}), heads=4)
    assert {pair.d for pair in graph.pairs if pair.kind == "mlp"} == {256}


MEGATRON = {
    f"decoder.layers.{i}.{name}.weight": shape for i in range(2) for name, shape in (
        ("self_attention.linear_qkv", (128, 64)), ("self_attention.linear_proj", (64, 64)),
        ("mlp.linear_fc1", (256, 64)), ("mlp.linear_fc2", (64, 128)))
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [{"num_query_groups": 2, "kv_channels": 16}, {"num_query_groups": 2}, {},
     {"num_query_groups": 8}, {"num_query_groups": 4, "group_query_attention": True},
     {"num_query_groups": 2, "group_query_attention": False}],
)  # fmt: skip
def test_groups_of_a_fused_map_follow_from_its_rows_whatever_flags_say(config):
    graph = build_graph(MEGATRON, {"num_attention_heads": 4, **config})
    assert by_kind(graph)["qk"] == [(16, 4)] * 2
    assert {member.kv_head for pair in graph.pairs if pair.kind == "qk"
            for member in pair.members} == {0, 1}  # fmt: skip
    doubted = any("which is taken" in note for note in graph.notes)
    assert doubted == (config.get("num_query_groups", 0) > 2)


def test_two_blocks_of_one_layer_have_names_of_their_own():
    shapes = {f"layers.0.{name}.weight": shape for name, shape in (
        ("fc1", (256, 64)), ("fc2", (64, 256)), ("one.up_proj", (32, 64)),
        ("one.down_proj", (64, 32)), ("two.up_proj", (32, 64)),
        ("two.down_proj", (64, 32)))}  # fmt: skip
    names = [member.name for pair in build_graph(shapes).pairs for member in pair.members]
    assert len(set(names)) == len(names) >= 2
    assert any("layers.0.one.up_proj" in name for name in names)


def test_the_channel_mix_of_rwkv_is_an_mlp():
    d, shapes = 64, {}
    for i in range(2):
        b = f"blocks.{i}."
        shapes |= {f"{b}att.{n}.weight": (d, d) for n in ("key", "value", "receptance", "output")}
        shapes |= {f"{b}att.time_decay": (d,), f"{b}ffn.time_mix_k": (1, 1, d),
                   f"{b}ffn.key.weight": (4 * d, d), f"{b}ffn.value.weight": (d, 4 * d),
                   f"{b}ffn.receptance.weight": (d, d)}  # fmt: skip
    graph = build_graph(shapes)
    ends = [(pair.write.map.tensor, pair.read.map.tensor, pair.d) for pair in graph.pairs]
    assert ends == [(f"blocks.{i}.ffn.key.weight", f"blocks.{i}.ffn.value.weight", 4 * d)
                    for i in range(2)]  # fmt: skip
    assert {"blocks.0.ffn.receptance.weight", "blocks.0.att.key.weight"} <= set(graph.unmapped)
