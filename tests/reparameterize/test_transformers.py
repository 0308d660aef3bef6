"""What is open in a transformer, and what is refused; that outputs stay is proven in tests/arch."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from arch.cases import GROUPED, transformers
from arch.contract import drawn, randomise
from flagscope.arch import build_graph
from flagscope.errors import InputError
from flagscope.reparameterize import Change, applicable, apply, balancing_change
from reparameterize.models import Case

NEURONS = {"permutation"}
LINEAR = {"gl", "heads"} | NEURONS
ROPE = {"gl", "rotary", "heads", "scaling"} | NEURONS
NORMED = {"gl", "heads", "scaling", "query scale", "key scale", "norm rotation"} | NEURONS
EXPECTED = {
    "bert": LINEAR,
    "bert-relu": LINEAR | {"scaling"},
    "bert-odd-head": LINEAR,
    "bert-cross": LINEAR,
    "distilbert": LINEAR,
    "gpt2": LINEAR,
    "gpt2-cross": LINEAR,
    "llama": ROPE | {"stream"},
    "llama-biases-relu": ROPE | {"stream"},
    "llama-wide-heads": ROPE,
    "llama-one-kv": ROPE | {"stream"},
    "qwen2": ROPE | {"stream"},
    "qwen3": NORMED | {"stream"},
    "gpt_neox": {"gl", "rotary", "heads"} | NEURONS,
    "vit": LINEAR,
    "deepseek_v3": {"gl", "rotary", "scaling", "write scale"} | NEURONS,
    "mpt-clipped": NEURONS,
    "llama4": NORMED,
}


@pytest.fixture(scope="module")
def cases():
    return {}


def case_of(cases, name):
    if name not in cases:
        cases[name] = Case(name)
    return cases[name]


def first_layer(graph):
    """One layer's worth of symmetries, and the stream's."""
    return [s for s in applicable(graph) if getattr(s.group, "layer", 0) == 0]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_inverse_restores(cases, name):
    case = case_of(cases, name)
    symmetries = applicable(case.graph)
    assert {one.kind for one in symmetries} == EXPECTED[name]
    assert len({one.name for one in symmetries}) == len(symmetries)
    for seed, symmetry in enumerate(first_layer(case.graph)):
        change = drawn(symmetry, seed)
        result = apply(case.state, change)
        assert any(not torch.equal(result.state[k], case.state[k]) for k in result.changed)
        back = apply(result.state, change.inverse()).state
        if symmetry.kind != "stream":
            for tensor, value in case.state.items():
                assert torch.allclose(back[tensor], value, rtol=1e-10, atol=1e-10), symmetry.name


def test_an_unfolded_gain_does_not_let_the_stream_turn(cases):
    case = case_of(cases, "llama")
    stream = applicable(case.graph)[-1]
    broken = replace(stream.group, norms=stream.group.norms[1:])
    changed = apply(case.state, drawn(replace(stream, group=broken), 0)).state
    assert case.movement(changed) > 1e-3


@pytest.mark.parametrize("field", [{"heads_alike": False}, {"between": "relative"}])
def test_heads_that_differ_beyond_their_weights_keep_their_places(cases, field):
    graph = case_of(cases, "llama").graph
    pairs = tuple(replace(one, **field, freedom="none") if one.kind == "qk" else one
                  for one in graph.pairs)  # fmt: skip
    assert "heads" not in {one.kind for one in applicable(replace(graph, pairs=pairs))}


def test_whole_key_value_groups_and_heads_within_them_trade_places(cases):
    case = case_of(cases, "llama")
    heads = next(one for one in applicable(case.graph) if one.kind == "heads")
    for order in ([2, 3, 0, 1], [1, 0, 2, 3], [3, 2, 0, 1]):
        state = apply(case.state, Change(heads, torch.tensor(order))).state
        assert case.movement(state) < 1e-11
    with pytest.raises(InputError, match="stay together"):
        Change(heads, torch.tensor([2, 1, 0, 3]))


@pytest.mark.parametrize("name", ["llama", "bert", "gpt2"])
def test_module_and_state_agree(name):
    case = Case(name)
    changes = [drawn(one, seed) for seed, one in enumerate(applicable(case.graph))]
    kept = {tensor: value.clone() for tensor, value in case.state.items()}
    result = apply(case.model, changes)
    for tensor, value in case.model.state_dict().items():  # nothing is written unasked
        assert torch.equal(value, kept[tensor])
    written = apply(case.model, changes, in_place=True)
    now = case.model.state_dict()
    other = apply(kept, changes).state
    for tensor in kept:
        assert torch.equal(now[tensor], result.state[tensor])
        assert torch.equal(now[tensor], other[tensor])
        assert torch.equal(now[tensor], written.state[tensor])
    assert case.movement(now) < 1e-11


def tied_llama():
    config = transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True)
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config)
    model = randomise(model, seed=3)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    return model, config.to_dict()


def test_tied_embeddings_are_parted_and_it_is_said():
    case = Case("llama", made=tied_llama())
    stream = applicable(case.graph)[-1]
    assert stream.kind == "stream"
    result = apply(case.model, drawn(stream, 0), in_place=True)
    assert "no longer tied" in result.notes[0]
    assert case.model.lm_head.weight is not case.model.model.embed_tokens.weight
    assert case.model.config.tie_word_embeddings is False
    assert case.movement(dict(case.model.state_dict())) < 1e-11
    loaded = transformers.LlamaForCausalLM(case.model.config).double().eval()
    loaded.load_state_dict(result.state)
    case.model = loaded
    assert case.movement(dict(loaded.state_dict())) < 1e-11


def test_a_saved_tied_model_gets_an_unembedding():
    case = Case("llama", made=tied_llama())
    saved = {k: v for k, v in case.state.items() if k != "lm_head.weight"}
    graph = build_graph({k: tuple(v.shape) for k, v in saved.items()}, case.config)
    (frame,) = graph.frames
    assert frame.tied
    result = apply(saved, drawn(applicable(graph)[-1], 0))
    assert "lm_head.weight" in result.changed
    assert "tie_word_embeddings" in result.notes[0]
    assert case.movement(result.state) < 1e-11
    bare = torch.nn.ModuleDict({"model": transformers.LlamaModel(case.model.config).double()})
    turn = drawn(applicable(graph)[-1], 0)
    with pytest.raises(InputError, match=r"no tensor 'lm_head\.weight'"):
        apply(bare, turn, in_place=True)


def test_a_stream_with_anything_unknown_may_not_turn(cases):
    case = case_of(cases, "llama")
    shapes = {k: tuple(v.shape) for k, v in case.state.items()}
    for extra in ({"model.adapter.weight": (16, 16)}, {"model.layers.0.scale": (16,)}):
        assert build_graph(shapes | extra, case.config).frames == ()
    assert build_graph(shapes, {**case.config, "model_type": "strange"}).frames == ()


def test_a_norm_over_all_heads_leaves_one_scale():
    config = transformers.Olmo2Config(**GROUPED, rms_norm_eps=1e-20)
    config._attn_implementation = "eager"
    model = randomise(transformers.Olmo2ForCausalLM(config), seed=5)
    case = Case("llama", made=(model, config.to_dict()), family="qwen3")
    scales = [one for one in applicable(case.graph) if one.kind.endswith("scale")]
    assert [one.member for one in scales] == [None] * 4
    assert not case.graph.frames
    for symmetry in first_layer(case.graph):
        state = apply(case.state, drawn(symmetry, 7)).state
        assert case.movement(state) < 1e-11, symmetry.name
    single = replace(scales[0], member=1)
    changed = apply(case.state, Change(single, torch.tensor(2.0))).state
    assert case.movement(changed) > 1e-3


def test_rotations_commute_with_the_gains_of_norms():
    case = Case("qwen3")
    rotation = next(one for one in applicable(case.graph) if one.kind == "norm rotation")
    turned = torch.eye(8, dtype=torch.float64)
    c, s = torch.tensor(0.4).cos(), torch.tensor(0.4).sin()
    turned[0, 0] = turned[4, 4] = c
    turned[0, 4], turned[4, 0] = -s, s
    turn = Change(rotation, torch.linalg.qr(turned).Q * torch.linalg.qr(turned).R.diagonal().sign())
    with pytest.raises(InputError, match="does not commute with the gains"):
        apply(case.state, turn)
    equal = dict(case.state)
    for norm in (rotation.group.query_norm, rotation.group.key_norm):
        gain = equal[norm.gain].clone()
        gain[4] = gain[0]
        equal[norm.gain] = gain
    before = case.run(equal)
    after = case.run(apply(equal, turn).state)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-11
    with pytest.raises(InputError, match="plane of the rotary"):
        Change(rotation, torch.eye(8)[[1, 0, 2, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_balancing_makes_raw_alignment_perfect_for_nothing(cases, name):
    case = case_of(cases, name)
    symmetry = next(one for one in applicable(case.graph) if one.name == "layer.0.ov[1]: gl")
    change = balancing_change(symmetry, case.state)
    state = apply(case.state, change).state
    assert case.movement(state) < 1e-11
    group = symmetry.group
    write = group.write.write(state[group.write.map.tensor])[1]
    members = [m.read_index for m in group.members if m.kv_head == 1]
    read = group.read.read(state[group.read.map.tensor])[members]
    a, b = write @ write.mT, (read.mT @ read).sum(0)
    assert float((a - b).norm() / a.norm()) < 1e-12
