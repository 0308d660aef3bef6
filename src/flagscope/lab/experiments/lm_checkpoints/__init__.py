"""The experiment `lm-checkpoints`."""

from flagscope.lab.experiments.lm_checkpoints.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
