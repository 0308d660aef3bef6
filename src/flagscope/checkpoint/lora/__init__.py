"""LoRA adapters: their settings, factors and targets, without a base."""

from flagscope.checkpoint.lora.names import FactorName, factor_name
from flagscope.checkpoint.lora.parts import factor_file, is_adapter
from flagscope.checkpoint.lora.settings import ADAPTER_FILES, adapter_weights
from flagscope.checkpoint.lora.targets import TargetNames
from flagscope.checkpoint.lora.weights import AdapterWeights, Factors, read_adapter

__all__ = [
    "ADAPTER_FILES",
    "AdapterWeights",
    "FactorName",
    "Factors",
    "TargetNames",
    "adapter_weights",
    "factor_file",
    "factor_name",
    "is_adapter",
    "read_adapter",
]
