"""Re-encodings: no entry outside, and one flipped bit named, in every form."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from comparison.content.forms import FORMS, GGUF, PACKED, PLAIN, encoded, in_memory, opened
from flagscope.checkpoint import open_checkpoint
from flagscope.comparison.content.compared import compared_content

MATRIX = "encoder.layer.1.output.dense.weight"


def few(record):
    return [tensor for tensor in record.tensors if tensor.content == "few_entries"]


@pytest.mark.parametrize("form", FORMS)
def test_every_entry_is_within_rounding(minilm, form, tmp_path):
    with opened(minilm, form, tmp_path) as other:
        record = compared_content(in_memory(minilm), other)
    assert record.relation == "reencoded"
    assert {tensor.content for tensor in record.tensors} <= {"identical", "rounding"}
    assert all(tensor.rounding.outside == 0 for tensor in record.tensors if tensor.rounding)
    assert record.unpaired_a.tensors == record.unpaired_a.buffers


def flipped(path, name, entry, bit):
    """The file with one bit of one stored number changed."""
    state = load_file(path)
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[state[name].element_size()]
    bits = state[name].clone().contiguous().view(width)
    bits.view(-1)[entry] ^= torch.tensor(1, dtype=torch.int64).bitwise_left_shift(bit).to(width)
    state[name] = bits.view(state[name].dtype).reshape(state[name].shape)
    save_file(state, path)


@pytest.mark.parametrize(
    ("form", "bit"),
    [("bfloat16", 0), ("bfloat16", 14), ("float16", 0), ("float16", 9), ("float8 of a tensor", 0),
     ("float8 of rows", 6), ("float8 of blocks", 1), ("int8 of rows", 0), ("int8 of rows", 6)],
)  # fmt: skip
def test_a_flipped_bit_of_a_number_is_named(minilm, form, bit, tmp_path):
    path = encoded(minilm, form, tmp_path)
    flipped(path, MATRIX, 1536 * 7 + 11, bit)
    with open_checkpoint(path) as other:
        record = compared_content(in_memory(minilm), other)
    assert record.relation == "few_entries"
    (tensor,) = few(record)
    assert tensor.name_a == MATRIX
    assert tensor.rounding.outside == 1
    (entry,) = tensor.rounding.entries
    assert entry.index == (7, 11)
    assert entry.bits.startswith(f"bit {bit} of the stored")


@pytest.mark.parametrize(
    ("form", "end", "bit"),
    [("float8 of a tensor", "_scale", 0), ("float8 of a tensor", "_scale", 23),
     ("float8 of rows", "_scale", 3), ("float8 of blocks", "_scale_inv", 12),
     ("int8 of rows", "_scale", 0)],
)  # fmt: skip
def test_a_flipped_bit_of_a_scale_is_named(minilm_layers, form, end, bit, tmp_path):
    path = encoded(minilm_layers, form, tmp_path)
    place = 0 if form == "float8 of a tensor" else 5
    flipped(path, MATRIX + end, place, bit)
    with open_checkpoint(path) as other:
        record = compared_content(in_memory(minilm_layers), other)
    assert record.relation == "few_entries"
    (tensor,) = few(record)
    assert tensor.rounding.groups_outside == 1
    (scale,) = tensor.rounding.scales
    assert scale.bits == f"bit {bit} of the stored float32"


@pytest.mark.parametrize("form", PACKED)
@pytest.mark.parametrize(("part", "bit"), [("qweight", 0), ("qweight", 31), ("scales", 0),
                                           ("scales", 12), ("qzeros", 2)])  # fmt: skip
def test_a_flipped_bit_of_packed_weights_is_named(minilm, form, part, bit, tmp_path):
    encoded(minilm, form, tmp_path)
    flipped(tmp_path / "model.safetensors", MATRIX.removesuffix("weight") + part, 40, bit)
    with open_checkpoint(tmp_path) as other:
        record = compared_content(in_memory(minilm), other)
    assert record.relation == "few_entries"
    (tensor,) = few(record)
    assert tensor.name_a == MATRIX
    if part == "scales":
        assert tensor.rounding.groups_outside == 1
        assert tensor.rounding.scales[0].bits == f"bit {bit} of the stored float16"
    elif part == "qweight":
        assert tensor.rounding.outside == 1
        assert tensor.rounding.entries[0].bits == f"bit {bit % 4} of the code of 4 bits"
    else:
        assert 0 < tensor.rounding.outside <= 128


# Bytes of a block: where the codes begin, and where a scale lies.
BLOCKS = {"Q8_0": (34, 2, 0), "Q4_0": (18, 2, 0), "Q4_1": (20, 4, 0), "Q5_0": (22, 6, 0)}


def flipped_block(path, name, block, byte, bit, size):
    """The GGUF file with one bit of one block changed."""
    import gguf

    reader = gguf.GGUFReader(path)
    (tensor,) = [tensor for tensor in reader.tensors if tensor.name == name]
    start = int(tensor.data_offset) + block * size + byte
    data = bytearray(path.read_bytes())
    data[start] ^= 1 << bit
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("form", BLOCKS)
@pytest.mark.parametrize("what", ["low bit", "high bit", "scale"])
def test_a_flipped_bit_of_a_block_is_named(minilm, form, what, tmp_path):
    size, codes, scale = BLOCKS[form]
    path = encoded(minilm, form, tmp_path)
    byte, bit = (scale, 0) if what == "scale" else (codes + 3, 0 if what == "low bit" else 7)
    flipped_block(path, "blk.1.ffn_down.weight", 49, byte, bit, size)
    with open_checkpoint(path) as other:
        record = compared_content(in_memory(minilm), other)
    assert record.relation == "few_entries"
    (tensor,) = few(record)
    assert tensor.name_a == MATRIX
    if what == "scale":
        assert tensor.rounding.groups_outside == 1
        assert tensor.rounding.scales[0].place == "row 1, columns 32 to 63"
        assert tensor.rounding.scales[0].bits == "bit 0 of the stored float16"
    else:
        assert tensor.rounding.outside == 1
        assert tensor.rounding.entries[0].index[0] == 1
        assert tensor.rounding.entries[0].bits is not None


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_code_of_a_k_block_is_found(minilm, bit, tmp_path):
    path = encoded(minilm, "Q4_K", tmp_path)
    flipped_block(path, "blk.1.ffn_down.weight", 49, 16 + 9, bit, 144)
    with open_checkpoint(path) as other:
        record = compared_content(in_memory(minilm), other)
    (tensor,) = few(record)
    assert tensor.rounding.outside == 1


def test_cut_off_bfloat16_is_a_rule_of_its_own(minilm):
    cut = {
        name: (tensor.contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32).bfloat16()
        if tensor.is_floating_point() else tensor
        for name, tensor in minilm.items()
    }  # fmt: skip
    record = compared_content(in_memory(minilm), in_memory(cut))
    assert record.relation == "reencoded"
    assert any("cut off" in line for line in record.evidence)


def test_widened_numbers_that_were_bfloat16_before(minilm):
    again = {
        name: tensor.bfloat16().float() if tensor.is_floating_point() else tensor
        for name, tensor in minilm.items()
    }
    record = compared_content(in_memory(minilm), in_memory(again))
    assert record.relation == "reencoded"
    assert any("rounded to bfloat16 and then to float32" in line for line in record.evidence)
    matrix = again[MATRIX].clone()
    matrix[3, 4] += 1e-6
    record = compared_content(in_memory(minilm), in_memory(again | {MATRIX: matrix}))
    assert [tensor.rounding.outside for tensor in few(record)] == [1]


def test_two_roundings_of_one_model_are_within_both_grids(minilm, tmp_path):
    short = {n: t.bfloat16() if t.is_floating_point() else t for n, t in minilm.items()}
    with opened(minilm, "Q8_0", tmp_path) as other:
        record = compared_content(in_memory(short), other)
    assert record.relation == "reencoded"
    assert any("smaller than a step" in line for line in record.cannot_tell)


def test_overflow_and_subnormals_of_float16_are_rounding():
    values = torch.tensor([[7e4, -1e6, 3e-8, 5e-6, 65519.0, 1.0]] * 64)
    record = compared_content(
        in_memory({"fc.weight": values}), in_memory({"fc.weight": values.half()})
    )
    assert record.relation == "reencoded"


def test_bounds_are_not_kept_by_a_small_change(minilm, tmp_path):
    """A change of a step of the grid is no rounding."""
    moved = dict(minilm)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(minilm[MATRIX].shape, generator=generator)
    moved[MATRIX] = minilm[MATRIX] + 0.003 * noise
    with opened(moved, "Q8_0", tmp_path) as other:
        record = compared_content(in_memory(minilm), other)
    (tensor,) = [tensor for tensor in record.tensors if tensor.content == "different"]
    assert tensor.name_a == MATRIX
    assert tensor.rounding.step_rms > 0.5


def test_records_survive_json(minilm, tmp_path):
    with opened(minilm, "Q8_0", tmp_path) as other:
        record = compared_content(in_memory(minilm), other)
    again = type(record).model_validate_json(record.model_dump_json())
    assert again == record
    assert record.mirrored().mirrored() == record
    assert json.loads(record.mirrored().model_dump_json())["tensors"][0]["name_b"] == (
        record.tensors[0].name_a
    )


assert set(PLAIN) | set(PACKED) | set(GGUF) == set(FORMS)
