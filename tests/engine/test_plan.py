"""What a scan reads, and how often."""

import pytest
import torch

from engine.models import gpt2
from engine.scans import Spy, graph_of, tasks_of
from flagscope.checkpoint import from_state_dict
from flagscope.engine import Settings, plan
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.run.execute import execute


@pytest.mark.parametrize("fold", ["none", "all"])
def test_each_tensor_is_read_once_a_task_and_as_many_bytes_as_planned(fold):
    checkpoint = gpt2()
    settings = Settings(fold_norms=fold, device="cpu")
    for task in tasks_of(checkpoint):
        spy = Spy(checkpoint)
        execute(task, TensorCache(spy, [task]), settings)
        assert set(spy.reads.values()) == {1}
        norms = sum(size for name, size in spy.bytes.items() if ".ln_1." in name)
        assert (norms > 0) == (fold == "all" and bool(task.heads))
        assert sum(spy.bytes.values()) - norms == task.bytes_read


def test_tensors_of_no_pair_are_not_read():
    checkpoint = gpt2()
    spy = Spy(checkpoint)
    for task in tasks_of(checkpoint):
        execute(task, TensorCache(spy, [task]), Settings(device="cpu"))
    matrices = {name for name in checkpoint.tensors if name.startswith("h.") and ".ln" not in name}
    assert set(spy.bytes) == matrices


def test_a_part_of_a_fused_tensor_counts_its_share():
    checkpoint = gpt2(layers=1)
    whole = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    attention, mlp = tasks_of(checkpoint)
    assert attention.bytes_read == whole["h.0.attn.c_attn.weight"] + whole["h.0.attn.c_proj.weight"]
    assert mlp.bytes_read == whole["h.0.mlp.c_fc.weight"] + whole["h.0.mlp.c_proj.weight"]
    assert attention.bytes_peak > attention.bytes_read
    # W_Q and W_K alone lie in all rows, and rows are what is read.
    group = [pair for pair in attention.pairs if pair.kind == "qk"]
    graph = graph_of(checkpoint)
    only_qk = type(graph)(graph.family, tuple(group), (), (), ())
    (task,) = plan(only_qk, Settings(), whole)
    assert task.bytes_read == whole["h.0.attn.c_attn.weight"]


def test_rows_of_a_fused_tensor_are_read_alone():
    config = {"model_type": "phi3", "hidden_size": 24, "num_attention_heads": 4,
              "num_hidden_layers": 1, "intermediate_size": 48, "num_key_value_heads": 4,
              "hidden_act": "silu", "vocab_size": 50}  # fmt: skip
    shapes = {"self_attn.qkv_proj": (72, 24), "self_attn.o_proj": (24, 24)}
    shapes |= {"mlp.gate_up_proj": (96, 24), "mlp.down_proj": (24, 48)}
    shapes |= {"input_layernorm": (24,), "post_attention_layernorm": (24,)}
    state = {f"model.layers.0.{n}.weight": torch.rand(shape) for n, shape in shapes.items()}
    checkpoint = from_state_dict(state, config=config)
    (task,) = (task for task in tasks_of(checkpoint, only=("heads",)))
    spy = Spy(checkpoint)
    execute(task, TensorCache(spy, [task]), Settings(device="cpu"))
    fused = {index for name, index in spy.reads if "qkv" in name}
    assert fused == {f"(slice({a}, {a + 24}, None), slice(0, 24, None))" for a in (0, 24, 48)}


def test_tasks_group_what_shares_tensors_in_the_order_of_the_graph():
    tasks = tasks_of(gpt2())
    assert len(tasks) == 4
    assert [len(task.pairs) for task in tasks] == [2, 1, 2, 1]
    assert [len(task.heads) for task in tasks] == [4, 0, 4, 0]
    assert len({task.name for task in tasks}) == 4
    assert all(task.flops > 0 for task in tasks)


def test_only_chooses_parts():
    checkpoint = gpt2()
    pairs, heads = (tasks_of(checkpoint, only=(part,)) for part in ("pairs", "heads"))
    assert sum(len(task.heads) for task in pairs) == 0
    assert sum(len(task.pairs) for task in heads) == 0
    assert len(heads) == 2
    assert tasks_of(checkpoint, only=("residual",)) == []


def test_cost_grows_with_the_model():
    small, large = tasks_of(gpt2(d=24)), tasks_of(gpt2(d=48))
    for one, other in zip(small, large, strict=True):
        # Products grow with the cube, eigenproblems of heads too.
        assert 6 < other.flops / one.flops < 10
        assert 3.9 < other.bytes_read / one.bytes_read < 4.1
