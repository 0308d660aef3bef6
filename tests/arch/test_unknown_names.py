"""Bare state dicts whose reading was wrong once: each kind, with the right reading."""

import pytest
import torch
from scipy.linalg import block_diag

import flagscope
from arch.decoders import Megatron
from flagscope.arch import build_graph


def graph_of(state, config=None, **options):
    return build_graph({name: tuple(w.shape) for name, w in state.items()}, config, **options)


def names(graph):
    return [pair.name for pair in graph.pairs]


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_heads_that_are_modules_are_measured_as_one_block():
    d, heads = 64, 4
    state = {}
    for layer in range(2):
        for head in range(heads):
            for role in ("query", "key", "value"):
                state[f"stack.{layer}.att.heads.{head}.{role}.weight"] = weights(16, d) + head
        state[f"stack.{layer}.att.proj.weight"] = weights(d, d)
    plain, given = (flagscope.scan(state, workers=1, **how) for how in ({}, {"heads": heads}))
    for report in (plain, given):
        pairs = report.pairs_all
        assert sorted(pairs.kind) == ["ov"] * 8 + ["qk"] * 8
        assert set(pairs.d) == {16}
        assert len(report.result.heads) == 8
    # The same heads stored as one tensor each give the same numbers.
    joined = {}
    for layer in range(2):
        a = f"stack.{layer}.att."
        for role, short in (("query", "q"), ("key", "k"), ("value", "v")):
            joined[f"{a}{short}_proj.weight"] = torch.cat(
                [state[f"{a}heads.{h}.{role}.weight"] for h in range(heads)]
            )
        joined[f"{a}o_proj.weight"] = state[f"{a}proj.weight"]
    whole = flagscope.scan(joined, heads=heads, workers=1)
    for column in ("gram_correlation", "commutator_ratio"):
        assert plain.pairs[column].tolist() == pytest.approx(whole.pairs[column].tolist(), 1e-9)
    ours, theirs = ([h.overlap_ratio for h in r.result.heads] for r in (plain, whole))
    assert ours == pytest.approx(theirs, 1e-9)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_heads_follow_from_the_rows_of_a_fused_map(gated, groups):
    state = Megatron(gated=gated, shared=groups).state_dict()
    guessed = graph_of(state, heads=4)
    assert not [note for note in guessed.notes if "heads" in note]
    said = {"num_attention_heads": 4, "group_query_attention": True, "num_query_groups": groups}
    assert guessed.pairs == graph_of(state, said).pairs
    assert names(guessed).count("layer.0.qk") == 1


def test_heads_that_leave_no_whole_groups_are_of_no_use():
    state = Megatron(gated=True, shared=1).state_dict()
    graph = graph_of(state, heads=2)
    assert not [pair for pair in graph.pairs if pair.kind in ("qk", "ov")]
    assert [note for note in graph.notes if "the number of heads (2) was of no use" in note]


@pytest.mark.parametrize("said", [False, True])
def test_gains_stored_less_one_are_told_by_the_config(said):
    state = Megatron(gated=True, shared=4).state_dict()
    graph = graph_of(state, {"num_attention_heads": 4, "apply_layernorm_1p": said})
    norms = [pair.read_norm for pair in graph.pairs if pair.kind == "residual"]
    fused = [one for one in norms if one.name.endswith("linear_fc1.layer_norm")]
    assert {(one.kind, one.offset) for one in fused} == {("rmsnorm", float(said))}
    assert {one.gain for one in fused} <= state.keys()


@pytest.mark.parametrize("d", [32, 64, 96])
@pytest.mark.parametrize(
    "options", [{"heads": 4}, {"config": {"model_type": "gpt2", "n_head": 4}}, {}]
)
def test_gpt2_names_on_linear_layers(d, options):
    state = {"transformer.wte.weight": weights(65, d), "transformer.ln_f.weight": weights(d)}
    for i in range(2):
        b = f"transformer.h.{i}."
        state |= {b + "ln_1.weight": weights(d), b + "ln_2.weight": weights(d),
                  b + "attn.c_attn.weight": weights(3 * d, d),
                  b + "attn.c_proj.weight": weights(d, d),
                  b + "mlp.c_fc.weight": weights(4 * d, d),
                  b + "mlp.c_proj.weight": weights(d, 4 * d)}  # fmt: skip
    graph = graph_of(state, options.get("config"), heads=options.get("heads"))
    assert graph.family == "nanogpt"
    pairs = {pair.name: pair for pair in graph.pairs}
    assert pairs["layer.0.mlp"].d == 4 * d
    if options:
        key = pairs["layer.0.qk"].read.map
        rows = state["transformer.h.0.attn.c_attn.weight"][d : 2 * d]
        assert torch.equal(key.write_matrices(
            state["transformer.h.0.attn.c_attn.weight"]).reshape(d, d), rows)  # fmt: skip


def test_projections_in_one_list_are_no_sequence():
    state = {}
    for i in range(2):
        state |= {f"enc.{i}.att.linears.{j}.weight": weights(64, 64) for j in range(4)}
        state[f"enc.{i}.ff.w_1.weight"] = weights(256, 64)
        state[f"enc.{i}.ff.w_2.weight"] = weights(64, 256)
    for config, heads in ((None, None), ({"activation": "relu"}, 4)):
        graph = graph_of(state, config, heads=heads)
        assert not [name for name in names(graph) if "linears" in name]
        assert {pair.freedom for pair in graph.pairs} == {"none"}
        assert graph.family == "unknown"
        assert any("linears" in note for note in graph.notes)
    assert any("number of heads (4) was of no use" in note for note in graph.notes)
    assert names(graph_of({f"experts.{i}.weight": weights(8, 8) for i in range(3)})) == []


@pytest.mark.parametrize(
    ("first", "norm", "second"),
    [("block.0", "block.1", "block.3"), ("conv1", "bn1", "conv2"),
     ("body.conv1", "body.norm1", "body.conv2"), ("a.conv", "a.bn", "b.conv"),
     ("net.conv_1", "net.conv_1_bn", "net.conv_2")],
)  # fmt: skip
def test_batchnorms_are_folded_by_name_as_by_number(first, norm, second):
    w1, w2 = weights(16, 8, 3, 3), weights(16, 16, 3, 3)
    gain, variance = torch.rand(16) * 5, torch.rand(16) + 0.01
    state = {f"{first}.weight": w1, f"{norm}.weight": gain, f"{norm}.bias": weights(16),
             f"{norm}.running_mean": weights(16), f"{norm}.running_var": variance,
             f"{second}.weight": w2}  # fmt: skip
    if first.startswith("a."):  # two modules of names that say nothing
        assert names(graph_of(state)) == []
        return
    report = flagscope.scan(state, workers=1)
    (pair,) = report.result.pairs
    assert pair.folded == [norm]
    a = (w1.reshape(16, -1) * (gain / (variance + 1e-5).sqrt())[:, None]).double()
    b = w2.transpose(0, 1).reshape(16, -1).double()
    a, b = a @ a.mT, b @ b.mT
    a, b = (g - g.trace() / 16 * torch.eye(16) for g in (a, b))
    assert pair.gram_correlation == pytest.approx(
        float((a * b).sum() / (a.norm() * b.norm())), 1e-5
    )


def test_a_norm_in_front_of_its_map_is_not_folded_behind_it():
    state = {}
    for at, (i, o) in enumerate(((8, 16), (16, 24)), 1):
        state[f"conv{at}.weight"] = weights(o, i, 3, 3)
        state |= {
            f"bn{at}.{key}": torch.ones(i) for key in ("weight", "running_mean", "running_var")
        }
    (pair,) = graph_of(state).pairs
    assert pair.write_norm is None
    assert pair.between == "norm"


def test_depthwise_convolutions_are_not_read_as_dense_ones():
    state = {"m.0.weight": weights(32, 3, 3, 3), "m.3.weight": weights(32, 1, 3, 3),
             "m.6.weight": weights(64, 32, 1, 1)}  # fmt: skip
    graph = graph_of(state)
    assert names(graph) == []
    assert any("m.3" in note and "grouped" in note for note in graph.notes)
    # What its matrix is: of full rank, which a dense reading from one channel cannot have.
    true = block_diag(*[kernel.reshape(1, -1).numpy() for kernel in state["m.3.weight"]])
    assert torch.linalg.matrix_rank(torch.tensor(true)) == 32 > 9
    # The first of a model may be one of a single channel as well: open, with a note.
    first = {"0.weight": weights(16, 1, 3, 3), "2.weight": weights(24, 16, 1, 1)}
    assert names(graph_of(first)) == []
    assert any("depthwise" in note for note in graph_of(first).notes)


def test_a_transposed_convolution_is_told_by_its_neighbours():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.ConvTranspose2d(8, 6, 2),
        torch.nn.ReLU(), torch.nn.Conv2d(6, 4, 3),
    )  # fmt: skip
    state = dict(net.state_dict())
    graph = graph_of(state)
    assert names(graph) == ["0-2", "2-4"]
    read = graph.pairs[0].read.read(state["2.weight"])[0]
    assert read.shape[1] == 8
    live = flagscope.scan(net.eval(), example_inputs=torch.zeros(1, 3, 12, 12), workers=1)
    bare = flagscope.scan(state, workers=1)
    assert bare.pairs.gram_correlation.tolist() == pytest.approx(
        live.pairs.gram_correlation.tolist(), 1e-6
    )
    square = {"0.weight": weights(8, 3, 3, 3), "2.weight": weights(8, 8, 2, 2),
              "4.weight": weights(4, 8, 3, 3)}  # fmt: skip
    assert names(graph_of(square)) == []


@pytest.mark.parametrize(
    "middle",
    [{"2.weight": torch.empty(0)}, {"2.bias": weights(16)},
     {"2.U": weights(16, 4), "2.V": weights(4, 16)},
     {"2.weight_a": weights(16, 16), "2.weight_b": weights(16, 1)},
     {"2.qweight": weights(2, 16), "2.scales": weights(1, 16)}],
    ids=["empty", "bias alone", "factors", "parts", "packed"],
)  # fmt: skip
def test_a_chain_ends_at_what_was_not_read(middle):
    state = {"0.weight": weights(16, 16), **middle, "4.weight": weights(16, 16)}
    assert names(graph_of(state)) == []


def test_encoder_and_decoder_meet_where_they_can_only_follow_each_other():
    state = {"encoder.0.weight": weights(64, 32), "encoder.2.weight": weights(8, 64),
             "decoder.0.weight": weights(64, 8), "decoder.2.weight": weights(32, 64)}  # fmt: skip
    assert names(graph_of(state)) == [
        "encoder.0-encoder.2", "encoder.2-decoder.0", "decoder.0-decoder.2"
    ]  # fmt: skip
    twins = {f"{part}.{n}.weight": weights(8, 8) for part in ("left", "right") for n in (0, 2)}
    graph = graph_of(twins)
    assert names(graph) == ["left.0-left.2", "right.0-right.2"]
    assert any("left.2 to right.0" in note for note in graph.notes)


def test_three_maps_are_gated_only_where_something_says_so():
    square = {f"w{i}.weight": weights(64, 64) for i in (1, 2, 3)}
    assert names(graph_of(square)) == ["w1-w2"]
    plain = {"fc1.weight": weights(128, 57), "fc2.weight": weights(24, 128)}
    graph = graph_of({"emb.weight": weights(9, 5), **plain})
    assert names(graph) == ["fc1-fc2"]
    assert not any("left out" in note for note in graph.notes)


@pytest.mark.parametrize(
    ("bare", "pairs"), [((), ["layer.0.mlp"]), (("w1",), []), (("w2",), []), (("w1", "w2"), [])]
)
def test_square_maps_lie_as_linear_layers_do_where_all_of_them_are_such(bare, pairs):
    """A parameter of its own may be read from either side, and squares do not show from which."""
    state = {f"layers.0.attn.{one}_proj.weight": weights(64, 64) for one in "qkvo"}
    for name in ("w1", "w2"):
        state[f"layers.0.mlp.{name}" + ("" if name in bare else ".weight")] = weights(64, 64)
    graph = graph_of(state, heads=4)
    assert [pair.name for pair in graph.pairs if pair.kind not in ("qk", "ov")] == pairs


def test_a_network_of_convolutions_is_no_mlp():
    state = {"0.weight": weights(8, 3, 3, 3), "2.weight": weights(4, 8, 3, 3)}
    assert graph_of(state).family == "cnn"
    assert graph_of({"0.weight": weights(8, 3), "2.weight": weights(4, 8)}).family == "mlp"


@pytest.mark.parametrize(
    ("layers", "pairs"),
    [(("norm1", "norm2", None), 0), (("norm1", "norm2", "norm"), 0), (("ln_1", "ln_2", "ln_f"), 8),
     (("pre_attn_norm", "pre_mlp_norm", None), 8), (("att.norm", "ff.norm", None), 0)],
)  # fmt: skip
def test_residual_pairs_only_where_norms_are_shown_to_stand_in_front(layers, pairs):
    d, state = 16, {}
    for i in range(2):
        b = f"layers.{i}."
        state |= {f"{b}att.{n}.weight": weights(d, d) for n in ("w_q", "w_k", "w_v", "w_o")}
        state |= {b + "ff.up.weight": weights(4 * d, d), b + "ff.dn.weight": weights(d, 4 * d)}
        for norm in layers[:2]:
            state |= {f"{b}{norm}.weight": weights(d), f"{b}{norm}.bias": weights(d)}
    if layers[2]:
        state |= {f"{layers[2]}.weight": weights(d), f"{layers[2]}.bias": weights(d)}
    graph = graph_of(state, heads=4)
    residual = [pair for pair in graph.pairs if pair.kind == "residual"]
    assert len(residual) == pairs
    assert all(pair.read_norm.kind == "layernorm" for pair in residual)
    assert bool(graph.links) == bool(pairs)
    assert any("no residual pairs" in note for note in graph.notes) != bool(pairs)


def test_a_checkpoint_of_nanogpt_is_that_of_its_state_dict(tmp_path):
    """As its train.py saves it: compiled, beside an optimizer, with the arguments of the model."""
    d, plain = 32, {}
    for i in range(2):
        b = f"transformer.h.{i}."
        plain |= {b + "ln_1.weight": weights(d), b + "ln_2.weight": weights(d),
                  b + "attn.c_attn.weight": weights(3 * d, d),
                  b + "attn.c_proj.weight": weights(d, d) + i,
                  b + "mlp.c_fc.weight": weights(4 * d, d),
                  b + "mlp.c_proj.weight": weights(d, 4 * d) - i}  # fmt: skip
    saved = {
        "model": {f"_orig_mod.{name}": tensor for name, tensor in plain.items()},
        "optimizer": {"state": {0: {"exp_avg": weights(3)}}, "param_groups": []},
        "model_args": {"n_layer": 2, "n_head": 4, "n_embd": d, "block_size": 8, "bias": False},
        "iter_num": 5, "best_val_loss": torch.tensor(1.5), "config": {"dataset": "words"},
    }  # fmt: skip
    torch.save(saved, tmp_path / "ckpt.pt")
    ours = flagscope.scan(tmp_path / "ckpt.pt", workers=1)
    theirs = flagscope.scan(plain, config={"n_layer": 2, "n_head": 4, "n_embd": d}, workers=1)
    assert ours.result.family == theirs.result.family == "nanogpt"
    assert len(ours.result.heads) == 8
    assert ours.pairs.equals(theirs.pairs)
    assert ours.heads.equals(theirs.heads)


def test_layers_that_hold_attention_and_mlp_in_turn():
    """The names of x-transformers, whose layers count sub-blocks."""
    d, state = 32, {}
    for i in range(4):
        b = f"attn_layers.layers.{i}."
        state[b + "0.0.gamma"] = weights(d)
        if i % 2 == 0:
            names_here = ("to_q", "to_k", "to_v", "to_out")
            state |= {b + f"1.{name}.weight": weights(d, d) for name in names_here}
        else:
            state[b + "1.ff.0.0.weight"] = weights(4 * d, d)
            state[b + "1.ff.2.weight"] = weights(d, 4 * d)
    state |= {"token_emb.emb.weight": weights(64, d), "to_logits.weight": weights(64, d)}
    graph = graph_of(state, heads=4)
    assert names(graph) == [
        "layer.0.qk", "layer.0.ov", "layer.1.mlp", "layer.2.qk", "layer.2.ov", "layer.3.mlp"
    ]  # fmt: skip
    assert len(graph.heads) == 8
