"""Folders that DeepSpeed saves: whole models are read, spread ones lead to its own script."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

import flagscope
from flagscope.checkpoint import from_state_dict, open_checkpoint
from flagscope.errors import MissingFileError, SourceError

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
OPTIMIZER = "zero_pp_rank_{}_mp_rank_00_optim_states.pt"


def model():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))


def folder_of(top: Path, states: dict[str, dict], *, script: bool = True, latest: bool = True):
    """A checkpoint of DeepSpeed with two processes' parts of the optimizer."""
    step = top / "global_step10"
    step.mkdir(parents=True)
    if latest:
        (top / "latest").write_text("global_step10")
    if script:
        (top / "zero_to_fp32.py").write_text("")
    for rank in range(2):
        torch.save({"optimizer_state_dict": {}}, step / OPTIMIZER.format(rank))
    for name, state in states.items():
        # The other entries of DeepSpeed's file, of which param_shapes holds no tensors.
        shapes = OrderedDict((key, tensor.shape) for key, tensor in state.items())
        torch.save({"module": OrderedDict(state), "buffer_names": [], "optimizer": None,
                    "param_shapes": [shapes], "shared_params": {}, "ds_version": "0.16.2",
                    "ds_config": {"zero_optimization": {"stage": 2}}, "mp_world_size": 1,
                    "global_steps": 10}, step / name)  # fmt: skip
    return step


WHOLE = "mp_rank_00_model_states.pt"
SPREAD = "zero_pp_rank_0_mp_rank_00_model_states.pt"


@pytest.mark.parametrize("named", ["folder", "step", "file"])
def test_whole_model_of_stages_1_and_2(tmp_path, named):
    live = model()
    step = folder_of(tmp_path, {WHOLE: live.state_dict()})
    live.config.save_pretrained(tmp_path)
    path = {"folder": tmp_path, "step": step, "file": step / WHOLE}[named]
    options = {"device": "cpu", "workers": 1}
    scanned = flagscope.scan(path, **options).result
    plain = flagscope.scan(live.state_dict(), config=live.config.to_dict(), **options).result
    assert [pair.model_dump() for pair in scanned.pairs] == [p.model_dump() for p in plain.pairs]
    assert len(scanned.pairs) > 0
    copies = [note for note in scanned.notes if "optimizer keeps in float32 (2 files)" in note]
    assert len(copies) == (named != "file")


def test_module_prefix_and_whole_weights_of_the_trainer(tmp_path):
    live = model()
    folder_of(tmp_path, {WHOLE: {f"module.{k}": v for k, v in live.state_dict().items()}})
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(live.state_dict())
    save_file({"w": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:  # transformers' trainer puts it next to the step
        assert set(checkpoint.tensors) == {"w"}
        assert any("global_step10" in note for note in checkpoint.notes)


def empty_state():
    return {name: torch.empty(0) for name in model().state_dict()}


@pytest.mark.parametrize("named", ["folder", "step", "file", "optimizer"])
@pytest.mark.parametrize("script", [True, False])
def test_spread_model_of_stage_3(tmp_path, named, script):
    top = tmp_path / "with space"
    step = folder_of(top, {SPREAD: empty_state()}, script=script)
    path = {"folder": top, "step": step, "file": step / SPREAD,
            "optimizer": step / OPTIMIZER.format(1)}[named]  # fmt: skip
    with pytest.raises(SourceError, match="ZeRO") as error:
        open_checkpoint(path)
    program = f"'{top}/zero_to_fp32.py'" if script else "-m deepspeed.utils.zero_to_fp32"
    assert f"python {program} '{top}' OUTPUT;" in error.value.hint
    assert "config" not in error.value.hint


def test_step_that_latest_does_not_name(tmp_path):
    step = folder_of(tmp_path, {SPREAD: empty_state()})
    (tmp_path / "latest").write_text("global_step20")
    with pytest.raises(SourceError) as error:
        open_checkpoint(step)
    assert f"{tmp_path} OUTPUT --tag global_step10;" in error.value.hint
    with pytest.raises(MissingFileError, match="global_step20"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("tag", [b"../elsewhere", b"/etc", b"", b"a\0b", b"\xff\xfe", b"x" * 9999])
def test_latest_that_leads_elsewhere(tmp_path, tag):
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "run"
    folder_of(folder, {WHOLE: model().state_dict()})
    (folder / "latest").write_bytes(tag)
    with pytest.raises(MissingFileError) as error:
        open_checkpoint(folder)
    assert error.value.hint


@pytest.mark.parametrize("more", [["mp_rank_01_model_states.pt"],
                                  ["layer_00-model_00-model_states.pt"]])  # fmt: skip
def test_model_of_several_ranks(tmp_path, more):
    state = {"w": torch.ones(2, 2)}
    folder_of(tmp_path, {WHOLE: state} | dict.fromkeys(more, state))
    with pytest.raises(SourceError, match="parallelism") as error:
        open_checkpoint(tmp_path)
    assert "Megatron" in error.value.hint


def test_empty_tensors_of_any_file(tmp_path):
    save_file(empty_state(), tmp_path / "model.safetensors")
    for opening in (lambda: open_checkpoint(tmp_path), lambda: from_state_dict(empty_state())):
        with pytest.raises(SourceError, match="are empty") as error:
            opening()
        assert "stage3_gather_16bit_weights_on_model_save" in error.value.hint
    (tmp_path / "latest").write_text("global_step10")
    with pytest.raises(SourceError) as error:
        open_checkpoint(tmp_path)
    assert f"zero_to_fp32 {tmp_path} OUTPUT" in error.value.hint


def test_a_few_empty_tensors_are_none_of_deepspeeds(tmp_path):
    state = {"a": torch.ones(2), "b": torch.empty(0), "c": torch.ones(2, 2)}
    assert set(from_state_dict(state).tensors) == set(state)


def test_config_above_the_step(tmp_path):
    step = folder_of(tmp_path, {WHOLE: {"w": torch.ones(2, 2)}})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "above"}))
    with open_checkpoint(step) as checkpoint:
        assert checkpoint.config == {"model_type": "above"}
    (step / "config.json").write_text(json.dumps({"model_type": "here"}))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config == {"model_type": "here"}
