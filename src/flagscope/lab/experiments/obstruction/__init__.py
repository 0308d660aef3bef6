"""The experiment `obstruction`."""

from flagscope.lab.experiments.obstruction.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
