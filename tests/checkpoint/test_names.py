"""What wrappers put into names is taken out wherever it stands, and names stay unique."""

import json
import math
import os
import pickle
import random
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import flagscope
from flagscope.api.source import opened
from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint
from flagscope.checkpoint.fingerprint import header_digest
from flagscope.checkpoint.opening import reopened
from flagscope.checkpoint.wrapper_prefixes import WRAPPERS, unwrapped_names, visible_names
from flagscope.engine.store.task_keys import weights_identity
from flagscope.errors import InputError

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


def numbered(shape, dtype=torch.float32):
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape).to(dtype)


def wrapped_state():
    """Names that lose their wrappers and names that keep them, scaled weights, parts of weights."""
    return {
        "module.layers.0._orig_mod.fc.weight": numbered((4, 3)),
        "module.layers.0._orig_mod.fc.bias": numbered((4,)),
        "module.head._orig_mod.weight": numbered((5, 4), torch.float8_e4m3fn),
        "module.head._orig_mod.weight_scale": numbered((5, 1)) + 1,
        "module.net.module.w": numbered((2, 2)),
        "module.net.w": numbered((2, 3)),
        "module.n.weight_g": numbered((3, 1)) + 1,
        "module.n.weight_v": numbered((3, 7)) + 1,
        "module.ema.layers.0.fc.weight": numbered((4, 3)) + 2,
        "module.ema.layers.0.fc.bias": numbered((4,)) + 2,
    }


def wrapped_source(kind, folder):
    """The state as it is, or in a file of a kind and of a fixed time of change."""
    state = wrapped_state()
    path = folder / f"model.{kind}"
    match kind:
        case "state":
            return state
        case "safetensors":
            save_file(state, path)
        case "pt":
            torch.save({"state_dict": state}, path)
        case "npz":
            np.savez(path, **{n: t.numpy() for n, t in state.items() if "head" not in n})
        case "index.json":
            names = {"a.safetensors": list(state)[::2], "b.safetensors": list(state)[1::2]}
            for file, part in names.items():
                save_file({name: state[name] for name in part}, folder / file)
            where = {name: file for file, part in names.items() for name in part}
            path = folder / "model.safetensors.index.json"
            path.write_text(json.dumps({"weight_map": where}))
    for file in folder.iterdir():
        os.utime(file, ns=(10**18, 10**18))
    return path


# Recorded: fingerprint, digest of the headers, and identity, by which stores know weights.
IDENTITIES = {
    ("state", None): [
        "6ddccbe629f76e611eaa69646281bda8",
        "aab3aa86bcc3233a0c447a5c2f63a79e",
        "72c9b73b6a27721a0db7b97ac3c58226",
    ],
    ("safetensors", None): [
        "18f30c8ac967855d32d7fd909b747a6e",
        "508b98617108f0292acf9ef1fde9aef7",
        "a164eb80144981083f88b9e43f391316",
    ],
    ("pt", None): ["18f30c8ac967855d32d7fd909b747a6e", "508b98617108f0292acf9ef1fde9aef7"],
    ("npz", None): ["e7e63ad4bf276ea49640e8cadf121477", "c8444f0cb9338221239114fbdffebef4"],
    ("index.json", None): [
        "18f30c8ac967855d32d7fd909b747a6e",
        "508b98617108f0292acf9ef1fde9aef7",
        "e8111b3e721556fad2dc491a1ecccd23",
    ],
    ("state", "layers"): [
        "12dcb1ebd2f1d3572900f0bd98640bb6",
        "0eb5430b54436542a8633b9003da0682",
        "0165e7b5d2af2ec10a130ecb167d2f13",
    ],
    ("safetensors", "layers"): [
        "12dcb1ebd2f1d3572900f0bd98640bb6",
        "0eb5430b54436542a8633b9003da0682",
        "ba835d53fa50b24b69125277b1e02b3f",
    ],
    ("pt", "layers"): ["12dcb1ebd2f1d3572900f0bd98640bb6", "0eb5430b54436542a8633b9003da0682"],
    ("npz", "layers"): ["12dcb1ebd2f1d3572900f0bd98640bb6", "0eb5430b54436542a8633b9003da0682"],
    ("index.json", "layers"): [
        "12dcb1ebd2f1d3572900f0bd98640bb6",
        "0eb5430b54436542a8633b9003da0682",
        "3b968715be8b1ce1ec2ab58050587e72",
    ],
}


@pytest.mark.parametrize("kind", ["state", "safetensors", "pt", "npz", "index.json"])
@pytest.mark.parametrize("tensors", [None, "layers"])
def test_wrapped_names_give_the_identity_that_stores_have_of_them(tmp_path, kind, tensors):
    with opened(
        wrapped_source(kind, tmp_path), config=None, revision=None, base=None, tensors=tensors
    ) as checkpoint:
        fingerprint = checkpoint_fingerprint(checkpoint)
        found = [fingerprint, header_digest(checkpoint), weights_identity(checkpoint, fingerprint)]
        if kind in ("pt", "npz"):  # their files' size is that of the library that wrote them
            found = found[:2]
        assert found == IDENTITIES[kind, tensors]
        if checkpoint.recipe is not None:  # how the checkpoint comes to a worker
            with pickle.loads(pickle.dumps(checkpoint)) as copy:
                assert checkpoint_fingerprint(copy) == fingerprint
            with reopened(checkpoint.recipe) as again:
                assert checkpoint_fingerprint(again) == fingerprint


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_scales_and_shared_memory_are_found_by_the_names_without_wrappers(tmp_path, kind):
    weight = numbered((3, 4))
    state = {
        "a._orig_mod.weight": weight.to(torch.float8_e4m3fn),
        "a.weight_scale": torch.full((3, 1), 0.5),
        "module.b.weight": weight.to(torch.float8_e4m3fn),
        "c._orig_mod.weight": weight,
        "d.weight": weight if kind == "pt" else weight.clone(),
    }
    path = tmp_path / f"model.{kind}"
    torch.save(state, path) if kind == "pt" else save_file(state, path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.scale_name("a.weight") == "a.weight_scale"
        assert checkpoint.scale("a.weight").tolist() == [[0.5] * 4] * 3
        assert checkpoint.scale("b.weight") is None
        assert sum("such as b.weight" in note for note in checkpoint.notes) == 1
        shared = checkpoint.memory("c.weight") == checkpoint.memory("d.weight") is not None
        assert shared == (kind == "pt")
        with pytest.raises(InputError, match=r"no tensor 'c\._orig_mod\.weight'"):
            checkpoint.read("c._orig_mod.weight")
    with pytest.raises(InputError, match="closed"):
        checkpoint.read("c.weight")


def test_the_wiring_of_a_file_names_tensors_without_wrappers(tmp_path):
    onnx = pytest.importorskip("onnx")
    make, tensor = onnx.helper, onnx.numpy_helper.from_array
    draw = np.random.default_rng(0)
    weights = [tensor(draw.normal(size=shape).astype("f4"), f"module.{at}.weight")
               for at, shape in ((0, (4, 3)), (2, (2, 4)))]  # fmt: skip
    nodes = [
        make.make_node("Gemm", ["x", "module.0.weight"], ["h"], transB=1),
        make.make_node("Relu", ["h"], ["r"]),
        make.make_node("Gemm", ["r", "module.2.weight"], ["y"], transB=1),
    ]
    ends = [make.make_tensor_value_info(*end) for end in (("x", 1, ["n", 3]), ("y", 1, ["n", 2]))]
    path = tmp_path / "model.onnx"
    onnx.save(make.make_model(make.make_graph(nodes, "g", ends[:1], ends[1:], weights)), path)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["0.weight", "2.weight"]
        assert checkpoint.wiring is not None
        assert {one.tensor for one in checkpoint.wiring.maps} == {"0.weight", "2.weight"}
        assert [(link.write.tensor, link.read.tensor) for link in checkpoint.wiring.links] == [
            ("0.weight", "2.weight")
        ]
