"""The experiment `ridge-rate`."""

from flagscope.lab.experiments.ridge_rate.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
