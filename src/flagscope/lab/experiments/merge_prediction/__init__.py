"""The experiment `merge-prediction`."""

from flagscope.lab.experiments.merge_prediction.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
