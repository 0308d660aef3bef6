"""Random models of many families, and trained ones, give no warning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

import flagscope
from arch.cases import CASES
from flagscope.demo import final
from flagscope.records import ScanResult
from flagscope.report import findings

SHARED = Path(__file__).parents[4] / "shared" / "data" / "resnet20-cifar10"
# One of each form: encoders, decoders, experts in one tensor, latent attention, state spaces, two
# stacks, vision, convolutions, sound; as transformers initialises them.
FAMILIES = (
    "bert", "albert", "distilbert", "gpt2", "llama", "gemma2", "mixtral", "olmoe", "deepseek_v3",
    "mamba", "t5", "bart", "vit", "swin", "convnext", "resnet", "whisper", "phi3", "falcon",
    "modernbert",
)  # fmt: skip


def no_warning(result: ScanResult) -> None:
    assert result.health is not None
    assert result.health.tensors
    warnings = [finding.text for finding in findings(result) if finding.severity == "warning"]
    assert warnings == []


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in CASES])
def test_a_model_as_it_is_initialised(family: str):
    model_class, config_class, settings, _ = CASES[family]
    settings = {**settings, **({"num_hidden_layers": 5} if family in ("llama", "bert") else {})}
    config = getattr(transformers, config_class)(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config)
    said = json.loads(json.dumps(config.to_dict(), default=str))
    no_warning(flagscope.scan(model.state_dict(), config=said, only="health").result)


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForCausalLM"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "mixtral", "qwen2", "opt", "whisper"])
def test_nothing_outside_of_the_layers_is_missed_with_and_without_a_head(
    family: str, auto: str, tmp_path: Path
):
    _, config_class, settings, _ = CASES[family]
    config = getattr(transformers, config_class)(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(config)
    model.save_pretrained(tmp_path)
    result = flagscope.scan(tmp_path, only="health").result
    no_warning(result)
    assert result.health is not None
    assert result.health.outside
    # A config names the class that it was saved from, whichever part was loaded since.
    said = {**config.to_dict(), "architectures": [CASES[family][0]]}
    no_warning(flagscope.scan(model.state_dict(), config=said, only="health").result)


def test_enough_families_are_tried():
    assert len([name for name in FAMILIES if name in CASES]) >= 15


def test_the_demo_model():
    no_warning(flagscope.scan(final(), only="health").result)


def test_a_trained_network_with_batchnorms():
    files = list(SHARED.glob("*.th"))
    if not files:
        pytest.skip("the trained network is not there")
    no_warning(flagscope.scan(files[0], only="health").result)


def _llama() -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=60, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [("model.norm.weight", 0.0), ("model.layers.1.input_layernorm.weight", 0.0),
     ("lm_head.weight", 0.02), ("model.embed_tokens.weight", 0.0)],
)  # fmt: skip
def test_a_gain_of_zero_and_a_table_of_one_value_are_faults(name: str, value: float) -> None:
    model = _llama()
    torch.nn.init.constant_(model.get_parameter(name), value)
    report = flagscope.scan(model, only="health")
    assert [one.code for one in report.findings if one.severity == "warning"] == [
        "constant-tensors"
    ]
    assert name in report.findings[0].plain


def test_gains_that_are_stored_less_one_may_be_zero() -> None:
    config = transformers.Gemma2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=60,
    )  # fmt: skip
    report = flagscope.scan(transformers.Gemma2ForCausalLM(config), only="health")
    assert bool((report.result.health.zeros) > 0)
    assert [one.code for one in report.findings if one.severity == "warning"] == []
