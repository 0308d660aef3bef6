"""Pairs where names do not meet, llama.cpp's rotary layout, requests for what cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from checkpoint.test_gguf import CONFIG, converted, llama, write
from flagscope.checkpoint import TensorInfo, from_state_dict, open_checkpoint
from flagscope.comparison.content.compared import compared_content
from flagscope.comparison.content.parts import layer_places, model_part

pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
def test_rows_of_rotary_maps_are_put_back(kind, tmp_path):
    """llama.cpp turns neighbouring rows of Q and K: the file is the model all the same."""
    state = llama()
    path = write(tmp_path / "model.gguf", converted(state), kind)
    with open_checkpoint(path) as other:
        record = compared_content(from_state_dict(state, config=CONFIG), other)
    assert record.relation == ("identical" if kind == "F32" else "reencoded")
    assert record.unpaired_a.tensors == record.unpaired_b.tensors == 0


def test_rows_that_were_not_put_back_are_seen_as_permuted(tmp_path):
    """Rows of Q that keep llama.cpp's order in a file of Hugging Face's names."""
    state = llama()
    turned = dict(state)
    name = "model.layers.0.self_attn.q_proj.weight"
    turned[name] = state[name].reshape(4, 2, 8, 64).transpose(1, 2).reshape(64, 64)
    record = compared_content(from_state_dict(state), from_state_dict(turned))
    (tensor,) = [tensor for tensor in record.tensors if tensor.content == "different"]
    assert tensor.name_a == name
    assert tensor.difference.rows_permuted


def test_unknown_names_are_paired_by_the_maps():
    """A GPT-2 whose layers have other names, told by its maps alone."""
    generator = torch.Generator().manual_seed(0)
    d, layers = 32, 2
    a, b = {}, {}
    for layer in range(layers):
        for name, shape in {
            "self_attn.q_proj": (d, d), "self_attn.k_proj": (d, d), "self_attn.v_proj": (d, d),
            "self_attn.o_proj": (d, d), "mlp.up_proj": (3 * d, d), "mlp.gate_proj": (3 * d, d),
            "mlp.down_proj": (d, 3 * d),
        }.items():  # fmt: skip
            tensor = torch.randn(shape, generator=generator)
            a[f"model.layers.{layer}.{name}.weight"] = tensor
            other = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
                     "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
                     "mlp.up_proj": "feed_forward.w3", "mlp.gate_proj": "feed_forward.w1",
                     "mlp.down_proj": "feed_forward.w2"}[name]  # fmt: skip
            b[f"layers.{layer}.{other}.weight"] = tensor
    config = {"model_type": "llama", "num_attention_heads": 4, "hidden_size": d,
              "num_hidden_layers": layers}  # fmt: skip
    record = compared_content(
        from_state_dict(a, config=config),
        from_state_dict(b, config={"n_heads": 4, "num_attention_heads": 4}),
    )
    met = {tensor.name_a: tensor for tensor in record.tensors}
    assert {tensor.by for tensor in met.values()} <= {"map"}
    assert met
    for tensor in met.values():
        assert tensor.content == "identical"


def test_a_tensor_that_cannot_be_read_has_a_status(tmp_path):
    import gguf

    paths = []
    for number in (0, 1):
        writer = gguf.GGUFWriter(tmp_path / f"{number}.gguf", "unheard-of")
        writer.add_tensor("fine", np.ones((4, 4), np.float32))
        writer.add_tensor(
            "strange", np.full((2, 66), number, np.uint8),
            raw_shape=(2, 66), raw_dtype=gguf.GGMLQuantizationType.IQ2_XXS,
        )  # fmt: skip
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(writer)
    with open_checkpoint(tmp_path / "0.gguf") as a, open_checkpoint(tmp_path / "1.gguf") as b:
        record = compared_content(a, b)
    assert len(record.tensors) == 2


def test_parts_of_a_model():
    names = ["model.layers.0.a.weight", "model.layers.1.a.weight", "conv1.0.weight"]
    places = layer_places(names)
    assert [places[name].layer for name in names] == [0, 1, 0]
    info = TensorInfo("model.embed_tokens.weight", (8, 4), "float32", 128)
    assert model_part(info, None) == "embedding"
