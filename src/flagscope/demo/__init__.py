"""The bundled model: five checkpoints of one training of a small GPT."""

from flagscope.demo.bundled import checkpoints, final

__all__ = ["checkpoints", "final"]
