"""Modules in memory as sources: without wrappers, their weights as the layers use them."""

from flagscope.live.checkpoint import module_checkpoint, own_config

__all__ = ["module_checkpoint", "own_config"]
