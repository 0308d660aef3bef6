"""Parameters are counted once, and buffers not at all, whatever the weights come in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import flagscope
from flagscope.checkpoint import from_state_dict, open_checkpoint
from flagscope.engine import weights_of

transformers = pytest.importorskip("transformers")


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return gpt2()


def truth(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count(source: object, **settings: object) -> int:
    """What a scan says and what an inspection says; they agree."""
    found = flagscope.scan(source, only="pairs", **settings).result.parameters  # pyright: ignore[reportArgumentType]
    assert flagscope.inspect(source, only="pairs", **settings).parameters == found  # pyright: ignore[reportArgumentType]
    return found


def old_state(model: nn.Module) -> dict[str, Tensor]:
    """The names of the first checkpoints of GPT-2, which held the causal masks."""
    state = {
        name.removeprefix("transformer."): tensor
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    for layer in range(2):
        state[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32)
        state[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


def test_a_live_module(model: nn.Module) -> None:
    assert count(model) == truth(model)


def test_its_state_dict(model: nn.Module) -> None:
    assert count(model.state_dict(), heads=4) == truth(model)


def test_its_folder(model: nn.Module, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)  # pyright: ignore[reportCallIssue]
    assert count(tmp_path) == truth(model)


def test_old_names_with_masks(model: nn.Module) -> None:
    assert count(old_state(model), heads=4) == truth(model)


def test_a_torch_file_keeps_what_is_shared(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert count(tmp_path / "model.pt", heads=4) == truth(model)


def test_an_older_torch_file_too(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert count(tmp_path / "old.pt", heads=4) == truth(model)


def test_shards_of_torch_files(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    names = list(state)
    parts = {"a.bin": [*names[:9], "lm_head.weight"], "b.bin": names[9:-1]}
    for file, some in parts.items():
        torch.save({name: state[name] for name in some}, tmp_path / file)
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert count(tmp_path, heads=4) == truth(model)


def twice(model: nn.Module, path: Path, *, tied: bool | None, change: float = 0.0) -> Path:
    """A folder whose file holds the tied weight twice, as safetensors must."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["lm_head.weight"][-1, -1] += change
    save_file(state, path / "model.safetensors")
    config = {"model_type": "gpt2", "n_head": 4, "n_layer": 2}
    config |= {} if tied is None else {"tie_word_embeddings": tied}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_tied_weight_that_is_stored_twice(model: nn.Module, tmp_path: Path) -> None:
    assert count(twice(model, tmp_path, tied=True)) == truth(model)


def test_equal_bytes_are_one_where_the_config_is_silent(model: nn.Module, tmp_path: Path) -> None:
    found = flagscope.scan(twice(model, tmp_path, tied=None), only="pairs").result
    assert found.parameters == truth(model)


def test_untied_weights_are_two(model: nn.Module, tmp_path: Path) -> None:
    assert count(twice(model, tmp_path, tied=False)) == truth(model) + 64 * 32


def test_a_single_other_number_is_a_weight_of_its_own(model: nn.Module, tmp_path: Path) -> None:
    found = flagscope.scan(twice(model, tmp_path, tied=True, change=1.0), only="pairs").result
    assert found.parameters == truth(model) + 64 * 32
    assert [note for note in found.notes if "the two differ as they are stored" in note]


def test_a_weight_and_its_transpose_are_one() -> None:
    weight = torch.randn(6, 4)
    state = {"encoder.weight": weight, "decoder.weight": weight.T, "rows.weight": weight[:3]}
    found = weights_of(from_state_dict(state), read=True)
    assert dict(found.numbers) == {"encoder.weight": 24, "rows.weight": 12}
    assert dict(found.same) == {"decoder.weight": "encoder.weight"}


def test_equal_weights_of_two_layers_are_two() -> None:
    state = {"0.weight": torch.eye(4), "2.weight": torch.eye(4)}
    assert weights_of(from_state_dict(state), read=False).parameters == 32


def test_equal_starts_of_a_live_module_are_two_weights() -> None:
    module = nn.ModuleDict({"embedding": nn.Embedding(9, 4), "output": nn.Linear(4, 9, bias=False)})
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    assert count(module) == truth(module) == 72
    # Copies in a mapping may be one; their bytes are all there is to go by.
    copied = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert flagscope.scan(copied, only="pairs").result.parameters == 36


class WithBuffers(nn.Module):
    """Whose names say nothing: a parameter named as a mask, and a buffer named as a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.ones(5, 5))
        self.steps = nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
        self.register_buffer("weight", torch.ones(7, 7))
        self.norm = nn.BatchNorm1d(5)


def test_a_module_says_what_its_parameters_are() -> None:
    module = WithBuffers()
    assert count(module) == truth(module) == 25 + 3 + 5 + 5
    assert flagscope.scan(module).result.coverage.buffers == ["weight"]  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "buffer"),
    [
        ("h.0.attn.bias", (1, 1, 8, 8), torch.float32, True),
        ("h.0.attn.bias", (1, 1, 8, 8), torch.uint8, True),
        ("h.0.attn.bias", (24,), torch.float32, False),
        ("h.0.attn.bias", (1, 1, 8, 6), torch.float32, False),
        ("h.0.mlp.bias", (1, 1, 8, 8), torch.float32, False),
        ("gpt_neox.layers.0.attention.bias", (1, 1, 8, 8), torch.bool, True),
        ("h.0.attn.masked_bias", (), torch.float32, True),
        ("layers.0.self_attn.rotary_emb.inv_freq", (4,), torch.float32, True),
        ("blocks.0.attn.mask", (8, 8), torch.float32, True),
        ("mask", (8, 4), torch.float32, False),
        ("bn.running_mean", (8,), torch.float32, True),
        ("mask_token", (1, 1, 8), torch.float32, False),
    ],
)
def test_buffers_of_a_file_by_name_and_shape(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, buffer: bool
) -> None:
    state = {"0.weight": torch.ones(4, 4), name: torch.ones(shape, dtype=dtype)}
    found = weights_of(from_state_dict(state), read=False)
    assert (name in found.buffers) == buffer
    assert found.parameters == 16 + (0 if buffer else torch.ones(shape).numel())


def test_inspect_reads_no_tensor_to_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = twice(gpt2(), tmp_path, tied=True)
    with open_checkpoint(path) as checkpoint:
        monkeypatch.setattr(type(checkpoint), "read", None)
        assert weights_of(checkpoint, read=False).parameters == truth(gpt2())
