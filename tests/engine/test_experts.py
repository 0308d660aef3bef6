"""Experts by parts: the same numbers, and no more of them in memory than a part."""

import pytest
import torch

from engine.scans import CPU, OnDisk, assert_close, graph_of
from flagscope.checkpoint import from_state_dict
from flagscope.engine import plan, run_scan
from flagscope.engine.plan import experts
from flagscope.engine.plan.cost import pair_cost
from geometry.planted import normal

D, F, EXPERTS = 16, 24, 7


def mixture(fused):
    """A Mixtral of one layer, its experts in one tensor (as in memory) or each in its own."""
    at = "model.layers.0."
    state = {at + f"self_attn.{n}_proj.weight": normal(D, D, seed=i) for i, n in enumerate("qkvo")}
    up, gate = (normal(EXPERTS, F, D, seed=i) for i in (5, 6))
    down = normal(EXPERTS, D, F, seed=7)
    if fused:
        state[at + "mlp.experts.gate_up_proj"] = torch.cat([gate, up], dim=1)
        state[at + "mlp.experts.down_proj"] = down
    for e in range(0 if fused else EXPERTS):
        for name, one in (("w1", gate), ("w3", up), ("w2", down)):
            state[f"{at}block_sparse_moe.experts.{e}.{name}.weight"] = one[e].clone()
    state |= {at + f"{n}_layernorm.weight": torch.ones(D) for n in ("input", "post_attention")}
    config = {
        "model_type": "mixtral", "num_hidden_layers": 1, "hidden_size": D,
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": F,
        "vocab_size": 50, "hidden_act": "silu", "num_local_experts": EXPERTS,
    }  # fmt: skip
    return from_state_dict(state, config=config)


def planned(checkpoint):
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    return plan(graph_of(checkpoint), CPU, sizes)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("fused", [True, False])
def test_parts_of_experts_give_the_records_of_all_at_once(monkeypatch, fused, most):
    inner = mixture(fused)
    whole = run_scan(inner, graph_of(inner), CPU, workers=1)
    # The bytes of one expert's two maps, or of the matrices made of them.
    group = next(pair for pair in graph_of(inner).pairs if pair.kind == "mlp")
    expert = 8 * pair_cost(group).cells / EXPERTS if fused else 8 * 2 * D * F
    monkeypatch.setattr(experts, "_MOST", 1.1 * most * expert)
    tasks = [task for task in planned(inner) if "mlp" in task.name]
    assert 1 < len(tasks) <= -(-EXPERTS // most)
    assert len({task.name for task in tasks}) == len(tasks)
    checkpoint = OnDisk(inner)
    parts = run_scan(checkpoint, graph_of(checkpoint), CPU, workers=1)
    assert sorted(p.name for p in parts.pairs) == sorted(p.name for p in whole.pairs)
    ours = {pair.name: pair for pair in parts.pairs}
    for pair in whole.pairs:
        assert_close(ours[pair.name].model_dump(), pair.model_dump(), pair.name)
    if not fused:
        assert set(checkpoint.reads.values()) == {1}


def test_a_part_reads_its_own_rows_of_a_fused_tensor(monkeypatch):
    inner = mixture(fused=True)
    monkeypatch.setattr(experts, "_MOST", 1)
    tasks = [task for task in planned(inner) if "mlp" in task.name]
    assert len(tasks) == EXPERTS
    for e, task in enumerate(tasks):
        assert {(piece.start, piece.stop) for piece in task.pieces} == {(e, e + 1)}
        assert {m.expert for pair in task.pairs for m in pair.members} == {e}
    whole = sum(inner.tensors[f"model.layers.0.mlp.experts.{n}"].nbytes
                for n in ("gate_up_proj", "down_proj"))  # fmt: skip
    assert sum(task.bytes_read for task in tasks) == whole
    (pair, *_) = tasks[3].pairs
    assert pair.write.map.slice_text(0).startswith("[3")
