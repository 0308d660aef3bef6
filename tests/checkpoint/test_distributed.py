"""Folders of torch.distributed.checkpoint: pieces put together, the model's group chosen."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers

import flagscope
from checkpoint.distributed_folders import grid, write_shards
from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.errors import CorruptFileError, InputError, MissingFileError, SourceError


def save(saved, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single process
        dcp.save(saved, checkpoint_id=folder)
    return folder


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STATE = {
    "rows": normal(7, 5), "both": normal(10, 9, seed=1).bfloat16(), "vector": normal(11, seed=2),
    "scalar": torch.tensor(0.5), "stack": normal(5, 6, 4, seed=3), "turned": normal(6, 8, seed=4).T,
    "float8": normal(8, 8, seed=5).to(torch.float8_e4m3fn), "loose": normal(6, 6, seed=6),
}  # fmt: skip
BOXES = {
    "rows": grid((7, 5), (4, 1)), "both": grid((10, 9), (3, 2)), "vector": grid((11,), (4,)),
    "stack": grid((5, 6, 4), (2, 3, 1)), "turned": grid((8, 6), (1, 3)),
    "float8": grid((8, 8), (2, 2)),
    # No grid: a pinwheel, as resharding by hand may leave it.
    "loose": [((0, 0), (2, 4)), ((0, 4), (4, 2)), ((4, 2), (2, 4)), ((2, 0), (4, 2)),
              ((2, 2), (2, 2))],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path, STATE, BOXES)


def test_written_folder_is_one_that_torch_reads(folder):
    target = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(target, checkpoint_id=folder)
    for name, tensor in STATE.items():
        assert torch.equal(target[name].float(), tensor.float()), name


def test_pieces_are_put_together(folder):
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)
        for name, tensor in STATE.items():
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)
            read = checkpoint.read(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read.float(), tensor.float()), name


def test_slices_across_pieces(folder):
    indices = [(slice(1, 6),), (3,), (slice(2, 2),), (slice(None), slice(3, 5)), (slice(None), 4),
               (4, 3), (slice(1, 5), slice(2, 4), slice(1, 3)), (2, slice(3, 6), 1)]  # fmt: skip
    with open_checkpoint(folder) as checkpoint:
        for name, tensor in STATE.items():
            for index in indices:
                if len(index) <= tensor.ndim:
                    read = checkpoint.read(name, index)
                    assert torch.equal(read.float(), tensor[index].float()), (name, index)


def test_only_what_a_slice_meets_is_read(folder, monkeypatch):
    read = []
    whole = PlacedBytes.read

    def noted(self, start, stop, *checksum):
        read.append(stop - start)
        return whole(self, start, stop, *checksum)

    monkeypatch.setattr(PlacedBytes, "read", noted)
    with open_checkpoint(folder) as checkpoint:
        assert read == []
        checkpoint.read("rows", (slice(0, 2),))  # one piece of 2 × 5
        assert read == [2 * 5 * 4]
        read.clear()
        checkpoint.read("rows", (slice(3, 5),))  # one row of each of two pieces
        assert read == [5 * 4] * 2
        read.clear()
        checkpoint.read("turned", (slice(None), slice(0, 2)))  # stored by columns
        assert read == [8 * 2 * 4]


def test_copy_of_another_process(folder):
    with open_checkpoint(folder) as checkpoint, pickle.loads(pickle.dumps(checkpoint)) as copy:
        assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(checkpoint)
        assert torch.equal(copy.read("loose"), STATE["loose"])


LLAMA = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip


def trained():
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.arange(8)[None]).logits.square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_scan_is_that_of_the_state_dict(tmp_path):
    model, optimizer = trained()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 3}
    save(saved, tmp_path)
    model.config.save_pretrained(tmp_path)
    options = {"device": "cpu", "workers": 1}
    scanned = flagscope.scan(tmp_path, **options).result
    plain = flagscope.scan(model.state_dict(), config=model.config.to_dict(), **options).result
    assert len(scanned.pairs) == len(plain.pairs) > 0
    assert [pair.model_dump() for pair in scanned.pairs] == [p.model_dump() for p in plain.pairs]
    assert scanned.heads == plain.heads
    assert scanned.heads
    assert scanned.parameters == plain.parameters
    assert scanned.unmapped == plain.unmapped
    assert any("entry model" in note for note in scanned.notes)


def test_model_at_the_top_of_the_saved_object(tmp_path):
    # torchtitan puts the model's tensors next to the optimizer's group.
    save({**STATE, "optimizer": {"state": {"a": torch.ones(2)}}, "train_state": b"x"}, tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)
        assert any("optimizer" in note for note in checkpoint.notes)


def test_wrappers_and_deeper_groups(tmp_path):
    inner = {"module." + name: tensor for name, tensor in STATE.items()}
    save({"app": {"model": inner, "optim": {"m": torch.ones(2)}}}, tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)


def test_names_without_the_planners_table(tmp_path):
    state = STATE | {"optimizer.state.rows.exp_avg": torch.ones(7, 5)}
    with open_checkpoint(write_shards(tmp_path, state, BOXES)) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)


def test_several_groups_are_named(tmp_path):
    save({"generator": {"w": torch.ones(2)}, "critic": {"w": torch.ones(2)}}, tmp_path)
    with pytest.raises(SourceError, match="generator, critic"):
        open_checkpoint(tmp_path)
    with open_checkpoint(tmp_path, tensors="critic") as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.group == "critic"
        again = pickle.loads(pickle.dumps(checkpoint))
        assert list(again.tensors) == ["w"]
    with pytest.raises(InputError, match="nobody"):
        open_checkpoint(tmp_path, tensors="nobody")


def test_config_next_to_it(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.config == {"model_type": "llama"}


@pytest.mark.parametrize("name", [".metadata", "__1_0.distcp"])
def test_file_of_the_folder(folder, name):
    if name == ".metadata":
        with open_checkpoint(folder / name) as checkpoint:
            assert set(checkpoint.tensors) == set(STATE)
        return
    with pytest.raises(SourceError, match=r"torch\.distributed\.checkpoint") as error:
        open_checkpoint(folder / name)
    assert str(folder) in error.value.hint


def test_table_that_was_not_copied(folder):
    (folder / ".metadata").unlink()
    with pytest.raises(MissingFileError, match=r"\.metadata") as error:
        open_checkpoint(folder)
    assert "cp -r" in error.value.hint


def test_tables_of_each_process(folder):
    (folder / ".metadata").rename(folder / "__0.metadata")
    with pytest.raises(SourceError, match="use_collectives") as error:
        open_checkpoint(folder)
    assert error.value.hint


@pytest.mark.parametrize("name", [".metadata", "__1_0.distcp"])
def test_pointer_in_place_of_a_file(folder, name):
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n")
    with pytest.raises(CorruptFileError, match="Git LFS pointer"):
        open_checkpoint(folder)


def test_piece_that_was_not_copied(folder):
    (folder / "__1_0.distcp").unlink()
    with pytest.raises(MissingFileError, match=r"__1_0\.distcp") as error:
        open_checkpoint(folder)
    assert error.value.hint


def test_folder_above_says_where_it_is(tmp_path):
    inner = tmp_path / "step-100"
    inner.mkdir()
    write_shards(inner, STATE, BOXES)
    with pytest.raises(MissingFileError) as error:
        open_checkpoint(tmp_path)
    assert "step-100" in error.value.hint


def test_standard_name_comes_first(folder):
    torch.save({"w": torch.ones(2)}, folder / "pytorch_model.bin")
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"w"}
    (folder / "pytorch_model.bin").rename(folder / "train_state.pt")
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == set(STATE)


def test_piece_of_another_checkpoint(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    swapped = {name: STATE[name].double() if name == "rows" else STATE[name] for name in STATE}
    write_shards(other, swapped, BOXES)
    shutil.copy(folder / ".metadata", other / ".metadata")
    refused = []
    with open_checkpoint(other) as checkpoint:
        for name in STATE:
            try:
                checkpoint.read(name)
            except CorruptFileError as error:
                refused.append(error.hint)
    assert refused
    assert all(refused)
