"""Heads of a scan under gains: what reads through one norm shares its scales."""

import numpy as np
import pytest
import torch

import flagscope
from engine.scans import graph_of
from flagscope.checkpoint import from_state_dict
from flagscope.engine import Settings
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.run.head_scales import HeadScales
from flagscope.geometry import head_spaces, scale_profile, without_profile
from flagscope.null import mean_overlap_significance, overlap_significance

D, HEADS, SHARED, RANK = 48, 6, 2, 8
CONFIG = {
    "model_type": "llama", "hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": HEADS,
    "num_key_value_heads": SHARED, "head_dim": RANK, "intermediate_size": 8, "vocab_size": 8,
}  # fmt: skip


def name_of(role):
    return f"model.layers.0.self_attn.{role}_proj.weight"


def attention(seed, *, sd=0.0, dead=0):
    """One layer of random heads that read under one gain and write under another."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    read, write = ((sd * torch.randn(D, generator=generator)).exp().double() for _ in range(2))
    read[:dead] = 0
    for role, count in (("q", HEADS), ("k", SHARED), ("v", SHARED), ("o", HEADS)):
        w = torch.randn(count * RANK, D, generator=generator).double()
        state[name_of(role)] = (w * write).T.contiguous() if role == "o" else w * read
    state["model.layers.0.input_layernorm.weight"] = torch.ones(D).double()
    return state


def heads_of(state, *, family="llama", **options):
    config = {**CONFIG, "model_type": family}
    found = flagscope.scan(state, config=config, only="heads", **options).result.heads
    return {record.space: record for record in found}


def rows(state, role):
    w = state[name_of(role)]
    return (w.T if role == "o" else w).reshape(-1, RANK, D)


def test_queries_keys_and_values_share_their_scales():
    state = attention(1, sd=0.4)
    state[name_of("q")][:RANK] += 1.2 * state[name_of("q")][RANK : 2 * RANK]
    record = heads_of(state)["q"]
    spaces = [head_spaces(rows(state, role)) for role in "qkv"]
    profile = scale_profile(spaces)
    left = without_profile(spaces[0], profile)
    projectors = (left.bases @ left.bases.mT).numpy()
    upper = [(i, j) for i in range(HEADS) for j in range(i)]
    ratio = np.mean([np.sum(projectors[i] * projectors[j]) * D / RANK**2 for i, j in upper])
    test = mean_overlap_significance(ratio + profile.shift(RANK, RANK), [RANK] * HEADS, D)
    raw = mean_overlap_significance(record.overlap_ratio, [RANK] * HEADS, D)
    assert raw.log10_p < -10
    assert record.log10_p == pytest.approx(test.log10_p, rel=1e-6)
    assert record.log10_p_profile == record.log10_p
    # Two heads are tested as two.
    keys = heads_of(state)["k"]
    assert keys.log10_p > overlap_significance(
        keys.overlap_ratio * RANK**2 / D, RANK, RANK, D
    ).log10_p  # fmt: skip


@pytest.mark.parametrize("fold", ["auto", "all"])
@pytest.mark.parametrize(("sd", "dead"), [(0.4, 0), (0.0, D // 4)])
def test_random_heads_under_a_gain_are_called_as_often_as_the_level_says(sd, dead, fold):
    found = [heads_of(attention(seed, sd=sd, dead=dead), fold_norms=fold) for seed in range(60)]
    records = [record for one in found for record in one.values()]
    n = len(records)
    bound = 0.05 + 4 * np.sqrt(0.05 * 0.95 / n)
    assert np.mean([record.log10_p < np.log10(0.05) for record in records]) < bound
    assert np.mean([record.shared_log10_p < np.log10(0.05) for record in records]) < bound
    assert np.mean([bool(record.near_copies) for record in records]) < bound
    assert not any(record.clusters for record in records)
    # Six heads alone say how often the law of heads as they are would be wrong.
    raw = [mean_overlap_significance(one["q"].overlap_ratio, [RANK] * 6, D).p for one in found]
    assert np.mean(np.array(raw) < 0.01) > 0.5


def test_copies_and_shared_directions_are_found_through_a_scan():
    state = attention(3)
    queries = rows(state, "q").clone()
    queries[4] = queries[1] + 0.2 * torch.randn(RANK, D, generator=torch.Generator().manual_seed(5))
    queries[[0, 2, 3, 5], 0] = (
        5 * torch.randn(D, generator=torch.Generator().manual_seed(6)).double()
    )
    state[name_of("q")] = queries.reshape(-1, D)
    generator = torch.Generator().manual_seed(7)
    norm = (0.4 * torch.randn(D, generator=generator)).exp().double()
    state |= {name_of(role): state[name_of(role)] * norm for role in "qkv"}
    found = heads_of(state)
    assert found["q"].near_copies[0].heads == (1, 4)
    assert found["q"].near_copies[0].p_familywise < 1e-6
    assert found["q"].clusters == [[1, 4]]
    assert found["q"].shared_p_familywise < 1e-3
    assert found["k"].clusters == found["o"].clusters == []


def test_a_head_that_cannot_be_measured_leaves_the_scales_of_the_others():
    state = attention(1, sd=0.4)
    state[name_of("k")] = state[name_of("k")].clone()
    state[name_of("k")][:RANK] = float("nan")
    found = heads_of(state)
    assert found["k"].status == "head 0 is not finite"
    assert found["q"].log10_p_profile > -3


def test_what_storage_rounding_adds_to_a_head_is_no_direction_of_it():
    """Heads of rank 3, stored in bfloat16: the scales are divided out of three directions."""
    state = attention(4, sd=0.4)
    mix = torch.randn(RANK - 3, 3, generator=torch.Generator().manual_seed(5)).double()
    for role in "qkv":
        for head in rows(state, role):
            head[3:] = mix @ head[:3]
    checkpoint = from_state_dict({name: w.bfloat16() for name, w in state.items()}, config=CONFIG)
    groups = [group for group in graph_of(checkpoint).heads if group.space != "o"]
    settings = Settings(device="cpu")
    with TensorCache(checkpoint, []) as tensors:
        reader = TaskReader(tensors, device=torch.device("cpu"), precision="float64")
        divided = HeadScales(groups, reader, settings).divided(groups[0])
    assert divided is not None
    assert divided.spaces.ranks.tolist() == [3] * HEADS
