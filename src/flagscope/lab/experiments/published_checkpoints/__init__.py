"""The experiment `published-checkpoints`."""

from flagscope.lab.experiments.published_checkpoints.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
