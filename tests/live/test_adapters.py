"""A live PEFT model is measured as PEFT's own merge of it, to the last digit."""

import copy
import gc
import pickle
import warnings
import weakref

import peft
import pytest
import torch
import transformers
from torch import nn

import flagscope
from flagscope.arch import build_graph
from flagscope.engine import Settings, plan
from flagscope.engine.run.remote_task import RemoteTask, run_remote_task
from flagscope.errors import SourceError
from flagscope.live import module_checkpoint
from flagscope.records import FailureRecord

# PEFT asks transformers for what it renamed; torch.compile imports what uses torch.jit.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning"),
]

CPU = Settings(device="cpu")


def llama(dtype=torch.float32):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=16, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def trained(model):
    """Its adapters moved off their start, which changes nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if not tensor.requires_grad:
                continue
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype))
            assert torch.isfinite(tensor).all(), name
    return model


TARGETS = ["q_proj", "v_proj", "down_proj"]


def lora(**settings):
    return peft.LoraConfig(r=4, target_modules=settings.pop("target_modules", TARGETS), **settings)


def wrapped(config, model=None):
    return trained(peft.get_peft_model(llama() if model is None else model, config))


def two_adapters():
    model = wrapped(lora())
    model.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=3,
                      target_modules=["k_proj", "v_proj"]))  # fmt: skip
    model.base_model.set_adapter(["default", "second"])
    return trained(model)


def merged_once():
    model = wrapped(lora())
    model.merge_adapter()
    return model


def injected():
    model = llama()
    peft.inject_adapter_in_model(lora(), model)
    return trained(model)


CASES = {
    "lora": lambda: wrapped(lora()),
    "bfloat16": lambda: wrapped(lora(), llama(torch.bfloat16)),
    "rank stabilised": lambda: wrapped(lora(use_rslora=True, lora_alpha=5)),
    "patterns": lambda: wrapped(lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 32})),
    "dora": lambda: wrapped(lora(use_dora=True)),
    "all linear": lambda: wrapped(lora(target_modules="all-linear")),
    "pissa": lambda: wrapped(lora(init_lora_weights="pissa")),
    "biases": lambda: wrapped(peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True,
                              lora_bias=True), gpt2()),
    "gpt2": lambda: wrapped(peft.LoraConfig(target_modules=["c_attn", "c_fc"],
                            fan_in_fan_out=True), gpt2()),
    "embedding": lambda: wrapped(lora(target_modules=["embed_tokens", "q_proj"])),
    "trained whole": lambda: wrapped(lora(modules_to_save=["lm_head"])),
    "two adapters": two_adapters,
    "merged once": merged_once,
    "loha": lambda: wrapped(peft.LoHaConfig(target_modules=TARGETS)),
    "lokr": lambda: wrapped(peft.LoKrConfig(target_modules=TARGETS)),
    "ia3": lambda: wrapped(peft.IA3Config(target_modules=TARGETS,
                           feedforward_modules=["down_proj"])),
    "oft": lambda: wrapped(peft.OFTConfig(target_modules=TARGETS, oft_block_size=4)),
    "compiled": lambda: torch.compile(wrapped(lora())),
}  # fmt: skip


def measured(source, **options):
    result = flagscope.scan(source, workers=1, **options).result
    assert not result.failures
    return result.family, [
        [one.model_dump() for one in records] for records in (result.pairs, result.heads)
    ]


def merge(model):
    """PEFT's own merge, on a copy."""
    model = getattr(model, "_orig_mod", model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return copy.deepcopy(model).merge_and_unload()


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_the_merge(case):
    model = CASES[case]()
    expected = merge(model).state_dict()
    base = (gpt2() if case in ("gpt2", "biases") else llama()).state_dict()
    checkpoint, traced, _ = module_checkpoint(model)
    assert list(checkpoint.tensors) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.read(name), tensor), name
    if case != "bfloat16":
        assert any(not torch.equal(tensor, base[name]) for name, tensor in expected.items())
    assert list(traced.state_dict()) == list(expected)
    assert any("merged with PEFT's adapters default" in note for note in checkpoint.notes)


@pytest.mark.parametrize("case", ["lora", "dora", "gpt2"])
def test_a_scan_is_that_of_the_merged_model(case):
    model = CASES[case]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    family, (pairs, heads) = measured(model)
    assert (family, [pairs, heads]) == measured(merge(model))
    assert len(pairs) >= 4
    assert heads
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(one.merged for one in model.modules() if hasattr(one, "merged_adapters"))


def test_a_weight_is_the_sum_of_the_paper():
    model = wrapped(lora(lora_alpha=6))
    checkpoint, *_ = module_checkpoint(model)
    state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    at = "base_model.model.model.layers.1.self_attn.v_proj."
    factors = state[at + "lora_B.default.weight"] @ state[at + "lora_A.default.weight"]
    expected = state[at + "base_layer.weight"] + 6 / 4 * factors
    read = checkpoint.read("model.layers.1.self_attn.v_proj.weight").double().numpy()
    assert abs(read - expected).max() < 1e-6 * abs(expected).max()


SHARED = {
    "tied embedding": lambda: wrapped(
        peft.LoraConfig(target_modules=["wte", "c_attn"], fan_in_fan_out=True), gpt2()
    ),
    "replicated layers": lambda: wrapped(
        peft.LoraConfig(target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]])
    ),
    "parameters": lambda: wrapped(
        peft.LoraConfig(target_modules=["q_proj"], target_parameters=["k_proj.weight"])
    ),
    "trained whole": lambda: wrapped(lora(modules_to_save=["norm", "lm_head"])),
}


@pytest.mark.parametrize("case", SHARED)
def test_weights_give_what_the_live_model_computes(case):
    model = SHARED[case]()
    checkpoint, module, _ = module_checkpoint(model)
    state = {name: checkpoint.read(name) for name in checkpoint.tensors}
    ids = torch.tensor([[1, 4, 2, 8, 5, 7]])
    with torch.no_grad():
        expected = model(ids).logits
        bare = module(ids).logits
        checked = torch.func.functional_call(module, state, (ids,), tie_weights=False).logits
    assert torch.allclose(checked, expected, atol=1e-5)
    assert case == "trained whole" or not torch.allclose(bare, expected, atol=1e-3)


def test_notes_count_merged_and_whole_modules():
    model = wrapped(lora(modules_to_save=["embed_tokens", "lm_head"]))
    notes = module_checkpoint(model)[0].notes
    assert notes == (
        "6 layers are merged with PEFT's adapters default",
        "2 modules are those that PEFT's adapters trained whole, such as model.embed_tokens",
    )


def test_adapters_put_into_a_model_of_ones_own():
    model = injected()
    checkpoint, *_ = module_checkpoint(model)
    reference = wrapped(lora())
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            reference.state_dict()[f"base_model.model.{name}"].copy_(tensor)
    expected = merge(reference).state_dict()
    assert list(checkpoint.tensors) == list(expected)
    assert all(torch.equal(checkpoint.read(name), one) for name, one in expected.items())

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["2"]), net)
    trained(net)
    x = torch.randn(4, 8)
    _, traced, _ = module_checkpoint(net)
    read = module_checkpoint(net)[0].read("2.weight")
    expected = net[2](x)
    assert torch.allclose(nn.functional.linear(x, read, traced[2].bias), expected, atol=1e-6)
    assert [pair.name for pair in flagscope.scan(net, workers=1).result.pairs] == ["0-2"]


def test_adapters_that_are_not_active_are_left_out_and_named():
    model = wrapped(lora())
    with model.disable_adapter():
        checkpoint, *_ = module_checkpoint(model)
    base = llama().state_dict()
    assert all(torch.equal(checkpoint.read(name), one) for name, one in base.items())
    assert any("6 layers are not active and not merged" in note for note in checkpoint.notes)


def test_prompts_are_named_and_the_model_alone_measured():
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(llama(), config)
    family, measures = measured(model)
    assert (family, measures) == measured(llama())
    notes = flagscope.scan(model, workers=1).result.notes
    assert any("PROMPT_TUNING adds to the model's inputs" in note for note in notes)


def test_an_adapter_that_cannot_be_merged_says_what_to_do(monkeypatch):
    model = wrapped(lora())

    def refused(self, *args, **kwargs):
        raise NotImplementedError("not this one")

    monkeypatch.setattr(peft.tuners.lora.LoraModel, "_check_merge_allowed", refused)
    with pytest.raises(SourceError, match=r"cannot merge .*: not this one") as told:
        flagscope.scan(model)
    assert "merge_and_unload" in str(told.value.hint)


def test_tensors_of_an_adapted_model_say_that_they_stand_unmerged():
    model = wrapped(lora())
    notes = flagscope.scan(dict(model.state_dict()), workers=1).result.notes
    assert any("LoRA factors of 6 modules stand next to their weights" in note for note in notes)
    assert not any("LoRA factors" in note for note in flagscope.scan(model, workers=1).result.notes)


def test_computed_weights_travel_to_other_processes():
    model = wrapped(lora())
    checkpoint, *_ = module_checkpoint(model)
    infos = checkpoint.tensors
    graph = build_graph({name: info.shape for name, info in infos.items()}, checkpoint.config)
    tasks = plan(graph, CPU, {name: info.nbytes for name, info in infos.items()})
    read = [task for task in tasks if "q_proj" in repr(task)]
    assert read
    for task in read:
        remote = RemoteTask(task, checkpoint, CPU, threads=None)
        there = run_remote_task(pickle.loads(pickle.dumps(remote)))
        assert there == run_remote_task(remote)
        assert not isinstance(there, FailureRecord)


def test_one_merged_weight_is_held_at_a_time():
    checkpoint, *_ = module_checkpoint(wrapped(lora()))
    names = [f"model.layers.{at}.mlp.down_proj.weight" for at in range(2)]
    first = checkpoint.read(names[0])
    assert checkpoint.read(names[0], (slice(0, 2),)).data_ptr() == first.data_ptr()
    held = weakref.ref(checkpoint._state[names[0]].detach())
    del first
    gc.collect()
    assert held() is not None
    checkpoint.read(names[1])
    gc.collect()
    assert held() is None
