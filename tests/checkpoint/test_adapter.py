"""PEFT adapters on their base: the merged weights are those that PEFT itself merges."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import flagscope
from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint
from flagscope.errors import CorruptFileError, InputError, MissingFileError, SourceError

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's and transformers' own
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VARIANTS = {
    "all maps": {"target_modules": ALL, "r": 4, "lora_alpha": 16},
    "rank stabilised": {"target_modules": ["q_proj"], "r": 4, "use_rslora": True},
    "patterns": {
        "target_modules": ALL, "r": 4, "lora_alpha": 6,
        "rank_pattern": {"o_proj": 2, "layers.1.self_attn.q_proj": 3},
        "alpha_pattern": {"up_proj": 5, "^model.layers.0.mlp.down_proj": 7},
    },
    "embedding": {"target_modules": ["embed_tokens", "v_proj"], "r": 2},
    "saved whole": {"target_modules": ["q_proj"], "r": 2, "modules_to_save": ["lm_head"]},
    "transposed": {"target_modules": ["c_attn", "c_fc", "c_proj"], "r": 3, "fan_in_fan_out": True},
}  # fmt: skip


def tiny(kind):
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=24, n_head=2, n_layer=2, vocab_size=20, n_positions=8
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        num_hidden_layers=2, vocab_size=20, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def adapted(variant, folder):
    """Base and adapter as they are saved, and the state dict after PEFT has merged them."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny("gpt2" if variant == "transposed" else "llama")
        model.save_pretrained(folder / "base")
        model.name_or_path = str(folder / "base")
        tuned = peft.get_peft_model(model, peft.LoraConfig(**VARIANTS[variant]))
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.normal_(0, 0.3)
        tuned.save_pretrained(folder / "adapter", save_embedding_layers=False)
        settings = json.loads((folder / "adapter/adapter_config.json").read_text())
        settings["base_model_name_or_path"] = "base"
        (folder / "adapter/base").symlink_to("../base")
        (folder / "adapter/adapter_config.json").write_text(json.dumps(settings))
        return tuned.merge_and_unload().state_dict()


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_weights_are_those_of_peft(tmp_path, variant):
    merged = adapted(variant, tmp_path)
    with (
        open_checkpoint(tmp_path / "base") as base,
        open_checkpoint(tmp_path / "adapter") as checkpoint,
    ):
        assert checkpoint.config == base.config
        assert set(checkpoint.tensors) == set(base.tensors)
        changed = 0
        for name in base.tensors:
            read = checkpoint.read(name)
            torch.testing.assert_close(read, merged[name], rtol=1e-5, atol=2e-6)
            changed += not torch.equal(read, base.read(name))
            assert checkpoint.tensors[name].shape == tuple(read.shape)
            if read.ndim == 2:
                part = (slice(2, 9), slice(1, 7))
                assert torch.equal(checkpoint.read(name, part), read[part])
        assert changed == {"all maps": 14, "rank stabilised": 2, "patterns": 14, "embedding": 3,
                           "saved whole": 3, "transposed": 8}[variant]  # fmt: skip
        with pickle.loads(pickle.dumps(checkpoint)) as copy:
            assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(checkpoint)


def test_scan_of_an_adapter_is_that_of_the_merged_model(tmp_path):
    merged = adapted("all maps", tmp_path)
    config = json.loads((tmp_path / "base/config.json").read_text())
    options = {"device": "cpu", "workers": 1, "rank": "participation"}
    one = flagscope.scan(tmp_path / "adapter", **options)
    other = flagscope.scan(merged, config=config, **options)
    assert one.result.family == "llama"
    assert not one.result.failures
    assert any("14 tensors merged" in note for note in one.result.notes)
    for a, b in zip(one.result.pairs, other.result.pairs, strict=True):
        assert a.overlap_ratio == pytest.approx(b.overlap_ratio, rel=1e-4)


# From here on adapters are written by hand, without PEFT.
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
NAME = "model.layers.0.self_attn.q_proj.weight"
A, B, W = torch.ones(2, 6), torch.full((4, 2), 0.5), torch.arange(24.0).reshape(4, 6)
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base"}


def by_hand(folder, *, base=None, settings=(), weights=None):
    (folder / "base").mkdir(exist_ok=True)
    (folder / "adapter").mkdir(exist_ok=True)
    if not (folder / "adapter/base").is_symlink():
        (folder / "adapter/base").symlink_to("../base")
    save_file({NAME: W} if base is None else base, folder / "base/model.safetensors")
    factors = {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B}
    save_file(factors if weights is None else weights, folder / "adapter/adapter_model.safetensors")
    (folder / "adapter/adapter_config.json").write_text(json.dumps(SETTINGS | dict(settings)))
    return folder / "adapter"


def test_sum_by_hand(tmp_path):
    with open_checkpoint(by_hand(tmp_path)) as checkpoint:
        assert torch.equal(checkpoint.read(NAME), W + 2.0)  # α/r = 2, B A = 1
        assert torch.equal(checkpoint.read(NAME, (slice(1, 3), 2)), W[1:3, 2] + 2.0)
    file = tmp_path / "adapter/adapter_model.safetensors"
    with open_checkpoint(file) as checkpoint:
        assert torch.equal(checkpoint.read(NAME), W + 2.0)


@pytest.mark.parametrize("stored", ["layers.0.self_attn.q_proj.weight",
                                    "text.model.layers.0.self_attn.q_proj.weight"])  # fmt: skip
def test_base_of_another_prefix(tmp_path, stored):
    with open_checkpoint(by_hand(tmp_path, base={stored: W})) as checkpoint:
        assert torch.equal(checkpoint.read(stored), W + 2.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_is_that_of_the_base(tmp_path, dtype):
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[2] = 0  # as a padding row is: next to it lies the least subnormal number
    with open_checkpoint(by_hand(tmp_path, base={NAME: weight})) as checkpoint:
        assert checkpoint.tensors[NAME].dtype == "float32"
        assert torch.equal(checkpoint.read(NAME), weight.float() + 2.0)
        above = torch.nextafter(weight.abs(), torch.full_like(weight, 1e4)).float()
        assert torch.equal(checkpoint.step(NAME), above - weight.abs().float())


def test_base_with_scales(tmp_path):
    stored, scale = W.to(torch.float8_e4m3fn), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    base = {NAME: stored, NAME + "_scale": scale, "other.weight": stored.clone(),
            "other.weight_scale": scale.clone()}  # fmt: skip
    with open_checkpoint(by_hand(tmp_path, base=base)) as checkpoint:
        assert torch.equal(checkpoint.read(NAME), stored.float() * scale + 2.0)
        assert checkpoint.scale(NAME) is None
        assert torch.equal(checkpoint.scale("other.weight"), scale.expand(4, 6))
        assert checkpoint.auxiliary == {NAME + "_scale", "other.weight_scale"}
        assert float(checkpoint.step(NAME)[3, 5]) == 4 * 2  # 23 is stored as 24; 2 apart, times 4


def test_explicit_base_comes_first(tmp_path):
    adapter = by_hand(tmp_path, settings={"base_model_name_or_path": "/nowhere/at/all"})
    with pytest.raises(SourceError, match=r"is an adapter.*/nowhere/at/all") as error:
        open_checkpoint(adapter)
    assert "base=PATH" in error.value.hint
    with open_checkpoint(adapter, base=tmp_path / "base") as checkpoint:
        assert torch.equal(checkpoint.read(NAME), W + 2.0)
    found = flagscope.inspect(adapter, base=tmp_path / "base")
    assert found.parameters == 24


OUTSIDE = [
    "../base", "sub/../../base", "..\\base", "/ABSOLUTE", "~/base", "C:\\base", "file:///ABSOLUTE",
    "http://127.0.0.1:9/model.safetensors", "HTTPS://user:s3cr3t@127.0.0.1:9/", "memory://base/",
    "simplecache::http://127.0.0.1:9/model.safetensors", "s3://bucket/", "base\0",
]  # fmt: skip


@pytest.mark.parametrize("named", OUTSIDE)
def test_a_base_elsewhere_is_the_users_to_give(tmp_path, monkeypatch, named):
    """The file may name it, and must not have it opened."""
    named = named.replace("/ABSOLUTE", str(tmp_path / "base"))
    adapter = by_hand(tmp_path, settings={"base_model_name_or_path": named})
    monkeypatch.setattr("fsspec.core.url_to_fs", None)
    with pytest.raises(SourceError, match="outside its folder") as error:
        open_checkpoint(adapter)
    assert "--base" in error.value.hint
    assert "s3cr3t" not in str(error.value)
    with open_checkpoint(adapter, base=tmp_path / "base") as checkpoint:
        assert torch.equal(checkpoint.read(NAME), W + 2.0)


def test_a_base_is_not_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    adapter = by_hand(tmp_path, settings={"base_model_name_or_path": "org/base"})
    (tmp_path / "org").mkdir()
    (tmp_path / "base").rename(tmp_path / "org/base")
    monkeypatch.chdir(tmp_path)
    asked = []

    def fetched(name, *, revision):
        asked.append(name)
        raise MissingFileError("not in the local cache")

    monkeypatch.setattr("flagscope.checkpoint.opening.fetched_weights", fetched)
    with pytest.raises(SourceError, match="not in the local cache"):
        open_checkpoint(adapter)
    assert asked == ["org/base"]
    with open_checkpoint(adapter, base="org/base") as checkpoint:
        assert torch.equal(checkpoint.read(NAME), W + 2.0)


@pytest.mark.parametrize("told", [None, "", 7])
def test_adapter_alone(tmp_path, told):
    adapter = by_hand(tmp_path, settings={"base_model_name_or_path": told})
    with pytest.raises(SourceError, match="names no base model") as error:
        open_checkpoint(adapter)
    assert "--base" in error.value.hint


def test_adapter_that_is_its_own_base(tmp_path):
    adapter = by_hand(tmp_path, settings={"base_model_name_or_path": "."})
    for given in (None, adapter):
        with pytest.raises(SourceError, match="is an adapter itself"):
            open_checkpoint(adapter, base=given)


def test_base_for_what_is_no_adapter(tmp_path):
    by_hand(tmp_path)
    with pytest.raises(InputError, match="no LoRA adapter"):
        open_checkpoint(tmp_path / "base", base=tmp_path)
    with pytest.raises(InputError, match="adapters on disk"):
        flagscope.inspect({"w": W}, base=tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"peft_type": None}, "None"),
        ({"use_dora": True}, "DoRA"),
        ({"layer_replication": [[0, 2]]}, "replicated"),
        ({"alora_invocation_tokens": [1]}, "some tokens"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "only names"),
    ],
)
def test_kinds_that_are_no_sum(tmp_path, settings, says):
    with pytest.raises(SourceError, match=says) as error:
        open_checkpoint(by_hand(tmp_path, settings=settings))
    assert error.value.hint


BAD = {
    "A alone": {MODULE + ".lora_A.weight": A},
    "nothing": {"base_model.model.other.lora_A.weight": A},
    "ranks that differ": {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B[:, :1]},
    "another width": {MODULE + ".lora_A.weight": A[:, :5], MODULE + ".lora_B.weight": B},
    "another height": {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B[:3]},
    "rank zero": {MODULE + ".lora_A.weight": A[:0], MODULE + ".lora_B.weight": B[:, :0]},
    "vectors": {MODULE + ".lora_A.weight": A[0], MODULE + ".lora_B.weight": B[0]},
    "twice": {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B,
              MODULE + ".lora_A.default.weight": A},
    "replaced by another shape": {"base_model.model." + NAME: A[:, :5]},
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_adapter_that_does_not_fit_its_base(tmp_path, what):
    weights = {name: tensor.clone().contiguous() for name, tensor in BAD[what].items()}
    with pytest.raises(CorruptFileError, match="adapter") as error:
        open_checkpoint(by_hand(tmp_path, weights=weights))
    assert "base" in error.value.hint


def test_part_that_is_not_known(tmp_path):
    weights = {MODULE + ".lora_magnitude_vector": A}
    with pytest.raises(SourceError, match="lora_magnitude_vector"):
        open_checkpoint(by_hand(tmp_path, weights=weights))


@pytest.mark.parametrize("alpha", ["4", None, True, float("inf")])
def test_alpha_that_is_no_number(tmp_path, alpha):
    with pytest.raises(CorruptFileError, match="lora_alpha"):
        open_checkpoint(by_hand(tmp_path, settings={"lora_alpha": alpha}))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_settings_that_are_no_json(tmp_path, content):
    adapter = by_hand(tmp_path)
    (adapter / "adapter_config.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"adapter_config\.json"):
        open_checkpoint(adapter)


def test_adapter_of_pickled_code_is_refused(tmp_path):
    adapter = by_hand(tmp_path)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({MODULE + ".lora_A.weight": A, "run": shutil.rmtree}, adapter / "adapter_model.bin")
    with pytest.raises(SourceError):
        open_checkpoint(adapter)
    torch.save({MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B},
               adapter / "adapter_model.bin")  # fmt: skip
    with open_checkpoint(adapter) as checkpoint:
        assert torch.equal(checkpoint.read(NAME), W + 2.0)


def test_closing_closes_both(tmp_path):
    checkpoint = open_checkpoint(by_hand(tmp_path))
    checkpoint.close()
    with pytest.raises(InputError, match="closed"):
        checkpoint.read(NAME)


def test_base_is_read_as_from_memory(tmp_path):
    by_hand(tmp_path)
    loaded = load_file(tmp_path / "base/model.safetensors")
    with open_checkpoint(tmp_path / "base") as base:
        assert checkpoint_fingerprint(base) == checkpoint_fingerprint(from_state_dict(loaded))
