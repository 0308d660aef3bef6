"""What wrappers put into names is taken out wherever it stands, and names stay unique."""

import random
import time

import pytest
import torch

import flagscope
from flagscope.checkpoint import from_state_dict, open_checkpoint
from flagscope.checkpoint.wrapper_prefixes import WRAPPERS, unwrapped_names, visible_names

PLAIN = ["embed.weight", "layers.0.fc.weight", "layers.0.fc.bias", "layers.1.fc.weight"]
WRAPPED = {
    "all": [f"module._orig_mod.{name}" for name in PLAIN],
    "_orig_mod below model": ["model._orig_mod.a.weight", "model._orig_mod.b.weight"],
    "layers": ["a.weight", "layers.0._checkpoint_wrapped_module.weight", "layers.1.weight"],
    "FSDP": ["_fsdp_wrapped_module._fpw_module.layers.0._fsdp_wrapped_module._fpw_module.weight"],
    "Lightning": ["_forward_module.model.weight", "_forward_module.head.module.weight"],
    "twice": ["module.module.weight", "module.module.bias"],
    "averaged": ["n_averaged", "module.0.weight"],
}
SHOWN = {
    "all": PLAIN,
    "_orig_mod below model": ["model.a.weight", "model.b.weight"],
    "layers": ["a.weight", "layers.0.weight", "layers.1.weight"],
    "FSDP": ["layers.0.weight"],
    "Lightning": ["model.weight", "head.weight"],
    "twice": ["weight", "bias"],
    "averaged": ["n_averaged", "0.weight"],
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_are_taken_out_anywhere(case):
    names, notes = unwrapped_names(WRAPPED[case])
    assert names == dict(zip(SHOWN[case], WRAPPED[case], strict=True))
    assert notes == ()


MEETING = {
    "same name": ["module.a.weight", "a.weight"],
    "same layer, other tensors": ["net.module.0.weight", "net.0.bias"],
    "a layer and what it holds": ["fc.module.weight", "fc.bias"],
    "two wrappers": ["a.module.0.weight", "a._orig_mod.0.weight"],
    "a tensor of that name": ["x.module", "x.module.y"],
    "a tensor called as a layer": ["module.a.weight", "a"],
}


@pytest.mark.parametrize("case", MEETING)
def test_names_that_would_meet_stay(case):
    names, notes = unwrapped_names(MEETING[case])
    assert names == {name: name for name in MEETING[case]}
    assert len(notes) == 1
    assert "without it they would meet others" in notes[0]


def test_others_are_still_taken_out():
    stored = ["a.module.0.w", "a.0.w", "b.module.0.w", "_orig_mod"]
    assert list(visible_names(stored)) == ["a.module.0.w", "a.0.w", "b.0.w", "_orig_mod"]


def test_parts_of_other_names_stay():
    stored = ["submodule.x", "module_list.0.w", "my._orig_module.w", "module.", "modules.w"]
    assert visible_names(stored) == {name: name for name in stored}


def test_names_are_unique_and_settled_whatever_they_are():
    parts = (*WRAPPERS, "module", "a", "0", "weight", "")
    choice = random.Random(0)
    for _ in range(3000):
        stored = list({".".join(choice.choices(parts, k=choice.randint(1, 6)))
                       for _ in range(choice.randint(1, 6))})  # fmt: skip
        names = visible_names(stored)
        assert sorted(names.values()) == sorted(stored)
        assert visible_names(names) == {name: name for name in names}


def test_many_names_take_little_time():
    layers = [f"layers.{i}.experts.{j}.w{k}" for i in range(50) for j in range(100)
              for k in range(3)]  # fmt: skip
    wrapped = [f"_orig_mod.{name.replace('experts', 'module.experts')}" for name in layers]
    start = time.perf_counter()
    assert list(visible_names(wrapped)) == layers
    assert time.perf_counter() - start < 20


def test_hostile_names_take_little_time():
    start = time.perf_counter()
    assert list(visible_names(["module." * 100 + "w"])) == ["w"]
    for hostile in ("module." * 10**6 + "w", "a." * 10**6 + "module.w", "module." + "." * 10**6):
        assert list(visible_names([hostile, "module.w"])) == [hostile, "w"]
    assert time.perf_counter() - start < 5


def test_tensors_are_read_by_the_names_that_are_stored(tmp_path):
    stored = {"module.0.weight": torch.eye(3), "net.module.w": torch.ones(2, 2),
              "net.w": torch.zeros(2, 2)}  # fmt: skip
    path = tmp_path / "model.pt"
    torch.save(stored, path)
    for checkpoint in (from_state_dict(stored), open_checkpoint(path)):
        with checkpoint:
            assert set(checkpoint.tensors) == {"0.weight", "net.module.w", "net.w"}
            assert torch.equal(checkpoint.read("0.weight"), torch.eye(3))
            assert torch.equal(checkpoint.read("net.w"), torch.zeros(2, 2))
            assert torch.equal(checkpoint.read("net.module.w"), torch.ones(2, 2))
            assert sum("'net.module' stays" in note for note in checkpoint.notes) == 1


def test_a_pickled_training_state_of_wrapped_layers_is_scanned_as_the_plain_one():
    torch.manual_seed(0)
    state = {f"layers.{at}.weight": torch.randn(6, 6) for at in range(3)}
    wrapped = {
        name.replace(".weight", "._checkpoint_wrapped_module.weight"): one
        for name, one in state.items()
    }
    expected, result = (flagscope.scan(one, workers=1).result for one in (state, wrapped))
    assert [pair.model_dump() for pair in result.pairs] == [
        pair.model_dump() for pair in expected.pairs
    ]
    assert len(result.pairs) == 2
