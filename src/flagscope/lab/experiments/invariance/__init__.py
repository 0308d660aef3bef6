"""The experiment `invariance`."""

from flagscope.lab.experiments.invariance.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
