"""Rules of model families: TOML files, validated by pydantic models."""

from flagscope.arch.rules.blocks import AttentionRule, LatentRule, MlpRule
from flagscope.arch.rules.family import (
    ChainRule,
    Family,
    FrameRule,
    SequenceRule,
    StackRule,
    StreamRule,
)
from flagscope.arch.rules.files import parse_toml, read_family
from flagscope.arch.rules.maps import UNFILLED, MapRule, SequenceMapRule
from flagscope.arch.rules.norms import NormRule, RotaryRule, norm_tensor, norm_tensors
from flagscope.arch.rules.sources import load_families, own_family
from flagscope.arch.rules.values import ActivationRule, FlagRule, NumberRule

__all__ = [
    "UNFILLED",
    "ActivationRule",
    "AttentionRule",
    "ChainRule",
    "Family",
    "FlagRule",
    "FrameRule",
    "LatentRule",
    "MapRule",
    "MlpRule",
    "NormRule",
    "NumberRule",
    "RotaryRule",
    "SequenceMapRule",
    "SequenceRule",
    "StackRule",
    "StreamRule",
    "load_families",
    "norm_tensor",
    "norm_tensors",
    "own_family",
    "parse_toml",
    "read_family",
]
