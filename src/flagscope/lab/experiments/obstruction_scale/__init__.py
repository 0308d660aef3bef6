"""The experiment `obstruction-scale`."""

from flagscope.lab.experiments.obstruction_scale.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
