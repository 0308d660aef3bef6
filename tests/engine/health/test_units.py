"""Dead neurons, dead heads and copies of neurons are those that were planted, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flagscope
from flagscope.records import FaultyBlock, Health, UnitCheck, UnitFaults

D, F, HEADS = 32, 40, 4
State = dict[str, Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def llama(
    *, layers: int = 3, act: str = "silu", bias: bool = False
) -> tuple[State, dict[str, Any]]:
    shapes = {f"self_attn.{n}_proj": (D, D) for n in "qo"}
    shapes |= {f"self_attn.{n}_proj": (D // 2, D) for n in "kv"}
    shapes |= {"mlp.up_proj": (F, D), "mlp.gate_proj": (F, D), "mlp.down_proj": (D, F)}
    state = {
        f"model.layers.{i}.{name}.weight": drawn(*shape, seed=100 * i + n)
        for i in range(layers) for n, (name, shape) in enumerate(shapes.items())
    }  # fmt: skip
    if bias:
        state |= {
            f"model.layers.{i}.{name}.bias": drawn(shape[0], seed=7 * i + n) * 0
            for i in range(layers) for n, (name, shape) in enumerate(shapes.items())
        }  # fmt: skip
    norms = ("input_layernorm", "post_attention_layernorm")
    state |= {f"model.layers.{i}.{n}.weight": torch.ones(D) for i in range(layers) for n in norms}
    state |= {"model.embed_tokens.weight": drawn(50, D), "model.norm.weight": torch.ones(D)}
    config = {
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": D, "hidden_act": act,
        "num_attention_heads": HEADS, "num_key_value_heads": 2, "intermediate_size": F,
        "vocab_size": 50, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    return state, config


def healthy(source: Any, config: dict[str, Any] | None = None, **options: Any) -> Health:
    health = flagscope.scan(source, config=config, only="health", **options).result.health
    assert health is not None
    return health


def units(health: Health, check: UnitCheck = "neurons") -> UnitFaults:
    (found,) = (one for one in health.units if one.check == check)
    return found


def only_block(health: Health, check: UnitCheck = "neurons") -> FaultyBlock:
    (block,) = units(health, check).listed
    return block


def at(layer: int, name: str, part: str = "weight") -> str:
    return f"model.layers.{layer}.{name}.{part}"


def test_a_sound_decoder_has_no_faulty_unit():
    state, config = llama(bias=True)
    health = healthy(state, config)
    neurons, heads = units(health), units(health, "heads")
    assert (neurons.blocks, neurons.units, neurons.faulty_blocks) == (3, 3 * F, 0)
    assert (heads.blocks, heads.units, heads.faulty_blocks) == (3, 3 * HEADS, 0)
    assert not [fault for fault in health.faults if not fault.expected]
    assert not health.missing


def test_neurons_without_outgoing_weights_are_dead():
    state, config = llama()
    state[at(1, "mlp.down_proj")][:, ::2] = 0
    health = healthy(state, config)
    block = only_block(health)
    assert (block.layer, block.units, block.dead, block.no_output) == (1, F, F // 2, F // 2)
    assert (block.where, block.no_input) == ("0,2,…,38", 0)
    assert units(health).dead == F // 2
    # The zeros are said of the neurons, and not once more of the columns.
    assert not [fault for fault in health.faults if not fault.expected]


@pytest.mark.parametrize(
    ("act", "zero", "bias", "dead"),
    [
        ("silu", ("up_proj",), None, 1),
        ("silu", ("gate_proj",), None, 1),
        ("relu", ("gate_proj",), None, 1),
        ("sigmoid", ("gate_proj",), None, 0),  # 0.5 times the other factor
        ("sigmoid", ("up_proj",), None, 1),
        ("sigmoid", ("up_proj", "gate_proj"), None, 1),
        # A constant factor times one that depends on the input.
        ("silu", ("up_proj",), "up_proj", 0),
        ("silu", ("gate_proj",), "gate_proj", 0),
        ("silu", ("up_proj",), "gate_proj", 1),
        ("silu", ("up_proj", "gate_proj"), "up_proj", 1),
    ],
)
def test_a_factor_that_is_always_zero_makes_a_neuron_dead(act, zero, bias, dead):
    state, config = llama(act=act, bias=True)
    for name in zero:
        state[at(2, f"mlp.{name}")][11] = 0
    if bias:
        state[at(2, f"mlp.{bias}", "bias")][11] = 0.5
    health = healthy(state, config)
    assert units(health).dead == dead
    assert units(health).no_input == (len(zero) == 2)
    assert units(health).no_factor == (dead and len(zero) == 1)
    if not dead:  # the row of zeros is said where the neuron is not
        assert [fault.check for fault in health.faults if not fault.expected] == ["zero-rows"]


def test_copies_of_neurons_read_the_same_in_both_factors_and_their_biases():
    state, config = llama(bias=True)
    for name in ("up_proj", "gate_proj"):
        weight = state[at(0, f"mlp.{name}")]
        weight[[5, 6, 9]] = weight[2].clone()
    state[at(0, "mlp.up_proj", "bias")][9] = 1.0  # no copy of the others
    weight = state[at(1, "mlp.up_proj")]
    weight[3] = weight[8]  # one factor alone
    health = healthy(state, config)
    assert (only_block(health).layer, only_block(health).copies) == (0, 2)
    # Row 9 equals row 2 and its neuron is no copy: the rows of both factors are said too.
    (rows,) = (fault for fault in health.faults if fault.check == "duplicate-rows")
    assert {one.name: (one.count, one.where) for one in rows.examples} == {
        at(0, "mlp.up_proj"): (3, "5-6,9"), at(0, "mlp.gate_proj"): (3, "5-6,9"),
        at(1, "mlp.up_proj"): (1, "8"),
    }  # fmt: skip


def test_the_heads_are_told_apart_by_what_of_them_is_zero():
    state, config = llama()
    state[at(0, "self_attn.o_proj")][:, 8:16] = 0  # head 1
    state[at(0, "self_attn.v_proj")][8:] = 0  # heads 2 and 3 share it
    state[at(1, "self_attn.q_proj")][:8] = 0
    state[at(2, "self_attn.k_proj")][:8] = 0
    health = healthy(state, config)
    blocks = {block.layer: block for block in units(health, "heads").listed}
    first, second, third = blocks[0], blocks[1], blocks[2]
    assert (first.dead, first.no_output, first.no_input, first.where) == (3, 1, 2, "1-3")
    assert (second.dead, second.no_query, second.no_key, second.where) == (0, 1, 0, "0")
    assert (third.dead, third.no_query, third.no_key, third.where) == (0, 0, 2, "0-1")
    assert not [fault for fault in health.faults if not fault.expected]


def _same(state: State, layer: int, name: str, head: int, other: int, size: int = 8) -> None:
    """Give a head the weights of another in one part."""
    weight = state[at(layer, f"self_attn.{name}_proj")]
    along = weight.T if name == "o" else weight
    along[head * size : (head + 1) * size] = along[other * size : (other + 1) * size].clone()


def test_zero_parts_of_heads_say_biases_and_who_shares_them():
    state, config = llama(bias=True)
    state[at(0, "self_attn.v_proj")][8:] = 0  # of heads 2 and 3
    state[at(0, "self_attn.v_proj", "bias")][9] = 1.0
    state[at(1, "self_attn.q_proj")][:16] = 0
    state[at(1, "self_attn.q_proj", "bias")][3] = 1.0
    health = healthy(state, config)
    blocks = {block.layer: block for block in units(health, "heads").listed}
    (values,), (queries,) = blocks[0].zero, blocks[1].zero
    assert (values.part, values.heads, values.key_values) == ("v", "2-3", "1")
    assert (values.count, values.biased, values.even) == (2, 2, 0)
    # Without weights and bias, the scores of head 1 are zero; those of head 0 are not known.
    assert (queries.heads, queries.biased, queries.even) == ("0-1", 1, 1)
    assert queries.key_values == ""


def test_heads_that_share_keys_are_equal_by_queries_and_output():
    state, config = llama()
    for name in "qo":
        _same(state, 1, name, 3, 2)
        _same(state, 2, name, 3, 0)  # of another key-value head: no copy as a whole
    _same(state, 0, "k", 1, 0)
    _same(state, 0, "v", 1, 0)
    health = healthy(state, config)
    blocks = {block.layer: block for block in units(health, "heads").listed}
    (whole,) = blocks[1].equal
    assert (whole.whole, whole.heads, blocks[1].copies) == (True, "2-3", 1)
    (some,) = blocks[2].equal
    assert (some.whole, some.parts, some.heads) == (False, ["q", "o"], "0,3")
    (shared,) = blocks[0].equal
    assert (shared.parts, shared.heads, shared.key_values) == (["k", "v"], "0-1", True)
    # Said of the heads, and not once more of the rows.
    assert not [fault for fault in health.faults if not fault.expected]


def test_heads_whose_biases_differ_are_not_equal():
    state, config = llama(bias=True)
    for name in "qo":
        _same(state, 1, name, 3, 2)
    state[at(1, "self_attn.q_proj", "bias")][30] = 1.0
    health = healthy(state, config)
    (group,) = only_block(health, "heads").equal
    assert (group.parts, group.whole) == (["o"], False)
    assert [fault.check for fault in health.faults if not fault.expected] == ["duplicate-rows"]


@pytest.mark.parametrize("bias", [None, 0.0, 1.0])
def test_a_dead_neuron_has_its_cause(bias: float | None):
    state, config = llama(bias=bias is not None)
    for name in ("up_proj", "gate_proj"):
        state[at(1, f"mlp.{name}")][3:5] = 0
    state[at(1, "mlp.down_proj")][:, 4:7] = 0
    if bias is not None:
        state[at(1, "mlp.up_proj", "bias")][3:5] = bias
    block = only_block(healthy(state, config))
    assert (block.dead, block.no_output, block.no_input, block.no_path) == (4, 3, 2, 1)
    assert block.biased == (1 if bias else 0)


def test_fused_tensors_are_seen_part_by_part():
    config = {"model_type": "phi3", "hidden_size": D, "num_attention_heads": 4,
              "num_hidden_layers": 2, "intermediate_size": F, "num_key_value_heads": 4,
              "hidden_act": "silu", "vocab_size": 50}  # fmt: skip
    shapes = {"self_attn.qkv_proj": (3 * D, D), "self_attn.o_proj": (D, D)}
    shapes |= {"mlp.gate_up_proj": (2 * F, D), "mlp.down_proj": (D, F)}
    state = {at(i, name): drawn(*shape, seed=i + 5)
             for i in range(2) for name, shape in shapes.items()}  # fmt: skip
    state[at(0, "mlp.gate_up_proj")][3] = 0  # of the gate
    state[at(0, "mlp.gate_up_proj")][F + 4] = 0  # of the other factor
    state[at(1, "self_attn.qkv_proj")][2 * D + 8 : 2 * D + 16] = 0  # values of head 1
    health = healthy(state, config)
    assert (only_block(health).layer, only_block(health).dead) == (0, 2)
    assert only_block(health).where == "3-4"
    head = only_block(health, "heads")
    assert (head.layer, head.dead, head.no_input, head.where) == (1, 1, 1, "1")


def test_transposed_maps_of_gpt2_have_their_neurons_along_columns():
    state = {}
    for i in range(2):
        state |= {f"h.{i}.attn.c_attn.weight": drawn(D, 3 * D, seed=i),
                  f"h.{i}.attn.c_proj.weight": drawn(D, D, seed=i + 9),
                  f"h.{i}.mlp.c_fc.weight": drawn(D, F, seed=i + 20),
                  f"h.{i}.mlp.c_proj.weight": drawn(F, D, seed=i + 30)}  # fmt: skip
    config = {"model_type": "gpt2", "n_head": 4, "n_embd": D, "n_layer": 2, "n_inner": F}
    state["h.1.mlp.c_fc.weight"][:, 4] = 0
    state["h.1.mlp.c_proj.weight"][6] = 0
    state["h.1.mlp.c_fc.weight"][:, 9] = state["h.1.mlp.c_fc.weight"][:, 8]
    state["h.0.attn.c_attn.weight"][:, 2 * D : 2 * D + 8] = 0
    health = healthy(state, config)
    block = only_block(health)
    assert (block.layer, block.dead, block.no_output, block.no_input) == (1, 2, 1, 1)
    assert (block.where, block.copies) == ("4,6", 1)
    assert (only_block(health, "heads").layer, only_block(health, "heads").where) == (0, "0")


def test_experts_in_one_tensor_are_seen_one_by_one():
    experts, d, f = 4, 24, 16
    state, config = {}, {
        "model_type": "mixtral", "hidden_size": d, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 1, "intermediate_size": f,
        "num_local_experts": experts, "hidden_act": "silu", "vocab_size": 50,
    }  # fmt: skip
    for n, (name, shape) in enumerate({"q": (d, d), "k": (d // 2, d), "v": (d // 2, d),
                                       "o": (d, d)}.items()):  # fmt: skip
        state[at(0, f"self_attn.{name}_proj")] = drawn(*shape, seed=n)
    state["model.layers.0.mlp.experts.gate_up_proj"] = drawn(experts, 2 * f, d, seed=8)
    state["model.layers.0.mlp.experts.down_proj"] = drawn(experts, d, f, seed=9)
    state["model.layers.0.mlp.experts.down_proj"][2, :, 5] = 0
    state["model.layers.0.mlp.experts.gate_up_proj"][3, f + 1] = 0
    block = only_block(healthy(state, config))
    assert (block.units, block.dead, block.no_output) == (experts * f, 2, 1)
    assert (block.where, block.expert) == (f"{2 * f + 5},{3 * f + 1}", None)


def test_experts_in_tensors_of_their_own_are_named():
    experts, d, f = 3, 24, 16
    state = {at(0, f"self_attn.{n}_proj"): drawn(d, d, seed=ord(n)) for n in "qkvo"}
    for e in range(experts):
        for n, (name, shape) in enumerate({"w1": (f, d), "w2": (d, f), "w3": (f, d)}.items()):
            state[at(0, f"block_sparse_moe.experts.{e}.{name}")] = drawn(*shape, seed=3 * e + n)
    state[at(0, "block_sparse_moe.experts.1.w2")][:, 4:6] = 0
    config = {
        "model_type": "mixtral", "hidden_size": d, "num_attention_heads": 4,
        "num_key_value_heads": 4, "num_hidden_layers": 1, "intermediate_size": f,
        "num_local_experts": experts, "hidden_act": "silu", "vocab_size": 50,
    }  # fmt: skip
    health = healthy(state, config)
    block = only_block(health)
    assert (block.expert, block.units, block.dead, block.where) == (1, f, 2, "4-5")
    assert units(health).units == experts * f


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.second, self.last = nn.Conv2d(16, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.last(torch.relu(self.second(x)))


def test_channels_die_by_filters_and_by_the_gain_of_a_batchnorm():
    torch.manual_seed(0)
    net = Convolutions().eval()
    with torch.no_grad():
        net.first.weight[2] = 0
        net.norm.weight[5] = 0
        net.second.weight[:, 7] = 0
        net.last.weight[:, 1, 0, 0] = 0  # a part of a kernel
    health = healthy(net, example_inputs=torch.zeros(1, 3, 12, 12))
    block = only_block(health)
    assert (block.kind, block.units, block.dead, block.where) == ("conv", 16, 3, "2,5,7")
    assert (block.no_output, block.no_input) == (1, 2)


def test_channels_that_something_else_reads_are_not_called_dead():
    class Branching(Convolutions):
        def forward(self, x: Tensor) -> Any:
            x = torch.relu(self.norm(self.first(x)))
            return self.last(torch.relu(self.second(x))), x

    torch.manual_seed(0)
    net = Branching().eval()
    with torch.no_grad():
        net.second.weight[:, 7] = 0
    health = healthy(net, example_inputs=torch.zeros(1, 3, 12, 12))
    assert all(one.dead == 0 for one in health.units)
    block = only_block(health, "unclear-neurons")
    assert (block.no_output, block.dead, block.where) == (1, 0, "7")


@pytest.mark.parametrize(("config", "check", "dead"), [({"activation": "relu"}, "neurons", 1),
                                                       (None, "unclear-neurons", 0)])  # fmt: skip
def test_numbered_layers_are_judged_only_with_their_activation(config, check, dead):
    state = {"0.weight": drawn(40, 30), "0.bias": drawn(40), "2.weight": drawn(20, 40, seed=1)}
    state["2.weight"][:, 6] = 0
    block = only_block(healthy(state, config), check)
    assert (block.dead, block.no_output) == (dead, 1)


@pytest.mark.parametrize(("biased", "dead"), [(False, 1), (True, 0)])
def test_values_are_dead_where_it_is_known_what_acts_on_them(biased: bool, dead: int):
    # Of no known family: something may gate the heads.
    state = {}
    for i in range(2):
        for n, name in enumerate(("q_proj", "k_proj", "v_proj", "o_proj")):
            state[f"blocks.{i}.attn.{name}.weight"] = drawn(D, D, seed=9 * i + n)
            state[f"blocks.{i}.attn.{name}.bias"] = torch.zeros(D)
    state["blocks.1.attn.v_proj.weight"][:8] = 0
    if biased:
        state["blocks.1.attn.v_proj.bias"][3] = 1.0
    found = units(healthy(state, heads=HEADS), "heads")
    assert (found.units, found.dead) == (2 * HEADS, dead)
