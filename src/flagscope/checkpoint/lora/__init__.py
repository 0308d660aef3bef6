"""LoRA adapters as PEFT saves them: their settings, factors and targets, without a base."""

from flagscope.checkpoint.lora.settings import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    adapter_settings,
    adapter_weights,
    plain_lora,
)
from flagscope.checkpoint.lora.targets import TargetNames
from flagscope.checkpoint.lora.weights import AdapterWeights, Factors, read_adapter

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_FILES",
    "AdapterWeights",
    "Factors",
    "TargetNames",
    "adapter_settings",
    "adapter_weights",
    "plain_lora",
    "read_adapter",
]
