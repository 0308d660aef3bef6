"""The experiment `collapse`."""

from flagscope.lab.experiments.collapse.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
