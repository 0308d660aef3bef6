"""Residual pairs and links of a scan against explicit matrices of real transformers."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.special import ndtr

import flagscope
import reference
from engine.models import gpt2
from engine.scans import Spy
from flagscope.arch import build_graph
from flagscope.checkpoint import from_state_dict
from flagscope.engine import Settings, plan
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.run.execute import execute
from flagscope.null import overlap_significance

D, HEADS, LAYERS = 24, 4, 3
K = D // HEADS


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, one in model.state_dict().items():
        gain = "ln" in name or "norm" in name
        shift = 1.0 if gain and name.endswith("weight") else 0.0
        state[name] = shift + 0.3 * torch.randn(one.shape, generator=generator)
    return state


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=D, num_attention_heads=HEADS, num_key_value_heads=2, intermediate_size=40,
        num_hidden_layers=LAYERS, vocab_size=30,
    )  # fmt: skip
    return randomised(LlamaForCausalLM(config)), config.to_dict()


@pytest.fixture(scope="module")
def gpt():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=D, n_head=HEADS, n_layer=LAYERS, vocab_size=30, n_positions=16)
    return randomised(GPT2LMHeadModel(config)), config.to_dict()


def llama_maps(state, layer):
    """(writers, readers, partners) as the stream sees them, the gains folded."""
    at = f"model.layers.{layer}."
    w = {n.removeprefix(at): v.double().numpy() for n, v in state.items() if n.startswith(at)}
    first, second = w["input_layernorm.weight"], w["post_attention_layernorm.weight"]
    readers = {s: w[f"self_attn.{s}_proj.weight"] * first for s in "qkv"}
    readers |= {f"mlp.{s}": w[f"mlp.{s}_proj.weight"] * second for s in ("up", "gate")}
    return {"o": w["self_attn.o_proj.weight"], "mlp.down": w["mlp.down_proj.weight"]}, readers


def gpt_maps(state, layer):
    writers, readers = gpt_plain(state, layer)
    centre = np.eye(D) - 1 / D
    basis = np.linalg.svd(centre)[0][:, : D - 1]  # an orthonormal basis of what a LayerNorm sees
    writers = {name: basis.T @ one for name, one in writers.items()}
    return writers, {name: one @ basis for name, one in readers.items()}


def gpt_plain(state, layer):
    """With the gains folded in, but the mean not taken off."""
    at = f"transformer.h.{layer}."
    w = {n.removeprefix(at): v.double().numpy() for n, v in state.items() if n.startswith(at)}
    fused = w["attn.c_attn.weight"].T.reshape(3, D, D)
    readers = {s: fused[i] * w["ln_1.weight"] for i, s in enumerate("qkv")}
    readers["mlp.up"] = w["mlp.c_fc.weight"].T * w["ln_2.weight"]
    return {"o": w["attn.c_proj.weight"].T, "mlp.down": w["mlp.c_proj.weight"].T}, readers


def expected_pairs(readers_of, window):
    """Names of writer and reader: later in the same layer, or up to `window` layers on."""
    for at in range(LAYERS):
        for to in range(at, min(at + window, LAYERS - 1) + 1):
            for writer in ("o", "mlp.down"):
                for reader in readers_of:
                    if to > at or (writer == "o" and reader.startswith("mlp")):
                        yield at, writer, to, reader


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("name", ["llama", "gpt"])
def test_residual_pairs_are_those_of_the_folded_maps(name, window, request):
    state, config = request.getfixturevalue(name)
    maps = llama_maps if name == "llama" else gpt_maps
    report = flagscope.scan(
        state, config=config, only="residual", window=window, edges=0, rank="participation"
    )
    found = {pair.name: pair for pair in report.result.pairs}
    expected = list(expected_pairs(maps(state, 0)[1], window))
    assert len(found) == len(report.result.pairs) == len(expected)
    assert report.result.edges == []
    for at, writer, to, reader in expected:
        one = found[f"layer.{at}.{writer}-layer.{to}.{reader}"]
        w1, w2 = maps(state, at)[0][writer], maps(state, to)[1][reader]
        assert one.d == w1.shape[0] == (D if name == "llama" else D - 1)
        assert one.layer == to
        r1, r2 = reference.effective_rank(w1), reference.effective_rank(w2)
        assert (one.effective_rank_write, one.effective_rank_read) == (r1, r2)
        assert one.commutator_ratio == pytest.approx(reference.commutator_ratio(w1, w2), rel=1e-9)
        assert one.gram_correlation == pytest.approx(reference.gram_correlation(w1, w2), rel=1e-9)
        assert one.commutation_defect == pytest.approx(reference.commutation_defect(w1, w2))
        assert one.overlap_ratio == pytest.approx(reference.overlap_ratio(w1, w2), rel=1e-9)
        spectrum = np.linalg.svd(w2 @ w1, compute_uv=False)[: len(one.functional.product_spectrum)]
        np.testing.assert_allclose(one.functional.product_spectrum, spectrum, rtol=1e-5, atol=1e-9)


def law(total, p, q, d):
    return overlap_significance(total, p, q, d).log10_p


@pytest.mark.parametrize("name", ["llama", "gpt"])
def test_p_of_residual_pairs_is_that_of_the_combined_test(name, request):
    """What stands out, and scale profiles, are looked for where coordinates are neurons: before
    the mean is taken off."""
    state, config = request.getfixturevalue(name)
    maps, plain = (llama_maps, llama_maps) if name == "llama" else (gpt_maps, gpt_plain)
    found = flagscope.scan(state, config=config, only="residual", window=2, edges=0).result.pairs
    guarded = 0
    by_name = {pair.name: pair for pair in found}
    for at, writer, to, reader in expected_pairs(maps(state, 0)[1], 2):
        pair = by_name[f"layer.{at}.{writer}-layer.{to}.{reader}"]
        w1, w2 = maps(state, at)[0][writer], maps(state, to)[1][reader]
        whole = plain(state, at)[0][writer], plain(state, to)[1][reader]
        ranks = reference.signal_rank(whole[0]), reference.signal_rank(whole[1])
        assert (pair.effective_rank_write, pair.effective_rank_read) == ranks
        shares = reference.level_shares(
            ranks,
            (np.linalg.matrix_rank(w1), np.linalg.matrix_rank(w2)),
            (reference.effective_rank(w1), reference.effective_rank(w2)),
            pair.d,
        )
        raw = reference.combined_log10_p(w1, w2, shares, law)
        assert pair.overlap_test.log10_p == pytest.approx(raw, rel=1e-6)
        if pair.overlap_test.log10_p_profile is not None:
            exact = reference.guarded_log10_p(*whole, shares, law, centred=name == "gpt")
            assert pair.overlap_test.log10_p_profile == pytest.approx(exact, rel=1e-6)
            assert pair.log10_p == pytest.approx(max(raw, exact), rel=1e-6)
            guarded += 1
    assert guarded > 0


@pytest.mark.parametrize("name", ["llama", "gpt"])
def test_links_are_those_of_the_folded_circuits(name, request):
    state, config = request.getfixturevalue(name)
    maps = llama_maps if name == "llama" else gpt_maps
    report = flagscope.scan(state, config=config, only="residual", edges=1000)
    shared = HEADS // 2 if name == "llama" else HEADS
    per_layer = HEADS * (HEADS + 2 * shared)
    assert report.result.edge_tests == len(report.result.edges) == (LAYERS - 1) * per_layer
    for edge in report.result.edges:
        before, after = maps(state, edge.layer_from), maps(state, edge.layer_to)
        group = HEADS // shared
        i, j = edge.head_from, edge.head_to
        ov = head(before[0]["o"].T, i).T @ head(before[1]["v"], i // group)
        if edge.space == "q":
            side = head(after[1]["q"], j)
            circuit = head(after[1]["k"], j // group).T @ side
        elif edge.space == "k":
            side = head(after[1]["k"], j)
            queries = [head(after[1]["q"], h) for h in range(j * group, (j + 1) * group)]
            circuit = np.concatenate([q.T @ side for q in queries])
        else:
            side = head(after[1]["v"], j)
            outputs = [head(after[0]["o"].T, h) for h in range(j * group, (j + 1) * group)]
            circuit = np.concatenate([o.T @ side for o in outputs])
        d = side.shape[1]
        score = np.linalg.norm(circuit @ ov) / np.linalg.norm(circuit) / np.linalg.norm(ov)
        assert edge.composition == pytest.approx(score, rel=1e-9), edge.target
        u = np.linalg.svd(head(before[0]["o"].T, i).T, full_matrices=False)[0]
        v = np.linalg.svd(side, full_matrices=False)[2]
        assert edge.overlap_ratio == pytest.approx(np.linalg.norm(v @ u) ** 2 * d / K**2, rel=1e-9)


def head(w, i):
    return w[i * K : (i + 1) * K]


def test_adjusted_p_values_of_listed_links_are_never_too_small(gpt):
    state, config = gpt
    every = flagscope.scan(state, config=config, only="residual", edges=1000).result
    few = flagscope.scan(state, config=config, only="residual", edges=7).result
    assert few.edge_tests == every.edge_tests
    assert len(few.edges) == 7
    exact = {(e.source, e.target): e.p_adjusted for e in every.edges}
    for edge in few.edges:
        assert edge.p_adjusted >= exact[edge.source, edge.target] * (1 - 1e-12)


@pytest.mark.parametrize("edges", [1000, 7])
def test_pairs_and_links_are_one_family(gpt, edges):
    state, config = gpt
    result = flagscope.scan(state, config=config, only="residual", edges=edges).result
    fields = {
        "overlap": ("p", "p"),
        "commutator": ("commutator_p", "commutator_p"),
        "correlation": ("gram_correlation_p", "gram_correlation_p"),
    }
    rows = [
        (kind, pair, p, name)
        for kind, (p, name) in fields.items()
        for pair in result.pairs
        if getattr(pair, p) is not None
    ]
    rows += [("link_overlap", edge, "p", "p") for edge in result.edges]
    rows += [("link_composition", edge, None, "composition_p") for edge in result.edges]
    kinds = [kind for kind, *_ in rows]
    p = [getattr(r, p) if p else 10**r.composition_log10_p for _, r, p, _ in rows]
    tests = {kind: kinds.count(kind) for kind in fields}
    tests |= {"link_overlap": result.edge_tests, "link_composition": result.edge_tests}
    assert result.tests == tests
    adjusted, familywise = reference.weighted_adjustment(p, kinds, tests)
    for (_, one, _, name), bh, bonferroni in zip(rows, adjusted, familywise, strict=True):
        assert getattr(one, f"{name}_adjusted") == pytest.approx(bh, rel=1e-9)
        assert getattr(one, f"{name}_familywise") == pytest.approx(bonferroni, rel=1e-9)


def test_maps_are_read_once_a_task_and_their_eigenproblems_solved_once(gpt, monkeypatch):
    from flagscope.geometry import prepared_maps

    state, config = gpt
    checkpoint = from_state_dict(state, config=config)
    graph = build_graph({n: i.shape for n, i in checkpoint.tensors.items()}, config, window=1)
    sizes = {n: i.nbytes for n, i in checkpoint.tensors.items()}
    settings = Settings(only=("residual",), device="cpu")
    tasks = plan(graph, settings, sizes)
    assert [task.name for task in tasks] == [f"decoder.{i}.stream" for i in range(LAYERS)]
    solved = Counter()
    real = prepared_maps.eigensystem

    def watched(w):
        solved[task.name, asked["again"]] += 1
        return real(w)

    def without(self, *args):
        asked["again"] = True
        try:
            return alone(self, *args)
        finally:
            asked["again"] = False

    asked, alone = {"again": False}, prepared_maps.PreparedMap._solved_on
    monkeypatch.setattr(prepared_maps, "eigensystem", watched)
    monkeypatch.setattr(prepared_maps.PreparedMap, "_solved_on", without)
    for task in tasks:
        spy = Spy(checkpoint)
        execute(task, TensorCache(spy, [task]), settings)
        assert set(spy.reads.values()) == {1}
        norms = sum(size for name, size in spy.bytes.items() if ".ln_" in name)
        assert sum(spy.bytes.values()) - norms == task.bytes_read
    # The first layer: O and up; each other one: q, k, v, up, its own O, and O and down before it.
    assert [solved[task.name, False] for task in tasks] == [2, 7, 7]
    # Once more at most, without its scale profile, and only where a test asks for it.
    again = [solved[task.name, True] for task in tasks]
    assert sum(again) > 0
    assert all(more <= once for more, once in zip(again, [2, 7, 7], strict=True))


def test_post_norm_stacks_and_window_zero_have_none():
    config = {"model_type": "gpt2", "n_head": 4, "n_embd": 24}
    state = {name: gpt2().read(name) for name in gpt2().tensors}
    state |= {f"h.{i}.ln_2.weight": torch.ones(24) for i in range(2)}
    assert flagscope.inspect(state, config=config, only="residual").tasks
    assert not flagscope.inspect(state, config=config, only="residual", window=0).tasks
    assert not flagscope.inspect(state, config=config, only="pairs").graph.links


def test_a_dead_head_leaves_the_other_links(gpt):
    state, config = gpt
    state = dict(state)
    o = state["transformer.h.0.attn.c_proj.weight"].clone()
    o[:K] = 0
    state["transformer.h.0.attn.c_proj.weight"] = o
    found = flagscope.scan(state, config=config, only="residual", edges=1000).result
    assert found.edge_tests == 2 * 3 * HEADS**2 - 3 * HEADS
    assert not any(e.source == "L0H0.o" for e in found.edges)


@pytest.mark.parametrize("name", ["llama", "gpt"])
def test_gains_that_layers_have_in_common_are_no_links(name, request):
    state, config = request.getfixturevalue(name)
    state = {key: torch.randn(w.shape, generator=torch.Generator().manual_seed(i))
             for i, (key, w) in enumerate(state.items())}  # fmt: skip
    common = (0.8 * torch.randn(D, generator=torch.Generator().manual_seed(99))).exp()
    for key in state:
        if key.endswith(("norm.weight", "ln_1.weight", "ln_2.weight")):
            state[key] = common.clone()
        elif key.endswith("attn.c_proj.weight"):
            state[key] *= common
        elif key.endswith("o_proj.weight"):
            state[key] *= common[:, None]
    found = flagscope.scan(state, config=config, only="residual", edges=1000).result.edges
    overlap, composition = (
        np.array([getattr(edge, field) for edge in found])
        for field in ("log10_p", "composition_log10_p")
    )
    raw = np.array([2 * ndtr(-abs(edge.overlap_z)) for edge in found])
    assert np.mean(raw < 0.01) > 0.05
    # Heads of one layer share the noise of their scales, so twice the level is allowed.
    assert np.mean(overlap < -2) < 0.02 + 4 * np.sqrt(0.01 / len(found))
    assert np.mean(composition < -2) < 0.02 + 4 * np.sqrt(0.01 / len(found))


def test_links_from_self_to_cross_attention_and_back_are_named_so():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=D, n_head=HEADS, n_layer=2, vocab_size=30, n_positions=16, add_cross_attention=True
    )
    state = randomised(GPT2LMHeadModel(config))
    edges = flagscope.scan(state, config=config.to_dict(), only="residual", edges=1000).result.edges
    ends = Counter(
        (e.layer_to - e.layer_from, ".cross." in e.source, ".cross." in e.target, e.space)
        for e in edges
    )
    # Keys and values of cross-attention are read from the encoder, not from this stream. Within a
    # block self-attention comes first.
    kinds = {(0, False, True, "q"), (1, False, True, "q"), (1, True, True, "q")}
    kinds |= {(1, across, False, space) for across in (False, True) for space in "qkv"}
    assert ends == dict.fromkeys(kinds, HEADS**2) | {(0, False, True, "q"): 2 * HEADS**2}


def test_queries_of_one_key_may_differ_in_size_beyond_the_range_of_their_type(llama):
    state, config = llama
    name = "model.layers.1.self_attn.q_proj.weight"
    found = []
    for exponent in (20, 70):
        sizes = torch.ones(D, 1)
        sizes[:K], sizes[K : 2 * K] = 2.0**-exponent, 2.0**exponent
        scaled = state | {name: state[name] * sizes}
        settings = {"only": "residual", "edges": 1000, "precision": "float32"}
        edges = flagscope.scan(scaled, config=config, **settings).result.edges
        found.append({(e.source, e.target): e.composition for e in edges if e.space == "k"})
    # The smaller ones are nothing next to the larger ones either way.
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_links_to_shared_keys_and_values_are_numbered_by_the_shared_heads(llama):
    state, config = llama
    edges = flagscope.scan(state, config=config, only="residual", edges=1000).result.edges
    heads = {space: {e.head_to for e in edges if e.space == space} for space in "qkv"}
    assert heads == {"q": {0, 1, 2, 3}, "k": {0, 1}, "v": {0, 1}}
    assert {e.head_from for e in edges} == {0, 1, 2, 3}
    assert all(e.target == f"L{e.layer_to}H{e.head_to}.{e.space}" for e in edges)
