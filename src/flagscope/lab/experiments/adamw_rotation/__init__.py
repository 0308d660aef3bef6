"""The experiment `adamw-rotation`."""

from flagscope.lab.experiments.adamw_rotation.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
