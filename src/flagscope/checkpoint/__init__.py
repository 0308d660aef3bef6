"""Checkpoints of every format behind one small interface: names, shapes, types, lazy reads."""

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.fingerprint import checkpoint_fingerprint
from flagscope.checkpoint.formats import SUFFIXES
from flagscope.checkpoint.opening import open_checkpoint
from flagscope.checkpoint.state_dict import from_state_dict
from flagscope.checkpoint.widen import widen

__all__ = [
    "SUFFIXES",
    "Checkpoint",
    "TensorInfo",
    "checkpoint_fingerprint",
    "from_state_dict",
    "open_checkpoint",
    "widen",
]
