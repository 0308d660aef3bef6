"""The experiment `pruning`."""

from flagscope.lab.experiments.pruning.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
